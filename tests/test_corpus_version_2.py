"""Version 2 of the synthetic corpus: few labelled voices, open words, broad unlabelled speech; version 1 as it was."""

import hashlib
import random
from itertools import pairwise

import numpy as np
import pytest

from kdkit.common.errors import ConfigError
from kdkit.speech.audio import read_audio
from kdkit.speech.corpora.synthetic import build, espeak, open_grammar, phones, voices
from kdkit.speech.corpora.synthetic.acoustics import Place, recorded
from kdkit.speech.corpora.synthetic.build import build_synthetic, speak
from kdkit.speech.corpora.synthetic.open_words import CLASSES, inflect
from kdkit.speech.corpora.synthetic.versions import OF_FOUR, OF_MANY, VERSIONS

CORPUS = VERSIONS[2]
LENGTHS = dict.fromkeys(CORPUS.minutes, 0.4) | {"train": 4.4}  # four blocks
NOTHING = Place(0.01, 400.0, 0.0, 0.0, 1e-3)  # an anechoic, silent room and a perfect microphone


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "cores", lambda: 2)
        return build_synthetic(tmp_path_factory.mktemp("corpus"), LENGTHS, progress=False, version=2)


def drawn(split: str, numbers: range):
    """Text and speaker of utterances, without their sound."""
    for number in numbers:
        rng = random.Random(f"{CORPUS.name}/0/{split}/{number}")
        text = open_grammar.transcript(CORPUS.spoken(rng))
        yield text, CORPUS.speaker(split, number, rng)


# what is said


def test_sentences():
    rng = random.Random(0)
    said = [open_grammar.sentence(rng) for _ in range(5000)]
    words = set(open_grammar.WORDS)
    for text in said:
        assert open_grammar.SHORTEST <= len(text.split()) <= open_grammar.LONGEST
        assert set(text.split()) <= words
        assert " a a" not in f" {text}" and " a e" not in f" {text}"
    assert len(set(said)) > 4950
    assert np.mean([len(text.split()) for text in said]) == pytest.approx(8, abs=1)


def test_every_rule_is_used_and_every_slot_exists():
    used = {"sentence"}
    for alternatives in open_grammar.RULES.values():
        for alternative in alternatives:
            for name, form in open_grammar._SLOT.findall(alternative):
                assert name in CLASSES or (name in open_grammar.RULES and not form), alternative
                used.add(name)
    assert set(open_grammar.RULES) <= used and set(CLASSES) <= used
    assert not set(open_grammar.RULES) & set(CLASSES)


def test_thousands_of_words_of_which_a_third_is_not_heard_in_ten_minutes():
    assert len(open_grammar.WORDS) > 8000
    test = [word for text, _ in drawn("test-clean", range(210)) for word in text.split()]
    unheard = {}
    for minutes in (1, 10, 60):
        heard = {word for text, _ in drawn("train", range(21 * minutes)) for word in text.split()}
        unheard[minutes] = np.mean([word not in heard for word in set(test)])
    assert unheard[1] > 0.7
    assert unheard[10] == pytest.approx(1 / 3, abs=0.08)
    assert 0.05 < unheard[60] < 0.2


@pytest.mark.parametrize(
    ("word", "form", "expected"),
    [
        ("box", "s", "boxes"), ("pony", "s", "ponies"), ("monkey", "s", "monkeys"), ("potato", "s", "potatoes"),
        ("piano", "s", "pianos"), ("carry", "ed", "carried"), ("carry", "ing", "carrying"), ("stop", "ed", "stopped"),
        ("cook", "ing", "cooking"), ("fix", "ed", "fixed"), ("bake", "ing", "baking"), ("admit", "ed", "admitted"),
        ("visit", "ed", "visited"), ("big", "er", "bigger"), ("safe", "est", "safest"), ("dry", "er", "drier"),
        ("happy", "ly", "happily"), ("gentle", "ly", "gently"), ("frantic", "ly", "frantically"), ("cup", "", "cup"),
        ("quit", "ing", "quitting"), ("glue", "ed", "glued"), ("hoe", "ing", "hoeing"),
    ],
)  # fmt: skip
def test_forms(word, form, expected):
    assert inflect(word, form) == expected


def test_classes_have_no_doubles():
    for name, words in CLASSES.items():
        assert len(set(words)) == len(words) and all(word.isalpha() and word.islower() for word in words), (
            name
        )


@pytest.mark.parametrize("accent", [voices.MAIN_ACCENT, *voices.OTHER_ACCENTS])
def test_words_have_phones_of_the_inventory(accent):
    for i in range(0, len(open_grammar.WORDS), 600):
        _, events = espeak.synthesise(" ".join(open_grammar.WORDS[i : i + 8]), accent, rate=400)
        for _, symbol in events:
            phones.normalise(symbol)  # raises for a symbol that it does not know


# who says it


def test_no_voice_of_dev_or_test_is_heard_in_training():
    heard = {s.variant for split in ("unlabelled", "train") for s in voices.CROWD[split]}
    parts = [{s.variant for s in voices.CROWD[split]} for split in ("dev", "test-clean", "test-other")]
    assert sum(map(len, [heard, *parts])) == len(set.union(heard, *parts))
    assert {s.variant for s in voices.CROWD["dev-other"]} == parts[0]


def test_voices():
    assert set(voices.CROWD) == set(CORPUS.minutes)
    for speakers in voices.CROWD.values():
        assert len({s.id for s in speakers}) == len(speakers) >= 20
    assert len(voices.CROWD["unlabelled"]) > 300
    assert set(voices.CROWD["train"]) < set(voices.CROWD["unlabelled"])
    for split in ("train", "dev", "test-clean"):
        assert {s.accent for s in voices.CROWD[split]} == {voices.MAIN_ACCENT}
    for split in ("unlabelled", "dev-other", "test-other"):
        assert {s.accent for s in voices.CROWD[split]} >= set(voices.OTHER_ACCENTS)


def test_labelled_speech_begins_with_few_voices(corpus):
    speakers = [speaker.id for _, speaker in drawn("train", range(OF_MANY + 400))]
    first, hour = [s.id for s in voices.FEW[:4]], [s.id for s in voices.FEW]
    assert len(set(hour)) == len({s.variant for s in voices.FEW}) == 24
    assert speakers[:8] == first * 2 and set(speakers[:OF_FOUR]) == set(first)
    assert set(speakers[OF_FOUR:OF_MANY]) == set(hour)
    assert len(set(speakers[OF_MANY:])) > 100
    # the four speak for more than ten minutes, the 24 for more than an hour
    assert np.mean([u.duration for u in corpus["train"]]) * OF_FOUR > 11 * 60
    assert (
        np.mean([speak("train", OF_FOUR + i, version=2)[1]["duration"] for i in range(24)]) * OF_MANY
        > 63 * 60
    )


def test_every_voice_of_the_first_hour_speaks_without_clipping():
    for speaker in (*voices.FEW, *voices.CROWD["test-other"][::7]):
        wave, _ = espeak.synthesise("seven boys", speaker.voice, speaker.rate, speaker.pitch)
        assert 0.01 < np.abs(wave).max() < 0.999, speaker


# how it is recorded


def test_phone_times_lie_inside_the_audio(corpus):
    for utterance in (u for split in corpus.values() for u in split):
        starts = [start for start, _ in utterance.phones]
        assert starts[0] == 0.0 and all(a < b for a, b in pairwise(starts))
        assert starts[-1] < utterance.duration == len(read_audio(utterance.audio)) / 16_000
        assert utterance.phones[0][1] == utterance.phones[-1][1] == phones.SILENCE
        assert {symbol for _, symbol in utterance.phones} <= set(phones.PHONES)


def contrast(utterance) -> float:
    """dB from the silence after the last phone to the whole utterance."""
    wave = read_audio(utterance.audio).numpy()
    silence = wave[round(utterance.phones[-1][0] * 16_000) + 800 :]
    return 10 * np.log10(np.mean(wave**2) / np.mean(silence**2)) if len(silence) > 400 else np.nan


def test_levels_and_noise(corpus):
    for split, utterances in corpus.items():
        for utterance in utterances:
            assert -24.1 < 20 * np.log10(np.abs(read_audio(utterance.audio).numpy()).max()) < -3.9, split
    quiet = [contrast(u) for split in ("train", "dev", "test-clean") for u in corpus[split]]
    noisy = [contrast(u) for split in ("dev-other", "test-other") for u in corpus[split]]
    assert np.nanmin(quiet) > np.nanmedian(noisy) + 3
    mixed = [contrast(u) for u in corpus["unlabelled"]]
    assert np.nanmin(mixed) < np.nanmedian(noisy) + 3 and np.nanmax(mixed) > np.nanmedian(quiet) - 3


def test_nothing_happens_in_a_perfect_place():
    wave = np.sin(np.arange(16_000) / 7).astype(np.float32)
    heard = recorded(wave, NOTHING, np.random.default_rng(0))
    assert heard.dtype == np.float32 and len(heard) == len(wave)
    echo = np.abs(heard - wave)[200:]  # 10 ms of echo, 6 dB below
    assert np.corrcoef(heard, wave)[0, 1] > 0.8 and echo.max() < 1


@pytest.mark.parametrize(("snr", "slope"), [(8.0, 0.0), (20.0, 2.0)])
def test_the_ratio_of_speech_to_noise(snr, slope):
    wave = np.random.default_rng(1).standard_normal(64_000).astype(np.float32)
    clean, noisy = (
        recorded(wave, Place(0.1, ratio, slope, 0.0, 1e-3), np.random.default_rng(0))
        for ratio in (400.0, snr)
    )
    measured = 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2))
    assert measured == pytest.approx(snr, abs=1)


def test_the_microphone():
    wave = np.random.default_rng(1).standard_normal(160_000).astype(np.float32)
    flat, bright, thin = (
        np.abs(np.fft.rfft(recorded(wave, Place(0.01, 400.0, 0.0, tilt, lowest), np.random.default_rng(0))))
        ** 2
        for tilt, lowest in ((0.0, 1e-3), (3.0, 1e-3), (0.0, 200.0))
    )

    def gain(spectrum, hertz):  # dB; 0.1 Hz a point
        return 10 * np.log10(spectrum[9 * hertz : 11 * hertz].mean() / flat[9 * hertz : 11 * hertz].mean())

    assert gain(bright, 2000) - gain(bright, 1000) == pytest.approx(3, abs=0.2)
    assert gain(thin, 50) == pytest.approx(-24, abs=1.5) and gain(thin, 2000) == pytest.approx(0, abs=0.1)


# the corpus


def digest(utterances):
    return [
        (u.id, u.text, u.speaker, u.phones, hashlib.sha256(u.audio.read_bytes()).hexdigest())
        for u in utterances
    ]


def test_the_same_bytes_on_any_number_of_cores(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "cores", lambda: 1)
    again = build_synthetic(tmp_path, {"train": 4.4}, progress=False, version=2)["train"]
    assert digest(again) == digest(corpus["train"])
    assert [u.text for u in again[:9]] != [speak("train", n, seed=1, version=2)[1]["text"] for n in range(9)]


def test_versions_do_not_share_a_folder(corpus):
    assert all("synthetic-v2-seed0" in str(u.audio) for split in corpus.values() for u in split)


def test_version_1_is_what_it_was():
    said = [speak("train", number)[1] for number in range(3)]
    assert [(f["text"], f["speaker"], round(f["duration"], 2)) for f in said] == [
        ("zoe enjoyed his yellow toy and my sharp goose", "ed-1", 3.52),
        ("the mouse jumped over the big coat", "f3-0", 2.11),
        ("your dirty feather is in the school", "Alicia-1", 2.05),
    ]


def test_impossible_wishes(tmp_path):
    with pytest.raises(ConfigError, match="no version 3; there are 1, 2"):
        build_synthetic(tmp_path, {"train": 1}, version=3)
    with pytest.raises(ConfigError, match="no split 'dev-other'"):
        build_synthetic(tmp_path, {"dev-other": 1}, version=1)
