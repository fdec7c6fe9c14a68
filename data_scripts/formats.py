"""Random-weight reference models of transformers and torchaudio, writers of every format of checkpoints, and the
comparison of what kdkit loads from them with the reference. For check_formats.py and for the tests.

Padding: the group norm of transformers' and torchaudio's Base models runs over the padding, so their hidden states
change with the batch. kdkit gives every utterance what it has alone; so padded batches are compared with the reference
run on one utterance at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import json
import re
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from audio_witness import torchaudio
from torch import Tensor, nn
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from kdkit.teachers.bundles import Bundle

KINDS = {
    "hubert": (HubertConfig, HubertModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
    "wavlm": (WavLMConfig, WavLMModel),
}
SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "conv_dim": [8, 12, 16, 16, 16, 16, 20],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
DISTILHUBERT = {"num_hidden_layers": 2, "feat_proj_layer_norm": False}  # of ntu-spml/distilhubert's config
SMALL_CONVS = list(zip(SMALL["conv_dim"], (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True))
SMALL_TORCHAUDIO = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": SMALL_CONVS,
    "extractor_conv_bias": False,
    "encoder_embed_dim": 48,
    "encoder_projection_dropout": 0.0,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 3,
    "encoder_num_heads": 4,
    "encoder_attention_dropout": 0.0,
    "encoder_ff_interm_features": 96,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.0,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.0,
    "aux_num_out": None,
}


def shake(model: nn.Module) -> nn.Module:
    """Norms and biases that are not 1 and 0, so that a forgotten one is seen."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def transformers_model(kind: str, large: bool = False, seed: int = 0, **settings) -> nn.Module:
    torch.manual_seed(seed)
    config, model = KINDS[kind]
    return shake(model(config(**settings, **(LARGE if large else {}))))


SMALL_LARGE_TORCHAUDIO = SMALL_TORCHAUDIO | {"extractor_mode": "layer_norm", "encoder_layer_norm_first": True}


def shrunk(bundle: Bundle, parameters: dict) -> Bundle:
    """A bundle of kdkit's table at the size of these arguments of torchaudio's."""
    size = {
        name: parameters[f"encoder_{key}"] for name, key in (("width", "embed_dim"), ("layers", "num_layers"))
    }
    return replace(bundle, heads=parameters["encoder_num_heads"], **size)


def torchaudio_model(name: str, parameters: dict, seed: int = 0) -> nn.Module:
    """The model of a bundle, or a smaller one of its kind, with random weights."""
    torch.manual_seed(seed)
    make = torchaudio.models.wavlm_model if "WAVLM" in name else torchaudio.models.wav2vec2_model
    return shake(make(**parameters))


# --- comparison ---------------------------------------------------------------------------------------------

SIZES = (9000, 16_000, 4321)  # samples
LEVELS = (0.1, 0.001, 0.01)  # of what sounds, as a root mean square: -20, -60 and -40 dB


def waves(sizes: Sequence[int] = SIZES, levels: Sequence[float] = LEVELS) -> tuple[Tensor, Tensor]:
    """A padded batch (B, S) of sounds like speech, and its lengths.

    Each has a gliding voice with formants, syllables and pauses, hiss, and an offset, so that normalisation matters;
    what is added to the variance matters for the quiet ones.
    """
    generator = torch.Generator().manual_seed(1)
    batch = torch.zeros(len(sizes), max(sizes))
    for row, (size, level) in enumerate(zip(sizes, levels, strict=False)):
        time = torch.arange(size) / 16_000
        phase = 2 * torch.pi * (110 + 20 * row) * (time + 0.02 * torch.sin(5 * time))
        voice = sum(
            torch.sin(k * phase) * (1 / (1 + ((k * 120 - 600) / 300) ** 2) + 0.3 / k) for k in range(1, 25)
        )
        syllables = torch.sin(2 * torch.pi * 2.2 * time + row).clamp_min(0)  # as many pauses
        sound = voice * syllables + 0.02 * torch.randn(size, generator=generator)
        batch[row, :size] = level * (sound / sound.square().mean().sqrt() + 0.1)
    return batch, torch.tensor(sizes)


def prepared(wave: Tensor, like: str) -> Tensor:
    """A wave (1, S) normalised as "transformers" does it, by its feature extractor, or "fairseq" and torchaudio."""
    if like == "transformers":
        extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
        return extractor(wave[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    return F.layer_norm(wave, wave.shape[1:])


def transformers_states(
    model: nn.Module, normalise: bool, like: str = "transformers"
) -> Callable[[Tensor], list[Tensor]]:
    """``states(wave (1, S))``: H^0 .. H^L of a transformers model, the waveform being prepared as ``like`` does it."""

    def states(wave):
        output = model(prepared(wave, like) if normalise else wave, output_hidden_states=True)
        # versions differ on what they give as a pre-norm model's last
        return [*output.hidden_states[:-1], output.last_hidden_state]

    return states


def torchaudio_states(model: nn.Module, normalise: bool) -> Callable[[Tensor], list[Tensor]]:
    """``states(wave (1, S))``: H^0 .. H^L of a torchaudio model, put together from its parts."""

    def states(wave):
        wave = prepared(wave, "fairseq") if normalise else wave
        features, _ = model.feature_extractor(wave, None)
        transformer = model.encoder.transformer
        first = transformer._preprocess(model.encoder.feature_projection(features))
        later = model.extract_features(wave)[0]
        pre_norm = not transformer.layer_norm_first  # there it says where the norm before the layers stands
        return [first, *later[:-1], transformer.layer_norm(later[-1]) if pre_norm else later[-1]]

    return states


@torch.no_grad()
def differences(teacher, states: Callable, sizes: Sequence[int] = SIZES) -> tuple[float, float]:
    """Largest difference from the reference over all layers: of utterances alone, and of them in a padded batch."""
    batch, lengths = waves(sizes)
    together, alone, padded = teacher.hidden(batch, lengths), 0.0, 0.0
    for row, size in enumerate(sizes):
        wave = batch[row : row + 1, :size]
        reference, single = states(wave), teacher.hidden(wave, lengths[row : row + 1])
        frames = int(together.frames[row])
        assert len(reference) == len(together.hidden) and reference[0].shape[1] == frames
        for theirs, own, batched in zip(reference, single.hidden, together.hidden, strict=True):
            alone = max(alone, (own - theirs).abs().max().item())
            padded = max(padded, (batched[row, :frames] - theirs[0]).abs().max().item())
    return alone, padded


# --- Hugging Face -------------------------------------------------------------------------------------------


def write_folder(folder: Path, model: nn.Module, form: str = "safetensors") -> None:
    """``form``: "safetensors", "bin" (a pickle, weight norm under its old names), or either with " shards"."""
    kind, _, shards = form.partition(" ")
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    model.save_pretrained(folder, max_shard_size=size // 3 if shards and kind == "safetensors" else "99GB")
    if kind == "safetensors":
        return
    (folder / "model.safetensors").unlink()
    tensors = with_old_weight_norm(model.state_dict())
    if not shards:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    names = sorted(tensors)
    thirds = [names[i::3] for i in range(3)]
    files = [f"pytorch_model-{i:05d}-of-00003.bin" for i in (1, 2, 3)]
    for file, part in zip(files, thirds, strict=True):
        torch.save({name: tensors[name] for name in part}, folder / file)
    held = {name: file for file, part in zip(files, thirds, strict=True) for name in part}
    index = {"metadata": {"total_size": size}, "weight_map": held}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def with_old_weight_norm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names that weight norm's factors had before torch 2."""
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, name in old.items():
        tensors = {n.replace(new, name): t.clone() for n, t in tensors.items()}
    return tensors


# --- fairseq ------------------------------------------------------------------------------------------------

_TO_FAIRSEQ = (
    (r"feature_extractor\.conv_layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"feature_projection\.layer_norm\.", "layer_norm."),
    (r"feature_projection\.projection\.", "post_extract_proj."),
    (r"pos_conv_embed\.conv\.bias", "pos_conv.0.bias"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0", "pos_conv.0.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1", "pos_conv.0.weight_v"),
    (r"(layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.attention\.rel_attn_embed\.", ".self_attn.relative_attention_bias."),
    (r"\.attention\.gru_rel_pos_linear\.", ".self_attn.grep_linear."),
    (r"\.attention\.gru_rel_pos_const", ".self_attn.grep_a"),
    (r"\.attention\.", ".self_attn."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
    (r"masked_spec_embed", "mask_emb"),
)


def named_by_fairseq(tensors: dict[str, Tensor], layer_norm: bool = False) -> dict[str, Tensor]:
    """Tensors with transformers' names; ``layer_norm``: there is one in every layer of the CNN."""
    norm = rf"feature_extractor.conv_layers.\1.2.{'1.' if layer_norm else ''}"
    table = ((r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", norm), *_TO_FAIRSEQ)
    named = {}
    for name, tensor in tensors.items():
        for pattern, theirs in table:
            name = re.sub(pattern, theirs, name)
        named[name] = tensor
    return named


def fairseq_tensors(model, clusters: int = 0, proj: int = 16) -> dict:
    """The tensors of a transformers model under fairseq's names, with a codebook of ``clusters`` + 4 rows."""
    tensors = named_by_fairseq(model.state_dict(), model.config.feat_extract_norm == "layer")
    if clusters:
        tensors["label_embs_concat"] = torch.randn(clusters + 4, proj)
        tensors["final_proj.weight"] = torch.randn(proj, model.config.hidden_size)
        tensors["final_proj.bias"] = torch.randn(proj)
    return tensors


def fairseq_settings(model, normalise: bool) -> tuple[dict, dict]:
    """ "model" and "task" of fairseq's cfg."""
    config = model.config
    settings = {
        "_name": config.model_type,
        "encoder_layers": config.num_hidden_layers,
        "encoder_embed_dim": config.hidden_size,
        "encoder_attention_heads": config.num_attention_heads,
        "layer_norm_first": config.do_stable_layer_norm,
        "activation_fn": "gelu",
        "logit_temp": 0.07,
    }
    return settings, {"_name": "hubert_pretraining", "normalize": normalise, "sample_rate": 16_000}


@contextlib.contextmanager
def foreign_module(name: str, *classes: type):
    """Classes that can be pickled under the name of a package that is not installed."""
    added = {}
    for i in range(1, name.count(".") + 2):
        package = ".".join(name.split(".")[:i])
        added[package] = sys.modules[package] = types.ModuleType(package)
    for cls in classes:
        cls.__module__, cls.__qualname__ = name, cls.__name__
        setattr(added[name], cls.__name__, cls)
    try:
        yield
    finally:
        for package in added:
            del sys.modules[package]


class Dictionary:
    """As fairseq keeps it: symbols, the specials first."""

    def __init__(self, clusters: int):
        self.symbols = ["<s>", "<pad>", "</s>", "<unk>", *map(str, range(clusters))]
        self.indices = {symbol: i for i, symbol in enumerate(self.symbols)}


class Mode(enum.Enum):
    layer_norm = "layer_norm"


class AnyNode:
    """As omegaconf keeps a value."""

    def __init__(self, value):
        self._val = value


class DictConfig:
    """As omegaconf keeps a mapping."""

    def __init__(self, values: dict):
        self._content = {
            key: DictConfig(value) if isinstance(value, dict) else AnyNode(value)
            for key, value in values.items()
        }


def write_fairseq(
    path: Path, model, normalise: bool = False, clusters: int = 0, form: str = "cfg", **content
):
    """A checkpoint as fairseq writes it; ``form``: "cfg" (dict), "omegaconf", "args" (Namespace), "s3prl", "legacy"."""
    settings, task = fairseq_settings(model, normalise)
    tensors = fairseq_tensors(model, clusters)
    with (
        foreign_module("fairseq.data.dictionary", Dictionary),
        foreign_module("omegaconf.dictconfig", DictConfig, AnyNode),
        foreign_module("fairseq_enums.constants", Mode),
    ):
        dictionaries = [Dictionary(clusters)] if clusters else []
        if form == "s3prl":
            state = {
                "task_cfg": task,
                "model_cfg": settings | {"extractor_mode": Mode.layer_norm},
                "model_weight": tensors,
                "dictionaries_symbols": [d.symbols for d in dictionaries],
            }
        else:
            state = {
                "model": tensors,
                "extra_state": {"epoch": 1},
                "task_state": {"dictionaries": dictionaries},
            }
            if form == "args":
                state["args"] = argparse.Namespace(**settings | task)
            else:
                cfg = {"_name": None, "model": settings | {"extractor_mode": Mode.layer_norm}, "task": task}
                state["cfg"] = DictConfig(cfg) if form == "omegaconf" else cfg
        torch.save(state | content, path, _use_new_zipfile_serialization=form != "legacy")


def write_distiller(path: Path, model: nn.Module, **settings) -> None:
    """A checkpoint as s3prl's Distiller saves it while it trains; ``model`` has no LayerNorm after its CNN."""
    config = model.config
    own = {
        "extractor_mode": "default",
        "extractor_conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
        "encoder_layers": config.num_hidden_layers,
        "encoder_attention_heads": config.num_attention_heads,
        "layer_norm_first": False,
        "attention_type": "original",
        "task_emb_type": "expand-last",
    }
    heads = {
        "output_layer.0.weight": torch.zeros(6, config.hidden_size),
        "output_layer.2.bias": torch.zeros(1, 1, 2, 3),
    }
    content = {
        "Optimizer": {"state": {}},
        "Step": 5,
        "Args": argparse.Namespace(seed=0),
        "Config": {"distiller": own | settings},
    }
    torch.save(content | {"Distiller": fairseq_tensors(model) | heads}, path)


def write_dphubert(path: Path, model: nn.Module, **settings) -> None:
    """A model of torchaudio as DPHuBERT keeps it; nothing pruned but what ``settings`` say."""
    layers = model.encoder.transformer.layers
    config = {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": SMALL_CONVS,
        "encoder_embed_dim": 48,
        "encoder_num_layers": len(layers),
        "encoder_use_attention": [True] * len(layers),
        "encoder_use_feed_forward": [True] * len(layers),
        "encoder_num_heads": [4] * len(layers),
        "encoder_head_dim": 12,
        "encoder_ff_interm_features": [96] * len(layers),
        "encoder_layer_norm_first": False,
        "normalize_waveform": False,
    }
    scale = {"feature_extractor.dummy_weight": torch.ones(SMALL_CONVS[-1][0])}
    torch.save({"state_dict": model.state_dict() | scale, "config": config | settings}, path)


def write_wavlm(path: Path, model: nn.Module, normalise: bool = False) -> None:
    """A checkpoint as Microsoft publishes WavLM's: one flat "cfg", no task."""
    settings, task = fairseq_settings(model, normalise)
    settings |= {"normalize": task["normalize"], "relative_position_embedding": True}
    settings |= {"num_buckets": model.config.num_buckets, "max_distance": model.config.max_bucket_distance}
    torch.save({"cfg": settings, "model": fairseq_tensors(model)}, path)
