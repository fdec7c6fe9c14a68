"""The teacher's hidden states as training targets, kept on disk for several students or epochs.

    cache = TargetCache(teacher, layers=(4, 8, 12), utterances=speech)
    print(cache.announcement)                      # size on disk, before anything is written
    cache.build()                                  # once; resumes where it was stopped
    batches = Batches(speech, targets=cache)       # prefetched with the audio

A cache is a folder of shards: safetensors files, read by memory mapping, with one float16 tensor (layers, frames, dim)
per utterance. The folder's name contains hashes of the teacher's weights and the corpus, and the layers. The header of
a shard holds a hash of everything that it depends on: the teacher's weights and settings, the layers, and path, size
and modification time of each audio file. A shard that is damaged or out of date is rebuilt by ``build`` and rejected by
``read``.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.common.files import cache_folder, free_bytes, write_atomically
from kdkit.common.machine import best_device, training_precision
from kdkit.common.progress import tqdm
from kdkit.speech.batches import Targets
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import Utterance
from kdkit.teachers.teacher import Teacher, fingerprint, hidden_states

_SHARD = 256  # utterances in a file
_HEADER = "kdkit-targets"  # a single key, as in kdkit.model.checkpoints


class TargetCache:
    """Hidden states of ``layers`` for ``utterances``, in a folder under ``root`` (None: the kit's cache folder).

    ``precision``: of the computation, as in :class:`kdkit.training.recipe.TrainConfig`; stored is float16. Raises
    :class:`ConfigError` for a layer that the teacher does not have, and for no utterances.
    """

    def __init__(
        self,
        teacher: Teacher,
        layers: Sequence[int],
        utterances: Sequence[Utterance],
        root: Path | None = None,
        precision: str = "auto",
    ):
        self.layers = tuple(sorted(set(layers)))
        if not self.layers or not 0 <= self.layers[0] <= self.layers[-1] <= teacher.config.layers:
            raise ConfigError(f"layers {self.layers}: the teacher has layers 0 to {teacher.config.layers}")
        if not utterances:
            raise ConfigError("no utterances to compute targets of; check the manifest and the minutes")
        self.teacher, self.utterances, self.identity = teacher, list(utterances), fingerprint(teacher.model)
        corpus = hashlib.sha256()
        for utterance in self.utterances:
            corpus.update(_named(utterance))
        self.precision = training_precision(precision, best_device())
        name = "-".join(map(str, self.layers)) + ("" if self.precision == "fp32" else f"-{self.precision}")
        self.folder = (
            (root or cache_folder()) / "targets" / f"{self.identity}-{corpus.hexdigest()[:12]}-{name}"
        )
        self._place = {u.id: i // _SHARD for i, u in enumerate(self.utterances)}
        self._open: dict[int, tuple[object, dict[str, int]]] = {}

    @property
    def made_of(self) -> dict:
        """What decides the targets besides the speech (:mod:`kdkit.training.identity`)."""
        computed = "" if self.precision == "fp32" else f" of {self.precision}"
        return {"teacher": self.identity, "kept as": f"float16{computed}"}

    @property
    def bytes(self) -> int:
        """Size of the complete cache in bytes."""
        frames = sum(int(num_frames(u.samples)) for u in self.utterances)
        return 2 * frames * len(self.layers) * self.teacher.config.dim

    @property
    def announcement(self) -> str:
        """A sentence that says what is cached, how large it is and where."""
        layers = ", ".join(map(str, self.layers))
        hours = sum(u.duration for u in self.utterances) / 3600
        return f"teacher targets: layers {layers} of {hours:.1f} hours take {self.bytes / 1e9:.2f} GB in {self.folder}"

    def build(self, seconds_per_batch: float = 64, progress: bool = True) -> TargetCache:
        """Computes the shards that are missing and writes each of them atomically.

        Raises :class:`ConfigError` before anything is written when the disk has too little space.
        """
        shards = range((len(self.utterances) + _SHARD - 1) // _SHARD)
        missing = []
        self._open.clear()
        for shard in shards:
            try:
                self._shard(shard)
            except CheckpointError as error:
                missing.append(shard)
                if self._path(shard).exists():
                    print(f"made again: {error}")
        self.folder.mkdir(parents=True, exist_ok=True)
        needed, free = self.bytes * len(missing) / len(shards), free_bytes(self.folder)
        if needed > 0.95 * free:
            raise ConfigError(
                f"{self.announcement}; {free / 1e9:.2f} GB are free: compute targets live, keep fewer layers or less "
                "speech, or move the cache ($KDKIT_CACHE)"
            )
        total = sum(len(self._some(shard)) for shard in missing)
        bar = tqdm(total=total, desc="teacher targets", unit="utt", disable=not (progress and missing))
        for shard in missing:
            self._write(shard, seconds_per_batch, bar)
        bar.close()
        return self

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": {}}  # each process opens the shards itself

    def read(self, utterances: Sequence[Utterance], frames: Sequence[int], total: int) -> Targets:
        """Targets of a batch of ``total`` frames, padded with zeros; called by :class:`kdkit.speech.batches.Batches`.

        ``frames``: frames of each utterance's audio. Raises :class:`CheckpointError` for targets that are missing,
        damaged, out of date, or of another number of frames.
        """
        hidden = torch.zeros(
            len(self.layers), len(utterances), total, self.teacher.config.dim, dtype=torch.float16
        )
        for row, (utterance, count) in enumerate(zip(utterances, frames, strict=True)):
            states = self._states(utterance)
            if states.shape[1] != count:
                raise CheckpointError(
                    f"{utterance.id}: its targets have {states.shape[1]} frames, {utterance.audio} has {count}: the "
                    "file was changed after they were made; build the cache (again)"
                )
            hidden[:, row, :count] = states
        return Targets(dict(zip(self.layers, hidden, strict=True)), self.identity)

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.safetensors"

    def _some(self, shard: int) -> list[Utterance]:
        return self.utterances[shard * _SHARD : (shard + 1) * _SHARD]

    def _origin(self, shard: int) -> str:
        """A hash of everything that a shard's targets depend on."""
        digest = hashlib.sha256(json.dumps(self.teacher.config.to_dict(), sort_keys=True).encode())
        digest.update(f"{self.identity} {self.layers} {self.precision}\n".encode())
        for utterance in self._some(shard):
            try:
                found = os.stat(utterance.audio)
                when = f"{found.st_size}\t{found.st_mtime_ns}"
            except (OSError, ValueError):
                when = "not there"
            digest.update(_named(utterance, when))
        return digest.hexdigest()

    def _shard(self, shard: int) -> tuple[object, dict[str, int]]:
        """An open shard and its tensors' checksums. Raises :class:`CheckpointError` if it is damaged or out of date."""
        if shard not in self._open:
            path = self._path(shard)
            try:
                file = safe_open(path, framework="pt")  # a truncated file does not open
                about = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
                kinds = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            except (OSError, SafetensorError, ValueError) as error:
                raise CheckpointError(
                    f"{path}: no whole shard of teacher targets ({error}); build the cache (again)"
                ) from error
            ids, dim = {utterance.id for utterance in self._some(shard)}, self.teacher.config.dim
            about = about if isinstance(about, dict) else {}
            sums = about.get("checksums")
            known = isinstance(sums, dict) and about.get("origin") == self._origin(shard)
            if not known or not kinds.keys() == sums.keys() <= ids:
                raise CheckpointError(
                    f"{path}: targets of another teacher, other audio files or files changed since; build the cache "
                    "(again)"
                )
            for name, kind in kinds.items():
                shape = kind.get_shape()
                if (
                    kind.get_dtype() != "F16"
                    or len(shape) != 3
                    or (shape[0], shape[2]) != (len(self.layers), dim)
                ):
                    raise CheckpointError(
                        f"{path}: the targets of {name} are {kind.get_dtype()} {shape}, not float16 "
                        f"({len(self.layers)}, frames, {dim}); build the cache (again)"
                    )
            self._open[shard] = file, sums
        return self._open[shard]

    def _states(self, utterance: Utterance) -> Tensor:
        """(layers, frames, dim) of one utterance."""
        shard = self._place[utterance.id]
        file, checksums = self._shard(shard)
        if utterance.id not in checksums:
            raise CheckpointError(
                f"{self._path(shard)}: no targets of {utterance.id}, whose audio could not be read; build the cache "
                "(again)"
            )
        states = file.get_tensor(utterance.id)
        if _checksum(states) != checksums[utterance.id]:
            raise CheckpointError(
                f"{self._path(shard)}: the targets of {utterance.id} are damaged; delete the file, and build the cache "
                "again"
            )
        return states

    def _write(self, shard: int, seconds_per_batch: float, bar) -> None:
        origin, tensors = self._origin(shard), {}  # before the files are read
        model = self.teacher.model.to(best_device())
        for utterance, states in hidden_states(
            model, self._some(shard), self.layers, seconds_per_batch, self.precision, torch.float16
        ):
            tensors[utterance.id] = states.contiguous()
            bar.update()
        checksums = {name: _checksum(states) for name, states in tensors.items()}
        header = {_HEADER: json.dumps({"origin": origin, "checksums": checksums})}
        write_atomically(self._path(shard), lambda temporary: save_file(tensors, temporary, header))


def _named(utterance: Utterance, *further: str) -> bytes:
    """Id, path and duration of an utterance, for a hash; the path may hold bytes that are no UTF-8."""
    said = "\t".join([utterance.id, str(utterance.audio), str(utterance.duration), *further])
    return f"{said}\n".encode("utf-8", "surrogateescape")


def _checksum(states: Tensor) -> int:
    return zlib.crc32(states.view(torch.uint8).numpy())
