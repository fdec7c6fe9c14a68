"""fairseq's checkpoints (HuBERT, wav2vec 2.0), their s3prl-converted form, Microsoft's WavLM and s3prl's DistilHuBERT,
without fairseq and s3prl.

fairseq: {"model": tensors, "cfg" or "args": settings, "task_state": {"dictionaries": ...}, ...}; s3prl-converted:
{"model_weight", "model_cfg", "task_cfg", "dictionaries_symbols"}; WavLM: {"model", "cfg"} with one flat "cfg";
DistilHuBERT: {"Distiller": tensors, "Config": {"distiller": settings}, ...}.
"""

from __future__ import annotations

import ast
from pathlib import Path

from kdkit.common.errors import CheckpointError
from kdkit.model.codebook import TAU, Codebook
from kdkit.model.speech_model import SpeechModel
from kdkit.teachers.clusters import codebook_of
from kdkit.teachers.settings import MOST, Settings, check_convolutions
from kdkit.teachers.weight_names import build, sort_out


def is_fairseq(content: object) -> bool:
    return isinstance(content, dict) and (
        "model_weight" in content or ("model" in content and ("cfg" in content or "args" in content))
    )


def load_fairseq(content: dict, where: Path) -> tuple[SpeechModel, Codebook | None, dict]:
    """Model, codebook (HuBERT has one, otherwise None) and description, from the content of a checkpoint."""
    if "model_weight" in content:
        form, tensors = "s3prl-converted fairseq", content["model_weight"]
        settings, task = (Settings(_first(content, name), where) for name in ("model_cfg", "task_cfg"))
    else:
        form, tensors = "fairseq", content["model"]
        found = Settings(_first(content, "cfg", "args"), where)
        # settings of old files and of WavLM are flat
        nested = isinstance(found.get("model"), dict)
        settings = found.section("model") if nested else found
        task = found.section("task") if nested and isinstance(found.get("task"), dict) else found
        if "w2v_args" in settings:  # a fine-tuned model holds the settings of the pre-trained one
            inner = settings.section("w2v_args")
            settings = inner.section("model") if isinstance(inner.get("model"), dict) else inner
    network = sort_out(tensors, where)
    settings.expect("activation_fn", "gelu")
    task.rate("sample_rate")
    _check_layers(settings, "conv_feature_layers")
    known = {
        "heads": settings.whole("encoder_attention_heads", *MOST["heads"]),
        "pre_norm": settings.flag("layer_norm_first"),
        "normalise_input": task.flag("normalize", settings.flag("normalize", False)),
    }
    if "encoder_layers" in settings:
        known["layers"] = settings.whole("encoder_layers", *MOST["layers"])
    if settings.flag("relative_position_embedding", False):
        known["relative_distance"] = settings.whole("max_distance", *MOST["relative_distance"])
    tau = settings.number("logit_temp", *TAU, 0.1)
    model = build(network, known, where)
    meta = {"format": form, "architecture": str(settings.get("_name") or "")}
    codebook, meta["codebook"] = codebook_of(network.beside, content, task, model.config.dim, tau, where)
    return model, codebook, meta


def _first(content: dict, *names: str) -> object:
    return next((content[name] for name in names if content.get(name) is not None), {})


def is_distiller(content: object) -> bool:
    return isinstance(content, dict) and "Distiller" in content and "Config" in content


def load_distiller(content: dict, where: Path) -> tuple[SpeechModel, dict]:
    """Model and description of a checkpoint of s3prl's Distiller (DistilHuBERT), without its prediction heads."""
    settings = Settings(content["Config"], where).section("distiller")
    if settings is None:
        raise CheckpointError(
            f"{where}: its Config has no 'distiller'; is it a checkpoint of s3prl's Distiller?"
        )
    network = sort_out(content["Distiller"], where)
    settings.expect("activation_fn", "gelu")
    settings.expect("attention_type", "original")
    added = settings.get("task_emb_type")
    if added in ("add", "concat"):  # its input differs for every predicted layer
        raise CheckpointError(
            f"{where}: task_emb_type is {added!r}: an input for each predicted layer, which kdkit's models do not "
            "have; 'expand-last', that of DistilHuBERT, is known"
        )
    _check_layers(settings, "extractor_conv_feature_layers")
    known = {  # the defaults of s3prl's DistillerConfig
        "layers": settings.whole("encoder_layers", *MOST["layers"], 1),
        "heads": settings.whole("encoder_attention_heads", *MOST["heads"], 12),
        "pre_norm": settings.flag("layer_norm_first", False),
        "feature_norm": False,
    }
    return build(network, known, where), {"format": "s3prl", "architecture": "distiller"}


def _check_layers(settings: Settings, name: str) -> None:
    """Checks the convolutions in setting ``name``, Python text such as "[(512,10,5)] + [(512,3,2)] * 4"."""
    if name not in settings:
        return
    text = settings.get(name)
    try:
        written = isinstance(text, str) and len(text) < 1000
        layers = _evaluated(ast.parse(text.strip(), mode="eval").body) if written else text
        _, kernels, strides = zip(*layers, strict=True)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        raise CheckpointError(
            f"{settings.where}: {name} is no list of (channels, kernel, stride), such as [(512, 10, 5)] * 2"
        ) from None
    check_convolutions(kernels, strides, settings.where)


def _evaluated(node: ast.expr) -> list:
    """The value of a list of literals, or of sums and multiples of such lists. Raises ValueError for other code."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _evaluated(node.left) + _evaluated(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        swapped = isinstance(node.left, ast.Constant)
        times = ast.literal_eval(node.left if swapped else node.right)
        if type(times) is not int or not 0 <= times <= 100:
            raise ValueError("not a number of layers")
        return (_evaluated(node.right if swapped else node.left) * times)[:100]
    value = ast.literal_eval(node)
    return list(value) if isinstance(value, list) else [None]
