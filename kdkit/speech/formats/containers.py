"""What the header of an audio file promises, and where its sound lies.

A header is written before the sound and often never corrected: programs that write to a pipe leave a length of 0 or of
two to four gigabytes, an mp3 may have none at all. :func:`parts_of` says what can be relied on: it refuses a file that
is shorter than it must be, and where a length is unknown, or would be guessed, it gives the decoder a view of the file
(:class:`kdkit.speech.formats.views.View`) in which it reads on to the end.

Sources: RIFF/WAVE (Microsoft 1994), EBU Tech 3306 (RF64), AIFF 1.3 and AIFF-C (Apple), Core Audio Format (Apple), Sony
Wave64, NIST SPHERE, ASF 1.2 (Microsoft).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from kdkit.common.errors import AudioError
from kdkit.speech.formats.bitstreams import flac, mpeg, ogg
from kdkit.speech.formats.views import Damaged, Part, Short, after_id3, read_at

_NEAR = 1 << 16  # bytes: so far from 2^31 or 2^32 lie the lengths that stand for "unknown"
_CHUNKS = 10_000  # more before the sound: not a header


def parts_of(path: Path, file: BinaryIO) -> list[Part] | None:
    """The streams of a file, one after the other; None when its container is none of those known here.

    Raises :class:`AudioError` when the file ends before it should.
    """
    size = file.seek(0, os.SEEK_END)
    start = after_id3(file)
    head = read_at(file, start, 16)
    try:
        for begins, look in _CONTAINERS:
            if head.startswith(begins):
                return look(file, size, start)
        if path.suffix.lower() == ".gsm" and all(head >> 4 == 0xD for head in read_at(file, 0, 330)[::33]):
            return [Part()]  # frames of GSM 6.10 alone, which a decoder knows by the name
        return mpeg(file, size, start)
    except Short as short:
        raise AudioError(f"{path}: truncated: {short}; copy it again") from None
    except _Lost:
        return [Part()]
    except Damaged as damage:
        raise AudioError(f"{path}: damaged: {damage}; copy it again, or make it anew") from None


class _Lost(Exception):
    """No chunk where one should begin: decoders look around, and find their way or do not."""


def _compare(size: int, begin: int, length: int, miscounted: int = 0) -> None:
    if begin + length > size + miscounted:
        raise Short(f"its header promises {length} bytes of sound, {max(0, size - begin)} are there")


def _unknown(length: int, begin: int, size: int) -> bool:
    """Is a length in 32 bits one of those that stand for "I cannot know", not one of a file that was cut?"""
    if begin + length <= size:
        return length == 0
    return (
        0x7F000000 <= length < 0x7F000000 + _NEAR  # sox, AIFF
        or abs(length - (1 << 31)) <= _NEAR
        or length >= (1 << 32) - _NEAR
    )


# ------------------------------------------------------------------------------------------- chunks, one after another


def _chunks(
    file: BinaryIO, place: int, form: str, last: bytes, unit: int = 2
) -> dict[bytes, tuple[int, int]]:
    """{name: (place and length of its content)} up to the chunk ``last``; ``form``: the struct of name and length."""
    found, long = {}, struct.calcsize(form)
    for _ in range(_CHUNKS):
        head = read_at(file, place, long)
        if len(head) < long:
            raise Short("it ends within its header")
        name, length = struct.unpack(form, head)
        name = name[:4]
        if unit == 2 and not all(32 <= letter < 127 for letter in name):
            raise _Lost
        if long == 24:  # Wave64 counts the head, too
            length -= long
        found[name] = (place + long, length)
        if name == last:
            return found
        place += long + -(-max(0, length) // unit) * unit
    raise Damaged("its header does not end")


def _riff(file: BinaryIO, size: int, start: int) -> list[Part] | None:
    if read_at(file, start + 8, 4) != b"WAVE":
        return None  # a film, a picture
    order = ">" if read_at(file, start, 4) == b"RIFX" else "<"
    whole = struct.unpack(f"{order}I", read_at(file, start + 4, 4).ljust(4, b"\0"))[0]
    chunks = _chunks(file, start + 12, f"{order}4sI", b"data")
    place, length = chunks[b"data"]
    if b"ds64" in chunks and length == 0xFFFFFFFF:  # the length is elsewhere, in 64 bits
        sizes = chunks[b"ds64"][0] + 8
        (length,) = struct.unpack("<Q", read_at(file, sizes, 8).ljust(8, b"\0"))
        if 0 < length < (1 << 63) - _NEAR:
            _compare(size, place, length)
            return [Part()]
        return [Part(patches=((sizes, struct.pack("<Q", size - place)),))]
    if length == 0 and start + 8 + whole > place and whole < 0x7F000000:
        return [Part()]  # a sound of no samples, and other chunks
    if not _unknown(length, place, size):
        _compare(size, place, length, miscounted=44)  # some count their header in
        return [Part()]
    return [Part(patches=((place - 4, struct.pack(f"{order}I", min(size - place, 0xFFFFFFFF))),))]


def _aiff(file: BinaryIO, size: int, start: int) -> list[Part] | None:
    if read_at(file, start + 8, 4) not in (b"AIFF", b"AIFC"):
        return None
    chunks = _chunks(file, start + 12, ">4sI", b"SSND")
    place, length = chunks[b"SSND"]
    if _unknown(length, place, size):
        return [Part(samples=0)]
    _compare(size, place, length)
    if b"COMM" in chunks:
        about = read_at(file, chunks[b"COMM"][0], 22).ljust(22, b"\0")
        channels, promised, bits = struct.unpack(">HIH", about[:8])
        plain = read_at(file, start + 8, 4) == b"AIFF" or about[18:] in _AIFF_PLAIN
        if plain and promised * channels * -(-bits // 8) > length - 8:
            raise Damaged(f"its header promises {promised} samples, in {length} bytes")
    return [Part()]


_AIFF_PLAIN = (b"NONE", b"twos", b"sowt", b"fl32", b"FL32", b"fl64", b"FL64")


def _au(file: BinaryIO, size: int, start: int) -> list[Part]:
    order = ">" if read_at(file, start, 4) == b".snd" else "<"
    head = read_at(file, start + 4, 8)
    if len(head) < 8:
        raise Short("it ends within its header")
    place, length = struct.unpack(f"{order}2I", head)
    if _unknown(length, start + place, size):
        return [Part(patches=((start + 8, b"\xff" * 4),))]  # which every decoder knows to mean so
    _compare(size, start + place, length)
    return [Part()]


def _w64(file: BinaryIO, size: int, start: int) -> list[Part]:
    place, length = _chunks(file, start + 40, "<16sq", b"data", 8)[b"data"]
    # -1 and 0 in 64 bits, less the head; or the greatest of signed numbers
    if length in (-25, -24) or length >= (1 << 63) - _NEAR or (length == 0 and size > place + 64):
        return [Part(patches=((place - 8, struct.pack("<q", size - place + 24)),))]
    _compare(size, place, length)
    return [Part()]


def _caf(file: BinaryIO, size: int, start: int) -> list[Part]:
    place, length = _chunks(file, start + 8, ">4sq", b"data", 1)[b"data"]
    if length < 0:
        return [Part(patches=((place - 8, struct.pack(">q", size - place)),))]
    _compare(size, place, length)
    return [Part()]


def _sphere(file: BinaryIO, size: int, start: int) -> list[Part]:
    head = read_at(file, start, 4096)
    found = {
        name: int(value)
        for name, value in re.findall(rb"^(\w+) -i (\d{1,18})\s*$", head.partition(b"end_head")[0], re.M)
    }
    begins = re.match(rb"NIST_1A\n\s*(\d{1,9})\n", head)
    if begins and b"embedded" not in head:
        length = found.get(b"sample_count", 0) * found.get(b"sample_n_bytes", 0)
        _compare(size, start + int(begins[1]), length * found.get(b"channel_count", 1))
    return [Part()]


def _asf(file: BinaryIO, size: int, start: int) -> None:
    """Not for libsndfile; but the header of a wma file says how long it is."""
    head = read_at(file, start, 8192)
    place = head.find(_ASF_PROPERTIES)
    if 0 <= place < len(head) - 92 and not head[place + 88] & 1:  # a broadcast cannot know
        length = int.from_bytes(head[place + 40 : place + 48], "little")
        if start + length > size:
            raise Short(f"its header promises {length} bytes, {size - start} are there")


_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


_CONTAINERS: tuple[tuple[tuple[bytes, ...], Callable[[BinaryIO, int, int], list[Part] | None]], ...] = (
    ((b"RIFF", b"RIFX", b"RF64", b"BW64"), _riff),
    ((b"fLaC",), flac),
    ((b"OggS",), ogg),
    ((b"FORM",), _aiff),
    ((b".snd", b"dns."), _au),
    ((b"riff\x2e\x91\xcf\x11",), _w64),
    ((b"caff",), _caf),
    ((b"NIST_1A\n",), _sphere),
    ((bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),), _asf),
)
