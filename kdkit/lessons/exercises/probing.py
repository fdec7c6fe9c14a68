"""Checks of notebook 01: frames of a waveform, the codebook's logits, the best layer, PNMI and CKA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral

import numpy as np
import torch
from sklearn.metrics import mutual_info_score
from torch import Tensor

from kdkit import probing
from kdkit.lessons.exercises.checking import Wrong, check_answer, checks, close, compare, torch_generator
from kdkit.model.codebook import Codebook
from kdkit.model.waveform import KERNELS, STRIDES
from kdkit.probing import PhoneProbe
from kdkit.speech.frames import num_frames

# --- frames ------------------------------------------------------------------------------------------------------


def _frames_by_counting(samples: int) -> int:
    """Slides the seven kernels of the CNN one after the other and counts their places."""
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        samples = len(range(0, samples - kernel + 1, stride))
    return samples


@checks("frames_of", num_frames)
def check_frames_of(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(samples)`` -> number of 20 ms frames that the waveform CNN makes of that many samples."""

    cases = [(int(n),) for n in rng.integers(1_000, 400_000, 60)]
    edge = 400 + 320 * int(rng.integers(3, 2_000))
    cases += [(edge,), (edge - 1,)]  # where a frame just fits, and where it just does not
    mistakes = [
        (
            "Off by one: the first frame needs 400 samples, and every further one 320; (n - 400) // 320 counts only "
            "the further ones.",
            lambda n: num_frames(n) - 1,
        ),
        ("Off by one: there is one frame too many.", lambda n: num_frames(n) + 1),
        (
            "This is n / 320: it forgets that a frame sees 400 samples, so the last one would hang over the end.",
            lambda n: n // 320,
        ),
        ("This rounds up: a frame only counts where all its 400 samples are there.", lambda n: -(-n // 320)),
        (
            "This rounds up: a frame only counts where all its 400 samples are there.",
            lambda n: -(-(n - 400) // 320) + 1,
        ),
        (
            "This rounds to the nearest whole number: a frame only counts where all its 400 samples are there.",
            lambda n: round((n - 400) / 320) + 1,
        ),
        (
            "The step between frames is 320 samples (20 ms), not 400: frames overlap.",
            lambda n: (n - 400) // 400 + 1,
        ),
        ("The step between frames is 320 samples (20 ms), not 400: frames overlap.", lambda n: n // 400),
        (
            "This counts Fbank frames, 160 samples apart; the CNN makes one every 320.",
            lambda n: (n - 400) // 160 + 1,
        ),
        ("The receptive field is 400 samples, not 320.", lambda n: (n - 320) // 320 + 1),
    ]
    compare(call, cases, _frames_by_counting, mistakes)
    yield "it agrees with sliding the seven convolutions, at random lengths and just beside a border"
    compare(call, [(400,), (719,), (720,)], _frames_by_counting, mistakes)
    yield "400 samples make one frame, 720 the second"


# --- the codebook ------------------------------------------------------------------------------------------------


def cluster_logits(hidden: Tensor, codebook: Codebook) -> Tensor:
    """The package's: the codebook itself."""
    return codebook(hidden)


def _logits_by_hand(hidden: Tensor, codebook: Codebook) -> Tensor:
    """Frame by frame, id by id, in NumPy."""
    weight, bias, embeddings = (
        x.detach().double().numpy()
        for x in (codebook.final_proj.weight, codebook.final_proj.bias, codebook.label_embeddings)
    )
    rows = []
    for frame in hidden.double().numpy():
        projected = weight @ frame + bias
        lengths = np.sqrt(projected @ projected) * np.sqrt(np.square(embeddings).sum(1))
        rows.append(embeddings @ projected / lengths / codebook.tau)
    return torch.tensor(np.array(rows)).float()


@checks("cluster_logits", cluster_logits)
def check_cluster_logits(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(hidden (T, D), codebook)`` -> logits (T, K): cosines of projections and embeddings over tau."""

    cases = []
    for tau in rng.uniform(0.03, 0.6, 3):
        frames, dim, clusters, proj = (int(n) for n in rng.integers(4, 12, 4))
        generator = torch_generator(rng)
        with torch.random.fork_rng(devices=[]):  # the codebook's own start draws from torch's numbers
            codebook = Codebook(dim, clusters, proj, float(tau)).requires_grad_(False)
        for parameter in codebook.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * float(rng.uniform(0.5, 2)))
        cases.append((torch.randn(frames, dim, generator=generator), codebook))

    def unit(x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)

    mistakes = [
        ("The temperature is forgotten: divide the cosines by codebook.tau.", lambda h, c: c(h) * c.tau),
        (
            "The cosines are multiplied by the temperature; divide by it: a small tau has to sharpen.",
            lambda h, c: c(h) * c.tau**2,
        ),
        (
            "Neither side is normalised: a cosine is the dot product of two vectors of length 1.",
            lambda h, c: c.final_proj(h) @ c.label_embeddings.T / c.tau,
        ),
        (
            "The embeddings are not normalised: divide each by its length.",
            lambda h, c: unit(c.final_proj(h)) @ c.label_embeddings.T / c.tau,
        ),
        (
            "The projections are not normalised: divide each by its length.",
            lambda h, c: c.final_proj(h) @ unit(c.label_embeddings).T / c.tau,
        ),
        (
            "These are probabilities: leave the softmax out, logits come before it.",
            lambda h, c: c(h).softmax(-1),
        ),
        (
            "These are log-probabilities: leave the log-softmax out, logits come before it.",
            lambda h, c: c(h).log_softmax(-1),
        ),
        (
            "The normalisation runs over the wrong axis: each frame's vector gets length 1, dim=-1.",
            lambda h, c: (
                torch.nn.functional.normalize(c.final_proj(h), dim=0) @ unit(c.label_embeddings).T / c.tau
            ),
        ),
        (
            "The bias of final_proj is missing: call it as a function, final_proj(hidden).",
            lambda h, c: unit(h @ c.final_proj.weight.T) @ unit(c.label_embeddings).T / c.tau,
        ),
    ]
    shape = "A row for each frame, a column for each id: (T, K)."
    compare(call, cases, _logits_by_hand, mistakes, shape, tolerance=1e-3)
    yield "they are the cosines over tau, for random codebooks and temperatures"


# --- reading the layer curve -------------------------------------------------------------------------------------


def check_best_layer(answer: int | str | None, probe: PhoneProbe) -> None:
    """Is it the number of the layer that is best on dev frames? One that is as high on the test frames, or within the
    interval of the best one, is right, too.
    """
    best = probe.layers[probe.best]
    text = str(answer).strip().upper().removeprefix("H")

    def find(given: object) -> str:
        if isinstance(given, (float, np.floating)) and not float(given).is_integer():
            raise Wrong(
                f"{given} looks like an accuracy; asked for is the number of the layer, from the x axis."
            )
        number = int(given) if isinstance(given, (Integral, float)) else int(text) if text.isdigit() else -1
        if not 0 <= number < len(probe.layers):
            raise Wrong(
                f"{given!r} is no layer: they are 0, the input of layer 1, to {len(probe.layers) - 1}."
            )
        chosen = probe.layers[number]
        if number == probe.best:
            return f"{chosen.name}, with {100 * chosen.accuracy:.1f} % of the frames."
        if chosen.accuracy >= best.accuracy:
            return (
                f"{chosen.name} is {100 * (chosen.accuracy - best.accuracy):.1f} points higher than {best.name}, the "
                "star, on the test voices; the star was chosen on dev, other voices, and so cannot be lucky here."
            )
        if chosen.accuracy >= best.low:
            return (
                f"{chosen.name}: {best.name} is {100 * (best.accuracy - chosen.accuracy):.1f} points higher, but "
                f"{chosen.name} lies within its interval. This much speech cannot tell them apart."
            )
        side = "right" if probe.best > number else "left"
        raise Wrong(
            f"{chosen.name} reads {100 * chosen.accuracy:.1f} % of the frames; the curve is higher to the {side}, "
            "and not only within the interval. The star marks the best layer."
        )

    check_answer("my_best_layer", answer, find)


# --- PNMI --------------------------------------------------------------------------------------------------------


def _pnmi_by_hand(ids: np.ndarray, phones: np.ndarray) -> float:
    """By scikit-learn's mutual information; a label's entropy is its information about itself."""
    return float(mutual_info_score(ids, phones) / mutual_info_score(phones, phones))


@checks("phone_information", probing.pnmi)
def check_phone_information(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(ids (n,), phones (n,))`` -> PNMI, the share of the phone's entropy that the id removes."""

    cases = []
    for _ in range(4):
        phones = rng.choice(list("aeioumnst")[: rng.integers(3, 9)], int(rng.integers(200, 500)))
        own = np.unique(phones, return_inverse=True)[1] * 2 + rng.integers(0, 2, len(phones))
        cases.append(
            (np.where(rng.random(len(phones)) < 0.6, own, rng.integers(0, 20, len(phones))) + 7, phones)
        )

    def information(ids, phones):
        return float(mutual_info_score(ids, phones))

    def entropy(labels):
        return information(labels, labels)

    mistakes = [
        (
            "This is the mutual information itself: divide it by the entropy of the phones, H(phone).",
            information,
        ),
        (
            "This is the mutual information in bits: divide it by the entropy of the phones, in the same unit.",
            lambda i, p: information(i, p) / np.log(2),
        ),
        (
            "It is divided by the entropy of the ids; PNMI is the share of the *phone's* entropy.",
            lambda i, p: information(i, p) / entropy(i),
        ),
        (
            "It is divided by the mean of both entropies (that is NMI); PNMI divides by the phone's alone.",
            lambda i, p: 2 * information(i, p) / (entropy(i) + entropy(p)),
        ),
        (
            "This is the share that is *left* when the id is known; take it from 1.",
            lambda i, p: 1 - information(i, p) / entropy(p),
        ),
        ("The sign is wrong: an entropy is minus the sum of P log P.", lambda i, p: -_pnmi_by_hand(i, p)),
        (
            "This is the purity (the share of frames whose phone the id names); PNMI compares entropies.",
            lambda i, p: float(probing.phone_purity(i, p)),
        ),
        (
            "The number of frames is left in: P(phone, id) has to sum to 1.",
            lambda i, p: len(p) * _pnmi_by_hand(i, p),
        ),
    ]
    compare(call, cases, _pnmi_by_hand, mistakes, "PNMI is one number.")
    yield "it agrees with scikit-learn's mutual information, on random ids and phones"
    phones = cases[0][1]
    order = rng.permutation(100)
    perfect = order[np.unique(phones, return_inverse=True)[1]]
    for ids, value, words in (
        (perfect, 1.0, "one id for each phone"),
        (np.zeros(len(phones), dtype=int), 0.0, "the same id everywhere"),
    ):
        compare(lambda i, p, words=words: _said(call(i, p), words), [(ids, phones)], lambda i, p, v=value: v)
    yield "it is 1 where the id names the phone and 0 where all ids are equal, whatever the ids are called"


def _said(value, words: str):
    if not np.isfinite(float(value)):
        raise Wrong(
            f"For {words} it is {float(value)}: leave out cells of the table that are 0, 0 log 0 counts as 0."
        )
    return value


# --- CKA ---------------------------------------------------------------------------------------------------------


def _cka_by_kernels(x: np.ndarray, y: np.ndarray) -> float:
    """By the kernels of frames with frames (n, n), centred: nothing of the formula of the notebook is used."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = (centre @ (z @ z.T) @ centre for z in (x, y))
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


@checks("alignment", probing.linear_cka)
def check_alignment(call: Callable, rng: np.random.Generator) -> Iterator[str]:
    """``attempt(x (n, D1), y (n, D2))`` -> linear CKA, 0 .. 1."""

    cases = []
    for _ in range(4):
        n, d1, d2 = int(rng.integers(20, 60)), int(rng.integers(3, 9)), int(rng.integers(3, 9))
        x = rng.normal(size=(n, d1)) * rng.uniform(0.5, 2, d1) + rng.normal(size=d1) * 2
        cases.append((x, x @ rng.normal(size=(d1, d2)) + rng.normal(size=(n, d2)) + rng.normal(size=d2) * 2))

    def parts(x, y):
        return (np.linalg.norm(a.T @ b) for a, b in ((x, y), (x, x), (y, y)))

    def formula(x, y, power=2, root=False):
        xy, xx, yy = parts(x, y)
        return float(xy**power / (np.sqrt(xx * yy) if root else xx * yy))

    def centred(x, axis=0):
        return x - x.mean(axis, keepdims=True)

    def length(x, y):
        x, y = centred(x), centred(y)
        return float(np.linalg.norm(x.T @ y) ** 2 / np.linalg.norm(x) ** 2 / np.linalg.norm(y) ** 2)

    mistakes = [
        ("The activations are not centred: take the mean over frames away first.", formula),
        (
            "Centred over the wrong axis: the mean of each dimension runs over frames, mean(0).",
            lambda x, y: formula(centred(x, 1), centred(y, 1)),
        ),
        (
            "Centred by one mean over everything: each dimension has its own, mean(0).",
            lambda x, y: formula(x - x.mean(), y - y.mean()),
        ),
        (
            "The square in the numerator is missing.",
            lambda x, y: formula(centred(x), centred(y), power=1),
        ),
        (
            "A square root too many: the denominator is the product of the two norms itself.",
            lambda x, y: formula(centred(x), centred(y), root=True),
        ),
        (
            "This is the square root of CKA: the numerator is a squared norm.",
            lambda x, y: np.sqrt(formula(centred(x), centred(y))),
        ),
        (
            "The denominator has the norms of X and Y; it needs those of X^T X and Y^T Y.",
            length,
        ),
    ]
    compare(call, cases, _cka_by_kernels, mistakes, "CKA is one number.")
    yield "it agrees with CKA by kernels of frames, on random activations"
    x = cases[0][0]
    rotation, _ = np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))
    turned = float(rng.uniform(0.5, 3)) * x @ rotation + rng.normal(size=x.shape[1])
    if not close(float(call(x, turned)), 1.0):
        raise Wrong("X rotated, scaled and shifted holds the same, so CKA with X has to be 1; it is not.")
    yield "it is 1 for the same activations, rotated, scaled and shifted"
