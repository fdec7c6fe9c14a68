"""Students: new ones, initialised from parts of the teacher, and the tiny distilled ones that ship with the kit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from kdkit.common.files import is_file
from kdkit.model.speech_model import FBANK_SETTINGS, ModelConfig, SpeechModel, preset
from kdkit.teachers import ASSETS, load_model


def new_student(
    structure: str | ModelConfig, teacher: SpeechModel | None = None, seed: int = 0
) -> SpeechModel:
    """A student of a preset or config; with ``teacher``, every part of the teacher that has the same shape is copied.

    A waveform student takes the teacher's CNN; one of the teacher's width also takes the projection, the positional
    convolution and the first layers (shallow & wide). ``student.from_teacher`` lists the parts.
    """
    config = preset(structure) if isinstance(structure, str) else structure
    torch.manual_seed(seed)
    student = SpeechModel(config)
    student.from_teacher = []
    if teacher is not None:
        if config.front_end == teacher.config.front_end == "waveform":
            student.from_teacher += _copy("waveform CNN", teacher.front_end.cnn, student.front_end.cnn)
            if teacher.config.feature_norm and config.feature_norm:
                student.from_teacher += _copy(
                    "CNN's LayerNorm", teacher.front_end.norm, student.front_end.norm
                )
            student.from_teacher += _copy(
                "projection", teacher.front_end.projection, student.front_end.projection
            )
        pairs = [("positions", "positional convolution"), ("norm", "encoder's LayerNorm")]
        for name, words in pairs:
            student.from_teacher += _copy(
                words, getattr(teacher.encoder, name), getattr(student.encoder, name)
            )
        for i, (own, theirs) in enumerate(
            zip(student.encoder.layers, teacher.encoder.layers, strict=False), 1
        ):
            student.from_teacher += _copy(f"layer {i}", theirs, own)
    return student


def swap_front_end(
    model: SpeechModel, seed: int = 0, like: str | ModelConfig = "sw-fbank", **settings
) -> SpeechModel:
    """The encoder of a trained waveform student behind a new, random Fbank front-end.

    The front-end has the settings of that in the preset or config ``like``, unless ``settings`` (of
    :class:`ModelConfig`: ``normalisation``, ``bins``, ...) say otherwise. The result is useless until the front-end is
    adapted: distil it with :func:`kdkit.distill.swap_losses` and the old student as the teacher.
    """
    config = preset(like) if isinstance(like, str) else like
    settings = {name: getattr(config, name) for name in FBANK_SETTINGS} | settings
    torch.manual_seed(seed)
    swapped = SpeechModel(replace(model.config, front_end="fbank", **settings))
    swapped.encoder.load_state_dict(model.encoder.state_dict())
    return swapped


def _copy(words: str, source: nn.Module, target: nn.Module) -> list[str]:
    theirs, own = source.state_dict(), target.state_dict()
    if {n: t.shape for n, t in theirs.items()} != {n: t.shape for n, t in own.items()}:
        return []
    target.load_state_dict(theirs)
    return [words]


def load_student(name_or_path: str | Path) -> tuple[SpeechModel, dict]:
    """A distilled student and its description, by the name of a shipped preset or the path of a kdkit checkpoint."""
    shipped = ASSETS / f"{str(name_or_path).replace('-', '_')}.safetensors"
    model, _, meta = load_model(shipped if is_file(shipped) else Path(name_or_path).expanduser())
    return model, meta
