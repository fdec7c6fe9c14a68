"""Samples that are no sound, places that are no files, formats that need ffmpeg; and memory."""

import os
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import SAMPLES, refused, sound, write

from kdkit.common.errors import AudioError, ConfigError
from kdkit.speech.audio import SAMPLE_RATE, blocks_of_file, read_audio, seconds_of
from kdkit.speech.stream import blocks_of_array

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is what makes and reads these")

# ------------------------------------------------------------------------------------------ samples that are no sound


@pytest.mark.parametrize("largest", [32768.0, 1e30, 17.0, -300.0])
def test_samples_far_beyond_full_scale_are_said(tmp_path, largest):
    wave = sound()
    wave[20_000] = largest
    path = write(tmp_path / "a.wav", wave, subtype="FLOAT")
    refused(path, "sample 20000", "[-1, 1]")
    with pytest.raises(AudioError, match="sample 20000"):
        list(blocks_of_array(wave, SAMPLE_RATE))


def test_float_samples_a_little_beyond_full_scale_are_sound(tmp_path):
    path = write(tmp_path / "a.wav", 20 * sound(), subtype="FLOAT")  # a loud mix: up to 10
    assert float(read_audio(path).abs().max()) > 6


def test_sixteen_bit_units_are_named(tmp_path):
    for wave in (32768 * sound(), 32768 * sound().astype(np.float64)):
        with pytest.raises(AudioError, match="16-bit units: divide by 32768"):
            list(blocks_of_array(wave, SAMPLE_RATE))


def test_channels_in_opposite_phase_are_said(tmp_path):
    wave = sound()
    path = write(tmp_path / "a.wav", np.stack([wave, -wave], 1))
    refused(path, "opposite phase", "keep one")
    with pytest.raises(AudioError, match="opposite phase"):
        list(blocks_of_array(np.stack([wave, -0.999 * wave]), SAMPLE_RATE))
    for other in (np.zeros_like(wave), -0.7 * wave, np.random.default_rng(1).permutation(wave), wave):
        assert len(read_audio(write(path, np.stack([wave, other], 1)))) == SAMPLES
    silence = np.zeros((SAMPLES, 2))
    assert len(read_audio(write(path, silence))) == SAMPLES


def test_what_is_no_array_of_samples():
    for rate in ("16000", None, 0, float("nan")):
        with pytest.raises(ConfigError, match="sample rate"):
            list(blocks_of_array(sound(), rate))
    with pytest.raises(AudioError, match="sample rate of 3 Hz"):
        list(blocks_of_array(sound(), 3))


# ------------------------------------------------------------------------------------------- places that are no files


def test_places_that_are_no_files(tmp_path):
    refused(tmp_path / "none.wav", "no such audio file")
    refused(tmp_path, "a folder")
    refused(tmp_path / ("x" * 300 + ".wav"), "cannot be opened")
    refused(tmp_path / "\ud800.wav", "cannot be opened")
    refused(write(tmp_path / "a.wav") / "b.wav", "no such audio file")
    refused(Path("a\0.wav"), "cannot be opened")


@pytest.mark.skipif(os.name == "nt", reason="no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    refused(tmp_path / "a.wav", "a pipe or a device")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def forbidden(*arguments, **named):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.wav")
    monkeypatch.setattr("builtins.open", forbidden)
    refused(path, "Permission denied")
    monkeypatch.undo()
    monkeypatch.setattr(os, "stat", forbidden)  # in a folder that may not be searched
    with pytest.raises(AudioError, match="Permission denied"):
        next(blocks_of_file(path))


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names there are Unicode")
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a"])
def test_names_that_are_not_utf8(tmp_path, name):
    if name.endswith("m4a") and not shutil.which("ffmpeg"):
        pytest.skip("needs ffmpeg")
    path = tmp_path / os.fsdecode(b"caf\xe9-" + name.encode())
    if name.endswith("m4a"):
        make(tmp_path / "x.mka", "-c:a", "pcm_s16le").rename(path)
    else:
        write(tmp_path / name).rename(path)
    assert seconds_of(path) == SAMPLES / SAMPLE_RATE


# ------------------------------------------------------------------------------------ no header, and more with ffmpeg


def test_samples_without_a_header_are_refused_in_words(tmp_path):
    (tmp_path / "a.raw").write_bytes(sound().tobytes())
    refused(tmp_path / "a.raw", "without a header", "convert it first")
    write(tmp_path / "b.raw", format="WAV")  # but what has one is read, whatever its name
    assert seconds_of(tmp_path / "b.raw") == SAMPLES / SAMPLE_RATE


def make(path, *how):
    source = write(path.with_name("source.wav"))
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", source, *how, path], check=True)
    return path


@needs_ffmpeg
@pytest.mark.parametrize("ending", ["m4a", "webm", "aac", "mka", "wma", "oga"])
def test_other_formats_need_ffmpeg(tmp_path, ending, monkeypatch):
    path = make(tmp_path / f"http:a.{ending}" if os.name != "nt" else tmp_path / f"a.{ending}")
    assert seconds_of(path) == seconds_of(path, quick=True) == pytest.approx(SAMPLES / SAMPLE_RATE, abs=0.1)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refused(path, "more with ffmpeg installed")


@needs_ffmpeg
def test_ffmpeg_gives_the_samples_at_their_rate_and_in_their_channels(tmp_path):
    wave = sound()
    write(tmp_path / "source.wav", np.stack([wave, -wave], 1), 48_000)
    path = tmp_path / "x.mka"
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "source.wav", "-c:a", "pcm_s16le"]
    subprocess.run([*command, path], check=True)
    refused(path, "opposite phase")
    write(tmp_path / "source.wav", np.stack([wave, 0.5 * wave], 1), 48_000)
    subprocess.run([*command, "-y", path], check=True)
    assert np.array_equal(read_audio(path), read_audio(tmp_path / "source.wav"))


@needs_ffmpeg
@pytest.mark.parametrize(
    ("ending", "how"),
    [("webm", ()), ("mka", ()), ("wma", ()), ("m4a", ()), ("m4a", ("-movflags", "+faststart"))],
)
def test_other_formats_that_were_cut(tmp_path, ending, how):
    path = make(tmp_path / f"a.{ending}", *how)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, *(() if ending == "m4a" and not how else ("truncated",)))


@needs_ffmpeg
def test_a_webm_file_with_damage_inside(tmp_path):
    path = make(tmp_path / "a.webm")
    data = path.read_bytes()
    path.write_bytes(data[:7000] + data[7100:])
    refused(path, "truncated or damaged")


@needs_ffmpeg
def test_a_playlist_does_not_read_other_files(tmp_path):
    write(tmp_path / "secret.wav")
    (tmp_path / "a.m4a").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'secret.wav'}\n")
    refused(tmp_path / "a.m4a", "not an audio file")


# ------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "x.mp3"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    def peak(seconds):
        with soundfile.SoundFile(tmp_path / name, "w", SAMPLE_RATE, 1, subtype=None) as file:
            for _ in range(seconds):
                file.write(sound(SAMPLE_RATE))
        tracemalloc.start()
        assert seconds_of(tmp_path / name) == pytest.approx(seconds, abs=0.1)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(200) < 1.2 * peak(30) + 1e5 < 10e6
