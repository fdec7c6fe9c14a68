"""Shared by all tests: a small corpus of tones, and the order of the files."""

from contextlib import suppress

import numpy as np
import pytest
import soundfile

from kdkit.speech.manifest import Utterance

with suppress(ImportError):  # a machine of GPU tests may lack torchaudio
    import audio_witness  # noqa: F401 (torchaudio, for all tests, beside any torch)

TONES = {"a": 300, "b": 700, "c": 1500, "d": 3100, "": 0}


def pytest_collection_modifyitems(items):
    """The notebooks go first: they take longest, and with two workers the other one does everything else meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(scope="session")
def utterances(tmp_path_factory) -> list[Utterance]:
    """Ten utterances of three speakers; every phone is a tone of its own."""
    folder, rng = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    made = []
    for i in range(10):
        symbols = rng.choice(list(TONES), 8 + i % 3)
        samples = rng.integers(1000, 3000, len(symbols))
        wave = np.concatenate(
            [np.sin(2 * np.pi * TONES[s] * np.arange(n) / 16_000) for s, n in zip(symbols, samples)]
        )
        starts = (np.cumsum(samples) - samples) / 16_000
        soundfile.write(folder / f"{i}.wav", 0.3 * wave + 0.01 * rng.normal(size=len(wave)), 16_000)
        phones = tuple(zip(starts.tolist(), symbols.tolist(), strict=True))
        made.append(Utterance(f"u{i}", folder / f"{i}.wav", len(wave) / 16_000, "", f"s{i % 3}", phones))
    return made
