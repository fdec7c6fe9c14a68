"""All measures of all layers of a model, alone or compared with another one, for ``kdkit probe``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice

import numpy as np
import torch

from kdkit.common.errors import AudioError, ManifestError
from kdkit.common.wording import columns
from kdkit.probing.activations import Frames, ModelLayers, collect
from kdkit.probing.attention import attention_reach, even_distance
from kdkit.probing.change import layer_changes
from kdkit.probing.cka import cka_intervals
from kdkit.probing.clusters import ClusterScore, Usage, cluster_score, codebook_usage, layer_pnmi
from kdkit.probing.phones import LayerScore, PhoneProbe, probe_layers
from kdkit.probing.speakers import probe_speakers
from kdkit.speech.audio import read_audio
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import Utterance
from kdkit.teachers import Teacher

TAUS = (0.03, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Survey:
    """Result of :func:`survey`. ``names`` of the features: Fbank + deltas, front-end, H0 .. HL; intervals are 95 %."""

    names: tuple[str, ...]
    phones: PhoneProbe
    speakers: tuple[LayerScore, ...]  # of each feature; empty if the speech has too few speakers
    clusters: tuple[ClusterScore, ...]  # of each feature
    cka: np.ndarray  # (features, features, 3): value, low, high
    change: tuple[tuple[float, float, float], ...]  # of layers 1 .. L: value, low, high
    reach: tuple[tuple[float, float, float], ...]  # of layers 1 .. L: seconds, low, high
    even_reach: float  # seconds, of uniform weights
    codebook: ClusterScore | None
    usage: tuple[Usage, ...]
    other_names: tuple[str, ...] = ()
    other_cka: np.ndarray | None = None  # (features, features of the other model, 3)

    def rows(self) -> list[dict[str, str]]:
        """A table with one row per feature, with intervals."""
        table = []
        for i, name in enumerate(self.names):
            clusters, layer = self.clusters[i], i - 2
            probe = (self.phones.fbank, self.phones.front_end, *self.phones.layers)[i]
            voice = self.speakers[i] if self.speakers else None
            row = {
                "layer": name,
                "phones, %": _text(".1f", 100, probe.accuracy, probe.low, probe.high),
                "speakers, %": _text(".1f", 100, voice.accuracy, voice.low, voice.high) if voice else "",
                "PNMI": _text(".3f", 1, clusters.pnmi, *clusters.interval),
                "phone purity": _text(".3f", 1, clusters.phone_purity, *clusters.phone_purity_interval),
                "cluster purity": _text(".3f", 1, clusters.cluster_purity, *clusters.cluster_purity_interval),
                "CKA with Fbank": _text(".3f", 1, *self.cka[i, 0]) if i else "",
                "change of input": _text(".3f", 1, *self.change[layer - 1]) if layer > 0 else "",
                "attention reaches, ms": _text(".0f", 1000, *self.reach[layer - 1]) if layer > 0 else "",
            }
            if self.other_cka is not None:
                nearest = int(np.argmax(self.other_cka[i, 2:, 0])) + 2
                row["most like"] = (
                    f"{self.other_names[nearest]} {_text('.3f', 1, *self.other_cka[i, nearest])}"
                )
            table.append(row)
        return table

    def to_dict(self) -> dict:
        """Plain numbers, for JSON; None for missing intervals."""
        found = {
            "names": list(self.names),
            "phones": self.phones.to_dict() | {"symbols": list(self.phones.phones)},
            "confusion": self.phones.confusion.tolist(),
            "speakers": [
                {"name": s.name, "accuracy": s.accuracy, "low": s.low, "high": s.high} for s in self.speakers
            ],
            "clusters": [asdict(score) for score in self.clusters],
            "cka": self.cka[..., 0].tolist(),
            "cka_interval": self.cka[..., 1:].tolist(),
            "change": [list(values) for values in self.change],
            "attention_seconds": [list(values) for values in self.reach],
            "even_attention_seconds": self.even_reach,
        }
        if self.codebook is not None:
            found |= {"codebook": asdict(self.codebook), "usage": [asdict(usage) for usage in self.usage]}
        if self.other_cka is not None:
            found["other"] = {
                "names": list(self.other_names),
                "cka": self.other_cka[..., 0].tolist(),
                "cka_interval": self.other_cka[..., 1:].tolist(),
            }
        return _without_nan(found)

    def __str__(self) -> str:
        rows = [{key: key for key in self.rows()[0]}, *self.rows()]
        text = []
        for keys in _BLOCKS:  # a table of all columns is wider than a terminal
            keys = ["layer", *(key for key in keys if any(row.get(key) for row in rows[1:]))]
            widths = {key: max(len(row[key]) for row in rows) for key in keys}
            lines = [row for row in rows if any(row[key] for key in keys[1:])]
            text += ["  ".join(row[key].ljust(widths[key]) for key in keys).rstrip() for row in lines]
            text.append("")
        text.append(
            f"In brackets: 95 % intervals over utterances. Even attention would reach {1000 * self.even_reach:.0f} ms."
        )
        text.append(
            f"Phones are best in H{self.phones.best} (chosen on dev frames): {self.phones.gain.points} points over "
            "Fbank + deltas"
        )
        if self.codebook is not None:
            c = self.codebook
            text.append(
                f"Codebook ids: PNMI {_text('.3f', 1, c.pnmi, *c.interval)}, "
                f"phone purity {_text('.3f', 1, c.phone_purity, *c.phone_purity_interval)}"
            )
            head = ["tau", "choices of a frame", "ids in use", "probability of the first id"]
            lines = [
                [
                    f"{u.tau:g}",
                    _text(".1f", 1, u.choices, *u.choices_interval),
                    _text(".0f", 1, u.used, *u.used_interval),
                    _text(".2f", 1, u.top, *u.top_interval),
                ]
                for u in self.usage
            ]
            text += ["", *columns(head, lines)]
        return "\n".join(text)


_BLOCKS = (
    ("phones, %", "speakers, %", "PNMI"),
    ("phone purity", "cluster purity", "CKA with Fbank"),
    ("change of input", "attention reaches, ms", "most like"),
)


def _text(form: str, scale: float, value: float, low: float, high: float) -> str:
    """A value with its interval, if it has one: 0.52 (0.48 to 0.57)."""
    if math.isnan(low):
        return f"{scale * value:{form}}"
    return f"{scale * value:{form}} ({scale * low:{form}} to {scale * high:{form}})"


def survey(
    model: Teacher,
    train_utterances: Sequence[Utterance],
    dev_utterances: Sequence[Utterance],
    test_utterances: Sequence[Utterance],
    frames: int = 20_000,
    clusters: int = 100,
    other: Teacher | None = None,
    seed: int = 0,
    attended: int = 20,
) -> Survey:
    """Every measure of :mod:`kdkit.probing` on every layer of ``model``, tested on ``test_utterances``.

    ``frames`` train the probes, half as many test them, and half as many of ``dev_utterances`` choose the best layer
    for phones. ``other``: a model (its teacher or student) to compare layers with by CKA. Attention is averaged over
    the first ``attended`` test utterances that can be read. Intervals are over utterances.
    """
    extract = ModelLayers(model)
    train = collect(extract, train_utterances, frames, seed)
    test = collect(extract, test_utterances, frames // 2, seed)
    heard = list(islice(filter(_is_readable, test_utterances), attended))
    found = Survey(
        names=tuple(test.names),
        phones=probe_layers(train, test, seed, collect(extract, dev_utterances, frames // 2, seed)),
        speakers=_speakers(test, seed),
        clusters=tuple(layer_pnmi(train, test, clusters, seed)),
        cka=cka_intervals(test, test),
        change=tuple(layer_changes(test, seed)),
        reach=tuple(attention_reach(model, heard, seed)),
        even_reach=_even_reach(heard),
        codebook=None,
        usage=(),
    )
    if model.codebook is not None:
        taus = sorted({*TAUS, model.codebook.tau})
        usage = codebook_usage(model.codebook, test.features[-1], taus, test.utterances, seed)
        ids = codebook_ids(model, test.features[-1])
        found = replace(found, usage=tuple(usage), codebook=cluster_score("codebook", ids, test))
    if other is not None:
        theirs = collect(ModelLayers(other), test_utterances, frames // 2, seed)
        found = replace(found, other_names=tuple(theirs.names), other_cka=cka_intervals(test, theirs))
    return found


def held_out(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Splits a list into training and dev speech: every fifth speaker (at least one) is dev; with one speaker, every
    fifth utterance. Raises :class:`ManifestError` for fewer than two utterances.
    """
    speakers = sorted({utterance.speaker for utterance in utterances})
    if len(utterances) < 2:
        raise ManifestError(f"{len(utterances)} utterances do not divide into training and dev speech")
    if len(speakers) > 1:
        dev = {speaker for i, speaker in enumerate(speakers) if i % 5 == 1}
        flags = [utterance.speaker in dev for utterance in utterances]
    else:
        flags = [i % 5 == 1 for i in range(len(utterances))]
    kept, out = (
        [u for u, flag in zip(utterances, flags, strict=True) if flag is wanted] for wanted in (False, True)
    )
    return kept, out


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _speakers(frames: Frames, seed: int) -> tuple[LayerScore, ...]:
    try:
        return tuple(probe_speakers(frames, seed))
    except ManifestError as error:
        print(f"no speaker probe: {error}")
        return ()


def _is_readable(utterance: Utterance) -> bool:
    try:
        return len(read_audio(utterance.audio)) > 0
    except AudioError:  # reported by collect
        return False


def _even_reach(utterances: Sequence[Utterance]) -> float:
    frames = np.array([num_frames(utterance.samples) for utterance in utterances])
    return float((even_distance(frames) * frames).sum() / frames.sum())


def codebook_ids(teacher: Teacher, hidden: np.ndarray) -> np.ndarray:
    """Most likely cluster id of frames (n, D) of the last layer: (n,)."""
    device = teacher.codebook.label_embeddings.device
    with torch.inference_mode():
        return teacher.codebook(torch.as_tensor(np.asarray(hidden), device=device)).argmax(-1).cpu().numpy()
