"""The header is an estimate: what is there is read to its end, what is missing is said, whatever the container."""

import struct
import time
import tracemalloc

import numpy as np
import pytest
from sounds import CASES, KINDS, SAMPLES, change, find, refused, sound, write

from kdkit.speech.audio import SAMPLE_RATE, read_audio, seconds_of

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


def test_an_rf64_that_ends_before_its_sizes_in_64_bits(tmp_path):
    head = b"RF64" + b"\xff" * 4 + b"WAVE" + b"ds64" + bytes(4) + b"data" + b"\xff" * 4
    (tmp_path / "a.wav").write_bytes(head)
    refused(tmp_path / "a.wav")


def test_what_stands_after_the_sound_may_be_missing(tmp_path):
    path = write(tmp_path / "a.wav")
    change(
        path, (4, struct.pack("<I", path.stat().st_size + 1000))
    )  # of chunks that somebody cut off, or miscounted
    assert seconds_of(path) == SAMPLES / SAMPLE_RATE


def test_a_wav_whose_size_counts_its_header_is_whole(tmp_path):
    path = write(tmp_path / "a.wav")
    for size in (8, 36, 44):
        change(path, (40, struct.pack("<I", 2 * SAMPLES + size)))
        assert seconds_of(path) == SAMPLES / SAMPLE_RATE
    refused(change(path, (40, struct.pack("<I", 2 * SAMPLES + 46))), "truncated")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_tag_of_players_before_the_header(tmp_path, name):
    path = write(tmp_path / name)
    path.write_bytes(b"ID3\4\0\0" + bytes((0, 0, 8, 0)) + bytes(1024) + path.read_bytes())
    assert seconds_of(path) == seconds_of(path, quick=True) == SAMPLES / SAMPLE_RATE


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
        ("a.caf", lambda p: [(find(p, b"desc") + 4, struct.pack(">Q", 1 << 62))], "truncated"),
        ("a.w64", lambda p: [(find(p, b"fmt ") + 16, struct.pack("<Q", 1 << 62))], "truncated"),
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
    path.write_bytes(data)
    refused(
        change(path, (page + 2000, bytes(4))), "damaged", "is not as it was written"
    )  # its checksum says so
    path.write_bytes(data + b"TAG" + bytes(125))  # what stands behind the end is nothing
    assert seconds_of(path) == SAMPLES / SAMPLE_RATE


def test_joined_flac_files_are_refused(tmp_path):
    one = write(tmp_path / "a.flac").read_bytes()
    (tmp_path / "joined.flac").write_bytes(one + one)
    refused(tmp_path / "joined.flac", "several files in one")
    (tmp_path / "joined.flac").write_bytes(one + b"TAG" + bytes(125))
    assert seconds_of(tmp_path / "joined.flac") == SAMPLES / SAMPLE_RATE


def test_joined_mp3_files_are_read_to_the_end(tmp_path):
    one, plain, path = write(tmp_path / "a.mp3"), CASES / "cbr_without_info.mp3", tmp_path / "joined.mp3"
    tag = b"TAG" + bytes(125)
    for data, seconds in [
        (one.read_bytes() * 3, 3 * SAMPLES / SAMPLE_RATE),
        (one.read_bytes() + tag + one.read_bytes() + tag, 2 * SAMPLES / SAMPLE_RATE),
        (one.read_bytes() + plain.read_bytes(), SAMPLES / SAMPLE_RATE + seconds_of(plain)),
        (one.read_bytes() + bytes(3000) + one.read_bytes(), 2 * SAMPLES / SAMPLE_RATE),
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
    path.write_bytes(plain[: len(plain) // 2] + bytes(3000) + plain[len(plain) // 2 :])
    refused(path, "damaged")


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
