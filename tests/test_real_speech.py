"""Real speech into manifests: transcripts, bad files, fair splits, and every corpus's own layout, in small."""

import hashlib
import os
import sys
import tarfile
from pathlib import Path

import make_digits
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kdkit.commands.main import app
from kdkit.common.errors import ConfigError, DownloadError, ManifestError
from kdkit.common.files import cache_folder
from kdkit.lessons.experiments import load_findings
from kdkit.speech.audio import read_audio
from kdkit.speech.corpora import fsdd, librispeech
from kdkit.speech.corpora.folders import read_folder
from kdkit.speech.corpora.prepare import Found, shuffled, take_in
from kdkit.speech.corpora.summary import check_speakers, split_by_speaker, summarise
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.corpora.tables import read_table
from kdkit.speech.manifest import Utterance, read_manifest, subset
from kdkit.teachers import ASSETS

FSDD = Path(
    os.environ.get("KDKIT_FSDD") or cache_folder() / "fsdd"
)  # the latter: where the kit downloads it to


def tone(path, seconds=1.0, rate=16_000, hertz=300.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * time), rate)
    return path


def utterance(name, speaker="", seconds=1.0, text="hello"):
    return Utterance(name, Path(f"{name}.wav"), seconds, text, speaker)


def kdkit(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


# files


def test_every_bad_file_is_named_and_the_others_go_on(tmp_path):
    good = tone(tmp_path / "good.wav", 1.5, 8000)
    cut = tone(tmp_path / "cut.wav")
    cut.write_bytes(cut.read_bytes()[:-500])
    (tmp_path / "empty.wav").touch()
    (tmp_path / "noise.wav").write_bytes(b"not audio at all")
    tone(tmp_path / "short.wav", 0.01)
    tone(tmp_path / "wordless.wav")
    names = ("good", "cut", "empty", "noise", "short", "missing", "good", "known")
    found = [Found(name, tmp_path / f"{name}.wav", "Words!") for name in names]
    found[-1] = Found("known", good, "text", trouble="known.txt: not text")
    found.append(Found("wordless", tmp_path / "wordless.wav", "?!"))
    taken = take_in(found, "test", progress=False)
    assert [(u.id, u.duration, u.text) for u in taken.utterances] == [("good", 1.5, "words")]
    reasons = [reason for _, reason in taken.bad]
    expected = ("cut", "0 bytes", "not an audio", "25 ms", "no such", "before", "not text", "no word")
    assert len(reasons) == len(expected)
    assert all(part in reason for part, reason in zip(expected, reasons))
    quick = take_in(found[:4], "test", quick=True, progress=False)
    assert {u.id for u in quick.utterances} >= {"good"} and len(quick.bad) >= 2


@given(st.sets(st.text("abc", min_size=1, max_size=4), max_size=30), st.data())
def test_the_order_of_a_manifest_does_not_depend_on_what_else_is_there(names, data):
    everything = shuffled([utterance(name) for name in sorted(names)])
    part = data.draw(st.sets(st.sampled_from(sorted(names)))) if names else set()
    assert shuffled([u for u in everything if u.id in part]) == [u for u in everything if u.id in part]


# label budgets


@given(
    st.lists(st.floats(0.1, 30), max_size=60),
    st.lists(st.sampled_from([1 / 60, 0.1, 0.5, 1, 2, 5, 10, 30]), min_size=2, max_size=2),
)
def test_label_budgets_are_nested(durations, budgets):
    utterances = [utterance(str(i), seconds=s) for i, s in enumerate(durations)]
    small, large = (subset(utterances, minutes) for minutes in sorted(budgets))
    assert small == large[: len(small)]
    seconds = sum(u.duration for u in small)
    whole = len(small) == len(utterances)
    assert whole or seconds >= min(budgets) * 60
    assert not small or seconds - small[-1].duration < min(budgets) * 60  # no utterance more than needed


def test_budgets_of_the_synthetic_corpus_are_nested(tmp_path):
    budgets = [
        build_synthetic(tmp_path, {"train": minutes}, progress=False)["train"] for minutes in (0.5, 2, 1)
    ]
    half, two, one = budgets
    assert half == one[: len(half)] and one == two[: len(one)] and len(half) < len(one) < len(two)


# what is in it, and whether it is fair


def test_summary_counts_what_matters():
    some = [
        utterance("a", "x", 1, "hello you"),
        utterance("b", "y", 3, "room 7"),
        utterance("c", "y", 2, "caf7ж"),
        utterance("d", "", 0.1, "much too much"),
        utterance("e", "", 60, ""),
    ]
    summary = summarise(some)
    assert (summary.utterances, summary.speakers, summary.words, summary.without_text) == (5, 2, 8, 1)
    assert summary.shortest == (0.1, "d") and summary.longest == (60, "e")
    assert summary.outside == {"7": 2, "ж": 1} and summary.left_out == 2 and summary.too_fast == ("d",)
    assert summary.too_long == 1
    said = str(summary)
    assert (
        "1.1 min" in said
        and "'7' in 2" in said
        and "longest 60.00 s (e)" in said
        and "longer than 35 s" in said
    )
    with pytest.raises(ConfigError, match="no utterances"):
        summarise([])


def test_a_test_on_training_voices_is_refused():
    splits = {"train": [utterance("a", "anna"), utterance("b", "ben")], "test": [utterance("c", "ben")]}
    with pytest.raises(ConfigError, match=r"1 speaker of test also in train: ben.*allow-speaker-overlap"):
        check_speakers(splits)
    assert check_speakers(splits, allow_overlap=True) == ["1 speaker of test also in train: ben"]
    assert check_speakers({"train": splits["train"], "test": [utterance("c", "carl")]}) == []
    assert "unknown" in check_speakers({"train": splits["train"], "test": [utterance("c")]})[0]
    (note,) = check_speakers({"train": splits["train"], "dev": [utterance("c", "anna")]})
    assert "anna" in note
    both = {"test-clean": splits["test"], "test-other": splits["test"]}
    assert check_speakers(both) == []


@settings(max_examples=60)
@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 6), min_size=3, max_size=20),
    st.floats(0.05, 0.4),
    st.floats(0.05, 0.4),
)
def test_splits_are_whole_speakers_and_leave_nothing_out(counts, dev, test):
    some = [utterance(f"{name}-{i}", name, 1 + i) for name, count in counts.items() for i in range(count)]
    splits = split_by_speaker(some, dev, test)
    assert set(splits) == {"train", "dev", "test"} and all(splits.values())
    assert sorted(u.id for part in splits.values() for u in part) == sorted(u.id for u in some)
    assert check_speakers(splits) == []
    assert splits == split_by_speaker(some, dev, test)


def test_shares_are_met_where_speakers_allow():
    some = [utterance(f"{name}-{i}", f"s{name}", 10) for name in range(50) for i in range(4)]
    splits = split_by_speaker(some, 0.1, 0.2)
    assert [len(splits[name]) for name in ("train", "dev", "test")] == [140, 20, 40]


def test_one_speaker_cannot_be_split():
    one = [utterance(str(i), "anna") for i in range(10)]
    with pytest.raises(ConfigError, match="1 speaker cannot be split"):
        split_by_speaker(one)
    splits = split_by_speaker(one, allow_overlap=True)
    assert [len(splits[name]) for name in ("train", "dev", "test")] == [8, 1, 1]
    assert list(split_by_speaker(one, 0, 0)) == ["train"]
    with pytest.raises(ConfigError, match="utterances: 2, too few"):
        split_by_speaker(one[:2], allow_overlap=True)


# LibriSpeech and Libri-Light


def book(folder, speaker, chapter, texts):
    for i, text in enumerate(texts):
        name = f"{speaker}-{chapter}-{i:04d}"
        tone(folder / str(speaker) / str(chapter) / f"{name}.flac", 1 + 0.1 * i)
        with open(folder / str(speaker) / str(chapter) / f"{speaker}-{chapter}.trans.txt", "a") as file:
            file.write(f"{name} {text}\n")


def test_librispeech_from_a_folder(tmp_path):
    book(tmp_path / "LibriSpeech" / "dev-clean", 84, 121, ["GO DO YOU HEAR", "BUT IT'S SO"])
    book(tmp_path / "LibriSpeech" / "test-clean", 61, 70, ["HE BEGAN A CONFUSED COMPLAINT"])
    tone(tmp_path / "LibriSpeech" / "dev-clean" / "84" / "121" / "84-121-0009.flac")  # no line for it
    out = tmp_path / "out"
    said = kdkit(
        "prepare", "librispeech", "--root", tmp_path, "--subset", "dev-clean", "--subset", "test-clean",
        "--out", out,
    )  # fmt: skip
    dev = read_manifest(out / "dev-clean.jsonl")
    assert {(u.id, u.text, u.speaker, u.duration) for u in dev} == {
        ("84-121-0000", "go do you hear", "84", 1.0),
        ("84-121-0001", "but it's so", "84", 1.1),
    }
    assert "84-121-0009.flac: no line" in said and "2 utterances" in said
    assert "84-121-0009.flac" in (out / "left-out.txt").read_text()
    assert all(len(read_audio(u.audio)) == round(u.duration * 16_000) for u in dev)


def test_librispeech_is_downloaded_and_unpacked(tmp_path, monkeypatch):
    book(tmp_path / "source" / "LibriSpeech" / "dev-clean", 84, 121, ["GO"])
    asked = []

    def download(url, path, sha256):
        asked.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz") as tar:
            tar.add(tmp_path / "source" / "LibriSpeech", "LibriSpeech")
        return path

    monkeypatch.setattr(librispeech, "download", download)
    root = tmp_path / "root"
    for _ in range(2):  # the second time it is there
        (found,) = librispeech.librispeech(root, "dev-clean")
        assert found.audio == root / "LibriSpeech" / "dev-clean" / "84" / "121" / "84-121-0000.flac"
    assert asked == ["https://www.openslr.org/resources/12/dev-clean.tar.gz"]
    with pytest.raises(ConfigError, match="test-clean: not found at"):
        librispeech.librispeech(root, "test-clean", fetch=False)
    with pytest.raises(ConfigError, match="no subset 'dev'"):
        librispeech.librispeech(root, "dev")


def test_offline_says_where_the_archive_belongs(tmp_path, monkeypatch):
    def no_network(request, timeout):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("kdkit.common.downloads.urllib.request.urlopen", no_network)
    monkeypatch.setattr("kdkit.common.downloads.time.sleep", lambda seconds: None)
    for fetch, name in (
        (lambda: librispeech.librispeech(tmp_path, "dev-clean"), "dev-clean.tar.gz"),
        (lambda: librispeech.limited_supervision(tmp_path), "librispeech_finetuning.tgz"),
        (lambda: fsdd.fsdd(tmp_path), "fsdd-v1.0.10.tar.gz"),
    ):
        with pytest.raises(DownloadError, match=f"by hand, fetch https://.* and put it at {tmp_path}/{name}"):
            fetch()


def test_libri_light_budgets(tmp_path):
    folder = tmp_path / "librispeech_finetuning"
    for fold in range(6):
        book(folder / "1h" / str(fold) / "clean", 10 + fold, 1, ["CLEAN"])
        book(folder / "1h" / str(fold) / "other", 20 + fold, 1, ["OTHER ONE"])
    book(folder / "9h" / "clean", 30, 1, ["A", "B", "C"])
    (folder / "9h" / "other").mkdir()
    kdkit("prepare", "librilight", "--root", tmp_path, "--out", tmp_path / "out")
    made = {path.stem: {u.id for u in read_manifest(path)} for path in (tmp_path / "out").glob("*.jsonl")}
    assert made.keys() == {*(f"10min-{fold}" for fold in range(6)), "1h", "10h"}
    assert made["10min-3"] == {"13-1-0000", "23-1-0000"}
    assert made["1h"] == set().union(*(made[f"10min-{fold}"] for fold in range(6)))
    assert made["10h"] == made["1h"] | {f"30-1-000{i}" for i in range(3)}
    (folder / "1h" / "5").rename(folder / "1h" / "x")
    with pytest.raises(ConfigError, match="1h/5 missing"):
        librispeech.limited_supervision(folder)


# digits


def fake_digits(root, speakers=("anna", "ben", "theo"), recordings=7):
    """The digit data's layout with tones; a digit's length tells its speaker and number, its pitch the digit."""
    for s, speaker in enumerate(speakers):
        for digit in range(10):
            for number in range(recordings):
                path = root / "recordings" / f"{digit}_{speaker}_{number}.wav"
                tone(path, 0.3 + 0.05 * s + 0.01 * number, 8000, 200 + 100 * digit)
    return root


def test_single_digits_and_digit_strings(tmp_path):
    root = fake_digits(tmp_path / "fsdd")
    (root / "recordings" / "3_ben_2.wav").write_bytes(b"")
    said = kdkit("prepare", "fsdd", "--root", root, "--out", tmp_path / "out")
    made = {path.stem: read_manifest(path) for path in (tmp_path / "out").glob("*.jsonl")}
    assert "3_ben_2.wav: the file is empty" in said
    sizes = {name: len(some) for name, some in made.items() if name.startswith("digits")}
    assert sizes == {"digits-train": 40, "digits-dev": 99, "digits-test": 70}
    assert all(u.text == fsdd.WORDS[int(u.id[0])] for u in made["digits-train"])
    assert {u.speaker for u in made["digits-test"]} == {u.speaker for u in made["strings-test"]} == {"theo"}
    for split in ("train", "dev", "test"):
        strings = made[f"strings-{split}"]
        words = [word for u in strings for word in u.text.split()]
        assert sorted(words) == sorted(u.text for u in made[f"digits-{split}"])  # every recording, once
        assert max(len(u.text.split()) for u in strings) <= 7
        for u in strings:
            wave = read_audio(u.audio)
            assert len(wave) == round(u.duration * 16_000) and 0.25 < float(wave.abs().max()) < 0.35
            low, high = (len(u.text.split()) * s + p for s, p in ((0.3, 0.1), (0.47, 8 * 0.35)))
            assert low < u.duration < high
    assert len({u.id for some in made.values() for u in some}) == sum(map(len, made.values()))


def test_digits_are_downloaded_and_unpacked(tmp_path, monkeypatch):
    fake_digits(tmp_path / "free-spoken-digit-dataset-1.0.10", ("anna",), 1)

    def download(url, path):
        assert url.startswith("https://github.com/Jakobovski/free-spoken-digit-dataset/")
        path.parent.mkdir(parents=True)
        with tarfile.open(path, "w:gz") as tar:
            tar.add(tmp_path / "free-spoken-digit-dataset-1.0.10", "free-spoken-digit-dataset-1.0.10")
        return path

    monkeypatch.setattr(fsdd, "download", download)
    found = fsdd.fsdd(tmp_path / "root")
    assert len(found) == 10 and found[3].audio == tmp_path / "root" / "recordings" / "3_anna_0.wav"
    assert fsdd.fsdd(tmp_path / "root") == found  # there already


def test_digit_strings_are_the_same_every_time(tmp_path):
    root = fake_digits(tmp_path / "fsdd", ("anna", "ben"), 6)
    digits = take_in(fsdd.fsdd(root, fetch=False), "digits", progress=False).utterances

    def made(name, **settings):
        strings = fsdd.join_digits(digits, tmp_path / name / "strings", progress=False, **settings)
        return [(u.id, u.text, hashlib.sha256(u.audio.read_bytes()).hexdigest()) for u in strings]

    assert made("one") == made("two")
    assert made("one") != made("other", seed=1)
    assert len(made("twice", passes=2)) > 1.5 * len(made("one"))
    for wrong in ({"digits": (5, 3)}, {"pause": (0.5, 0.1)}, {"passes": 0}):
        with pytest.raises(ConfigError, match="cannot be"):
            made("wrong", **wrong)
    with pytest.raises(ConfigError, match="no speaker theo"):
        fsdd.split_digits(digits, ["theo"])
    with pytest.raises(ConfigError, match="no speaker is left"):
        fsdd.split_digits(digits, ["anna", "ben"])
    with pytest.raises(ManifestError, match="DIGIT_SPEAKER_NUMBER"):
        fsdd.fsdd(tmp_path / "one", fetch=False)


@pytest.mark.skipif(not FSDD.is_dir(), reason="the digit data is not here (set KDKIT_FSDD to its folder)")
def test_the_real_digits(tmp_path):
    kdkit("prepare", "fsdd", "--root", FSDD, "--out", tmp_path)
    train, test = (read_manifest(tmp_path / f"strings-{name}.jsonl") for name in ("train", "test"))
    assert 8 < sum(u.duration for u in train) / 60 < 40
    assert {u.speaker for u in test} == {"theo"} and "theo" not in {u.speaker for u in train}
    assert sum(len(u.text.split()) for u in test) == 500
    assert not summarise(test).outside


def test_the_study_of_digits_is_shared_and_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(make_digits, "SPEAKERS", ("ben", "theo"))  # and not anna
    out, root = tmp_path / "out", fake_digits(tmp_path / "fsdd")

    def study(speakers, seeds, minutes, students=("tiny-sw-fbank",)):
        lists = {"--speakers": speakers, "--seeds": seeds, "--minutes": minutes, "--students": students}
        more = [str(word) for name, values in lists.items() for word in (name, *values)]
        common = ["--root", str(root), "--out", str(out), "--steps", "2"]
        monkeypatch.setattr(sys, "argv", ["make_digits.py", *common, *more])
        make_digits.main()
        kept = {path.stem: load_findings(path) for path in out.glob("digits_*.json")}
        assert all(sum(f.totals) == 70 and f.steps == 2 for found in kept.values() for f in found)
        return {name: {(f.name, f.minutes, f.seed) for f in found} for name, found in kept.items()}

    starts = ("tiny-sw-fbank scratch", "tiny-sw-fbank distilled")
    first = {"digits_theo": {(way, minutes, 0) for way in starts for minutes in (0.05, 0.1)}}
    assert study(["theo"], [0], [0.05, 0.1]) == first
    heard = {
        u.speaker
        for path in out.rglob("*.jsonl")
        if path.stem.startswith("strings")
        for u in read_manifest(path)
    }
    assert heard == {"ben", "theo"} and not list(out.rglob("*.safetensors"))  # only findings stay
    made = {path: path.stat().st_mtime_ns for path in [*out.rglob("*.wav"), *out.rglob("finding.json")]}
    both = study(["theo", "ben"], [0, 1], [0.05])
    more = {(way, 0.05, seed) for way in starts for seed in (0, 1)}
    assert both == {"digits_theo": first["digits_theo"] | more, "digits_ben": more}
    assert {path: path.stat().st_mtime_ns for path in made} == made  # nothing was done again


def test_help_of_the_study_of_digits_has_examples(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_digits.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        make_digits.main()
    assert "python data_scripts/make_digits.py --speakers theo --seeds 0" in capsys.readouterr().out


@pytest.mark.skipif(not FSDD.is_dir(), reason="the digit data is not here (set KDKIT_FSDD to its folder)")
def test_shipped_findings_are_of_the_real_digits(tmp_path):
    strings = make_digits.digit_strings(FSDD, "theo", tmp_path)
    assert {u.speaker for u in strings["train"]} == {u.speaker for u in strings["dev"]}
    assert {u.speaker for u in strings["test"]} == {"theo"}
    shipped = load_findings(ASSETS / "digits_theo.json")
    assert list(shipped[0].totals) == [len(u.text.split()) for u in strings["test"]]


# one's own


def test_a_folder_of_ones_own(tmp_path):
    mine = tmp_path / "mine"
    for speaker in ("anna", "ben", "carl", "dora"):
        for i in range(3):
            tone(mine / speaker / f"{i}.wav", 1 + 0.1 * i)
            (mine / speaker / f"{i}.txt").write_text(f"Sentence number {i}.\n", "utf-8")
    (mine / "anna" / "1.txt").write_bytes(b"\xff\xfe\x00broken")
    (mine / "notes.md").write_text("no audio")
    said = kdkit("prepare", "folder", mine, "--out", tmp_path / "out", "--dev", 0.25, "--test", 0.25)
    made = {path.stem: read_manifest(path) for path in (tmp_path / "out").glob("*.jsonl")}
    speakers = [{u.speaker for u in some} for some in made.values()]
    assert made.keys() == {"train", "dev", "test"} and sum(map(len, speakers)) == 4 == len(
        set.union(*speakers)
    )
    assert sum(map(len, made.values())) == 11
    assert "1.txt: cannot be read as UTF-8" in said and "characters outside" in said and "'1'" in said
    kdkit("prepare", "folder", mine, "--out", tmp_path / "spelled", "--spell-numbers")
    texts = {u.text for path in (tmp_path / "spelled").glob("*.jsonl") for u in read_manifest(path)}
    assert texts == {f"sentence number {word}" for word in ("zero", "one", "two")}


def test_splits_and_speakers_of_a_folder(tmp_path):
    for name in ("train/anna_1.wav", "train/deep/ben_1.flac", "valid/carl_1.ogg", "test/nobody.wav"):
        tone(tmp_path / name)
    found = read_folder(tmp_path, "([a-z]+)_")
    assert {split: [f.speaker for f in some] for split, some in found.items()} == {
        "train": ["anna", "ben"], "dev": ["carl"], "test": [""],
    }  # fmt: skip
    assert "finds no speaker" in found["test"][0].trouble
    assert [f.speaker for f in read_folder(tmp_path)["train"]] == ["", "deep"]
    tone(tmp_path / "loose.wav")
    with pytest.raises(ConfigError, match=r"loose\.wav, are not"):
        read_folder(tmp_path)
    for wrong, why in (("(", "not a regular"), ("[a-z]+_", "brackets")):
        with pytest.raises(ConfigError, match=why):
            read_folder(tmp_path, wrong)
    with pytest.raises(ManifestError, match="no such folder"):
        read_folder(tmp_path / "missing")
    (tmp_path / "silent").mkdir()
    with pytest.raises(ManifestError, match="no audio file"):
        read_folder(tmp_path / "silent")


def test_an_unfair_folder_is_refused_before_anything_is_written(tmp_path):
    for split in ("train", "test"):
        tone(tmp_path / "mine" / split / "anna" / f"{split}.wav")
    arguments = ("prepare", "folder", tmp_path / "mine", "--out", tmp_path / "out")
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert isinstance(result.exception, ConfigError) and "anna" in str(result.exception)
    assert not (tmp_path / "out").exists()
    assert "anna" in kdkit(*arguments, "--allow-speaker-overlap")


def test_common_voice(tmp_path):
    header = "client_id\tpath\tsentence\tup_votes\taccents"
    for split, voice in (("train", "v1"), ("dev", "v2"), ("test", "v3")):
        rows = [f'{voice}\t{split}{i}.mp3\tHe said "no" {i}\'s\t2\tUS' for i in (1, 2)]
        (tmp_path / f"{split}.tsv").write_text("\n".join([header, *rows, ""]), "utf-8")
        for i in (1, 2):
            tone(tmp_path / "clips" / f"{split}{i}.mp3")
    (tmp_path / "clips" / "dev2.mp3").unlink()
    tables = [tmp_path / f"{split}.tsv" for split in ("train", "dev", "test")]
    said = kdkit("prepare", "table", *tables, "--spell-numbers", "--out", tmp_path / "out")
    made = {path.stem: read_manifest(path) for path in (tmp_path / "out").glob("*.jsonl")}
    assert {name: len(some) for name, some in made.items()} == {"train": 2, "dev": 1, "test": 2}
    (dev,) = made["dev"]
    assert (dev.text, dev.speaker, dev.accent, dev.id) == ("he said no one's", "v2", "US", "dev1.mp3")
    assert "dev2.mp3: no such audio file" in said


def test_other_tables(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text('\ufefffile;words;who;split\na.wav;"one; two";anna;train\n;x;ben;test\n', "utf-8")
    found = read_table(table, tmp_path / "audio", {"text": "words", "speaker": "who"})
    (train,), (test,) = found["train"], found["test"]
    assert (train.text, train.speaker, train.audio) == ("one; two", "anna", tmp_path / "audio" / "a.wav")
    assert test.trouble.startswith(f"{table}:3: column 'file' is empty")
    with pytest.raises(ManifestError, match=r"no column for the text.*file, words, who.*--text-column"):
        read_table(table)
    with pytest.raises(ManifestError, match="no column 'nothing'"):
        read_table(table, columns={"text": "nothing"})
    table.write_text("path,text\n")
    with pytest.raises(ManifestError, match="no rows"):
        read_table(table)
    table.write_bytes(b"path,text\n\xff\n")
    with pytest.raises(ManifestError, match="UTF-8"):
        read_table(table)
    with pytest.raises(ManifestError, match="no such table"):
        read_table(tmp_path / "missing.csv")


def test_a_manifest_is_checked(tmp_path):
    for i in range(4):
        tone(tmp_path / "mine" / f"v{i}" / "x.wav")
        (tmp_path / "mine" / f"v{i}" / "x.txt").write_text("words")
    kdkit("prepare", "folder", tmp_path / "mine", "--out", tmp_path / "out")
    manifests = [tmp_path / "out" / f"{name}.jsonl" for name in ("train", "dev", "test")]
    assert "2 utterances" in kdkit("prepare", "check", *manifests)
    victim = read_manifest(manifests[1])[0].audio
    tone(victim, 2.0)
    assert "lasts 2.00 s, the manifest says 1.00 s" in kdkit("prepare", "check", *manifests, code=1)
    victim.unlink()
    assert "no such audio file" in kdkit("prepare", "check", *manifests, code=1)


@pytest.mark.parametrize("name", ["librispeech", "librilight", "fsdd", "folder", "table", "check"])
def test_help_has_an_example(name):
    assert f"kdkit prepare {name}" in kdkit("prepare", name, "--help")
