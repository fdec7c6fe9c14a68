"""Files with tensors but no configuration: a ``torch.save`` of transformers' or torchaudio's ``state_dict()``, or a
checkpoint of Lightning or another trainer around one.

Shapes tell everything but the number of heads, the position of the norms and the normalisation of the waveform. Those
come from transformers' config.json beside the file; without one, kdkit assumes what all published models of that shape
have.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from kdkit.common.errors import CheckpointError
from kdkit.model.speech_model import SpeechModel
from kdkit.teachers import huggingface
from kdkit.teachers.weight_names import Network, build, shape_of, sort_out

_HEADS = {768: 12, 1024: 16, 1280: 16, 1920: 16}  # by width: Base, Large, XLarge and XLS-R 1B, XLS-R 2B
_HOLDERS = ("state_dict", "model_state_dict", "model", "weights", "params")


def tensors_of(content: object) -> dict[str, Tensor] | None:
    """The tensors by name in a file's ``content``, or under a key that trainers use; None if there are none."""
    if not isinstance(content, dict):
        return None
    for held in (content, *(content.get(name) for name in _HOLDERS)):
        if isinstance(held, dict) and any("feature_extractor.conv_layers.0." in str(name) for name in held):
            return held
    return None


def load_bare(tensors: dict[str, Tensor], where: Path) -> tuple[SpeechModel, dict]:
    """The model, and a description whose entry "assumed" says what the file does not tell."""
    network = sort_out(tensors, where)
    meta = {"format": f"tensors, named as {network.origin} does"}
    if network.origin == "transformers" and huggingface.is_config(where.parent / "config.json"):
        settings, meta["architecture"] = huggingface.settings_of(where.parent)
        return build(network, settings, where), meta
    settings, meta["assumed"] = _published(network, where)
    return build(network, settings, where), meta


def _published(network: Network, where: Path) -> tuple[dict, str]:
    shape = shape_of(network.own, str(where))
    large = shape["conv_norm"] == "layer"
    gates = network.own.get("encoder.layers.0.attention.gate.scale")  # WavLM's, one for each head
    heads = _HEADS.get(shape["dim"]) if gates is None or gates.ndim != 4 else gates.shape[1]
    if heads is None:
        raise CheckpointError(
            f"{where}: holds tensors only, and no published model has their width of {shape['dim']}: put "
            "transformers' config.json beside it, which tells the number of heads"
        )
    settings = {
        "heads": heads,
        "pre_norm": large,
        "normalise_input": large,
        "feature_norm": "front_end.norm.weight" in network.own,  # DistilHuBERT has none
    }
    order = "pre-norm, waveform normalised" if large else "post-norm, waveform as it is"
    return (
        settings,
        f"{heads} heads, {order}, as in the published models of this shape; the file does not say",
    )
