"""Agreement of cluster ids (of k-means, or of the teacher's codebook) with phones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from kdkit.common.progress import tqdm
from kdkit.common.statistics import (
    Comparison,
    jackknife_change,
    jackknife_error,
    plain_interval,
    ratio_interval,
)
from kdkit.model.codebook import Codebook, check_clusters
from kdkit.probing.activations import Frames

_NO_INTERVAL = (float("nan"), float("nan"))


def counts_table(ids: Sequence, phones: Sequence) -> np.ndarray:
    """Counts (phones, cluster ids) of two labelings of the same frames."""
    _, i = np.unique(np.asarray(ids), return_inverse=True)
    _, p = np.unique(np.asarray(phones), return_inverse=True)
    table = np.zeros((p.max() + 1, i.max() + 1))
    np.add.at(table, (p, i), 1.0)
    return table


def pnmi(ids: Sequence, phones: Sequence) -> float:
    """Phone-normalised mutual information I(phone; id) / H(phone), 0..1, from the HuBERT paper (arXiv 2106.07447).

    It grows with the number of clusters: compare equal numbers only.
    """
    return float(_pnmi(counts_table(ids, phones)))


def _pnmi(counts: np.ndarray) -> np.ndarray:
    """PNMI of tables (..., phones, ids)."""
    joint = counts / counts.sum((-2, -1), keepdims=True)

    def entropy(p: np.ndarray, axis) -> np.ndarray:
        return -(p * np.log(np.where(p > 0, p, 1))).sum(axis)

    of_phone, of_id = entropy(joint.sum(-1), -1), entropy(joint.sum(-2), -1)
    information = of_phone + of_id - entropy(joint, (-2, -1))
    return np.divide(information, of_phone, out=np.zeros_like(of_phone), where=of_phone > 1e-12)


def phone_purity(ids: Sequence, phones: Sequence) -> float:
    """Frame accuracy if every cluster stands for its most frequent phone."""
    return float(_phone_purity(counts_table(ids, phones)))


def _phone_purity(counts: np.ndarray) -> float:
    return counts.max(0).sum() / counts.sum()


def cluster_purity(ids: Sequence, phones: Sequence) -> float:
    """Counterpart of :func:`phone_purity`: the share of frames in their phone's most frequent cluster."""
    return float(_cluster_purity(counts_table(ids, phones)))


def _cluster_purity(counts: np.ndarray) -> float:
    return counts.max(1).sum() / counts.sum()


@dataclass(frozen=True)
class ClusterScore:
    """Agreement of ids with phones and with speakers (``speaker_nmi``: I / H(speaker)); 95 % intervals over utterances.

    ``interval`` is that of the PNMI.
    """

    name: str
    pnmi: float
    phone_purity: float
    cluster_purity: float
    speaker_nmi: float
    interval: tuple[float, float] = _NO_INTERVAL
    phone_purity_interval: tuple[float, float] = _NO_INTERVAL
    cluster_purity_interval: tuple[float, float] = _NO_INTERVAL
    speaker_interval: tuple[float, float] = _NO_INTERVAL


def cluster_score(name: str, ids: Sequence, frames: Frames) -> ClusterScore:
    """Agreement of the ``ids`` of ``frames`` with their phones and speakers; frames of unknown speakers are left out
    there.
    """
    phones = _left_out(ids, frames.phones, frames.utterances, (_pnmi, _phone_purity, _cluster_purity))
    known = np.asarray(frames.speakers) != ""  # frames of unknown speakers are not of one speaker
    speakers = (float("nan"), _NO_INTERVAL)
    if known.any():
        parts = (np.asarray(values)[known] for values in (ids, frames.speakers, frames.utterances))
        [speakers] = _left_out(*parts, (_pnmi,))
    values, intervals = zip(*phones, speakers, strict=True)
    return ClusterScore(name, *values, *intervals)


def pnmi_interval(ids: Sequence, phones: Sequence, utterances: Sequence) -> tuple[float, float]:
    """95 % interval of the PNMI by the jackknife over utterances; (nan, nan) for fewer than two.

    The bootstrap would be biased upwards: a resampled corpus lacks utterances, which empties cells of the table.
    """
    return _left_out(ids, phones, utterances, (_pnmi,))[0][1]


def _left_out(
    ids: Sequence, labels: Sequence, utterances: Sequence, measures: Sequence[Callable]
) -> list[tuple[float, tuple[float, float]]]:
    """Each measure of the table (labels, ids), and its jackknife interval."""
    values, without = _without_each(ids, labels, utterances, measures)
    return [(value, plain_interval(value, column)) for value, column in zip(values, without.T, strict=True)]


def _without_each(
    ids: Sequence, labels: Sequence, utterances: Sequence, measures: Sequence[Callable]
) -> tuple[list[float], np.ndarray]:
    """Measures of the table (labels, ids), and those without each utterance: (utterances, measures)."""
    _, owner, frames = np.unique(np.asarray(utterances), return_inverse=True, return_counts=True)
    (_, i), (_, p) = (np.unique(np.asarray(values), return_inverse=True) for values in (ids, labels))
    total, without = counts_table(ids, labels), []
    for rows in np.split(np.argsort(owner, kind="stable"), np.cumsum(frames)[:-1]):
        if len(rows) < len(owner):
            rest = total.copy()
            np.subtract.at(rest, (p[rows], i[rows]), 1.0)
            without.append([measure(rest) for measure in measures])
    return [float(measure(total)) for measure in measures], np.array(without).reshape(-1, len(measures))


def layer_ids(train: Frames, *others: Frames, clusters: int = 100, seed: int = 0) -> list[list[np.ndarray]]:
    """k-means on every layer's training frames (raw activations, as in HuBERT); of each layer the ids of the frames of
    each of ``others``.
    """
    found = []
    for i, x in enumerate(tqdm(train.features, desc="k-means", leave=False)):
        check_clusters(clusters, len(x))
        kmeans = MiniBatchKMeans(clusters, batch_size=4096, n_init=3, max_iter=50, random_state=seed).fit(x)
        found.append([kmeans.predict(frames.features[i]) for frames in others])
    return found


def layer_pnmi(train: Frames, test: Frames, clusters: int = 100, seed: int = 0) -> list[ClusterScore]:
    """Scores of the :func:`layer_ids` of the test frames."""
    ids = layer_ids(train, test, clusters=clusters, seed=seed)
    return [cluster_score(name, own, test) for name, (own,) in zip(test.names, ids, strict=True)]


def compare_ids(ours: Sequence, theirs: Sequence, frames: Frames) -> Comparison:
    """PNMI of two labelings of the same frames, paired: each utterance is left out of both."""
    (mine, without), (other, other_without) = (
        _without_each(ids, frames.phones, frames.utterances, (_pnmi,)) for ids in (ours, theirs)
    )
    return jackknife_change(mine[0] - other[0], (without - other_without)[:, 0], "PNMI")


@dataclass(frozen=True)
class Usage:
    """The codebook's distribution at one temperature: its certainty per frame, and the number of ids in use.

    95 % intervals over utterances, nan without utterances.
    """

    tau: float
    choices: float  # perplexity of a frame: e to the mean entropy, 1 (certain) .. K
    used: float  # perplexity of the mean distribution over all frames, 1 .. K
    top: float  # mean probability of the first id
    choices_interval: tuple[float, float] = _NO_INTERVAL
    used_interval: tuple[float, float] = _NO_INTERVAL
    top_interval: tuple[float, float] = _NO_INTERVAL


@torch.inference_mode()
def codebook_usage(
    codebook: Codebook,
    hidden: np.ndarray,
    taus: Sequence[float],
    utterances: np.ndarray | None = None,
    seed: int = 0,
) -> list[Usage]:
    """:class:`Usage` on frames (n, D) of the codebook's layer, at each temperature.

    ``utterances`` (n,): the utterance of each frame, for the intervals.
    """
    device, rows = codebook.label_embeddings.device, []
    owner = np.zeros(len(hidden), dtype=int)
    if utterances is not None:
        _, owner = np.unique(utterances, return_inverse=True)
    totals = np.bincount(owner)  # frames of each utterance
    for tau in taus:
        entropy, top = np.empty(len(hidden)), np.empty(len(hidden))
        ids = torch.zeros(len(totals), len(codebook.label_embeddings), dtype=torch.float64)  # of an utterance
        for begin in range(0, len(hidden), 4096):
            part = slice(begin, begin + 4096)
            cosines = codebook.cosines(torch.as_tensor(np.asarray(hidden[part]), device=device))
            log_q = (cosines / tau).log_softmax(-1).double().cpu()
            q = log_q.exp()
            entropy[part], top[part] = -(q * log_q).sum(-1), q.amax(-1)
            ids.index_add_(0, torch.from_numpy(owner[part]), q)
        entropies, tops = (np.bincount(owner, weights=values) for values in (entropy, top))
        used, used_interval = _ids_in_use(ids.numpy())
        rows.append(
            Usage(
                tau,
                float(np.exp(entropy.mean())),
                used,
                float(top.mean()),
                tuple(np.exp(ratio_interval(entropies, totals, seed=seed)).tolist()),
                used_interval,
                ratio_interval(tops, totals, seed=seed),
            )
        )
    return rows


def _ids_in_use(ids: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Perplexity of the distribution over ids, from its sums (utterances, ids), and its jackknife interval."""

    def entropy(counts: np.ndarray) -> np.ndarray:
        p = counts.clip(0) / counts.sum(-1, keepdims=True).clip(1e-300)
        return -(p * np.log(p.clip(1e-300))).sum(-1)

    value, reach = float(entropy(ids.sum(0))), float("nan")
    if len(ids) > 1:
        reach = 1.96 * float(jackknife_error(entropy(ids.sum(0) - ids)))
    return float(np.exp(value)), (float(np.exp(value - reach)), float(np.exp(value + reach)))
