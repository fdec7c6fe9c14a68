"""fairseq's checkpoints (HuBERT, wav2vec 2.0), their s3prl-converted form, and Microsoft's WavLM, without fairseq.

fairseq: {"model": tensors, "cfg" or "args": settings, "task_state": {"dictionaries": ...}, ...}; s3prl-converted:
{"model_weight", "model_cfg", "task_cfg", "dictionaries_symbols"}; WavLM: {"model", "cfg"} with one flat "cfg".
"""

from __future__ import annotations

from pathlib import Path

import torch

from kdkit.codebook import Codebook
from kdkit.errors import CheckpointError
from kdkit.models import SpeechModel
from kdkit.teachers.names import FAIRSEQ, build, to_kdkit
from kdkit.teachers.unpickling import plain

SPECIALS = 4  # <s>, <pad>, </s>, <unk>: a fairseq dictionary begins with them, and they are never targets


def is_fairseq(content: object) -> bool:
    return isinstance(content, dict) and (
        "model_weight" in content or ("model" in content and ("cfg" in content or "args" in content))
    )


def load_fairseq(content: dict, where: Path) -> tuple[SpeechModel, Codebook | None, dict]:
    """Model, codebook (HuBERT has one) and description of a checkpoint that ``read_pickle`` read."""
    if "model_weight" in content:
        form, tensors = "s3prl-converted fairseq", content["model_weight"]
        settings, task = plain(content.get("model_cfg")) or {}, plain(content.get("task_cfg")) or {}
    else:
        form, tensors = "fairseq", content["model"]
        found = plain(content.get("cfg")) or plain(content.get("args")) or {}
        settings, task = found.get("model", found), found.get("task", found)
        if isinstance(settings, str) or not isinstance(task, dict):  # old, flat settings: "task" is a name
            settings = task = found
        if "w2v_args" in settings:  # of a fine-tuned model: the settings of what was fine-tuned
            inner = settings["w2v_args"] or {}
            settings = inner.get("model", inner)
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise CheckpointError(f"{where}: looks like a {form} checkpoint, but holds no tensors by name")
    if settings.get("activation_fn", "gelu") != "gelu":
        raise CheckpointError(
            f"{where}: activation {settings['activation_fn']!r}; the models that kdkit knows use gelu"
        )
    rate = task.get("sample_rate", 16_000)
    if rate != 16_000:
        raise CheckpointError(f"{where}: a model for {rate} Hz; kdkit works at 16,000 Hz")
    for name in ("encoder_attention_heads", "layer_norm_first"):
        if name not in settings:
            raise CheckpointError(
                f"{where}: its settings do not say {name!r}; is it a HuBERT, wav2vec 2.0 or WavLM of fairseq?"
            )
    known = {
        "heads": int(settings["encoder_attention_heads"]),
        "pre_norm": bool(settings["layer_norm_first"]),
        "normalise_input": bool(task.get("normalize", settings.get("normalize", False))),
    }
    if "encoder_layers" in settings:
        known["layers"] = int(settings["encoder_layers"])
    if settings.get("relative_position_embedding"):
        known["relative_distance"] = int(settings["max_distance"])
    model = build(to_kdkit(tensors, FAIRSEQ), known, where)
    tau = float(settings.get("logit_temp", 0.1))
    meta = {"format": form, "architecture": settings.get("_name", "")}
    return model, _codebook(tensors, content, tau, where), meta


def _codebook(tensors: dict, content: dict, tau: float, where: Path) -> Codebook | None:
    names = ("final_proj.weight", "final_proj.bias", "label_embs_concat")
    prefix = next((name.removesuffix(names[2]) for name in tensors if name.endswith(names[2])), None)
    if prefix is None:  # wav2vec 2.0 has a final_proj too, but no clusters
        return None
    if any(prefix + name not in tensors for name in names):
        raise CheckpointError(f"{where}: has label embeddings but no final_proj: the file is damaged")
    weight, bias, embeddings = (tensors[prefix + name].float() for name in names)
    if weight.shape[0] != embeddings.shape[1]:
        raise CheckpointError(
            f"{where}: {weight.shape[0]} projected values for label embeddings of {embeddings.shape[1]}: a HuBERT of "
            "several label sets, of which kdkit can use none"
        )
    return Codebook.from_hubert(weight, bias, embeddings, _specials(content), tau)


def _specials(content: dict) -> int:
    """How many rows of the label embeddings come before the clusters."""
    state = content.get("task_state")
    dictionaries = (plain(state) or {}).get("dictionaries") if state is not None else None
    symbols = content.get("dictionaries_symbols") or [
        d["symbols"] for d in dictionaries or [] if isinstance(d, dict) and "symbols" in d
    ]
    if not symbols:
        return SPECIALS
    return sum(1 for symbol in symbols[0][:SPECIALS] if str(symbol).startswith("<"))
