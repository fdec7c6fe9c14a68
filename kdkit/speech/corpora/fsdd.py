"""The Free Spoken Digit Dataset: "zero" to "nine" by a few people, 50 times each; 8 kHz, real microphones and rooms.

    recordings/7_jackson_32.wav     digit, speaker, number of the recording

Source: github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0. By its README recordings 0 to 4 are for testing;
here they are the dev set of the speakers that are trained on, and the test set is a speaker that is not.

Besides the single digits there are connected digit strings: recordings of one speaker, joined with pauses in which
their background noise goes on. Which digits, in which order, with what pauses follows from seed and speaker alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdkit.common.downloads import download, unpack
from kdkit.common.errors import ConfigError, ManifestError
from kdkit.common.progress import tqdm
from kdkit.speech.audio import read_audio, write_audio
from kdkit.speech.corpora.prepare import Found
from kdkit.speech.frames import SAMPLE_RATE
from kdkit.speech.manifest import Utterance

URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DEV_RECORDINGS = range(5)  # of each digit and speaker
_NAME = re.compile(r"(\d)_([A-Za-z]\w*)_(\d+)")
_FADE = SAMPLE_RATE // 200  # 5 ms
_QUIET_WINDOW = SAMPLE_RATE // 50


def fsdd(root: str | Path, fetch: bool = True) -> list[Found]:
    """All recordings in ROOT/recordings (or in ROOT itself), as single digits: the text is the digit's word.

    With ``fetch``, they are downloaded to ``root`` when there are none. Raises DownloadError when they cannot be,
    ManifestError when there are none.
    """
    root = Path(root)
    folder = root / "recordings" if (root / "recordings").is_dir() or not any(root.glob("*.wav")) else root
    if fetch and not folder.is_dir():
        archive = download(URL, root / "fsdd-v1.0.10.tar.gz")
        unpack(archive, folder, "*/recordings")
    found = []
    for audio in sorted(folder.glob("*.wav")):
        if match := _NAME.fullmatch(audio.stem):
            found.append(Found(audio.stem, audio, WORDS[int(match[1])], speaker=match[2]))
    if not found:
        raise ManifestError(
            f"{folder}: no recordings called DIGIT_SPEAKER_NUMBER.wav; is this the digit data?"
        )
    return found


def split_digits(utterances: Sequence[Utterance], test_speakers: Sequence[str]) -> dict[str, list[Utterance]]:
    """Train, dev and test: all of the test speakers; recordings 0 to 4 of the others; and the rest.

    Raises ConfigError for a speaker that does not occur, or when no speaker is left to train on.
    """
    there = sorted({u.speaker for u in utterances})
    unknown = sorted(set(test_speakers) - set(there))
    if unknown or not set(there) - set(test_speakers):
        wrong = f"no speaker {', '.join(unknown)}" if unknown else "no speaker is left to train on"
        raise ConfigError(f"{wrong}; hold out some, but not all, of {', '.join(there)}")
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for utterance in utterances:
        number = int(utterance.id.rpartition("_")[2])
        name = "dev" if number in DEV_RECORDINGS else "train"
        splits["test" if utterance.speaker in test_speakers else name].append(utterance)
    return splits


def join_digits(
    utterances: Sequence[Utterance],
    folder: str | Path,
    digits: tuple[int, int] = (3, 7),
    pause: tuple[float, float] = (0.05, 0.35),
    passes: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> list[Utterance]:
    """Connected digit strings of single digits, written as FOLDER/SPEAKER/NUMBER.wav (16 kHz).

    Each pass uses every recording once: a speaker's recordings are shuffled and dealt out in strings of ``digits``
    (least, most; a last one may be shorter), with pauses of ``pause`` seconds (least, most) between, before and after.
    The strings of all speakers come in one shuffled order, so that the first minutes of them are a fair sample.
    """
    low, high = digits
    if not (1 <= low <= high and 0 <= pause[0] <= pause[1] and passes >= 1):
        raise ConfigError(
            f"strings of {low} to {high} digits with pauses of {pause[0]} to {pause[1]} s in {passes} passes cannot be "
            "made: give the smaller number first, at least 1 digit and 1 pass"
        )
    plans = []
    for speaker in sorted({u.speaker for u in utterances}):
        rng = random.Random(f"{seed}/{speaker}")
        own = sorted((u for u in utterances if u.speaker == speaker), key=lambda u: u.id)
        strings = []
        for _ in range(passes):
            deck = rng.sample(own, len(own))
            while deck:
                length = rng.randint(low, high)
                strings.append(deck[:length])
                deck = deck[length:]
        plans += [(speaker, number, string) for number, string in enumerate(strings)]
    random.Random(seed).shuffle(plans)
    joined = []
    for speaker, number, string in tqdm(plans, "joining digits", unit="string", disable=not progress):
        rng = np.random.default_rng([seed, number, *speaker.encode()])
        gaps = rng.uniform(*pause, len(string) + 1)
        wave = _join([read_audio(u.audio).numpy() for u in string], gaps, rng)
        path = Path(folder) / speaker / f"{number:04d}.wav"
        write_audio(path, wave)
        text = " ".join(u.text for u in string)
        name = f"{Path(folder).name}-{speaker}-{number:04d}"
        joined.append(Utterance(name, path.absolute(), len(wave) / SAMPLE_RATE, text, speaker))
    return joined


def _join(waves: list[np.ndarray], gaps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Recordings (samples,) one after the other, ``gaps`` seconds of their quietest background noise around them."""
    quiet = min(_background(wave) for wave in waves)
    ramp = np.linspace(0, 1, _FADE, dtype=np.float32)
    pieces = []
    for gap, wave in zip(gaps, [*waves, None]):
        pieces.append(quiet * rng.standard_normal(round(gap * SAMPLE_RATE), dtype=np.float32))
        if wave is not None:
            wave = wave.copy()
            wave[:_FADE] *= ramp[: len(wave)]
            wave[-_FADE:] *= ramp[::-1][-len(wave) :]
            pieces.append(wave)
    return np.concatenate(pieces)


def _background(wave: np.ndarray) -> float:
    """RMS of the quietest 20 ms of a recording: its room and microphone; at most 40 dB below its peak, because some
    recordings are cut so closely that there is no quiet in them.
    """
    whole = len(wave) // _QUIET_WINDOW * _QUIET_WINDOW
    quietest = np.sqrt((wave[:whole].reshape(-1, _QUIET_WINDOW) ** 2).mean(1)).min(initial=1.0)
    return float(min(quietest, np.abs(wave).max() / 100))
