"""Files of DPHuBERT (github.com/pyf98/DPHuBERT): arguments of torchaudio's ``wav2vec2_model`` beside the tensors."""

from __future__ import annotations

from pathlib import Path

from kdkit.common.errors import CheckpointError
from kdkit.common.validation import shown
from kdkit.model.speech_model import LIMITS, SpeechModel
from kdkit.teachers.settings import MOST, Settings, check_convolutions
from kdkit.teachers.weight_names import build, sort_out


def is_dphubert(content: object) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        return False
    return isinstance(content.get("config"), dict) and "encoder_use_attention" in content["config"]


def load_dphubert(content: dict, where: Path) -> tuple[SpeechModel, dict]:
    """The model of a DPHuBERT file, and a description.

    DPHuBERT prunes heads, features and whole branches of each layer separately; all layers of kdkit's models are alike.
    Raises :class:`CheckpointError` that names the difference.
    """
    tensors, given = content["state_dict"], Settings(content["config"], where)
    if any(".hard_concrete" in str(name) for name in tensors):
        raise CheckpointError(
            f"{where}: DPHuBERT before pruning, with the masks that are learnt (hard_concrete): run its prune.py first"
        )

    def pruned(name: str, reason: str) -> CheckpointError:
        return CheckpointError(f"{where}: pruned by DPHuBERT: {name} is {shown(given.get(name))}; {reason}")

    alike = {}
    for name in ("encoder_num_heads", "encoder_total_num_heads", "encoder_ff_interm_features"):
        values = given.get(name)
        if values is not None:
            if not isinstance(values, (list, tuple)) or not all(
                type(v) is int and v == values[0] for v in values
            ):
                raise pruned(name, "the layers of kdkit's models are all alike")
            alike[name] = next(iter(values), None)
    for name in ("encoder_use_attention", "encoder_use_feed_forward"):
        values = given.get(name)
        if not isinstance(values, (list, tuple)) or not all(value is True for value in values):
            raise pruned(name, "every layer of kdkit's models has it")
    heads = alike.get("encoder_num_heads", alike.get("encoder_total_num_heads"))
    settings = Settings(given.values | {"encoder_num_heads": heads}, where)
    known = _known(settings) | {"normalise_input": settings.flag("normalize_waveform", False)}
    size, dim = (settings.whole(f"encoder_{n}", *LIMITS["dim"], None) for n in ("head_dim", "embed_dim"))
    if size is not None and size * known["heads"] != dim:
        raise pruned(
            "encoder_head_dim", f"kdkit's {known['heads']} heads share the width of {dim} between them"
        )
    remaining = given.get("encoder_remaining_heads")  # of WavLM
    if remaining is not None and remaining != [list(range(known["heads"]))] * known["layers"]:
        raise pruned("encoder_remaining_heads", "kdkit's models keep all heads")
    network = sort_out(tensors, where)
    scale = network.own.pop("feature_extractor.dummy_weight", None)
    if scale is not None and not bool((scale == 1).all()):
        raise CheckpointError(
            f"{where}: pruned by DPHuBERT: it scales the CNN's output (feature_extractor.dummy_weight), which kdkit's "
            "models do not"
        )
    return build(network, known, where), {"format": "DPHuBERT", "architecture": "wav2vec2"}


def _known(settings: Settings) -> dict:
    """Settings that shapes do not tell, from the arguments of ``wav2vec2_model`` or ``wavlm_model``."""
    convs = settings.get("extractor_conv_layer_config")
    if convs is not None:
        try:
            _, kernels, strides = zip(*convs, strict=True)
        except (TypeError, ValueError):
            raise CheckpointError(
                f"{settings.where}: extractor_conv_layer_config is {shown(convs)}: (channels, kernel, stride) of each "
                "convolution is needed"
            ) from None
        check_convolutions(kernels, strides, settings.where)
    known = {
        "layers": settings.whole("encoder_num_layers", *MOST["layers"]),
        "heads": settings.whole("encoder_num_heads", *MOST["heads"]),
        "pre_norm": settings.flag("encoder_layer_norm_first"),
    }
    if "encoder_max_distance" in settings:
        known["relative_distance"] = settings.whole("encoder_max_distance", *MOST["relative_distance"])
    return known
