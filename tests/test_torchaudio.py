"""What kdkit computes itself is what torchaudio computes, and all of it works where torchaudio is not installed."""

import ast
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torchaudio
import torchaudio.functional as AF
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kdkit.common.errors import ConfigError
from kdkit.fbank import Fbank, deltas, mel_filterbank
from kdkit.recognition.search import Search
from kdkit.recognition.viterbi import best_path, label_spans
from kdkit.speech.resample import resample
from kdkit.speech.text import VOCABULARY, frames_needed
from kdkit.teachers.pretrain import MFCC

ROOT = Path(__file__).parent.parent


# ------------------------------------------------------------------------------------------------ where it is missing

WITHOUT = """
import importlib, pkgutil, sys
sys.modules["torchaudio"] = None  # its import raises ImportError
import kdkit
for module in pkgutil.walk_packages(kdkit.__path__, "kdkit."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import numpy
teacher = kdkit.load_teacher("tiny")
kdkit.Recogniser.load("tiny_sw_fbank_distilled_60").transcribe(numpy.zeros(16000, dtype="float32"), 16000)
from kdkit.bench.distill import PlainTask
try:
    PlainTask(None)
except kdkit.common.errors.ConfigError as error:
    print(error)
"""


def test_everything_imports_without_torchaudio_and_what_needs_it_says_so():
    process = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    assert "takes its Fbank from torchaudio" in process.stdout and "pip install torchaudio" in process.stdout


def importers(folder: Path) -> set[str]:
    """The files below a folder that import torchaudio."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "torchaudio" for name in names):
                found.add(path.relative_to(ROOT).as_posix())
    return found


def test_nothing_but_the_benchmark_imports_torchaudio():
    assert importers(ROOT / "kdkit") == {"kdkit/bench/distill.py"}
    assert not importers(ROOT / "notebooks")


# -------------------------------------------------------------------------------------------------- torchaudio agrees


def aligned(log_probs: torch.Tensor, labels: list[int], blank: int):
    """torchaudio's path, and its spans."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecation
        targets = torch.tensor([labels], dtype=torch.int32)
        path, scores = AF.forced_align(log_probs[None], targets, blank=blank)
        return path[0], AF.merge_tokens(path[0], scores[0].exp(), blank=blank)


@given(st.integers(0, 2**32), st.integers(2, 8), st.integers(1, 40), st.integers(1, 15), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_best_path_is_torchaudios(seed, size, frames, count, ties):
    generator = torch.Generator().manual_seed(seed)
    blank = int(torch.randint(size, (), generator=generator))
    labels = torch.randint(size, (count,), generator=generator)
    labels = labels[labels != blank].tolist()
    assume(labels and frames_needed(labels) <= frames)
    log_probs = (3 * torch.randn(frames, size, generator=generator)).log_softmax(-1)
    if ties:  # of equally good paths the two may take different ones; torchaudio's may even be worse
        log_probs = log_probs.round()
        symbols = [blank, *(symbol for label in labels for symbol in (label, blank))]
        ours = [symbols[state] for state in best_path(log_probs.numpy(), labels, blank)]
        theirs = aligned(log_probs, labels, blank)[0]
        every = torch.arange(frames)
        assert torch.unique_consecutive(torch.tensor(ours)).tolist().count(blank) <= len(labels) + 1
        assert log_probs[every, ours].sum() >= log_probs[every, theirs].sum()
        return
    theirs = aligned(log_probs, labels, blank)[1]
    ours = label_spans(log_probs, labels, blank)
    assert [(s.start, s.end, s.score) for s in ours] == [(s.start, s.end, s.score) for s in theirs]


@pytest.mark.parametrize("old", [87, 90, 110, 113, 200])
def test_resampled_to_the_last_digit(old):
    waves = torch.randn(2, 16_001)
    assert torch.equal(resample(waves, old, 100), AF.resample(waves, old, 100))
    assert resample(waves, old, old) is waves


@pytest.mark.parametrize("frames", [1, 3, 200])
def test_deltas_and_cosines_to_the_last_digit(frames):
    features = torch.randn(13, frames)
    assert torch.equal(deltas(features), AF.compute_deltas(features))
    assert torch.equal(MFCC().dct, AF.create_dct(13, 80, norm="ortho"))


@pytest.mark.parametrize(("bins", "fft", "rate", "low"), [(80, 512, 16_000, 20.0), (23, 256, 8_000, 50.0)])
def test_mel_filters(bins, fft, rate, low):
    kaldi, _ = torchaudio.compliance.kaldi.get_mel_banks(bins, fft, float(rate), low, 0.0, 100.0, -500.0, 1.0)
    ours = mel_filterbank(bins, fft, rate, low)
    torch.testing.assert_close(ours[:-1].T, kaldi, atol=1e-3, rtol=0)
    assert not ours[-1].any()


@pytest.mark.parametrize(("bins", "milliseconds"), [(40, 10), (128, 30), (80, 60)])
def test_fbank_with_other_windows(bins, milliseconds):
    wave = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    kaldi = torchaudio.compliance.kaldi.fbank(
        32_768 * wave, num_mel_bins=bins, frame_length=float(milliseconds), dither=0.0
    )
    torch.testing.assert_close(Fbank(bins, 16 * milliseconds)(wave)[0], kaldi, atol=1e-3, rtol=0)


@pytest.mark.parametrize("words", [("the", "cat", "sat", "tea", "eat"), None])
def test_beam_search_finds_what_torchaudios_finds(words, tmp_path):
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    from torchaudio.models.decoder import ctc_decoder

    size, blank, boundary = len(VOCABULARY), VOCABULARY.blank, VOCABULARY.boundary
    spelled = words and {word: [*VOCABULARY.encode(word), boundary] for word in words}
    file = None
    if spelled:
        file = tmp_path / "lexicon.txt"
        file.write_text(
            "".join(f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in spelled.items())
        )
    log_probs = (2 * torch.randn(30, size, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    theirs = ctc_decoder(
        lexicon=file and str(file),
        tokens=[str(number) for number in range(size)],
        nbest=10,
        beam_size=50,
        beam_threshold=25.0,
        log_add=True,
        lm_weight=1.0,
        word_score=0.5,
        blank_token=str(blank),
        sil_token=str(boundary),
    )(log_probs[None])[0]
    ours = list(Search(size, blank, boundary, spelled, list(VOCABULARY), None, 1.0, 0.5, 50, 25.0)(log_probs))
    assert [round(score, 3) for *_, score in ours[: len(theirs)]] == [round(h.score, 3) for h in theirs]
    assert [found for _, found, _ in ours[: len(theirs)]] == [h.words for h in theirs]


def test_a_search_without_a_language_models_file(tmp_path):
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    (tmp_path / "lm.arpa").write_text("no model")
    with pytest.raises(ConfigError, match=r"lm\.arpa: the search cannot be built"):
        Search(3, 0, 1, None, ["a", "b", "c"], tmp_path / "lm.arpa", 1.0, 0.0, 5, 25.0)
