"""Batches of padded waveforms: in training a pure function of (seed, step), in evaluation one pass by length.

Padding is wasted computation, so utterances of similar length are batched together. Training sorts them by length and
cuts the list into buckets; each epoch shuffles every bucket, cuts it into batches, and shuffles the batches. A bucket's
batch size follows from its longest utterance, so a batch never exceeds ``seconds_per_batch`` of padded audio, and the
number of steps in an epoch is fixed. A batch depends on nothing but seed and step, so a resumed run gets the same ones.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdkit.common.errors import AudioError, ConfigError, TrainingError
from kdkit.common.parallel import compute_on_one_core, cores
from kdkit.speech.audio import read_audio, to_int16
from kdkit.speech.frames import SAMPLE_RATE, num_frames
from kdkit.speech.manifest import Utterance, speech_identity

_BATCHES_PER_BUCKET = 8  # more: better shuffled; fewer: less padding
_PREFETCH = 3  # batches read ahead, at least
_READERS = 8  # threads with a GPU, which may process speech faster than one thread decodes FLAC
GRAIN = 3200  # samples: widths are multiples of it, because on a CPU every new shape costs the set-up of a convolution


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor, made on the host, copied to ``device`` asynchronously."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass
class Targets:
    """Hidden states of ``teacher`` for a batch: ``hidden[layer]`` is (B, T, D), zeros on padding."""

    hidden: Mapping[int, Tensor]
    teacher: str

    def to(self, device: torch.device | str) -> Targets:
        moved = {layer: states.to(device, non_blocking=True) for layer, states in self.hidden.items()}
        return Targets(moved, self.teacher)

    def check(self, teacher: str, layers: set[int]) -> None:
        """Raises :class:`ConfigError` for targets of another teacher, or without one of ``layers``."""
        if self.teacher != teacher:
            raise ConfigError(
                f"cached targets are of another teacher ({self.teacher}, this one is {teacher}); build the cache with "
                "this one"
            )
        missing = sorted(layers - self.hidden.keys())
        if missing:
            raise ConfigError(
                f"cached targets lack the layers {missing}; build the cache with {sorted(layers)}"
            )

    def pinned(self) -> Targets:
        """See :meth:`Batch.pinned`."""
        return Targets({layer: states.pin_memory() for layer, states in self.hidden.items()}, self.teacher)


class TargetSource(Protocol):
    """What :class:`Batches` reads targets from (:class:`kdkit.teachers.targets.TargetCache`); ``made_of``: for the
    identity of a run.
    """

    made_of: dict

    def read(self, utterances: Sequence[Utterance], frames: Sequence[int], total: int) -> Targets: ...


@dataclass
class Batch:
    """Waveforms padded with zeros at the end, and their true lengths."""

    waves: Tensor  # (batch, samples) float32, 16 kHz
    lengths: Tensor  # (batch,) int64, samples before the padding
    utterances: list[Utterance]
    targets: Targets | None = None  # hidden states of a teacher, from a cache
    on_host: Tensor | None = None  # the lengths on the host: reading them causes no GPU sync

    def __post_init__(self):
        if self.on_host is None:
            self.on_host = self.lengths.cpu()

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device; from pinned memory (:meth:`pinned`) the copy is asynchronous."""
        return Batch(
            self.waves.to(device, non_blocking=True),
            self.lengths.to(device, non_blocking=True),
            self.utterances,
            self.targets and self.targets.to(device),
            self.on_host,
        )

    def widened(self, samples: int) -> Batch:
        """The batch padded to a width of ``samples``, so that few different shapes occur."""
        more = samples - self.waves.shape[1]
        if more <= 0 or self.targets is not None:
            return self
        return replace(self, waves=F.pad(self.waves, (0, more)))

    def pinned(self) -> Batch:
        """The batch in pinned host memory."""
        targets = self.targets and self.targets.pinned()
        return Batch(
            self.waves.pin_memory(), self.lengths.pin_memory(), self.utterances, targets, self.on_host
        )

    @property
    def seconds(self) -> float:
        """Seconds of audio, padding not counted."""
        return float(self.on_host.sum()) / SAMPLE_RATE

    def __len__(self) -> int:
        return len(self.utterances)


def collate(waves: Sequence[Tensor], utterances: Sequence[Utterance] = (), grain: int = 1) -> Batch:
    """One batch of waveforms (samples,): (batch, longest), the width rounded up to a multiple of ``grain``."""
    lengths = torch.tensor([len(wave) for wave in waves], dtype=torch.int64)
    padded = torch.zeros(len(waves), math.ceil(int(lengths.max()) / grain) * grain)
    for row, wave in zip(padded, waves, strict=True):
        row[: len(wave)] = wave
    return Batch(padded, lengths, list(utterances))


class Batches:
    """Batches of a list of utterances.

        batches = Batches(utterances, seconds_per_batch=32, seed=0)
        batches.batch(step)                 for training: any step from 0 on; one epoch is steps_per_epoch steps
        for batch in batches.epoch(): ...   for evaluation: every utterance once, longest first

    ``seconds_per_batch`` limits a batch's padded audio, before its width is rounded up to 0.2 s; a longer utterance is
    a batch of its own. ``workers``: threads that read the next batches in the background (0: none; default: one, with a
    GPU one for each core up to eight). ``cache`` keeps the audio in memory as 16-bit samples, 115 MB an hour.
    ``targets`` (:class:`kdkit.teachers.targets.TargetCache`) adds the teacher's hidden states to every batch.

    A file that cannot be read is left out of its batch and listed in ``skipped`` as (id, reason); the first one is
    reported by a warning. Raises ConfigError for no utterances or impossible settings, TrainingError when more than
    half of the files cannot be read.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        seconds_per_batch: float = 32.0,
        seed: int = 0,
        workers: int | None = None,
        cache: bool = False,
        targets: TargetSource | None = None,
        read: Callable[[Path], Tensor] = read_audio,
    ):
        if not utterances:
            raise ConfigError("no utterances to make batches of; check the manifest and the minutes")
        if not seconds_per_batch > 0:
            raise ConfigError(f"seconds_per_batch must be more than 0, not {seconds_per_batch}")
        self.utterances = list(utterances)
        self.seconds_per_batch = seconds_per_batch
        self.seed = seed
        self._targets = targets
        self.stride = 1  # steps between two calls of batch: the number of processes
        self.skipped: list[tuple[str, str]] = []
        self._bad: set[int] = set()
        self._cache: dict[int, np.ndarray] | None = {} if cache else None
        self._read = read
        self._buckets = self._make_buckets()
        self.steps_per_epoch = sum(math.ceil(len(bucket) / size) for bucket, size in self._buckets)
        self._plan: tuple[int, list[np.ndarray]] = (-1, [])
        self._lock = threading.Lock()
        if workers is None:
            workers = min(_READERS, cores()) if torch.cuda.is_available() else 1
        self._prefetch = max(_PREFETCH, 2 * workers)
        self._pool = ThreadPoolExecutor(workers, "batches", compute_on_one_core) if workers else None
        self._ahead: dict[int, Future[Batch]] = {}

    @property
    def identity(self) -> dict:
        """What determines the batches (:mod:`kdkit.training.identity`)."""
        return {
            "speech": speech_identity(self.utterances),
            "batch seconds": self.seconds_per_batch,
            "order": self.seed,
            "targets": self._targets.made_of if self._targets else "computed",
        }

    @property
    def seconds(self) -> float:
        """Seconds of audio in all utterances, by the manifest's durations."""
        return sum(utterance.duration for utterance in self.utterances)

    def batch(self, step: int) -> Batch:
        """The batch of training step ``step``, determined by seed, step and utterances alone."""
        if step < 0:
            raise ConfigError(f"a training step is 0 or more, not {step}")
        if self._pool is None:
            return self._load_step(step)
        future = self._ahead.pop(step, None)
        batch = future.result() if future is not None else self._load_step(step)
        wanted = [step + turn * self.stride for turn in range(1, self._prefetch + 1)]
        for other in [s for s in self._ahead if s not in wanted]:
            self._ahead.pop(other).cancel()  # after a jump to another step
        for ahead in wanted:
            if ahead not in self._ahead:
                self._ahead[ahead] = self._pool.submit(self._load_step, ahead)
        return batch

    def epoch(self) -> Iterator[Batch]:
        """Every readable utterance once, longest first, so that running out of memory happens in the first batch.

        Raises TrainingError when no file can be read.
        """
        order = sorted(range(len(self.utterances)), key=lambda i: (-self.utterances[i].duration, i))
        plan, start = [], 0
        while start < len(order):
            size = max(1, int(self.seconds_per_batch / self.utterances[order[start]].duration))
            plan.append(order[start : start + size])
            start += size
        if self._pool is None:
            loading = map(self._load, plan)
        else:
            loading = self._load_ahead(plan)
        found = False
        for batch in loading:
            if len(batch):
                found = True
                yield batch
        if not found:
            raise TrainingError(self._unreadable())

    def indices(self, step: int) -> list[int]:
        """Positions in ``utterances`` of the batch of training step ``step``."""
        epoch, position = divmod(step, self.steps_per_epoch)
        with self._lock:
            if self._plan[0] != epoch:
                self._plan = (epoch, self._plan_epoch(epoch))
            return self._plan[1][position].tolist()

    def close(self) -> None:
        """Stops reading ahead."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool, self._ahead = None, {}

    def _make_buckets(self) -> list[tuple[np.ndarray, int]]:
        """[(positions of like length, batch size), ...]"""
        durations = np.array([utterance.duration for utterance in self.utterances])
        order = np.argsort(durations, kind="stable")[::-1]
        buckets, start = [], 0
        while start < len(order):
            size = max(1, int(self.seconds_per_batch / durations[order[start]]))
            stop = start + size * _BATCHES_PER_BUCKET
            buckets.append((order[start:stop], size))
            start = stop
        return buckets

    def _plan_epoch(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, epoch])
        plan = []
        for bucket, size in self._buckets:
            shuffled = rng.permutation(bucket)
            plan += [shuffled[i : i + size] for i in range(0, len(shuffled), size)]
        return [plan[i] for i in rng.permutation(len(plan))]

    def _load_step(self, step: int) -> Batch:
        # a batch without a readable file is replaced by the next one; two epochs contain every batch
        for candidate in range(step, step + 2 * self.steps_per_epoch):
            batch = self._load(self.indices(candidate))
            if len(batch):
                return batch
        raise TrainingError(self._unreadable())

    def _load(self, indices: Sequence[int]) -> Batch:
        waves = [self._wave(i) for i in indices]
        utterances = [self.utterances[i] for i, wave in zip(indices, waves, strict=True) if wave is not None]
        waves = [wave for wave in waves if wave is not None]
        if not waves:
            return Batch(torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64), [])
        batch = collate(waves, utterances, GRAIN)
        if self._targets is not None:
            frames = num_frames(batch.lengths).tolist()
            batch.targets = self._targets.read(utterances, frames, int(num_frames(batch.waves.shape[1])))
        return batch.pinned() if torch.cuda.is_available() else batch

    def _load_ahead(self, plan: list[list[int]]) -> Iterator[Batch]:
        futures: list[Future[Batch]] = []
        for indices in plan:
            futures.append(self._pool.submit(self._load, indices))
            if len(futures) > self._prefetch:
                yield futures.pop(0).result()
        for future in futures:
            yield future.result()

    def _wave(self, i: int) -> Tensor | None:
        if i in self._bad:
            return None
        if self._cache is not None and i in self._cache:
            return torch.from_numpy(self._cache[i].astype(np.float32) / 32768.0)
        try:
            wave = self._read(self.utterances[i].audio)
        except AudioError as error:
            self._skip(i, str(error))
            return None
        if self._cache is not None:
            self._cache[i] = to_int16(wave.numpy())
            return torch.from_numpy(self._cache[i].astype(np.float32) / 32768.0)
        return wave

    def _skip(self, i: int, reason: str) -> None:
        with self._lock:
            if i in self._bad:
                return
            self._bad.add(i)
            self.skipped.append((self.utterances[i].id, reason))
            count = len(self.skipped)
        if count > len(self.utterances) / 2:
            raise TrainingError(self._unreadable())
        if count == 1:
            warnings.warn(
                f"skipped an utterance: {reason} (all that are skipped are listed in .skipped)", stacklevel=2
            )

    def _unreadable(self) -> str:
        bad, total = len(self.skipped), len(self.utterances)
        return f"{bad} of {total} audio files cannot be read (was the corpus moved?); the first: {self.skipped[0][1]}"
