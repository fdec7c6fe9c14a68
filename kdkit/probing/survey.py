"""All measures of all layers of one model, teacher or student, alone or against another: what ``kdkit probe`` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from kdkit.activations import Frames, ModelLayers, collect
from kdkit.audio import read_audio
from kdkit.errors import ManifestError
from kdkit.manifest import Utterance
from kdkit.probing.attention import attention_distance, attention_weights
from kdkit.probing.clusters import ClusterScore, Usage, cluster_score, codebook_usage, layer_pnmi
from kdkit.probing.phones import LayerScore, PhoneProbe, probe_layers
from kdkit.probing.similarity import cka_map, layer_changes
from kdkit.probing.speakers import probe_speakers
from kdkit.score import ratio_interval
from kdkit.teachers import Teacher

TAUS = (0.03, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Survey:
    """What :func:`survey` found. Features are ``names``: Fbank + deltas, front-end, H0 .. HL; intervals are 95 %."""

    names: tuple[str, ...]
    phones: PhoneProbe
    speakers: tuple[LayerScore, ...]  # of each feature; empty where the speech has too few voices
    clusters: tuple[ClusterScore, ...]  # of each feature
    cka: np.ndarray  # (features, features)
    change: tuple[tuple[float, float, float], ...]  # of layers 1 .. L: value, low, high
    reach: tuple[tuple[float, float, float], ...]  # of layers 1 .. L: seconds, low, high
    codebook: ClusterScore | None
    usage: tuple[Usage, ...]
    other_names: tuple[str, ...] = ()
    other_cka: np.ndarray | None = None  # (features, features of the other model)

    def rows(self) -> list[dict[str, str]]:
        """A table: one row for each feature."""

        def share(score) -> str:
            return f"{100 * score.accuracy:.1f} % ({100 * score.low:.1f} to {100 * score.high:.1f})"

        table = []
        for i, name in enumerate(self.names):
            clusters, layer = self.clusters[i], i - 2
            row = {
                "layer": name,
                "phones": share((self.phones.fbank, self.phones.front_end, *self.phones.layers)[i]),
                "speakers": share(self.speakers[i]) if self.speakers else "",
                "PNMI": f"{clusters.pnmi:.3f} ({clusters.interval[0]:.3f} to {clusters.interval[1]:.3f})",
                "phone purity": f"{clusters.phone_purity:.3f}",
                "cluster purity": f"{clusters.cluster_purity:.3f}",
                "CKA with Fbank": f"{self.cka[i, 0]:.2f}",
                "change of input": f"{self.change[layer - 1][0]:.3f}" if layer > 0 else "",
                "attention reaches": f"{1000 * self.reach[layer - 1][0]:.0f} ms" if layer > 0 else "",
            }
            if self.other_cka is not None:
                nearest = int(np.argmax(self.other_cka[i, 2:])) + 2
                row["most like"] = f"{self.other_names[nearest]} ({self.other_cka[i, nearest]:.2f})"
            table.append(row)
        return table

    def to_dict(self) -> dict:
        """Plain numbers, for JSON; None for an interval that there is none of."""
        found = {
            "names": list(self.names),
            "phones": self.phones.to_dict() | {"symbols": list(self.phones.phones)},
            "confusion": self.phones.confusion.tolist(),
            "speakers": [asdict(score) for score in self.speakers],
            "clusters": [asdict(score) for score in self.clusters],
            "cka": self.cka.tolist(),
            "change": [list(values) for values in self.change],
            "attention_seconds": [list(values) for values in self.reach],
        }
        if self.codebook is not None:
            found |= {"codebook": asdict(self.codebook), "usage": [asdict(usage) for usage in self.usage]}
        if self.other_cka is not None:
            found["other"] = {"names": list(self.other_names), "cka": self.other_cka.tolist()}
        return _without_nan(found)

    def __str__(self) -> str:
        table = self.rows()
        widths = {key: max(len(key), *(len(row[key]) for row in table)) for key in table[0]}
        lines = [{key: key for key in widths}, *table]
        text = ["  ".join(line[key].ljust(width) for key, width in widths.items()).rstrip() for line in lines]
        best = self.phones.best
        text.append(f"phones are best in H{best}, {100 * self.phones.gain:+.1f} points over Fbank + deltas")
        if self.codebook is not None:
            text.append(
                f"codebook ids: PNMI {self.codebook.pnmi:.3f}, purity {self.codebook.phone_purity:.3f}"
            )
            text += [
                f"  tau {u.tau:<5g} choices of a frame {u.choices:6.1f}, ids in use {u.used:6.1f}, first id {u.top:.2f}"
                for u in self.usage
            ]
        return "\n".join(text)


def survey(
    model: Teacher,
    train_utterances: Sequence[Utterance],
    test_utterances: Sequence[Utterance],
    frames: int = 20_000,
    clusters: int = 100,
    other: Teacher | None = None,
    seed: int = 0,
    attended: int = 20,
) -> Survey:
    """Every measure of :mod:`kdkit.probing` on every layer of ``model``, judged on ``test_utterances``.

    ``frames`` train the probes, half as many judge them. ``other``: a model (its teacher, its student) whose layers are
    compared with these by CKA. Attention is averaged over ``attended`` test utterances.
    """
    extract = ModelLayers(model)
    train = collect(extract, train_utterances, frames, seed)
    test = collect(extract, test_utterances, frames // 2, seed)
    found = Survey(
        names=tuple(test.names),
        phones=probe_layers(train, test, seed),
        speakers=_speakers(test, seed),
        clusters=tuple(layer_pnmi(train, test, clusters, seed)),
        cka=cka_map(test, test),
        change=tuple(layer_changes(test, seed)),
        reach=tuple(attention_reach(model, test_utterances[:attended], seed)),
        codebook=None,
        usage=(),
    )
    if model.codebook is not None:
        usage = codebook_usage(model.codebook, test.features[-1], sorted({*TAUS, model.codebook.tau}))
        ids = codebook_ids(model, test.features[-1])
        found = replace(found, usage=tuple(usage), codebook=cluster_score("codebook", ids, test))
    if other is not None:
        theirs = collect(ModelLayers(other), test_utterances, frames // 2, seed)
        found = replace(found, other_names=tuple(theirs.names), other_cka=cka_map(test, theirs))
    return found


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


def codebook_ids(teacher: Teacher, hidden: np.ndarray) -> np.ndarray:
    """Most likely cluster id of frames (n, D) of the last layer: (n,)."""
    device = teacher.codebook.label_embeddings.device
    with torch.inference_mode():
        return teacher.codebook(torch.as_tensor(np.asarray(hidden), device=device)).argmax(-1).cpu().numpy()


def attention_reach(
    model: Teacher, utterances: Sequence[Utterance], seed: int = 0
) -> list[tuple[float, float, float]]:
    """Mean distance in seconds that the heads of each layer look, with its 95 % interval over utterances."""
    sums, totals = [], []
    for utterance in utterances:
        distances = [
            attention_distance(w).mean(0) for w in attention_weights(model, read_audio(utterance.audio))
        ]
        sums.append([float(d.sum()) for d in distances])
        totals.append(len(distances[0]))
    columns = np.array(sums).T
    return [(float(c.sum() / sum(totals)), *ratio_interval(c, totals, seed=seed)) for c in columns]
