"""Export of a waveform recogniser to a Hugging Face folder, which transformers loads and which gives equal logits.

As ``HubertForCTC``, or, with WavLM's relative positions, as ``WavLMForCTC``. kdkit reads the folder, too.
"""

from __future__ import annotations

import copy
import json
import re
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from kdkit.common.errors import ConfigError
from kdkit.common.files import write_atomically, write_text
from kdkit.model.speech_model import ModelConfig
from kdkit.model.waveform import KERNELS, STRIDES
from kdkit.recognition.ctc import CTCModel
from kdkit.recognition.export.samples import noise, speech
from kdkit.speech.frames import SAMPLE_RATE
from kdkit.speech.text import Vocabulary
from kdkit.teachers.huggingface import KEPT_WINDOW

# (kdkit's name, transformers' name)
_NAMES = (
    (r"front_end\.cnn\.convs\.(\d+)\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"front_end\.cnn\.norms\.(\d+)\.", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"front_end\.cnn\.norm\.", "feature_extractor.conv_layers.0.layer_norm."),
    (r"front_end\.(norm|projection)\.", lambda m: f"feature_projection.{_PROJECTION[m[1]]}."),
    (r"encoder\.positions\.conv\.", "encoder.pos_conv_embed.conv."),
    (r"encoder\.norm\.", "encoder.layer_norm."),
    (r"encoder\.relative\.embedding\.", "encoder.layers.0.attention.rel_attn_embed."),
    (r"\.attention\.gate\.linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.attention\.gate\.scale$", ".attention.gru_rel_pos_const"),
    (r"\.attention\.out\.", ".attention.out_proj."),
    (r"\.norm1\.", ".layer_norm."),
    (r"\.norm2\.", ".final_layer_norm."),
    (r"\.ffn_in\.", ".feed_forward.intermediate_dense."),
    (r"\.ffn_out\.", ".feed_forward.output_dense."),
    (r"^head\.", "lm_head."),
    (r"^mask_embedding$", "model.masked_spec_embed"),
)
_PROJECTION = {"norm": "layer_norm", "projection": "projection"}
_EPSILON = 1e-7  # of transformers' feature extractor
_SCALED = re.compile(r"\.(attention\.out_proj|feed_forward\.output_dense)\.")


def export_huggingface(recogniser: CTCModel, folder: Path) -> Path:
    """Writes config, weights, vocabulary and feature extractor settings to ``folder``.

    ``transformers.AutoModelForCTC.from_pretrained(folder)`` gives the logits of ``recogniser`` for a single utterance;
    in padded batches of a group-norm model transformers normalises over the padding, kdkit does not. DeepNorm's
    residual scale, which transformers does not have, is divided out of the branches' last weights: a LayerNorm follows
    the sum, so the output is the same.

    Raises :class:`ConfigError` for an Fbank recogniser, and for other structures that transformers does not have.
    """
    config = recogniser.model.config
    if config.front_end != "waveform":
        raise ConfigError(
            "HubertForCTC reads waveforms: an Fbank recogniser goes to ONNX (--to onnx), Fbank included"
        )
    if config.pre_norm and config.residual_scale != 1.0:
        raise ConfigError("a pre-norm model with a residual scale has no counterpart in transformers")
    if config.normalise_input and config.normalise_epsilon != _EPSILON:
        warnings.warn(
            f"transformers adds {_EPSILON:g} to the variance when it normalises a waveform, this recogniser "
            f"{config.normalise_epsilon:g}: logits of quiet recordings will differ there",
            stacklevel=2,
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(recogniser)
    vocabulary = recogniser.vocabulary
    described = _config(config, vocabulary) | {KEPT_WINDOW: recogniser.window}
    write_text(folder / "config.json", json.dumps(described, indent=2) + "\n")
    names = _names(vocabulary)
    numbers = {symbol: number for number, symbol in enumerate(names)}
    write_text(folder / "vocab.json", json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    silent = {names[number] for number in vocabulary.silent}
    tokenizer = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "pad_token": names[vocabulary.blank],
        "word_delimiter_token": None if vocabulary.boundary is None else names[vocabulary.boundary],
        "unk_token": next((symbol for symbol in ("<unk>", "[UNK]") if symbol in silent), None),
        "bos_token": "<s>" if "<s>" in silent else None,
        "eos_token": "</s>" if "</s>" in silent else None,
        "do_lower_case": False,
    }
    write_text(folder / "tokenizer_config.json", json.dumps(tokenizer, indent=2) + "\n")
    extractor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "sampling_rate": SAMPLE_RATE,
        "feature_size": 1,
        "padding_value": 0.0,
        "do_normalize": config.normalise_input,
        "return_attention_mask": True,
    }
    write_text(folder / "preprocessor_config.json", json.dumps(extractor, indent=2) + "\n")
    write_atomically(
        folder / "model.safetensors", lambda temporary: save_file(tensors, temporary, {"format": "pt"})
    )
    return folder


def check_huggingface(folder: Path, recogniser: CTCModel) -> float | None:
    """Largest absolute difference of the logits for noise and speech, with transformers' own feature extractor; None if
    transformers cannot be imported, as beside a torchaudio that refuses this torch.
    """
    try:
        from transformers import AutoFeatureExtractor, AutoModelForCTC
    except (ImportError, RuntimeError, OSError):
        return None

    prepare = AutoFeatureExtractor.from_pretrained(folder)
    theirs = AutoModelForCTC.from_pretrained(folder).eval()
    recogniser = copy.deepcopy(recogniser).cpu().eval()
    differences = []
    with torch.inference_mode():
        for wave in [*noise([400, 48_000]), *speech()]:
            ours, _ = recogniser(wave[None], torch.tensor([len(wave)]))
            values = prepare(wave.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
            differences.append((theirs(values).logits - ours).abs().max().item())
    return max(differences)


def _names(vocabulary: Vocabulary) -> list[str]:
    """The symbols; the blank, transformers' padding token, is called "<pad>" unless its name is like that."""
    names = list(vocabulary)
    if not names[vocabulary.blank].startswith(("<", "[")) and "<pad>" not in names:
        names[vocabulary.blank] = "<pad>"
    return names


def _kind(config: ModelConfig) -> str:
    return "wavlm" if config.relative_buckets else "hubert"


def _tensors(recogniser: CTCModel) -> dict[str, Tensor]:
    config, tensors = recogniser.model.config, {}
    scale = config.residual_scale
    for name, tensor in recogniser.state_dict().items():
        tensor = tensor.detach().cpu().float().contiguous()
        for pattern, theirs in _NAMES:
            name = re.sub(pattern, theirs, name)
        name = re.sub(r"^model\.", f"{_kind(config)}.", name)
        if ".attention.qkv." in name:
            for letter, part in zip("qkv", tensor.chunk(3)):
                tensors[name.replace(".qkv.", f".{letter}_proj.")] = part.contiguous()
        else:
            tensors[name] = tensor / scale if _SCALED.search(name) else tensor
    return tensors


def _config(config: ModelConfig, vocabulary: Vocabulary) -> dict:
    relative = {"num_buckets": config.relative_buckets, "max_bucket_distance": config.relative_distance}
    return (relative if config.relative_buckets else {}) | {
        "architectures": ["WavLMForCTC" if config.relative_buckets else "HubertForCTC"],
        "model_type": _kind(config),
        "vocab_size": len(vocabulary),
        "pad_token_id": vocabulary.blank,
        "bos_token_id": None,
        "eos_token_id": None,
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "do_stable_layer_norm": config.pre_norm,
        "feat_extract_norm": config.conv_norm,
        "feat_extract_activation": "gelu",
        "feat_proj_layer_norm": config.feature_norm,
        "conv_bias": config.conv_bias,
        "conv_dim": list(config.conv_channels),
        "conv_kernel": list(KERNELS),
        "conv_stride": list(STRIDES),
        "num_feat_extract_layers": len(KERNELS),
        "num_conv_pos_embeddings": config.pos_kernel,
        "num_conv_pos_embedding_groups": config.pos_groups,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.dropout,
        "activation_dropout": config.dropout,
        "feat_proj_dropout": config.dropout,
        "layerdrop": 0.0,
        "final_dropout": 0.0,
        "ctc_loss_reduction": "sum",
    }
