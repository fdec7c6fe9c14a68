"""A linear speaker probe on every layer."""

from __future__ import annotations

import numpy as np

from kdkit.common.errors import ManifestError
from kdkit.common.progress import tqdm
from kdkit.probing.activations import Frames
from kdkit.probing.phones import LayerScore, linear_probe


def probe_speakers(frames: Frames, seed: int = 0) -> list[LayerScore]:
    """Share of frames whose speaker a linear probe recognises, for every feature of ``frames``, with a 95 % interval.

    The probe is trained on a random half of each speaker's utterances (``seed``) and tested on the others; the model
    need not have heard the voices. Speakers with one utterance are left out.

    Raises :class:`ManifestError` when fewer than two speakers have two utterances.
    """
    rng = np.random.default_rng(seed)
    halves: tuple[list[int], list[int]] = ([], [])
    for speaker in np.unique(frames.speakers):
        own = rng.permutation(np.unique(frames.utterances[frames.speakers == speaker]))
        if speaker and len(own) > 1:
            halves[0].extend(own[: len(own) // 2])
            halves[1].extend(own[len(own) // 2 :])
    train, test = (np.isin(frames.utterances, half) for half in halves)
    speakers, labels = np.unique(frames.speakers[train | test], return_inverse=True)
    if len(speakers) < 2:
        raise ManifestError(
            "a speaker probe needs two speakers with two utterances each (field 'speaker' of the manifest); "
            f"{len(speakers)} have that here"
        )
    y = np.full(len(frames), -1)
    y[train | test] = labels
    scores = []
    for name, x in tqdm(
        zip(frames.names, frames.features, strict=True), total=len(frames.names), desc="speakers", leave=False
    ):
        _, predicted = linear_probe(x[train], y[train], x[test], y[test], len(speakers))
        scores.append(LayerScore.of(name, predicted == y[test], frames.utterances[test], seed))
    return scores
