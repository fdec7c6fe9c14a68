"""The synthetic corpus: speech of any amount, with transcripts and exact phone times, from eSpeak NG.

    <root>/synthetic-v1-seed0/train/manifest.jsonl        every block of the split, in order
    <root>/synthetic-v1-seed0/train/00000/manifest.jsonl  one block: 25 utterances
    <root>/synthetic-v1-seed0/train/00000/00.wav ... 24.wav

A block is made in a folder of its own that is renamed when complete, so a build that is killed, or several
builds at once, never leave a half-written block, and the next build goes on where the last one stopped. What
an utterance says and who says it follows from (seed, split, number) alone: a longer split begins with the
shorter one. What is said, by whom and where, depends on its version (:mod:`.versions`).
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from kdkit.common.errors import ConfigError, KdkitError
from kdkit.common.files import cache_folder, check_output, partial_name, sweep, writing
from kdkit.common.parallel import ISOLATED, cores
from kdkit.common.progress import tqdm
from kdkit.speech.audio import wav_bytes
from kdkit.speech.corpora.synthetic import espeak, grammar
from kdkit.speech.corpora.synthetic.saying import synthesise
from kdkit.speech.corpora.synthetic.versions import VERSIONS
from kdkit.speech.frames import SAMPLE_RATE
from kdkit.speech.manifest import Utterance, read_manifest, subset, write_manifest

BLOCK = 25  # utterances

_TYPICAL_SECONDS = 2.6  # of an utterance: only decides how many blocks are started at first


def build_synthetic(
    root: str | Path | None = None,
    minutes: dict[str, float] | None = None,
    seed: int = 0,
    progress: bool = True,
    version: int = 1,
) -> dict[str, list[Utterance]]:
    """Make the splits that are asked for, unless they are on disk already, and return them.

    `root` is the folder that holds corpora (None: cache_folder()). `minutes` gives the length of each split
    wanted ("unlabelled", "train", "dev", "test-clean", "test-other", in version 2 also "dev-other"); None stands
    for all at their usual length. A split on disk is extended when it is too short; when it is longer, its
    beginning is returned. "test-clean" has voices never heard in training; "test-other" has other voices, other
    accents, noise and reverberation. All cores work; one makes an hour of speech in some 10 seconds. In
    `version` 2 the first labelled minutes are of few voices, and do not contain all words (:mod:`.versions`).

    Raises ConfigError for an unknown version or split, or a length that is not positive.
    """
    if version not in VERSIONS:
        raise ConfigError(
            f"synthetic corpus: no version {version!r}; there are {', '.join(map(str, VERSIONS))}"
        )
    usual = VERSIONS[version].minutes
    minutes = dict(usual if minutes is None else minutes)
    for split, length in minutes.items():
        if split not in usual:
            raise ConfigError(f"synthetic corpus: no split {split!r}; there are {', '.join(usual)}")
        if not (math.isfinite(length) and length > 0):
            raise ConfigError(f"synthetic corpus: minutes of {split!r} must be more than 0, not {length}")
    folder = Path(root or cache_folder()) / f"{VERSIONS[version].name}-seed{seed}"
    return {
        split: _build_split(folder / split, split, length, seed, progress, version)
        for split, length in minutes.items()
    }


def speak(split: str, number: int, seed: int = 0, version: int = 1) -> tuple[np.ndarray, dict[str, object]]:
    """One utterance of the corpus: (waveform (samples,) float32 at 16 kHz, its manifest fields).

    The draw (sentence, speaker, rate, pitch, gain, noise) depends on (version, seed, split, number) only; the wavering
    of the voice also on what the engine has spoken since `espeak.restart`.
    """
    corpus = VERSIONS[version]
    rng = random.Random(f"{corpus.name}/{seed}/{split}/{number}")
    noise_rng = np.random.default_rng([seed, [*corpus.minutes].index(split), number])
    text = corpus.spoken(rng)
    speaker = corpus.speaker(split, number, rng)
    tract = speaker.tract * (0.99 + 0.02 * rng.random())
    rate = speaker.rate * (0.9 + 0.2 * rng.random()) / tract  # resampling by `tract` speaks that much faster
    pitch, pitch_range = speaker.pitch + 16 * rng.random() - 8, 35 + 30 * rng.random()

    before = 0.05 + 0.2 * rng.random()
    after = 0.05 + 0.2 * rng.random()
    wave, starts = synthesise(
        text, speaker.voice, round(rate), round(pitch), round(pitch_range), tract, before, after
    )
    wave = corpus.record(wave, split, speaker, seed, rng, noise_rng)
    return wave, {
        "id": f"{split}-{number}",
        "duration": len(wave) / SAMPLE_RATE,
        "text": grammar.transcript(text),
        "speaker": speaker.id,
        "accent": speaker.accent,
        "phones": tuple(starts),
    }


def _build_split(
    folder: Path, split: str, minutes: float, seed: int, progress: bool, version: int
) -> list[Utterance]:
    manifest = folder / "manifest.jsonl"
    if manifest.exists():
        utterances = read_manifest(manifest)
        if _minutes(utterances) >= minutes:
            return subset(utterances, minutes)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        check_output(folder, folder=True)
        sweep(folder)
    blocks: list[list[Utterance]] = []
    with tqdm(
        total=round(minutes, 1), desc=f"speech: {split}", unit="min", disable=not progress, leave=True,
        bar_format="{desc} {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} min [{elapsed}<{remaining}]",
    ) as bar:  # fmt: skip
        while (have := sum(map(_minutes, blocks))) < minutes:
            typical = have / len(blocks) if blocks else BLOCK * _TYPICAL_SECONDS / 60
            wanted = range(len(blocks), len(blocks) + math.ceil((minutes - have) / typical))
            missing = [block for block in wanted if not _block_folder(folder, block).exists()]
            for _ in _make_blocks(folder, split, missing, seed, version):
                bar.update(min(typical, bar.total - bar.n))
            blocks += [read_manifest(_block_folder(folder, block) / "manifest.jsonl") for block in wanted]
            bar.update(min(sum(map(_minutes, blocks)), bar.total) - bar.n)
    # another, longer build may have gone further: its blocks belong in the manifest too
    while _block_folder(folder, len(blocks)).exists():
        blocks.append(read_manifest(_block_folder(folder, len(blocks)) / "manifest.jsonl"))
    utterances = [utterance for block in blocks for utterance in block]
    write_manifest(manifest, utterances)
    return subset(utterances, minutes)


def _minutes(utterances: Iterable[Utterance]) -> float:
    return sum(utterance.duration for utterance in utterances) / 60


def _block_folder(folder: Path, block: int) -> Path:
    return folder / f"{block:05d}"


def _make_blocks(folder: Path, split: str, blocks: list[int], seed: int, version: int = 1) -> Iterator[int]:
    """Make the blocks, on all cores if there are several; yields each as it is done.

    The workers are plain subprocesses: multiprocessing would import the caller's main script again, which
    fails in scripts without a `__main__` guard, and forking a process that runs torch's threads is not safe.
    There is one even for a single block: the noise of eSpeak's Klatt voices is C's rand(), and where another
    thread of this process drew from it meanwhile, the samples would be others.
    """
    if not blocks:
        return
    workers = max(1, min(cores(), len(blocks) // 2))
    package_parent = str(Path(__file__).resolve().parents[4])
    path = os.pathsep.join([package_parent, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "kdkit.speech.corpora.synthetic.build"]
    command += [str(folder.resolve()), split, str(seed), str(version)]
    with tempfile.TemporaryFile("w+") as errors:
        processes = []
        try:
            # one pipe for all: whichever worker is done first reports first
            reader, writer = os.pipe()
            with os.fdopen(reader) as reports:
                for worker in range(workers):
                    process = subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=writer, stderr=errors, text=True,
                        env={**os.environ, **ISOLATED, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                    )  # fmt: skip
                    processes.append(process)
                    process.stdin.write(json.dumps(blocks[worker::workers]))
                    process.stdin.close()
                os.close(writer)
                for line in reports:
                    yield int(line)
            if any(process.wait() for process in processes):
                errors.seek(0)
                said = errors.read().strip().splitlines() or ["a process was killed"]
                raise KdkitError(f"building {split!r} in {folder} failed: {said[-1]}")
        finally:
            for process in processes:
                if process.poll() is None:
                    process.terminate()
                    process.wait()


def make_block(folder: Path, split: str, block: int, seed: int, version: int = 1) -> None:
    """Speak one block into a folder beside its place and rename it when complete."""
    place = _block_folder(folder, block)
    if place.exists():
        return
    partial = partial_name(place)
    try:
        with writing(place):
            partial.mkdir()
        utterances = []
        with espeak.lock:
            espeak.restart()  # so that a block sounds the same whatever was spoken before
            for i in range(BLOCK):
                wave, fields = speak(split, block * BLOCK + i, seed, version)
                audio = partial / f"{i:02d}.wav"
                with writing(audio):
                    audio.write_bytes(wav_bytes(np.rint(wave * 32767).astype(np.int16)))
                utterances.append(Utterance(audio=audio, **fields))
        write_manifest(partial / "manifest.jsonl", utterances)
        try:
            os.rename(partial, place)
        except OSError:
            if not place.exists():  # otherwise another build was faster, and its block is the same
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _worker() -> None:
    folder, split, seed, version = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    for block in json.load(sys.stdin):
        try:
            make_block(folder, split, block, seed, version)
        except KdkitError as error:
            sys.exit(str(error))
        os.write(sys.stdout.fileno(), b"%d\n" % block)  # one write: the workers share the pipe


if __name__ == "__main__":
    _worker()
