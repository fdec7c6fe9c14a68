"""A linear phone probe on every layer, trained on some voices and tested on others.

Notebook 01 derives the probe. It shows how much of the phone is *linearly* encoded, not whether the model uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix
from torch import nn

from kdkit.common.errors import ConfigError
from kdkit.common.progress import tqdm
from kdkit.common.statistics import Comparison, ratio_interval
from kdkit.common.wording import between
from kdkit.probing.activations import Frames, ModelLayers, collect
from kdkit.speech.manifest import Utterance


def linear_probe(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    classes: int,
    weight_decay: float = 2e-3,
    iterations: int = 50,
) -> tuple[float, np.ndarray]:
    """Multinomial logistic regression: (accuracy on the test frames, predicted class of each).

    ``*_x`` (n, D) float, ``*_y`` (n,) int below ``classes``; a test label of -1 (a phone not in training) counts as an
    error. Features are standardised with the training frames' statistics. Minimises mean cross-entropy +
    weight_decay / 2 |W|^2 by L-BFGS from zero; the optimum is unique, so there is no seed.

    The penalty matters: without it the probe overfits to the training voices, most of all on Fbank + deltas. The
    default is the best one for that baseline, since a weak baseline would flatter every model; learned features would
    gain a little from a smaller one.
    """
    x, y = torch.as_tensor(train_x, dtype=torch.float32), torch.as_tensor(train_y)
    mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
    x = (x - mean) / std
    # Preconditioning: in these coordinates the curvature is about equal in all directions, which takes tens of steps
    # instead of hundreds. The weights of the standardised features are axes @ (scale * weight).
    variances, axes = torch.linalg.eigh((x.T @ x / len(x)).double())
    scale = (0.2 * variances.clamp_min(0) + weight_decay + 1e-6).rsqrt()
    to_axes, scale = (axes * scale).float(), scale.float()[:, None]
    x = x @ to_axes
    weight = torch.zeros(x.shape[1] + 1, classes, requires_grad=True)  # the last row is the bias
    lbfgs = torch.optim.LBFGS(
        [weight], max_iter=iterations, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure():
        lbfgs.zero_grad()
        loss = F.cross_entropy(torch.addmm(weight[-1], x, weight[:-1]), y)
        loss = loss + weight_decay / 2 * (scale * weight[:-1]).square().sum()
        loss.backward()
        return loss

    lbfgs.step(closure)
    test = (torch.as_tensor(test_x, dtype=torch.float32) - mean) / std @ to_axes
    predicted = torch.addmm(weight[-1], test, weight[:-1]).argmax(1).numpy()
    return float((predicted == np.asarray(test_y)).mean()), predicted


@dataclass(frozen=True)
class LayerScore:
    """Frame accuracy (0..1) of one layer's probe; 95 % bootstrap interval over test utterances.

    ``hits`` of ``totals`` frames of each test utterance are right.
    """

    name: str
    accuracy: float
    low: float
    high: float
    hits: tuple[int, ...] = field(default=(), repr=False)
    totals: tuple[int, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, name: str, right: np.ndarray, utterances: np.ndarray, seed: int = 0) -> LayerScore:
        """From which frames (n,) a probe got right, and the utterance of each."""
        _, owner = np.unique(utterances, return_inverse=True)
        hits, totals = (tuple(np.bincount(owner, weights=w).astype(int).tolist()) for w in (right, None))
        return cls(name, float(np.mean(right)), *ratio_interval(hits, totals, seed=seed), hits, totals)


@dataclass(frozen=True)
class PhoneProbe:
    """Result of :func:`phone_probe`; ``confusion`` (true, predicted) counts frames of the best layer.

    ``on_dev``: the accuracy of each layer on dev frames, which chooses the best one. Without, it is chosen on the test
    frames, which biases its accuracy upwards, slightly where layers differ by more than their intervals. ``gain``: the
    best layer against Fbank + deltas, paired over utterances.
    """

    layers: tuple[LayerScore, ...]  # H^0 .. H^L
    front_end: LayerScore
    fbank: LayerScore
    phones: tuple[str, ...]
    confusion: np.ndarray
    train_frames: int
    test_frames: int
    test_utterances: int
    gain: Comparison
    on_dev: tuple[float, ...] = ()

    @property
    def best(self) -> int:
        """Number of the best layer, 0 .. L: on dev frames if there were any, else on the test frames."""
        return int(np.argmax(self.on_dev or [layer.accuracy for layer in self.layers]))

    def to_dict(self) -> dict:
        """Plain numbers, for run.json."""
        scores = (self.fbank, self.front_end, *self.layers)
        return {
            "accuracy": {score.name: score.accuracy for score in scores},
            "interval": {score.name: [score.low, score.high] for score in scores},
            "best_layer": self.best,
            "best_layer_chosen_on": "dev" if self.on_dev else "test",
            "gain_over_fbank": self.gain.difference,
            "gain_interval": list(self.gain.interval),
            "train_frames": self.train_frames,
            "test_frames": self.test_frames,
            "test_utterances": self.test_utterances,
        }

    def __str__(self) -> str:
        rows = [
            f"{s.name:15} {100 * s.accuracy:5.1f} % {between((s.low, s.high), 'share')}".rstrip()
            for s in (self.fbank, self.front_end, *self.layers)
        ]
        on_dev = " on dev frames" if self.on_dev else ""
        rows.append(
            f"best{on_dev}: H{self.best}, {100 * self.gain.difference:+.1f} points over Fbank + deltas"
        )
        return "\n".join(rows)


def phone_probe(
    model: nn.Module,
    train_utterances: Sequence[Utterance],
    test_utterances: Sequence[Utterance],
    frames: int = 20_000,
    test_frames: int = 10_000,
    seed: int = 0,
    last_only: bool = False,
    **collecting,
) -> PhoneProbe:
    """Linear phone probe on every layer of a teacher or a student, and on Fbank + deltas, on the same frames.

    Trained on ``train_utterances`` and tested on ``test_utterances``, which should be of other voices. ``last_only``
    probes the last layer, the front-end and the baseline only. ``collecting`` goes to :func:`collect`. To measure
    several things on the same activations, call ``collect(ModelLayers(model), ...)`` twice, then
    :func:`probe_layers`, :func:`layer_pnmi` and the others.
    """
    extract = ModelLayers(model)
    train = collect(extract, train_utterances, frames, seed, **collecting)
    test = collect(extract, test_utterances, test_frames, seed, **collecting)
    if last_only:
        train, test = last_layer(train), last_layer(test)
    return probe_layers(train, test, seed)


def last_layer(frames: Frames) -> Frames:
    """Keeps Fbank + deltas, front-end and the last layer of frames from ``ModelLayers(model)``."""
    kept = [0, 1, len(frames.names) - 1]
    names, features = ([values[i] for i in kept] for values in (frames.names, frames.features))
    return replace(frames, names=names, features=features)


def probe_layers(train: Frames, test: Frames, seed: int = 0, dev: Frames | None = None) -> PhoneProbe:
    """:func:`phone_probe` on frames that were collected with ``ModelLayers(model)``; ``dev`` frames choose the best
    layer.
    """
    phones, train_y = np.unique(train.phones, return_inverse=True)
    number = {phone: i for i, phone in enumerate(phones)}
    judges = [test] if dev is None else [test, dev]
    y = np.array([number.get(phone, -1) for frames in judges for phone in frames.phones])
    test_y, dev_y = y[: len(test)], y[len(test) :]
    scores, predictions, on_dev = [], [], []
    for i, name in enumerate(tqdm(train.names, desc="probes", leave=False)):
        x = np.concatenate([frames.features[i] for frames in judges])
        _, said = linear_probe(train.features[i], train_y, x, y, len(phones))
        predicted = said[: len(test)]
        scores.append(LayerScore.of(name, predicted == test_y, test.utterances, seed))
        on_dev.append(scores[-1].accuracy if dev is None else float((said[len(test) :] == dev_y).mean()))
        predictions.append(predicted)
    best = 2 + int(np.argmax(on_dev[2:]))
    return PhoneProbe(
        layers=tuple(scores[2:]),
        front_end=scores[1],
        fbank=scores[0],
        phones=tuple(phones.tolist()),
        confusion=confusion_matrix(test_y, predictions[best], labels=range(len(phones))),
        train_frames=len(train),
        test_frames=len(test),
        test_utterances=len(scores[0].totals),
        gain=compare_layers(scores[best], scores[0], seed),
        on_dev=() if dev is None else tuple(on_dev[2:]),
    )


def compare_layers(
    ours: LayerScore, theirs: LayerScore, seed: int = 0, measure: str = "phone accuracy"
) -> Comparison:
    """One layer's probe against another's on the same test frames, paired over utterances.

    Raises :class:`ConfigError` when they were tested on different frames.
    """
    if ours.totals != theirs.totals:
        raise ConfigError(
            "the two probes were tested on different frames: a paired comparison needs the same ones"
        )
    change = np.subtract(ours.hits, theirs.hits)
    interval = ratio_interval(change, ours.totals, seed)
    difference = float(change.sum() / sum(ours.totals))
    return Comparison(difference, interval, measure=measure, less_is_better=False)


def compare_probes(ours: PhoneProbe, theirs: PhoneProbe, seed: int = 0) -> Comparison:
    """Last layer of one model against that of another (:func:`compare_layers`)."""
    return compare_layers(ours.layers[-1], theirs.layers[-1], seed)
