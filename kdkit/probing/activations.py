"""Samples of a model's activations: every layer at random frames of a corpus, with the phone of each frame.

:func:`collect` streams over the corpus and keeps its sample on disk; :mod:`kdkit.probing` measures it layer by layer.
Silent frames (phone "") are left out: they are frequent and easy for every feature, and would raise all curves alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryFile, gettempdir

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.common.errors import ManifestError
from kdkit.common.files import writing
from kdkit.common.progress import tqdm
from kdkit.fbank import Fbank, deltas
from kdkit.speech.batches import Batches
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import Utterance, frame_phones

Extract = Callable[[Tensor, Tensor], tuple[list[Tensor], Tensor]]
"""``extract(waves (B, S), lengths (B,))`` -> one (B, T, D) tensor per layer, and the number of real frames (B,)."""


def fbank_deltas(waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
    """The baseline without learning: Fbank with first and second differences, 240 values per frame.

    Every second 100 Hz frame is taken: frame 2t starts at sample 320 t and is 400 long, exactly the samples of frame t
    of a HuBERT model. Differences (:func:`kdkit.fbank.deltas`) are taken at 100 Hz, utterance by utterance, so that
    padding has no part in them. An :data:`Extract`: (B, S) -> [(B, T, 240)], (B,).
    """
    fbank, rows = Fbank().to(waves.device), []
    for wave, length in zip(waves, lengths.tolist(), strict=True):
        static = fbank(wave[None, :length])[0].T  # (80, frames at 100 Hz)
        first = deltas(static)
        rows.append(torch.cat([static, first, deltas(first)]).T[::2])  # (T, 240)
    return [nn.utils.rnn.pad_sequence(rows, batch_first=True)], num_frames(lengths)


class ModelLayers:
    """An :data:`Extract` for a model: Fbank + deltas (``baseline``), its front-end features, then H^0 .. H^L.

    Front-end features are the output of the waveform CNN, before normalisation and projection, or of the Fbank
    front-end. During a call the model is in evaluation mode and has a hook on the front-end.
    """

    def __init__(self, model: nn.Module, baseline: bool = True):
        self.model, self.baseline = getattr(model, "model", model), baseline  # a Teacher has a model
        layers = self.model.config.layers + 1
        self.names = ["Fbank + deltas"] * baseline + ["front-end"] + [f"H{layer}" for layer in range(layers)]
        self.device = next(self.model.parameters()).device

    @torch.inference_mode()
    def __call__(self, waves: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        waves, lengths = waves.to(self.device), lengths.to(self.device)
        seen, front_end = [], self.model.front_end
        hook = getattr(front_end, "cnn", front_end).register_forward_hook(lambda *call: seen.append(call[-1]))
        training = self.model.training
        try:
            output = self.model.eval()(waves, lengths)
        finally:
            hook.remove()
            self.model.train(training)
        first = fbank_deltas(waves, lengths)[0] if self.baseline else []
        return [*first, *seen, *output.hidden], output.frames


@dataclass
class Frames:
    """Sampled frames: ``features[layer]`` (n, D) float32; phone, utterance and speaker of each frame.

    Features from :func:`collect` are memory-mapped files without a name, which end with the object.
    """

    features: list[np.ndarray]
    phones: np.ndarray  # (n,) str, never ""
    utterances: np.ndarray  # (n,) int, position in the list that was given
    speakers: np.ndarray  # (n,) str
    names: list[str] = field(default_factory=list)  # of the layers

    def __len__(self) -> int:
        return len(self.phones)


def collect(
    extract: Extract,
    utterances: Sequence[Utterance],
    frames: int = 20_000,
    seed: int = 0,
    per_utterance: int = 100,
    seconds_per_batch: float = 32.0,
) -> Frames:
    """Runs ``extract`` over utterances until it has ``frames`` non-silent frames.

    Speakers take turns, each with a random utterance, which contributes up to ``per_utterance`` random frames (more if
    the corpus is too short otherwise). The choice of frames depends only on the manifest and ``seed``, so that two
    models are probed on the same frames. One batch of activations is in memory at a time.

    Raises :class:`ManifestError` when no utterance has phone times, :class:`OutputError` when the folder of temporary
    files has no room.
    """
    plan = _plan(utterances, frames, per_utterance, seed)
    if not plan:
        raise ManifestError(
            f"none of the {len(utterances)} utterances has phone times: a phone probe needs them "
            "(field 'phones' of the manifest, see kdkit.speech.manifest)"
        )
    position = {utterances[i].id: i for i in plan}
    batches = Batches([utterances[i] for i in plan], seconds_per_batch=seconds_per_batch)
    room = sum(len(chosen) for chosen, _ in plan.values())
    features, phones, owners = [], [], []
    bar = tqdm(total=len(plan), desc="features", unit="utt", leave=False, mininterval=1.0)
    for batch in batches.epoch():
        hidden, counts = extract(batch.waves, batch.lengths)
        rows, columns = [], []
        for row, utterance in enumerate(batch.utterances):
            chosen, labels = plan[position[utterance.id]]
            real = chosen < int(counts[row])  # the manifest's duration is rounded
            rows += [row] * int(real.sum())
            columns += chosen[real].tolist()
            phones += labels[real].tolist()
            owners += [position[utterance.id]] * int(real.sum())
        if not features:
            features = [_on_disk(room, layer.shape[-1]) for layer in hidden]
        for file, layer in zip(features, hidden, strict=True):
            file[len(owners) - len(rows) : len(owners)] = layer[rows, columns].float().cpu().numpy()
        bar.update(len(batch.utterances))
    bar.close()
    batches.close()
    layers = [file[: len(owners)] for file in features]
    owners = np.array(owners)
    speakers = np.array([utterances[i].speaker for i in owners])
    names = getattr(extract, "names", [str(i) for i in range(len(layers))])
    return Frames(layers, np.array(phones), owners, speakers, list(names))


def _on_disk(rows: int, columns: int) -> np.ndarray:
    """A float32 array in a temporary file without a name: nothing stays behind, not even of a killed process."""
    with writing(Path(gettempdir())), TemporaryFile(prefix="kdkit-frames-") as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and no signal later on
            os.posix_fallocate(file.fileno(), 0, 4 * rows * columns)
        return np.memmap(file, np.float32, "w+", shape=(rows, columns))


def _plan(utterances, frames: int, per_utterance: int, seed: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """{position of the utterance: (frame numbers, phones)}: the frames to keep, chosen before audio is read."""
    rng = np.random.default_rng(seed)
    turns: dict[str, list[int]] = {}
    for i in rng.permutation(len(utterances)):
        turns.setdefault(utterances[i].speaker, []).append(int(i))
    spoken, total = {}, 0
    for i in (i for turn in zip_longest(*turns.values()) for i in turn if i is not None):
        labels = np.array(frame_phones(utterances[i], num_frames(utterances[i].samples)))
        candidates = np.flatnonzero(labels != "")
        if len(candidates):
            spoken[i] = rng.permutation(candidates), labels
            total += min(len(candidates), per_utterance)
        if total >= frames:
            break
    counts = np.array([len(candidates) for candidates, _ in spoken.values()])
    cap = per_utterance
    while np.minimum(counts, cap).sum() < min(frames, counts.sum()):
        cap += 1
    plan = {}
    for i, (candidates, labels) in spoken.items():
        chosen = np.sort(candidates[: min(cap, frames)])
        frames -= len(chosen)
        if len(chosen):
            plan[i] = chosen, labels[chosen]
    return plan
