"""The synthetic corpus: deterministic, nested, safe against kills, with unseen voices and exact phones."""

import ctypes
import hashlib
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.common.errors import ConfigError, KdkitError
from kdkit.speech.audio import read_audio
from kdkit.speech.corpora.synthetic import build as synthetic
from kdkit.speech.corpora.synthetic import espeak, grammar, phones, voices
from kdkit.speech.corpora.synthetic.acoustics import add_noise, reverberate
from kdkit.speech.corpora.synthetic.build import build_synthetic, make_block, speak
from kdkit.speech.corpora.synthetic.saying import say, with_silence
from kdkit.speech.manifest import frame_phones, read_manifest, subset

ALPHABET = set("abcdefghijklmnopqrstuvwxyz' ")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def corpus(root):
    return build_synthetic(root, {"train": 0.9, "test-clean": 0.5, "test-other": 0.5}, progress=False)


def digest(utterances):
    return [
        (u.id, u.text, u.speaker, u.phones, hashlib.sha256(u.audio.read_bytes()).hexdigest())
        for u in utterances
    ]


# what is said


@settings(deadline=None)
@given(st.integers())
def test_sentences_are_clean_and_short(seed):
    text = grammar.sentence(random.Random(seed))
    assert set(text) <= ALPHABET and "  " not in text and text == text.strip()
    assert 4 <= len(text.split()) <= 14
    assert set(text.split()) <= set(grammar.WORDS)


def test_vocabulary_size_and_reach():
    assert 300 <= len(grammar.WORDS) <= 400
    rng = random.Random(0)
    seen = Counter(word for _ in range(20_000) for word in grammar.sentence(rng).split())
    assert set(seen) == set(grammar.WORDS)  # every word can be said, and is
    assert max(seen.values()) < 0.16 * sum(seen.values())


def test_every_slot_of_the_grammar_exists():
    for symbol in grammar.RULES:
        for seed in range(30):
            assert "{" not in grammar._expand(symbol, random.Random(seed))


def test_a_sentence_is_the_same_with_python_and_numpy_generators():
    assert grammar.sentence(random.Random(5)) == grammar.sentence(random.Random(5))
    grammar.sentence(np.random.default_rng(5))


# who says it


def test_no_test_voice_is_heard_in_training():
    heard = {s.variant for split in ("unlabelled", "train") for s in voices.SPEAKERS[split]}
    for split in ("dev", "test-clean", "test-other"):
        assert not heard & {s.variant for s in voices.SPEAKERS[split]}
    parts = [{s.variant for s in voices.SPEAKERS[split]} for split in ("dev", "test-clean", "test-other")]
    assert sum(map(len, parts)) == len(set.union(*parts))


def test_number_and_accents_of_speakers():
    assert len({s.id for s in voices.SPEAKERS["train"]}) == len(voices.SPEAKERS["train"]) >= 60
    assert len({s.id for s in voices.SPEAKERS["test-clean"]}) >= 12
    for split in ("unlabelled", "train", "dev", "test-clean"):
        assert {s.accent for s in voices.SPEAKERS[split]} == {voices.MAIN_ACCENT}
    assert {s.accent for s in voices.SPEAKERS["test-other"]} == set(voices.OTHER_ACCENTS)


def test_every_speaker_has_a_voice_that_speaks_without_clipping():
    for speaker in {s for split in voices.SPEAKERS.values() for s in split}:
        wave, _ = espeak.synthesise("seven boys", speaker.voice, speaker.rate, speaker.pitch)
        assert 0.01 < np.abs(wave).max() < 0.999, speaker


def test_unknown_voices_are_named():
    for voice in ("nobody", "en-us+nobody"):
        with pytest.raises(KdkitError, match="no voice"):
            espeak.synthesise("hello", voice)


# its phones


@pytest.mark.parametrize("accent", [voices.MAIN_ACCENT, *voices.OTHER_ACCENTS])
def test_every_word_in_every_accent_has_phones_of_the_inventory(accent):
    found = set()
    for i in range(0, len(grammar.WORDS), 10):
        _, events = espeak.synthesise(" ".join(grammar.WORDS[i : i + 10]), accent, rate=400)
        found |= {phones.normalise(symbol) for _, symbol in events}
    assert found <= set(phones.PHONES)
    if accent == voices.MAIN_ACCENT:
        assert found == set(phones.PHONES)


def test_normalise():
    assert [phones.normalise(s) for s in ("ˈiː", "ˌoʊ", "ɜː", "ɚ", "", "_", "t̪", "ɑːɹ")] == [
        "i", "oʊ", "ɚ", "ɚ", "", "", "θ", "ɑɹ",
    ]  # fmt: skip
    assert all(phones.normalise(symbol) == symbol for symbol in phones.PHONES)
    with pytest.raises(KdkitError, match="'ʘ'"):
        phones.normalise("ʘ")


def test_phone_times_are_sorted_and_cover_the_utterance(corpus):
    for utterance in (u for split in corpus.values() for u in split):
        starts = [start for start, _ in utterance.phones]
        assert starts[0] == 0.0 and starts[-1] < utterance.duration
        assert all(a < b for a, b in pairwise(starts))
        assert utterance.phones[0][1] == utterance.phones[-1][1] == phones.SILENCE
        assert {symbol for _, symbol in utterance.phones} <= set(phones.PHONES)
        assert len(utterance.phones) > 2 * len(utterance.text.split())


def frames_of(utterances):
    """(log energy, share of the energy above 3.5 kHz, phone) of every frame."""
    for utterance in utterances:
        wave = read_audio(utterance.audio).numpy()
        count = (len(wave) - 400) // 320 + 1
        spectra = (
            np.abs(np.fft.rfft([wave[320 * t : 320 * t + 400] * np.hanning(400) for t in range(count)])) ** 2
        )
        energy = spectra.sum(1) + 1e-9
        high = spectra[:, 88:].sum(1) / energy
        yield from zip(np.log(energy / energy.max()), high, frame_phones(utterance, count), strict=True)


def test_phones_lie_on_their_sound(corpus):
    frames = list(frames_of(corpus["train"]))

    def median(column, *symbols):
        return np.median([frame[column] for frame in frames if frame[2] in symbols])

    vowels = ("i", "ɪ", "ɛ", "æ", "ɑ", "oʊ", "eɪ", "aɪ", "ɚ")
    assert median(0, "") < median(0, *vowels) - 6  # silence is silent: 26 dB below the vowels
    assert median(1, "s", "z", "ʃ", "tʃ") > 0.4 > 0.1 > median(1, *vowels)  # hiss is high
    assert median(0, *vowels) > median(0, "p", "t", "k") + 1


def test_phone_times_are_exact(corpus):
    """Moving the labels of hissing sounds by two frames either way must fit the sound less well."""
    fit = {}
    for shift in (-2, 0, 2):
        hiss, other = [], []
        for utterance in corpus["train"]:
            rows = list(frames_of([utterance]))
            symbols = [row[2] for row in rows]
            for t in range(2, len(rows) - 2):
                (hiss if symbols[t + shift] in ("s", "z", "ʃ", "tʃ") else other).append(rows[t][1])
        fit[shift] = np.mean(hiss) - np.mean(other)
    assert fit[0] > fit[-2] + 0.05 and fit[0] > fit[2] + 0.05


def test_pad_moves_times_with_the_sound():
    wave = np.zeros(16_000, np.float32)
    wave[4_000:8_000] = 0.5  # the speech, at 0.25 to 0.5 s
    padded, starts = with_silence(wave, [(0.0, ""), (0.25, "a"), (0.4, "b"), (0.5, ""), (0.6, "")], 0.1, 0.2)
    assert len(padded) == 1_600 + 4_000 + 3_200
    assert np.flatnonzero(padded)[0] == 1_600
    assert starts == [(0.0, ""), (0.1, "a"), (0.25, "b"), (0.35, "")]


def test_a_text_is_said_the_same_every_time():
    speaker = voices.SPEAKERS["test-clean"][0]
    wave, starts = say("we saw the boat", speaker)
    say("something else in between", voices.SPEAKERS["dev"][0])
    again, same = say("we saw the boat", speaker)
    np.testing.assert_array_equal(wave, again)
    assert starts == same and starts[0] == (0.0, "") and starts[1] == (0.1, "w")
    assert {symbol for _, symbol in starts} <= set(phones.PHONES)
    for text, why in (("...", "no word"), ("bach loch", "'bach loch' cannot be said")):
        with pytest.raises(KdkitError, match=why):
            say(text, speaker)


# the corpus


def test_audio_and_manifest_agree(corpus):
    for utterance in (u for split in corpus.values() for u in split):
        wave = read_audio(utterance.audio)
        assert len(wave) / 16_000 == utterance.duration
        assert 0.2 < float(wave.abs().max()) < 0.95
        assert set(utterance.text) <= ALPHABET


def test_lengths_are_what_was_asked_for(corpus):
    for split, minutes in {"train": 0.9, "test-clean": 0.5, "test-other": 0.5}.items():
        seconds = sum(u.duration for u in corpus[split])
        assert minutes * 60 <= seconds < minutes * 60 + max(u.duration for u in corpus[split])
        assert seconds / len(corpus[split]) == pytest.approx(2.8, abs=0.8)


def test_a_longer_corpus_begins_with_the_shorter(root, corpus, tmp_path):
    before = digest(corpus["train"])
    longer = build_synthetic(root, {"train": 1.5}, progress=False)["train"]
    assert len(longer) > len(before) and digest(longer)[: len(before)] == before
    again = build_synthetic(root, {"train": 0.9}, progress=False)["train"]
    assert digest(again) == before
    # and a corpus made at once elsewhere, after other speech, has the same bytes
    espeak.synthesise("something else entirely", "en-us+f3")
    elsewhere = build_synthetic(tmp_path, {"train": 0.9}, progress=False)["train"]
    assert digest(elsewhere) == before


@pytest.mark.skipif(os.name == "nt", reason="needs the C library of this process")
def test_other_threads_do_not_change_the_noise(corpus, tmp_path):
    assert "Reed-2" in {u.speaker for u in corpus["train"]}  # a Klatt voice: its noise is C's rand()
    rand, done = ctypes.CDLL(None).rand, threading.Event()

    def draw():
        while not done.wait(0.0005):
            rand()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        built = build_synthetic(tmp_path, {"train": 0.9}, progress=False)["train"]
    finally:
        done.set()
        thread.join()
    assert digest(built) == digest(corpus["train"])


def test_the_seed_changes_text_and_voices():
    one = [speak("train", i, seed=0)[1] for i in range(5)]
    other = [speak("train", i, seed=1)[1] for i in range(5)]
    assert [f["text"] for f in one] != [f["text"] for f in other]
    assert [f["speaker"] for f in one] != [f["speaker"] for f in other]
    assert speak("dev", 0)[1]["text"] != speak("train", 0)[1]["text"]


def test_a_cached_corpus_is_not_touched(root, corpus, monkeypatch):
    monkeypatch.setattr(synthetic, "_make_blocks", None)
    again = build_synthetic(root, {"train": 0.5, "test-clean": 0.5}, progress=False)
    assert again["test-clean"] == corpus["test-clean"]


def test_subset():
    utterances = [synthetic.Utterance(str(i), synthetic.Path("a"), 30.0) for i in range(10)]
    assert len(subset(utterances, 2)) == 4
    assert len(subset(utterances, 2.01)) == 5
    assert len(subset(utterances, 100)) == 10


@pytest.mark.parametrize("minutes", [{"trian": 1}, {"train": 0}, {"train": -1}, {"train": float("nan")}])
def test_impossible_wishes(tmp_path, minutes):
    with pytest.raises(ConfigError, match="synthetic corpus"):
        build_synthetic(tmp_path, minutes)


def test_the_cache_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path))
    assert synthetic.cache_folder() == tmp_path
    monkeypatch.delenv("KDKIT_CACHE")
    assert synthetic.cache_folder().name == "kdkit"


# accidents


def test_a_failing_block_leaves_nothing(tmp_path, monkeypatch):
    real = synthetic.speak

    def fails(split, number, *rest):
        if number == 3:
            raise KdkitError("out of breath")
        return real(split, number, *rest)

    monkeypatch.setattr(synthetic, "speak", fails)
    with pytest.raises(KdkitError, match="out of breath"):
        make_block(tmp_path, "dev", 0, 0)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_faster_builder_wins(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "BLOCK", 3)
    real, calls = synthetic.speak, []

    def speak_while_another_builds(split, number, *rest):
        calls.append(number)
        if len(calls) == 2:  # another process finishes the same block first
            (tmp_path / "00000").mkdir()
            (tmp_path / "00000" / "manifest.jsonl").write_text("theirs")
        return real(split, number, *rest)

    monkeypatch.setattr(synthetic, "speak", speak_while_another_builds)
    make_block(tmp_path, "dev", 0, 0)
    assert (tmp_path / "00000" / "manifest.jsonl").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["00000"]


def test_workers_report_what_went_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "cores", lambda: 2)
    (tmp_path / "train").write_text("a file where the folder should be")
    with pytest.raises(KdkitError, match=r"building 'train'.*failed"):
        list(synthetic._make_blocks(tmp_path / "train", "train", [0, 1, 2, 3], 0))


@pytest.mark.skipif(os.name == "nt", reason="needs process groups")
def test_a_killed_build_leaves_only_whole_blocks_and_goes_on(tmp_path):
    code = (
        "from kdkit.speech.corpora.synthetic.build import build_synthetic as build; "
        "build({!r}, {{'train': 60}}, progress=False)"
    )
    build = subprocess.Popen([sys.executable, "-c", code.format(str(tmp_path))], start_new_session=True)
    folder = tmp_path / "synthetic-v1-seed0" / "train"
    deadline = time.monotonic() + 60
    while not list(folder.glob("0*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(build.pid, signal.SIGKILL)
    build.wait()
    blocks = sorted(folder.glob("0*"))
    assert blocks and not (folder / "manifest.jsonl").exists()
    for block in blocks:
        utterances = read_manifest(block / "manifest.jsonl")
        assert len(utterances) == synthetic.BLOCK
        for utterance in utterances:
            assert len(read_audio(utterance.audio)) / 16_000 == utterance.duration
    stale = (
        folder / f".00077.{platform.node()}-{2**22 + 1}-0.partial"
    )  # no system numbers processes that high
    stale.mkdir()
    os.utime(stale, (0, 0))
    minutes = 0.9
    resumed = build_synthetic(tmp_path, {"train": minutes}, progress=False)["train"]
    assert sum(u.duration for u in resumed) >= minutes * 60
    assert not stale.exists()


# rooms


@settings(deadline=None)
@given(st.floats(0, 30), st.floats(0, 2), st.integers(1_000, 40_000))
def test_noise_has_the_ratio_asked_for(snr, slope, length):
    wave = np.sin(np.arange(length) / 7).astype(np.float32)
    noise = add_noise(wave, snr, slope, np.random.default_rng(0)) - wave
    ratio = 10 * np.log10(np.mean(wave**2) / np.mean(noise**2))
    assert ratio == pytest.approx(snr, abs=0.1)


def test_noise_has_its_colour():
    wave = np.sin(np.arange(160_000) / 7).astype(np.float32)
    for slope in (0.0, 1.0, 2.0):
        noise = add_noise(wave, 0, slope, np.random.default_rng(0)) - wave
        power = np.abs(np.fft.rfft(noise)) ** 2
        low, high = power[4_500:5_500].mean(), power[45_000:55_000].mean()  # around 500 Hz and 5 kHz
        assert np.log10(low / high) == pytest.approx(slope, abs=0.15)


def test_reverberation_adds_a_tail_and_keeps_the_start():
    click = np.zeros(16_000, np.float32)
    click[4_000] = 1.0
    wet = reverberate(click, 0.4, np.random.default_rng(0))
    assert len(wet) == len(click) and np.abs(wet[:4_000]).max() < 1e-6
    assert wet[4_000] == pytest.approx(1.0, abs=1e-5)
    tail = wet[4_001:]
    assert 10 * np.log10(np.sum(tail**2)) == pytest.approx(-6, abs=0.5)
    early, late = np.mean(tail[100:500] ** 2), np.mean(tail[3_300:3_700] ** 2)
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=4)  # 60 dB in 0.4 s
