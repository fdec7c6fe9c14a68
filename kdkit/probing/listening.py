"""What a cluster sounds like: the frames with one id, cut out of a corpus and concatenated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdkit.common.errors import ConfigError
from kdkit.speech.audio import read_audio
from kdkit.speech.frames import HOP, RECEPTIVE_FIELD
from kdkit.speech.manifest import Utterance, frame_phones
from kdkit.teachers import Teacher

_CONTEXT = 400  # samples before and after: a single frame is too short to hear
_FADE, _GAP = 160, 2400  # samples


@dataclass(frozen=True)
class Occurrence:
    """A run of frames with one id: ``begin`` to ``end`` (exclusive) of ``utterance``, and the phone of each frame."""

    utterance: Utterance
    begin: int
    end: int
    phones: tuple[str, ...]


@torch.inference_mode()
def occurrences(teacher: Teacher, utterances: Sequence[Utterance]) -> dict[int, list[Occurrence]]:
    """{id: runs} of every cluster id in ``utterances``, one utterance in memory at a time.

    Raises :class:`ConfigError` when the teacher has no codebook.
    """
    if teacher.codebook is None:
        raise ConfigError(f"{teacher.source} has no codebook: only HuBERT's own files carry one")
    device = next(teacher.model.parameters()).device
    found: dict[int, list[Occurrence]] = {}
    for utterance in utterances:
        wave = read_audio(utterance.audio).to(device)
        last = teacher.hidden(wave[None], torch.tensor([len(wave)], device=device)).last[0]
        ids = teacher.codebook(last).argmax(-1).tolist()
        phones, begin = frame_phones(utterance, len(ids)), 0
        for t in range(1, len(ids) + 1):
            if t == len(ids) or ids[t] != ids[begin]:
                run = Occurrence(utterance, begin, t, tuple(phones[begin:t]))
                found.setdefault(ids[begin], []).append(run)
                begin = t
    return found


def phone_shares(runs: Sequence[Occurrence]) -> list[tuple[str, float]]:
    """The phones of the runs' frames with their shares, most frequent first; "" is silence."""
    counts = Counter(phone for run in runs for phone in run.phones)
    return [(phone, count / counts.total()) for phone, count in counts.most_common()]


def play(runs: Sequence[Occurrence], most: int = 30) -> Tensor:
    """Up to ``most`` runs, utterances taking turns, with short pauses between: (samples,) at 16 kHz."""
    turn: Counter[str] = Counter()
    order = []
    for run in runs:
        order.append(turn[run.utterance.id])
        turn[run.utterance.id] += 1
    parts = []
    for i in sorted(range(len(runs)), key=order.__getitem__)[:most]:
        run = runs[i]
        wave = read_audio(run.utterance.audio)
        begin = max(0, run.begin * HOP - _CONTEXT)
        part = wave[begin : (run.end - 1) * HOP + RECEPTIVE_FIELD + _CONTEXT].clone()
        ramp = torch.linspace(0, 1, min(_FADE, len(part) // 2))
        part[: len(ramp)] *= ramp
        part[len(part) - len(ramp) :] *= ramp.flip(0)
        parts += [part, torch.zeros(_GAP)]
    return torch.cat(parts) if parts else torch.zeros(_GAP)
