"""Tables and folders that people bring: no field in another column, pieces cut out, known trees known."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from kdkit.commands.main import app
from kdkit.common.errors import ConfigError, ManifestError
from kdkit.speech.audio import read_audio
from kdkit.speech.corpora.folders import read_folder, speaker_note
from kdkit.speech.corpora.tables import read_table
from kdkit.speech.manifest import read_manifest


def ramp(path, seconds=4.0):
    """A recording whose value tells the time: 0.1 a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.arange(round(16_000 * seconds)) / 16_000, 16_000)
    return path


def table(path, *lines):
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def kdkit(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_a_row_with_other_fields_than_the_header_is_left_out(tmp_path):
    path = table(
        tmp_path / "list.csv",
        "path,text,speaker",
        "a.wav,hello, my dear world,anna",
        'b.wav,"hello, my dear world",ben',
        "c.wav,hello,carl,,",  # a spreadsheet's empty columns
        "d.wav,hello",
        "",
        "e.wav,hello,emil,more",
    )
    found = read_table(path)["list"]
    assert [(f.text, f.speaker) for f in found if not f.trouble] == [
        ("hello, my dear world", "ben"),
        ("hello", "carl"),
    ]
    assert [f.trouble for f in found if f.trouble] == [
        f"{path}:2: 4 fields where the header has 3; quote texts with the separator",
        f"{path}:5: 2 fields where the header has 3",
        f"{path}:7: 4 fields where the header has 3; quote texts with the separator",
    ]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['a.wav,"He said "no" to me",x', "b.wav,hi,y"], ["list.csv:2", "doubled"]),
        (["a.wav,hi,x", 'b.wav,"hello,y', "c.wav,hi,z"], ["list.csv:3", "doubled"]),
        (['a.wav,"hello,x', 'b.wav,"hi",y'], ["list.csv:2", "doubled"]),
    ],
)
def test_quotes_that_do_not_match_are_refused(tmp_path, lines, words):
    with pytest.raises(ManifestError) as caught:
        read_table(table(tmp_path / "list.csv", "path,text,speaker", *lines))
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("split", ["../../train", "/train", ".hidden", "a/b", "x" * 300])
def test_a_split_is_a_name_not_a_path(tmp_path, split):
    with pytest.raises(ManifestError, match=r"t\.csv:2: column 'split'.*cannot be the name"):
        read_table(table(tmp_path / "t.csv", "path,text,split", f"a.wav,one,{split}"))
    assert list(read_table(table(tmp_path / "t.csv", "path,text,split", "a.wav,one,dev-clean.1"))) == [
        "dev-clean.1"
    ]


def test_columns_of_one_name_are_refused_and_bars_separate(tmp_path):
    with pytest.raises(ManifestError, match="2 columns are called 'text'"):
        read_table(table(tmp_path / "list.csv", "path,text,text", "a.wav,one,two"))
    (found,) = read_table(table(tmp_path / "list.csv", "path|text|speaker", "a.wav|one, two|anna"))["list"]
    assert (found.text, found.speaker) == ("one, two", "anna")


def test_rows_that_are_pieces_of_files_are_cut_out(tmp_path):
    ramp(tmp_path / "talk.wav")
    ramp(tmp_path / "deep" / "talk.flac", 3.0)
    path = table(
        tmp_path / "list.csv",
        "path,text,speaker,start,end",
        "talk.wav,first,anna,0,1.5",
        "talk.wav,second,anna,1.5,4.05",  # rounded up
        "deep/talk.flac,third,ben,0:01,",
        "talk.wav,late,anna,3,5",
        "talk.wav,later,anna,1500,3000",
        "talk.wav,backwards,anna,2,1",
        "talk.wav,no time,anna,soon,1",
        "talk.wav,first again,anna,0,1.5",
        "gone.wav,nothing,anna,0,1",
        f"{'x' * 300}.wav,long name,anna,0,1",
        "talk.wav,for ever,anna,0,1e308",
        f"talk.wav,longer still,anna,{'9' * 400}:00:00,",
    )
    out = tmp_path / "out"
    said = kdkit("prepare", "table", path, "--out", out, "--dev", 0, "--test", 0)
    made = {u.text: u for u in read_manifest(out / "train.jsonl")}
    assert {text: u.duration for text, u in made.items()} == {"first": 1.5, "second": 2.5, "third": 2.0}
    assert made["second"].id == "talk.wav#1.500-4.050" and made["third"].speaker == "ben"
    for text, start in (("first", 0.0), ("second", 1.5), ("third", 1.0)):
        wave = read_audio(made[text].audio)
        assert made[text].audio.is_relative_to(out / "audio") and len(wave) == made[text].duration * 16_000
        assert wave[0] == pytest.approx(0.1 * start, abs=1e-3)
        assert wave[-1] == pytest.approx(0.1 * (start + made[text].duration), abs=1e-3)
    for words in (
        "3.000-5.000 s is wanted, but it lasts 4.00 s",
        "1500.000-3000.000 s is wanted",
        "list.csv:7: it ends at 1 s, but starts at 2 s",
        "list.csv:8: column 'start': 'soon' is no time",
        "listed before",
        "gone.wav: no such",
        "list.csv:12: column 'end': '1e308' is no time",
        "list.csv:13: column 'start'",
    ):
        assert words in said
    assert "9 left out" in said


@pytest.mark.parametrize(
    ("header", "row", "seconds"),
    [
        ("path,text,start_ms,end_ms", "talk.wav,one,500,1500", 1.0),
        ("path,text,offset,duration", "talk.wav,one,0.5,1.25", 1.25),
        ("path;text;begin;end", "talk.wav;one;0,5;2", 1.5),
        ("path,text,duration", "talk.wav,one,1.25", 4.0),  # a length without a start is only information
        ("path,text,start,end", "talk.wav,one,,", 4.0),
        ("path,text,from,to", "talk.wav,one,1,2", 1.0),
    ],
)
def test_times_of_pieces(tmp_path, header, row, seconds):
    ramp(tmp_path / "talk.wav")
    options = ("--start-column", "from", "--end-column", "to") if "from" in header else ()
    out = tmp_path / "out"
    kdkit(
        "prepare",
        "table",
        table(tmp_path / "t.csv", header, row),
        "--out",
        out,
        "--dev",
        0,
        "--test",
        0,
        *options,
    )
    assert [u.duration for u in read_manifest(out / "train.jsonl")] == [seconds]
    assert (out / "audio").exists() == (seconds != 4.0)


def test_lists_of_json_objects_are_tables(tmp_path):
    ramp(tmp_path / "talk.wav")
    ramp(tmp_path / "whole.wav", 2.0)
    path = table(
        tmp_path / "nemo.json",
        '{"audio_filepath": "talk.wav", "text": "One, two", "offset": 0.0, "duration": 1.25, "speaker": "anna"}',
        "",
        '{"audio_filepath": "talk.wav", "offset": 2, "duration": 1, "text": "three", "other": [1]}',
        '{"audio_filepath": "whole.wav", "duration": 2.0, "text": null}',
    )
    out = tmp_path / "out"
    kdkit("prepare", "table", path, "--out", out, "--dev", 0, "--test", 0)
    made = {u.text: (u.duration, u.speaker) for u in read_manifest(out / "train.jsonl")}
    assert made == {"one two": (1.25, "anna"), "three": (1.0, ""), "": (2.0, "")}
    for line, words in (
        ('{"audio": "a.wav", "text": "\\ud800"}', "'text' is not Unicode"),
        ('{"audio": "a.wav"', "not JSON"),
        ('{"audio": "a.wav", "audio": "b.wav", "text": ""}', "'audio' occurs twice"),
    ):
        with pytest.raises(ManifestError, match=rf"t\.jsonl:1: .*{words}"):
            read_table(table(tmp_path / "t.jsonl", line))


def test_an_end_without_a_start_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="'end' but none for the start"):
        read_table(table(tmp_path / "t.csv", "path,text,end", "talk.wav,one,2"))


def test_pieces_of_an_unfair_division_are_not_kept(tmp_path):
    ramp(tmp_path / "in" / "talk.wav")
    header = "path,text,speaker,split,start,end"
    path = table(tmp_path / "in" / "t.csv", header, "talk.wav,a,anna,train,0,1", "talk.wav,b,anna,test,1,2")
    arguments = ["prepare", "table", str(path), "--out", str(tmp_path / "data" / "out")]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigError) and not (tmp_path / "data").exists()
    kdkit(*arguments, "--allow-speaker-overlap")
    before = sorted((tmp_path / "data").rglob("*.wav"))
    assert len(before) == 2
    assert CliRunner().invoke(app, arguments).exit_code
    assert sorted((tmp_path / "data").rglob("*.wav")) == before  # those of the run that was right


def test_pieces_stay_in_their_folder_and_apart(tmp_path):
    ramp(tmp_path / "talk.wav")
    ramp(tmp_path / "list" / "talk.flac", 2.0)
    path = table(
        tmp_path / "list" / "t.csv",
        "path,text,start,end",
        f"{tmp_path / 'talk.wav'},whole path,0,1",
        "../talk.wav,above,1,2",
        "talk.flac,beside,1,2",
    )
    kdkit("prepare", "table", path, "--out", tmp_path / "out", "--dev", 0, "--test", 0)
    made = read_manifest(tmp_path / "out" / "train.jsonl")
    assert len({u.audio for u in made}) == 3
    assert all(u.audio.is_relative_to(tmp_path / "out" / "audio") and u.audio.is_file() for u in made)


def test_a_tree_of_librispeech_is_known(tmp_path):
    for subset, speaker in (("dev-clean", "84"), ("dev-clean", "174"), ("test-clean", "61")):
        chapter = tmp_path / "LibriSpeech" / subset / speaker / "121"
        ramp(chapter / f"{speaker}-121-0000.flac", 1.0)
        (chapter / f"{speaker}-121.trans.txt").write_text(f"{speaker}-121-0000 GO DO YOU HEAR\n")
    for place in (tmp_path, tmp_path / "LibriSpeech"):
        found = read_folder(place)
        assert {split: [f.speaker for f in some] for split, some in found.items()} == {
            "dev-clean": ["174", "84"],
            "test-clean": ["61"],
        }
        assert {f.text for some in found.values() for f in some} == {"GO DO YOU HEAR"}
        assert speaker_note(found) == ""
    ramp(tmp_path / "LibriSpeech" / "dev-clean" / "84" / "121" / "84-121-0001.flac", 1.0)
    (part,) = read_folder(tmp_path / "LibriSpeech" / "dev-clean").values()
    assert [f.speaker for f in part] == ["174", "84", "84"] and "no line for it" in part[2].trouble


def test_a_tree_of_timit_is_known(tmp_path):
    for split, region, speaker in (
        ("TRAIN", "DR1", "FCJF0"),
        ("TRAIN", "DR1", "MDAB0"),
        ("TEST", "DR2", "FAEM0"),
    ):
        folder = tmp_path / "TIMIT" / split / region / speaker
        ramp(folder / "SA1.WAV", 1.0)
        (folder / "SA1.TXT").write_text("0 46797 She had your dark suit.\n")
        (folder / "SA1.PHN").write_text("0 3050 h#\n")
    found = read_folder(tmp_path)
    assert {split: [f.speaker for f in some] for split, some in found.items()} == {
        "train": ["FCJF0", "MDAB0"],
        "test": ["FAEM0"],
    }
    assert found["test"][0].text.strip() == "She had your dark suit." and speaker_note(found) == ""


def test_folders_within_speakers_are_mentioned(tmp_path):
    for name in ("wav48/p225/a.wav", "wav48/p226/b.wav"):
        ramp(tmp_path / "mine" / name, 1.0)
    said = kdkit("prepare", "folder", tmp_path / "mine", "--out", tmp_path / "out", "--dev", 0, "--test", 0)
    assert "note: 1 folders, such as 'wav48', are taken for speakers" in said and "--speaker-pattern" in said
    options = ("--speaker-pattern", "(p[0-9]+)/", "--dev", 0, "--test", 0)
    assert "note" not in kdkit("prepare", "folder", tmp_path / "mine", "--out", tmp_path / "out", *options)


def test_a_transcript_that_is_no_file_does_not_stop_the_others(tmp_path):
    for name in ("a", "b", "c"):
        ramp(tmp_path / f"{name}.wav", 1.0)
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "x.trans.txt").mkdir()
    (tmp_path / "b.TXT").write_text("\ufeffWords", "utf-8")
    a, b, c = read_folder(tmp_path)[""]
    assert (
        "no ordinary file" in a.trouble and (b.text, b.trouble) == ("Words", "") and c.text == c.trouble == ""
    )


def test_what_was_dropped_and_what_cannot_be_written_is_said(tmp_path):
    ramp(Path(tmp_path / "a.wav"))
    ramp(Path(tmp_path / "b.wav"))
    path = table(tmp_path / "t.csv", "path,text", "a.wav,AT&amp;T <COMMA> yes [laughter]", "b.wav,plain")
    out = tmp_path / "out"
    said = kdkit("prepare", "table", path, "--out", out, "--dev", 0, "--test", 0)
    assert {u.text for u in read_manifest(out / "train.jsonl")} == {"at&t yes", "plain"}
    assert "2 tags and signs dropped: '<comma>' once, '[laughter]' once" in said
    assert "'&' in 1" in said and "leaves these 1 utterances out" in said
    kdkit("prepare", "table", path, "--out", out, "--dev", 0, "--test", 0, "--spell-numbers")
    assert {u.text for u in read_manifest(out / "train.jsonl")} == {"at and t yes", "plain"}
