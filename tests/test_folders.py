"""One list of endings for all commands; what is passed over is said; names and outputs of any encoding."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from kdkit.commands.main import app, main
from kdkit.common.files import write_text
from kdkit.fbank import fbank_statistics
from kdkit.speech.audio import ENDINGS, SAMPLE_RATE, read_audio
from kdkit.speech.folders import by_ending, contents
from kdkit.speech.manifest import Utterance, read_manifest

CASES = Path(__file__).parent / "cases"
SHIPPED = "tiny_sw_fbank_distilled_60"
posix_names = pytest.mark.skipif(
    os.name == "nt" or sys.platform == "darwin", reason="names there are Unicode"
)


def speech(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    soundfile.write(path, 0.1 * rng.standard_normal(round(seconds * SAMPLE_RATE)), SAMPLE_RATE)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# --------------------------------------------------------------------------------------------------------- folders


def test_what_is_in_a_folder(tmp_path):
    for name in (
        "b.wav",
        "a/c.FLAC",
        "a/c.txt",
        "a/d.m4a",
        "a/.hidden.wav",
        ".git/e.wav",
        "x.jpg",
        "README",
        "y.trans.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = contents(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in found.audio] == ["a/c.FLAC", "a/d.m4a", "b.wav"]
    assert [Path(file).name for file, _ in found.passed_over()] == ["README", "x.jpg"]
    assert "x.jpg: passed over: .jpg is not an ending" in found.passed_over()[1][1]
    assert by_ending([file for file, _ in found.passed_over()]) == "1 without ending, 1 .jpg"


def test_a_folder_that_is_closed_is_said(tmp_path, monkeypatch):
    speech(tmp_path / "open" / "a.wav")
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def forbidden(place):
        if Path(place).name == "closed":
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert contents(tmp_path).closed == [(tmp_path / "closed", "cannot be looked into: Permission denied")]
    result = run("transcribe", SHIPPED, tmp_path, "--jobs", 1)
    assert result.exit_code == 1 and "closed: cannot be looked into: Permission denied" in result.stderr
    assert "1 of 2 files could not be read" in result.stderr and len(result.stdout.splitlines()) == 1
    result = run("prepare", "folder", tmp_path, "--out", tmp_path / "out", "--dev", 0, "--test", 0)
    assert result.exit_code == 0, result.output
    assert "closed: cannot be looked into" in (tmp_path / "out" / "left-out.txt").read_text()


def test_every_ending_is_looked_at_by_every_command(tmp_path, monkeypatch):
    speech(tmp_path / "in" / "anna" / "good.wav")
    for ending in ENDINGS - {".wav"}:
        (tmp_path / "in" / "anna" / f"x{ending}").write_text("this is no sound\n" * 100)
    (tmp_path / "in" / "notes.docx").touch()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    result = run("prepare", "folder", tmp_path / "in", "--out", tmp_path / "out", "--dev", 0, "--test", 0)
    assert result.exit_code == 0, result.output
    assert "1 passed over (1 .docx)" in result.output
    lines = (tmp_path / "out" / "left-out.txt").read_text().splitlines()
    for ending in ENDINGS - {".wav", ".raw", ".pcm"}:
        assert any(f"x{ending}: not an audio file" in line and "ffmpeg" in line for line in lines), ending
    assert any("x.raw: samples without a header" in line for line in lines)
    assert any("notes.docx: passed over" in line for line in lines)
    result = run("transcribe", SHIPPED, tmp_path / "in", "--jobs", 1)
    assert result.exit_code == 1 and result.stderr.count("left out:") == len(lines) - 1
    assert [line.partition("\t")[0] for line in result.stdout.splitlines()] == [
        str(tmp_path / "in/anna/good.wav")
    ]


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_prepare_writes_the_durations_that_the_reader_finds(tmp_path, quick):
    for case in CASES.iterdir():
        if case.suffix != ".md":
            (tmp_path / "in" / case.stem).mkdir(parents=True)
            shutil.copy(case, tmp_path / "in" / case.stem)
            (tmp_path / "in" / case.stem / f"{case.stem}.txt").write_text("some words")
    (tmp_path / "in" / "x.raw").write_bytes(bytes(1000))
    options = ("--out", tmp_path / "out", "--dev", 0, "--test", 0, *quick)
    result = run("prepare", "folder", tmp_path / "in", *options)
    assert result.exit_code == 0, result.output
    utterances = read_manifest(tmp_path / "out" / "train.jsonl")
    left = (tmp_path / "out" / "left-out.txt").read_text()
    assert "cut_in_half.ogg: truncated" in left and "x.raw: samples without a header" in left
    assert len(utterances) == 5 + bool(quick)  # samples are not looked at
    for utterance in utterances:
        if utterance.speaker != "int16_units_in_float":
            wave = read_audio(utterance.audio)
            assert utterance.duration == pytest.approx(len(wave) / SAMPLE_RATE, abs=1e-4)


def test_one_bad_file_makes_no_statistics_of_nan(tmp_path):
    good, bad = speech(tmp_path / "a.wav"), tmp_path / "b.wav"
    wave = soundfile.read(good)[0]
    wave[100] = 1e30
    soundfile.write(bad, wave, SAMPLE_RATE, subtype="FLOAT")
    with pytest.warns(UserWarning, match=r"1 of 2 files left out, the first: .*b\.wav: sample 100 is 1e\+30"):
        mean, std = fbank_statistics([Utterance("a", good, 1.0), Utterance("b", bad, 1.0)])
    assert bool(mean.isfinite().all() and std.isfinite().all())


def test_the_command_and_places_that_are_no_files(tmp_path):
    good = speech(tmp_path / "a.wav")
    result = run(
        "transcribe",
        SHIPPED,
        good,
        tmp_path / ("x" * 300),
        tmp_path / "gone",
        CASES / "gsm610.wav",
        "--jobs",
        1,
    )
    assert result.exit_code == 1, result.output
    assert [line.partition("\t")[0] for line in result.stdout.splitlines()] == [
        str(good),
        str(CASES / "gsm610.wav"),
    ]
    assert result.stderr.count("cannot be opened") == 1 and "no such audio file" in result.stderr
    result = run("prepare", "folder", tmp_path / ("x" * 300), "--out", tmp_path / "out")
    assert "no such folder" in str(result.exception)


# ------------------------------------------------------------------------------------------------ names and encodings


def run_main(monkeypatch, encoding, *arguments):
    """The command as a process runs it, with its output in ``encoding``: (exit status, what was written)."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["kdkit", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    out.flush()
    written = out.buffer.getvalue()
    monkeypatch.undo()
    return caught.value.code, written


NAMES = ["ő-\N{GRINNING FACE}.wav", "\x81.wav"]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_in_another_encoding(tmp_path, monkeypatch, encoding):
    folder = tmp_path / "in" / "ψ"
    paths = [speech(folder / name) for name in sorted(NAMES)]
    status, said = run_main(monkeypatch, encoding, "transcribe", SHIPPED, folder, "--jobs", 1)
    assert status in (0, None) and len(said.splitlines()) == 2
    assert b"\\x81.wav" in said or encoding == "utf-8"
    status, said = run_main(
        monkeypatch, encoding, "transcribe", SHIPPED, folder, "--jobs", 1, "--format", "json"
    )
    assert [json.loads(line)["file"] for line in said.splitlines()] == [str(path) for path in paths]
    out = tmp_path / "out"
    status, said = run_main(
        monkeypatch, encoding, "prepare", "folder", tmp_path / "in", "--out", out, "--dev", 0, "--test", 0
    )
    assert status in (0, None), said
    assert sorted(u.audio for u in read_manifest(out / "train.jsonl")) == paths
    status, said = run_main(monkeypatch, encoding, "prepare", "check", out / "train.jsonl")
    assert status in (0, None) and b"2 utterances" in said


@posix_names
def test_a_name_that_is_not_utf8(tmp_path, monkeypatch):
    strange = Path(os.fsdecode(bytes(tmp_path / "in" / "anna") + b"/caf\xe9.wav"))
    good = speech(tmp_path / "in" / "anna" / "good.wav")
    shutil.copy(good, os.fsencode(strange))
    status, said = run_main(monkeypatch, "utf-8", "transcribe", SHIPPED, tmp_path / "in", "--jobs", 1)
    assert status in (0, None) and b"caf\\udce9.wav\t" in said and len(said.splitlines()) == 2
    target = tmp_path / "t.jsonl"
    status, said = run_main(
        monkeypatch, "utf-8", "transcribe", SHIPPED, strange, "--jobs", 1, "--format", "json", "--out", target
    )
    assert status in (0, None)
    assert Path(json.loads(target.read_text(encoding="utf-8"))["file"]) == strange
    out = tmp_path / "out"
    status, said = run_main(
        monkeypatch, "utf-8", "prepare", "folder", tmp_path / "in", "--out", out, "--dev", 0, "--test", 0
    )
    assert status in (0, None) and b"caf\\udce9.wav: its name is not Unicode text" in said
    assert [u.audio for u in read_manifest(out / "train.jsonl")] == [good]
    assert "caf\\udce9.wav: its name is not" in (out / "left-out.txt").read_text(encoding="utf-8")


def test_text_that_is_not_unicode_is_written_as_an_escape(tmp_path):
    write_text(tmp_path / "x.json", json.dumps(["caf\udce9 é"], ensure_ascii=False))
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == ["caf\udce9 é"]
