"""HuBERT pre-training: cluster frames, mask spans of them, predict the cluster ids of the masked frames.

The recipe of arXiv 2106.07447 for a laptop: the first iteration predicts k-means clusters of MFCCs, the second those of
a middle layer of the first network. ``data_scripts/make_teacher.py`` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

from kdkit.common.errors import TrainingError
from kdkit.common.progress import tqdm
from kdkit.fbank import Fbank, deltas
from kdkit.losses import mean_over
from kdkit.model.checkpoints import load_checkpoint, save_checkpoint
from kdkit.model.codebook import Codebook, check_clusters
from kdkit.model.masking import span_mask
from kdkit.model.speech_model import SpeechModel
from kdkit.speech.batches import to_device
from kdkit.speech.frames import HOP, frame_mask, num_frames
from kdkit.speech.manifest import Utterance, speech_identity
from kdkit.teachers.teacher import hidden_states
from kdkit.training import identity


class MFCC(nn.Module):
    """13 MFCCs with first and second differences at 50 Hz: (samples,) -> (frames, 39).

    Mean and variance are normalised per utterance, so that k-means finds sounds rather than voices.
    """

    def __init__(self):
        super().__init__()
        self.fbank = Fbank()
        self.register_buffer("dct", _cosines(13, 80))

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        cepstra = (self.fbank(wave[None])[0] @ self.dct).T  # (13, T')
        first = deltas(cepstra)
        features = torch.cat([cepstra, first, deltas(first)]).T  # (T', 39)
        features = (features - features.mean(0)) / (features.std(0) + 1e-5)
        return features[::2][: num_frames(len(wave))]  # 100 Hz -> 50 Hz


def _cosines(count: int, bins: int) -> Tensor:
    """(bins, count): the first rows of the orthonormal discrete cosine transform (DCT-II), as columns."""
    angle = math.pi / bins * (torch.arange(bins) + 0.5) * torch.arange(count)[:, None]
    cosines = angle.cos()
    cosines[0] *= math.sqrt(1 / 2)
    return (cosines * math.sqrt(2 / bins)).T


@dataclass
class Labels:
    """Cluster ids of a corpus: ``ids[name]`` is (frames,) int16 below ``clusters`` for utterance ``name``."""

    ids: dict[str, Tensor]
    clusters: int
    source: str

    def save(self, path: Path) -> None:
        names = list(self.ids)
        tensors = {
            "ids": torch.cat(list(self.ids.values())),
            "sizes": torch.tensor([len(self.ids[n]) for n in names]),
        }
        save_checkpoint(path, tensors, {"names": names, "clusters": self.clusters, "source": self.source})

    @classmethod
    def load(cls, path: Path) -> Labels:
        tensors, meta = load_checkpoint(path)
        parts = tensors["ids"].split(tensors["sizes"].tolist())
        return cls(dict(zip(meta["names"], parts, strict=True)), meta["clusters"], meta["source"])


def cluster(
    features: Callable[[list[Utterance]], Iterable[tuple[str, Tensor]]],
    utterances: list[Utterance],
    clusters: int,
    source: str,
    seed: int = 0,
    sample: int = 200_000,
    label: bool = True,
) -> tuple[Labels, np.ndarray]:
    """k-means ids of every frame, and the centroids (clusters, D).

    ``features(utterances)`` yields (utterance id, (frames, D)) pairs. It is called first for a random part of the
    utterances, about ``sample`` frames, to fit the centroids, then for all utterances, to label their frames; no more
    than the sample is in memory. Without ``label`` only the centroids are computed. Raises :class:`ConfigError` for
    more clusters than frames.
    """
    rng = np.random.default_rng(seed)
    total = sum(num_frames(u.samples) for u in utterances)
    check_clusters(clusters, total)
    some = rng.permutation(len(utterances))[: max(1, round(len(utterances) * min(1.0, sample / total)))]
    chosen = [utterances[i] for i in sorted(some)]
    bar = tqdm(features(chosen), total=len(chosen), desc="frames for k-means", mininterval=1.0)
    data = np.concatenate([frames.float().cpu().numpy() for _, frames in bar])
    check_clusters(clusters, len(data))
    kmeans = MiniBatchKMeans(clusters, batch_size=10_000, n_init=3, max_iter=100, random_state=seed).fit(data)
    if not label:
        return Labels({}, clusters, source), kmeans.cluster_centers_
    centres = torch.from_numpy(kmeans.cluster_centers_).float()
    bar = tqdm(features(utterances), total=len(utterances), desc="labelling frames", mininterval=1.0)
    ids = {}
    for name, frames in bar:
        centres = centres.to(frames.device)
        ids[name] = nearest(frames.float(), centres).to(torch.int16).cpu()
    return Labels(ids, clusters, source), kmeans.cluster_centers_


def layer_features(
    model: SpeechModel, layer: int
) -> Callable[[list[Utterance]], Iterable[tuple[str, Tensor]]]:
    """For :func:`cluster`: hidden states (frames, dim) of ``layer``, utterance by utterance, on the CPU."""

    def features(some: list[Utterance]) -> Iterable[tuple[str, Tensor]]:
        for utterance, states in hidden_states(model, some, [layer]):
            yield utterance.id, states[0]

    return features


def kmeans_codebook(
    model: SpeechModel,
    utterances: list[Utterance],
    clusters: int = 500,
    layer: int | None = None,
    seed: int = 0,
    keep: Path | None = None,
) -> Codebook:
    """A codebook for a teacher without one: k-means centroids of one of its layers (default: the last).

    A substitute for HuBERT's own codebook; results should say which one was used. The centroids are fit to about
    200,000 frames. ``keep``: a file that stores them, and from which they are read if they were computed from the same
    model and speech. The last digits of k-means depend on the machine, and a resumed training needs the same targets.
    """
    layer = model.config.layers if layer is None else layer
    made_of = {"clusters": clusters, "layer": layer, "seed": seed, "speech": speech_identity(utterances)}
    made_of |= identity.weights(model)
    if keep is not None and keep.is_file():
        tensors, meta = load_checkpoint(keep)
        if not identity.differences(meta, made_of):
            return Codebook.from_centroids(tensors["centroids"])
    _, centroids = cluster(
        layer_features(model, layer), utterances, clusters, f"layer {layer}", seed, label=False
    )
    centroids = torch.from_numpy(centroids).float()
    if keep is not None:
        save_checkpoint(keep, {"centroids": centroids}, made_of)
    return Codebook.from_centroids(centroids)


def nearest(frames: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre: (T, D), (K, D) -> (T,)."""
    return (centres.square().sum(1) - 2 * frames @ centres.T).argmin(1)


class FilterbankTask(nn.Module):
    """Warm-up of the waveform CNN: a linear head on its normalised output predicts the log-mel energies of the frame.

    A randomly initialised CNN spends most of a laptop's budget on learning a filterbank. Regression to the two Fbank
    frames (100 Hz) within each of its 50 Hz frames gives 160 targets per frame and needs no Transformer. The head is
    discarded.
    """

    drawn = ("head",)

    def __init__(self, model: SpeechModel, mean: Tensor, std: Tensor):
        super().__init__()
        self.cnn, self.norm = model.front_end.cnn, model.front_end.norm
        self.fbank = Fbank()
        self.head = nn.Linear(self.norm.normalized_shape[0], 2 * len(mean))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.compute(self.prepare(batch))

    def prepare(self, batch) -> dict[str, Tensor]:
        """The inputs of :meth:`compute`."""
        return {"waves": batch.waves, "lengths": batch.lengths}

    def compute(self, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar) and the explained share of the variance."""
        waves, lengths = inputs["waves"], inputs["lengths"]
        features = self.norm(self.cnn(waves, lengths))  # (B, T, C)
        frames = num_frames(lengths)
        with torch.no_grad():
            mels = (self.fbank(waves) - self.mean) / self.std  # (B, T', 80), T' = 2 T or 2 T + 1
            mels = F.pad(mels, (0, 0, 0, 1))[:, : 2 * features.shape[1]].unflatten(1, (-1, 2)).flatten(2)
        mask = frame_mask(frames - 1, features.shape[1])  # the last may lack its second half
        loss = mean_over(mask, (self.head(features) - mels).square().mean(-1))
        with torch.no_grad():
            variance = mean_over(mask, (mels - mean_over(mask, mels).mean()).square().mean(-1))
        return loss, {"explained": 1 - loss.detach() / variance}


class PretrainTask(nn.Module):
    """Masked prediction of cluster ids: ``loss = CE(masked frames) + visible_weight * CE(visible frames)``.

    Utterances are cropped to the shortest of the batch, and masked spans are replaced by one learned vector. HuBERT's
    paper finds a visible weight of 0 best for good targets; a small network with little training also needs the easier
    task of naming frames that it hears. ``noise``: share of utterances with added white noise (5 to 30 dB SNR), whose
    targets stay those of the clean speech.
    """

    drawn = ("mask_embedding",)
    grain = 3200  # samples; crops are multiples, because a CPU prepares its convolutions for every new shape

    def __init__(
        self,
        model: SpeechModel,
        codebook: Codebook,
        labels: Labels,
        noise: float = 0.25,
        visible_weight: float = 0.0,
        mask: float = 0.65,
        span: int = 10,
    ):
        super().__init__()
        self.model, self.codebook, self.noise, self.visible_weight = model, codebook, noise, visible_weight
        self.mask_embedding = nn.Parameter(torch.empty(model.config.dim).uniform_())
        self.mask, self.span = mask, span
        self._labels = labels.ids
        self.settings = {
            "model": model.config.to_dict(),
            "targets": labels.source,
            "clusters": labels.clusters,
            "masking": [mask, span, noise, visible_weight],
        }

    def size(self, batch) -> int:
        """Frames: the losses are means over them, up to the random mask."""
        return len(batch) * int(num_frames(batch.on_host.min()))

    def forward(self, batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.compute(self.prepare(batch))

    def prepare(self, batch) -> dict[str, Tensor]:
        """The inputs of :meth:`compute`: ``waves`` (B, S), cropped, some with noise; their cluster ids ``targets``
        (B, T); the mask of ``hidden`` frames (B, T).
        """
        waves, targets = self.crop(batch)
        loud = torch.rand(len(waves), 1) < self.noise
        snr = torch.empty(len(waves), 1).uniform_(5, 30)
        loudness = to_device(10 ** (-snr / 20) * loud, waves.device)
        level = waves.square().mean(1, keepdim=True).sqrt() * loudness
        waves = waves + level * torch.randn(waves.shape, device=waves.device)
        hidden = span_mask(*targets.shape, self.mask, self.span)
        return {"waves": waves, "targets": targets, "hidden": to_device(hidden, waves.device)}

    def compute(self, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and parts, a function of ``inputs`` and weights (and dropout) only."""
        waves, targets, hidden = inputs["waves"], inputs["targets"], inputs["hidden"]
        lengths = torch.full((len(waves),), waves.shape[1], device=waves.device)
        features = self.model.front_end(waves, lengths, padded=False)  # (B, T, D)
        features = torch.where(hidden[..., None], self.mask_embedding.to(features.dtype), features)
        output = self.model.encode(features, num_frames(lengths), padded=False)
        logits = self.codebook(output.last)  # (B, T, K)
        losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")  # (B, T)
        right, parts = (logits.argmax(-1) == targets).float(), {}
        for name, where in (("hidden", hidden), ("visible", ~hidden)):
            parts[name] = mean_over(where, losses)
            parts[f"{name}_accuracy"] = mean_over(where, right)
        loss = parts["hidden"] + self.visible_weight * parts["visible"]
        return loss, {name: value.detach() for name, value in parts.items()}

    def crop(self, batch) -> tuple[Tensor, Tensor]:
        """Random crops of a common length: waves (B, S) and cluster ids (B, T).

        Raises :class:`TrainingError` for an utterance without cluster ids.
        """
        size = int(batch.on_host.min())
        size -= size % self.grain if size > self.grain else 0
        waves, targets = [], []
        for wave, length, utterance in zip(
            batch.waves, batch.on_host.tolist(), batch.utterances, strict=True
        ):
            if utterance.id not in self._labels:
                raise TrainingError(f"utterance {utterance.id} has no cluster ids: cluster this corpus again")
            first = int(torch.randint((length - size) // HOP + 1, ()))  # in frames
            waves.append(wave[first * HOP : first * HOP + size])
            targets.append(self._labels[utterance.id][first : first + num_frames(size)])
        return torch.stack(waves), to_device(torch.stack(targets).long(), batch.waves.device)
