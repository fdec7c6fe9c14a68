"""What do cluster ids tell of the phone? Ids of k-means, or of the teacher's own codebook, against phones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from tqdm import tqdm

from kdkit.activations import Frames
from kdkit.codebook import Codebook

_NO_INTERVAL = (float("nan"), float("nan"))


def counts_table(ids: Sequence, phones: Sequence) -> np.ndarray:
    """Counts (phones, cluster ids) of two labelings of the same frames."""
    _, i = np.unique(np.asarray(ids), return_inverse=True)
    _, p = np.unique(np.asarray(phones), return_inverse=True)
    table = np.zeros((p.max() + 1, i.max() + 1))
    np.add.at(table, (p, i), 1.0)
    return table


def pnmi(ids: Sequence, phones: Sequence) -> float:
    """Phone-normalised mutual information I(phone; id) / H(phone), 0..1: how much of the phone an id tells.

    From the HuBERT paper (arXiv 2106.07447). It grows with the number of clusters: compare at equal numbers
    only.
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
    """Frame accuracy if every cluster is read as its most frequent phone."""
    return float(counts_table(ids, phones).max(0).sum() / len(ids))


def cluster_purity(ids: Sequence, phones: Sequence) -> float:
    """Counterpart of :func:`phone_purity`: the share of frames in their phone's most frequent cluster."""
    return float(counts_table(ids, phones).max(1).sum() / len(ids))


@dataclass(frozen=True)
class ClusterScore:
    """How ids agree with phones, and with speakers (``speaker_nmi``: I / H(speaker)).

    ``interval``: 95 % of the PNMI, over utterances.
    """

    name: str
    pnmi: float
    phone_purity: float
    cluster_purity: float
    speaker_nmi: float
    interval: tuple[float, float] = _NO_INTERVAL


def cluster_score(name: str, ids: Sequence, frames: Frames) -> ClusterScore:
    """Ids of ``frames`` against their phones and speakers."""
    return ClusterScore(
        name,
        pnmi(ids, frames.phones),
        phone_purity(ids, frames.phones),
        cluster_purity(ids, frames.phones),
        pnmi(ids, frames.speakers),
        pnmi_interval(ids, frames.phones, frames.utterances),
    )


def pnmi_interval(ids: Sequence, phones: Sequence, utterances: Sequence) -> tuple[float, float]:
    """95 % interval of the PNMI by the jackknife over utterances; (nan, nan) for fewer than two.

    PNMI of a resampled corpus is too high, because drawing utterances again empties cells of the table: the bootstrap's
    interval would lie beside the value. Leaving out one utterance at a time does not do that.
    """
    _, owner = np.unique(np.asarray(utterances), return_inverse=True)
    n = int(owner.max()) + 1
    if n < 2:
        return _NO_INTERVAL
    (_, i), (_, p) = (np.unique(np.asarray(labels), return_inverse=True) for labels in (ids, phones))
    total, without = counts_table(ids, phones), np.empty(n)
    for u in range(n):
        own = np.zeros_like(total)
        np.add.at(own, (p[owner == u], i[owner == u]), 1.0)
        without[u] = _pnmi(total - own)
    error = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    value = float(_pnmi(total))
    return float(max(0.0, value - 1.96 * error)), float(min(1.0, value + 1.96 * error))


def layer_pnmi(train: Frames, test: Frames, clusters: int = 100, seed: int = 0) -> list[ClusterScore]:
    """k-means on every layer's training frames (raw activations, as in HuBERT), judged on the test frames."""
    scores = []
    layers = zip(train.names, train.features, test.features, strict=True)
    for name, x, test_x in tqdm(layers, total=len(train.names), desc="k-means", leave=False):
        kmeans = MiniBatchKMeans(clusters, batch_size=4096, n_init=3, max_iter=50, random_state=seed).fit(x)
        scores.append(cluster_score(name, kmeans.predict(test_x), test))
    return scores


@dataclass(frozen=True)
class Usage:
    """The codebook's distribution at one temperature: how sure it is of a frame, how many ids it uses in all."""

    tau: float
    choices: float  # of a frame: e to the mean entropy, 1 (certain) .. K
    used: float  # over all frames: e to the entropy of the mean distribution, 1 .. K
    top: float  # mean probability of the first id


@torch.inference_mode()
def codebook_usage(codebook: Codebook, hidden: np.ndarray, taus: Sequence[float]) -> list[Usage]:
    """:class:`Usage` on frames (n, D) of the codebook's layer, at each temperature; a few frames at a time."""
    device, rows = codebook.label_embeddings.device, []
    for tau in taus:
        entropy = top = 0.0
        mean = torch.zeros(len(codebook.label_embeddings), dtype=torch.float64)
        for begin in range(0, len(hidden), 4096):
            part = torch.as_tensor(np.asarray(hidden[begin : begin + 4096]), device=device)
            log_q = (codebook(part) * (codebook.tau / tau)).log_softmax(-1).double()
            q = log_q.exp()
            entropy -= float((q * log_q).sum())
            top += float(q.amax(-1).sum())
            mean += q.sum(0).cpu()
        mean = mean / len(hidden)
        used = float(-(mean * mean.clamp_min(1e-300).log()).sum())
        rows.append(Usage(tau, float(np.exp(entropy / len(hidden))), float(np.exp(used)), top / len(hidden)))
    return rows
