"""The header is an estimate: what is there is read to its end, what is missing is said, whatever the container."""

import os
import shutil
import struct
import subprocess
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kdkit import audio
from kdkit.audio import SAMPLE_RATE, blocks_of_file, read_audio, seconds_of
from kdkit.errors import AudioError, ConfigError
from kdkit.stream import blocks_of_array

CASES = Path(__file__).parent / "cases"
SAMPLES = 50_000  # not a multiple of any codec's frame
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is what makes and reads these")

KINDS = {  # name: how soundfile writes it
    "a.wav": {},
    "big-endian.wav": {"endian": "BIG", "subtype": "PCM_16"},
    "float.wav": {"subtype": "FLOAT"},
    "extensible.wav": {"format": "WAVEX"},
    "ulaw.wav": {"subtype": "ULAW"},
    "a.rf64": {"format": "RF64"},
    "a.w64": {},
    "a.aiff": {},
    "float.aiff": {"subtype": "FLOAT"},
    "a.au": {},
    "a.caf": {},
    "a.sph": {"format": "NIST"},
    "a.flac": {},
    "a.ogg": {"subtype": "VORBIS"},
    "a.opus": {"format": "OGG", "subtype": "OPUS"},
    "a.mp3": {},
}


def sound(samples=SAMPLES):
    rng = np.random.default_rng(0)
    return (0.3 * np.sin(0.05 * np.arange(samples)) + 0.05 * rng.standard_normal(samples)).astype(np.float32)


def write(path, wave=None, rate=SAMPLE_RATE, **how):
    soundfile.write(path, sound() if wave is None else wave, rate, **{**KINDS.get(path.name, {}), **how})
    return path


def change(path, *changes):
    """Overwrites bytes at places."""
    data = bytearray(path.read_bytes())
    for place, new in changes:
        data[place : place + len(new)] = new
    path.write_bytes(data)
    return path


def refused(path, *words, quick=False):
    with pytest.raises(AudioError) as caught:
        seconds_of(path, quick)
    for word in (str(path), *words):
        assert word in str(caught.value), caught.value
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- files that went wrong


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("vbr_without_xing.mp3", 12),
        ("cbr_without_info.mp3", 6),
        ("unknown_length.flac", 4),
        ("sox_pipe_header.wav", 3),
        ("gsm610.wav", 3),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_the_cases_are_read_whole(name, seconds, quick):
    found = seconds_of(CASES / name, quick)
    assert seconds <= found < seconds + 0.06  # codecs fill their last frame
    assert len(read_audio(CASES / name)) / SAMPLE_RATE == seconds_of(CASES / name)
    assert found == pytest.approx(seconds_of(CASES / name), abs=1e-4)


def test_the_cases_that_are_refused():
    refused(CASES / "cut_in_half.ogg", "truncated")
    refused(CASES / "int16_units_in_float.wav", "[-1, 1]", "16-bit units", "divide by 32768")


# ------------------------------------------------------------------------------------------------------ whole and cut


@pytest.mark.parametrize("name", KINDS)
def test_whole_files_are_whole(tmp_path, name):
    path = write(tmp_path / name)
    assert seconds_of(path) == seconds_of(path, quick=True) == SAMPLES / SAMPLE_RATE


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kept", [0.02, 0.2, 0.5, 0.8, 0.97, 0.999])
def test_cut_files_are_refused(tmp_path, name, kept, capfd):
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    words = () if name == "a.mp3" and kept < 0.1 else ("truncated",)  # no frame is left
    refused(path, *words)
    if name not in ("a.mp3", "a.flac"):  # there the size says nothing
        refused(path, *words, quick=True)


def test_a_cut_wav_whose_outer_size_was_mended(tmp_path):
    path = write(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:40_000])
    refused(change(path, (4, struct.pack("<I", 40_000 - 8))), "truncated", f"{2 * SAMPLES} bytes", "39956")


def test_what_stands_after_the_sound_may_be_missing(tmp_path):
    path = write(tmp_path / "a.wav")
    change(
        path, (4, struct.pack("<I", path.stat().st_size + 1000))
    )  # of chunks that somebody cut off, or miscounted
    assert seconds_of(path) == SAMPLES / SAMPLE_RATE


# ------------------------------------------------------------------------------------- lengths that nobody could know


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (0x7FFFF024, 0x7FFFF000),  # sox
        (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg
        (0x7FFFFFFF, 0x7FFFFFFF),
        (0x7FFFFFFF, 0x7FFFFFFF - 36),
        (0x80000024, 0x80000000),  # arecord
        (0xFFFFFFFF, 0xFFFFFFFF - 44),
        (0, 0),
        (36, 0),  # a recorder that was switched off
        (0, 0xFFFFFFFF),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_wav_from_a_pipe(tmp_path, riff, data, quick):
    path = write(tmp_path / "a.wav")
    change(path, (4, struct.pack("<I", riff)), (40, struct.pack("<I", data)))
    assert seconds_of(path, quick) == SAMPLES / SAMPLE_RATE
    np.testing.assert_allclose(read_audio(path), sound(), atol=1 / 32768)


def test_a_wav_of_no_samples_and_other_chunks_is_empty(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(0))
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 1000) + bytes(1000))
    refused(change(path, (4, struct.pack("<I", path.stat().st_size - 8))), "0 samples")


def find(path, name):
    return path.read_bytes().index(name)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("a.au", lambda p: [(8, b"\xff" * 4)]),
        ("a.au", lambda p: [(8, bytes(4))]),
        ("a.w64", lambda p: [(16, b"\xff" * 8), (find(p, b"data") + 16, b"\xff" * 8)]),
        ("a.w64", lambda p: [(16, bytes(8)), (find(p, b"data") + 16, bytes(8))]),
        ("a.w64", lambda p: [(find(p, b"data") + 16, struct.pack("<Q", 24))]),
        ("a.caf", lambda p: [(find(p, b"data") + 4, b"\xff" * 8)]),
        (
            "a.aiff",
            lambda p: [(4, bytes(4)), (find(p, b"COMM") + 10, bytes(4)), (find(p, b"SSND") + 4, bytes(4))],
        ),
        (
            "a.aiff",
            lambda p: [
                (4, b"\x7f\0\0\x50"),
                (find(p, b"COMM") + 10, b"\x3f\x80\0\0"),
                (find(p, b"SSND") + 4, b"\x7f\0\0\x08"),
            ],
        ),
        ("a.rf64", lambda p: [(20, bytes(24))]),
        ("a.rf64", lambda p: [(20, b"\xff" * 24)]),
        ("a.flac", lambda p: [(21, bytes((p.read_bytes()[21] & 0xF0, 0, 0, 0, 0)))]),
    ],
)
def test_other_containers_from_a_pipe(tmp_path, name, changes):
    path = write(tmp_path / name)
    change(path, *changes(path))
    assert seconds_of(path) == seconds_of(path, quick=True) == SAMPLES / SAMPLE_RATE


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("a.wav", lambda p: [(40, struct.pack("<I", 0x10000000))], "truncated"),
        ("a.aiff", lambda p: [(find(p, b"SSND") + 4, b"\x40\0\0\0")], "truncated"),
        ("a.aiff", lambda p: [(find(p, b"COMM") + 10, b"\x80\0\0\0")], "damaged"),
        ("a.w64", lambda p: [(find(p, b"data") + 16, struct.pack("<Q", 1 << 60))], "truncated"),
        ("a.rf64", lambda p: [(28, struct.pack("<Q", 1 << 60))], "truncated"),
        ("a.caf", lambda p: [(find(p, b"data") + 4, struct.pack(">Q", 1 << 60))], "truncated"),
        ("a.flac", lambda p: [(22, struct.pack(">I", (1 << 32) - 1))], "truncated"),
        ("a.flac", lambda p: [(21, bytes((p.read_bytes()[21] | 15, 255, 255, 255, 255)))], "truncated"),
        ("a.flac", lambda p: [(22, struct.pack(">I", 36_043))], "there are 50000"),
        ("a.flac", lambda p: [(22, struct.pack(">I", 1))], "there are"),
        (
            "a.flac",
            lambda p: [(18, bytes((8000 >> 12, 8000 >> 4 & 255)))],
            "its header says 8000 Hz, its sound 16000",
        ),
        ("a.wav", lambda p: [(24, struct.pack("<I", 1))], "sample rate of 1 Hz"),
        ("a.wav", lambda p: [(24, struct.pack("<I", 7))], "sample rate of 7 Hz"),
        ("a.wav", lambda p: [(24, struct.pack("<I", 0x7FFFFFFF))], "sample rate"),
    ],
)
def test_headers_that_do_not_fit_what_is_there(tmp_path, name, changes, said):
    path = write(tmp_path / name)
    change(path, *changes(path))
    began = time.monotonic()
    tracemalloc.start()
    refused(path, said)
    refused(path, quick=name != "a.flac")
    assert tracemalloc.get_traced_memory()[1] < 50e6 and time.monotonic() - began < 5
    tracemalloc.stop()


# ---------------------------------------------------------------------------------------- several streams in one file


def test_chained_ogg_is_read_to_its_last_link(tmp_path):
    vorbis, opus = write(tmp_path / "a.ogg"), write(tmp_path / "a.opus")
    other = write(tmp_path / "b.ogg", sound()[:24_000], 8_000)  # 3 s at another rate
    path = tmp_path / "chain.ogg"
    path.write_bytes(vorbis.read_bytes() + opus.read_bytes() + other.read_bytes())
    assert seconds_of(path) == seconds_of(path, quick=True) == 2 * SAMPLES / SAMPLE_RATE + 3
    pieces = [read_audio(part) for part in (vorbis, opus, other)]
    assert np.array_equal(read_audio(path), np.concatenate(pieces))
    half = vorbis.read_bytes()
    path.write_bytes(half[: half.rindex(b"OggS")] + opus.read_bytes())
    refused(path, "truncated", "no end-of-stream page")
    path.write_bytes(vorbis.read_bytes() + opus.read_bytes()[:-1])
    refused(path, "truncated", "last page")


def test_an_ogg_file_with_damage_inside(tmp_path):
    path = write(tmp_path / "a.ogg")
    data = path.read_bytes()
    page = [i for i in range(len(data)) if data.startswith(b"OggS", i)][3]
    refused(change(path, (page, b"XXXX")), "damaged", f"byte {page}")
    path.write_bytes(data + b"TAG" + bytes(125))  # what stands behind the end is nothing
    assert seconds_of(path) == SAMPLES / SAMPLE_RATE


def test_joined_mp3_files_are_read_to_the_end(tmp_path):
    one, plain, path = write(tmp_path / "a.mp3"), CASES / "cbr_without_info.mp3", tmp_path / "joined.mp3"
    tag = b"TAG" + bytes(125)
    for data, seconds in [
        (one.read_bytes() * 3, 3 * SAMPLES / SAMPLE_RATE),
        (one.read_bytes() + tag + one.read_bytes() + tag, 2 * SAMPLES / SAMPLE_RATE),
        (one.read_bytes() + plain.read_bytes(), SAMPLES / SAMPLE_RATE + seconds_of(plain)),
    ]:
        path.write_bytes(data)
        assert seconds_of(path) == pytest.approx(seconds, abs=1e-3)


# ------------------------------------------------------------------------------------------------ mp3 without a count


def test_mp3_without_a_count_ends_where_its_frames_end(tmp_path, capfd):
    plain, path = (CASES / "vbr_without_xing.mp3").read_bytes(), tmp_path / "x.mp3"
    whole = seconds_of(CASES / "vbr_without_xing.mp3")
    tags = {
        "ID3v2 before": b"ID3\4\0\0" + bytes((0, 0, 8, 0)) + bytes(1024) + plain,
        "ID3v1 behind": plain + b"TAG" + b"x" * 125,
        "APE behind": plain + b"APETAGEX" + struct.pack("<II", 2000, 32) + b"title" * 200,
        "zeros behind": plain + bytes(100_000),
        "zeros before": bytes(700) + plain,
    }
    for name, data in tags.items():
        path.write_bytes(data)
        assert seconds_of(path) == whole, name
    path.write_bytes(plain[: len(plain) // 2])  # nothing says that there was more: all that is there
    assert 0.4 * whole < seconds_of(path) < 0.6 * whole
    assert capfd.readouterr().err == ""


def test_the_counts_of_fraunhofer_and_of_an_mp3_that_was_cut(tmp_path):
    plain = (CASES / "cbr_without_info.mp3").read_bytes()
    begin = plain.index(b"\xff\xfb") if b"\xff\xfb" in plain else plain.index(b"\xff\xf3")
    frames = round(seconds_of(CASES / "cbr_without_info.mp3") * 44_100 / 1152)
    path = tmp_path / "x.mp3"
    for count in (frames, frames + 40):
        tag = b"VBRI" + bytes(6) + struct.pack(">II", len(plain) - begin, count)
        path.write_bytes(plain[begin:])
        change(path, (36, tag))
        if count == frames:
            assert seconds_of(path) == pytest.approx(seconds_of(CASES / "cbr_without_info.mp3"), abs=0.06)
        else:
            refused(path, "truncated", f"{count * 1152} samples")


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
    monkeypatch.setattr(audio.shutil, "which", lambda name: None)
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
