"""Tensor names of other libraries, and the model structure that the tensors' shapes tell.

fairseq (HuBERT, wav2vec 2.0, Microsoft's WavLM, s3prl's DistilHuBERT) and transformers, with its close relative
torchaudio, store the same networks under different names. The name of the first convolution tells the library and the
prefix of all names: ``module.`` (several GPUs), ``hubert.`` (model with a head), ``w2v_encoder.w2v_model.``
(fine-tuned), ``model.`` (Lightning). A table of patterns translates names to kdkit's; queries, keys and values are
concatenated to one matrix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.common.validation import shown
from kdkit.model.checkpoints import load_into
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.model.waveform import KERNELS

# (pattern, kdkit's name); all matching patterns are applied, in this order
FAIRSEQ = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"front_end.cnn.convs.\1."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.2\.1\.", r"front_end.cnn.norms.\1."),
    (r"^feature_extractor\.conv_layers\.0\.2\.", "front_end.cnn.norm."),
    (r"^layer_norm\.", "front_end.norm."),
    (r"^post_extract_proj\.", "front_end.projection."),
    (r"^encoder\.pos_conv\.0\.", "encoder.positions.conv."),
    (r"^encoder\.layer_norm\.", "encoder.norm."),
    (r"^encoder\.layers\.0\.self_attn\.relative_attention_bias\.", "encoder.relative.embedding."),
    (r"\.self_attn\.([qkv])_proj\.", r".attention.\1."),
    (r"\.self_attn\.out_proj\.", ".attention.out."),
    (r"\.self_attn\.grep_linear\.", ".attention.gate.linear."),
    (r"\.self_attn\.grep_a$", ".attention.gate.scale"),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"\.fc1\.", ".ffn_in."),
    (r"\.fc2\.", ".ffn_out."),
)
TRANSFORMERS = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.conv\.", r"front_end.cnn.convs.\1."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", r"front_end.cnn.norms.\1."),
    (r"^(?:encoder\.)?feature_projection\.layer_norm\.", "front_end.norm."),
    (r"^(?:encoder\.)?feature_projection\.projection\.", "front_end.projection."),
    (r"^encoder\.transformer\.", "encoder."),  # torchaudio
    (r"^encoder\.pos_conv_embed\.conv\.", "encoder.positions.conv."),
    (r"^encoder\.layer_norm\.", "encoder.norm."),
    (r"^encoder\.layers\.0\.attention\.rel_attn_embed\.", "encoder.relative.embedding."),
    (r"\.attention\.attention\.in_proj_(weight|bias)$", r".attention.qkv.\1"),  # torchaudio's WavLM
    (r"\.attention\.attention\.", ".attention."),
    (r"\.attention\.([qkv])_proj\.", r".attention.\1."),
    (r"\.attention\.out_proj\.", ".attention.out."),
    (r"\.attention\.gru_rel_pos_linear\.", ".attention.gate.linear."),
    (r"\.attention\.gru_rel_pos_const$", ".attention.gate.scale"),
    (r"(\.layers\.\d+)\.layer_norm\.", r"\1.norm1."),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"\.feed_forward\.intermediate_dense\.", ".ffn_in."),
    (r"\.feed_forward\.output_dense\.", ".ffn_out."),
)
_POSITIONS = "encoder.positions.conv.parametrizations.weight."
_WEIGHT_NORM = (
    (r"\.weight_g$", ".parametrizations.weight.original0"),  # torch before 2.0
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
_FIRST = {  # a network's first tensor
    "feature_extractor.conv_layers.0.0.weight": FAIRSEQ,
    "feature_extractor.conv_layers.0.conv.weight": TRANSFORMERS,
}
# heads and training parts inside a network, which do not affect the hidden states
_HEADS = re.compile(
    r"^(mask_emb|masked_spec_embed|(input_)?quantizer\.|project_(q|inp|hid)\.|final_proj\.|target_glu\.|output_layer\."
    r"|label_embs_concat$|aux\.|lm_head\.|projector\.|classifier\.|mask_generator\.|logit_generator\.|num_updates$)"
)


@dataclass
class Network:
    """The tensors of a foreign file: ``own``, the network's, under kdkit's names; ``beside``, those of heads and
    training, under the file's names (inside the network without the prefix).

    ``origin``: "fairseq", "transformers" or "torchaudio", by their names.
    """

    own: dict[str, Tensor]
    beside: dict[str, Tensor]
    origin: str

    @property
    def epsilon(self) -> float:
        """The constant that its origin adds to the variance when it normalises a waveform."""
        return 1e-7 if self.origin == "transformers" else 1e-5


def sort_out(tensors: object, where: str | Path) -> Network:
    """Finds the network among ``tensors``. Names that no pattern matches stay as they are.

    Raises :class:`CheckpointError` if there is no network, or more than one.
    """
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise CheckpointError(f"{where}: holds no tensors by name")
    starts = {name.removesuffix(first): first for first in _FIRST for name in tensors if name.endswith(first)}
    if len(starts) > 1:
        raise CheckpointError(
            f"{where}: holds several networks, {shown(sorted(starts)[:4])}; save one of them by itself"
        )
    if not starts:
        raise CheckpointError(
            f"{where}: tensor {next(iter(_FIRST))!r} or one like it is missing (there are {shown(list(tensors)[:4])}): "
            "the file is damaged, or its model is no HuBERT, wav2vec 2.0 or WavLM"
        )
    [(start, first)] = starts.items()
    own, beside = {}, {}
    for name, tensor in tensors.items():
        inside = name.removeprefix(start)
        if not name.startswith(start) or _HEADS.match(inside):
            beside[inside if name.startswith(start) else name] = tensor
        elif isinstance(tensor, Tensor):
            own[inside] = tensor.detach()
        else:
            raise CheckpointError(f"{where}: {name} is {shown(tensor)}, no tensor: the file is damaged")
    origin = "fairseq" if _FIRST[first] is FAIRSEQ else "transformers"
    if any(name.startswith("encoder.transformer.") for name in own):
        origin = "torchaudio"
    return Network(_renamed(own, _FIRST[first], where), beside, origin)


def _renamed(tensors: dict[str, Tensor], table: tuple, where: str | Path) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, ours in (*table, *_WEIGHT_NORM):
            name = re.sub(pattern, ours, name)
        renamed[name] = tensor
    if not any(name.startswith("front_end.cnn.norms.1.") for name in renamed):  # one norm: a group norm
        renamed = {re.sub(r"\.cnn\.norms\.0\.", ".cnn.norm.", name): t for name, t in renamed.items()}
    weight = renamed.get("encoder.positions.conv.weight")
    if weight is not None and weight.ndim == 3:  # weight norm was removed: recompute its two factors
        del renamed["encoder.positions.conv.weight"]
        renamed[f"{_POSITIONS}original0"] = weight.norm(dim=(0, 1), keepdim=True)
        renamed[f"{_POSITIONS}original1"] = weight
    for name in [name for name in renamed if ".attention.q." in name]:
        parts = [name.replace(".q.", f".{part}.") for part in "qkv"]
        if all(part in renamed for part in parts):
            shapes = [tuple(renamed[part].shape) for part in parts]
            if () in shapes or len({shape[1:] for shape in shapes}) > 1:
                raise CheckpointError(
                    f"{where}: {parts} (kdkit's names) have shapes {shapes}: the file is damaged"
                )
            renamed[name.replace(".q.", ".qkv.")] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def shape_of(tensors: dict[str, Tensor], where: str) -> dict:
    """The settings of :class:`ModelConfig` that shapes tell. Raises :class:`CheckpointError` for missing tensors."""

    def shape(name: str, axes: int) -> torch.Size:
        if name not in tensors:
            raise CheckpointError(
                f"{where}: tensor {name!r} (kdkit's name) is missing: the file is damaged, or its model is no "
                "HuBERT, wav2vec 2.0 or WavLM"
            )
        if tensors[name].ndim != axes or not tensors[name].numel():
            raise CheckpointError(
                f"{where}: tensor {name!r} (kdkit's name) has shape {tuple(tensors[name].shape)}, {axes} axes are "
                "needed: the file is damaged"
            )
        return tensors[name].shape

    convs = [shape(f"front_end.cnn.convs.{i}.weight", 3) for i in range(len(KERNELS))]
    if tuple(conv[2] for conv in convs) != KERNELS or "front_end.cnn.convs.7.weight" in tensors:
        raise CheckpointError(
            f"{where}: the convolutions have kernels {tuple(conv[2] for conv in convs)}; kdkit knows the seven of "
            f"HuBERT, {KERNELS}, for 16 kHz"
        )
    dim, group, kernel = shape(f"{_POSITIONS}original1", 3)
    layers = {int(m[1]) for m in (re.match(r"encoder\.layers\.(\d{1,9})\.", name) for name in tensors) if m}
    settings = {
        "layers": len(layers),
        "dim": dim,
        "ffn": shape("encoder.layers.0.ffn_in.weight", 2)[0],
        "conv_channels": tuple(conv[0] for conv in convs),
        "conv_norm": "layer" if "front_end.cnn.norms.0.weight" in tensors else "group",
        "conv_bias": "front_end.cnn.convs.0.bias" in tensors,
        "pos_kernel": kernel,
        "pos_groups": max(1, dim // group),
    }
    if "encoder.relative.embedding.weight" in tensors:
        settings["relative_buckets"] = shape("encoder.relative.embedding.weight", 2)[0]
    return settings


def build(network: Network, settings: dict, where: str | Path) -> SpeechModel:
    """The model of a network in eval mode; ``settings`` tell what shapes do not (heads, pre_norm, ...).

    ``settings`` override what shapes tell, so that a missing layer is detected. Raises :class:`CheckpointError` that
    lists missing, unexpected, wrongly shaped and non-finite tensors.
    """
    try:
        shapes = shape_of(network.own, str(where)) | {"normalise_epsilon": network.epsilon}
        config = ModelConfig(**shapes | settings)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error
    with torch.device("meta"):  # skips the random initialisation
        model = SpeechModel(config)
    load_into(model, network.own, Path(where), assign=True)
    return model.eval()
