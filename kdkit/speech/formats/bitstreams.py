"""Streams of frames or pages, which have no chunks around them: FLAC, Ogg and MPEG audio.

Sources: RFC 9639 (FLAC), RFC 3533 (Ogg), ISO 11172-3 and 13818-3 (MPEG audio) and the tags Xing, Info and VBRI that
encoders put into the first frame.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

from kdkit.speech.formats.views import Damaged, Part, Short, after_id3, read_at

_FLAC_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)


def flac(file: BinaryIO, size: int, start: int) -> list[Part]:
    info = read_at(file, start + 8, 18)
    if len(info) < 18:
        raise Short("it ends within its header")
    rate, samples = (
        int.from_bytes(info[10:13], "big") >> 4,
        int.from_bytes(info[13:18], "big") & (1 << 36) - 1,
    )
    place, last = start + 4, False
    while not last:
        head = read_at(file, place, 4)
        if len(head) < 4:
            raise Short("it ends within its header")
        last, place = head[0] >= 0x80, place + 4 + int.from_bytes(head[1:], "big")
    frame = read_at(file, place, 4)
    code = frame[2] & 15 if len(frame) == 4 and frame[0] == 0xFF else 0
    if 0 < code < len(_FLAC_RATES) and _FLAC_RATES[code] != rate:
        raise Damaged(f"its header says {rate} Hz, its sound {_FLAC_RATES[code]} Hz")
    unknown = ((start + 21, bytes((info[13] & 0xF0, 0, 0, 0, 0))),)  # the decoder would stop at the length
    if not samples:
        return [Part(start, samples=0)]
    return [Part(start, samples=samples, beyond=Part(start, patches=unknown))]


def ogg(file: BinaryIO, size: int, start: int) -> list[Part]:
    """Pages, in links: streams that begin together, and end before others begin."""
    links, place, headers, ended = [start], start, True, False
    while place < size:
        head = read_at(file, place, 27 + 255)
        if head[:4] != b"OggS":
            if ended:
                break  # a tag, or padding
            if b"OggS".startswith(head[:4]):
                raise Short("its last page is not whole")
            raise Damaged(f"no page where one should begin (byte {place})")
        page = 27 + (head[26] if len(head) > 26 else 0)
        page += sum(head[27:page])
        if len(head) < 27 or place + page > size:
            raise Short("its last page is not whole")
        if _checksum(read_at(file, place, page)) != head[22:26]:
            raise Damaged(f"the page at byte {place} is not as it was written")  # a decoder leaves it out
        kind = head[5]
        if kind & 2 and not headers:
            if not ended:
                raise Short(f"the stream before byte {place} has no end-of-stream page")
            links.append(place)
            ended = False
        headers = bool(kind & 2)
        ended = ended or bool(kind & 4)
        place += page
    if not ended:
        raise Short("it has no end-of-stream page")
    if len(links) == 1:
        return [Part(start)]
    return [Part(begin, end) for begin, end in zip(links, [*links[1:], place])]


_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _checksum(page: bytes) -> bytes:
    """As a page holds it: CRC-32 from the highest bit on, of the page with zeros in place of it. zlib begins with the
    lowest bit, and inverts before and after.
    """
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    crc = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_MIRRORED)


_MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version
_KBITS = {  # by (version is 1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def mpeg(file: BinaryIO, size: int, start: int) -> list[Part] | None:
    """Frames of MPEG audio, with or without a tag in the first that counts them.

    Files that were joined (a.mp3 + b.mp3) have a tag in the middle: each is a part of its own.
    """
    parts: list[Part] = []
    while (found := _first_frame(file, start, 4096 if not parts else size - start)) is not None:
        place, samples, side = found
        tag = read_at(file, place, 160)
        flags = int.from_bytes(tag[side + 4 : side + 8], "big")
        if tag[side : side + 4] not in (b"Xing", b"Info") or not flags & 1:
            frames = int.from_bytes(tag[50:54], "big") if tag[36:40] == b"VBRI" else 0
            stop, count = _after_frames(file, size, place)
            frames = max(frames, count)
            parts.append(Part(place, stop, endless=True, samples=frames * samples, slack=3 * samples))
            return parts
        frames = int.from_bytes(tag[side + 8 : side + 12], "big")
        length = int.from_bytes(tag[side + 12 : side + 16], "big") if flags & 2 else 0
        if place <= size - length <= place + 1024:  # room for a tag, but not for more sound
            start = size
        else:
            start, _ = _after_frames(file, size, place, frames + 1)
            start = start if start > place else size  # not even one frame is whole
        # counts are a frame off here and there; a file that lacks bytes, too, was cut
        parts.append(Part(place, start, slack=0 if place + length > size else 2 * samples))
    if len(parts) == 1:
        return [Part(slack=parts[0].slack)]
    return parts or None


def _after_frames(file: BinaryIO, size: int, place: int, most: int | None = None) -> tuple[int, int]:
    """(where the last whole frame ends, how many there are), or the same of at most so many. A decoder stumbles over
    half a frame, and over what tools leave behind the last.
    """
    count = 0
    while count != most:
        row = _frame(read_at(file, place, 4))
        if row is None:
            found = _first_frame(file, place, size - place)
            if found is None:
                break
            if most is None and found[0] - place > 1000:
                return size, count  # more than a decoder looks through: it shall say so
            place = found[0]
        elif place + row[0] > size:
            break
        else:
            place += row[0]
            count += 1
    return place, count


def _first_frame(file: BinaryIO, start: int, search: int) -> tuple[int, int, int] | None:
    """(its place, samples in a frame, where in it a tag would be) of the first of some frames in a row."""
    start = after_id3(file, start)
    search = min(search, 1 << 24)
    data = read_at(file, start, search + 8192)
    place = data.find(b"\xff")
    while 0 <= place <= search:
        found, at = _frame(data[place : place + 4]), place
        for _ in range(3 if place else 1):  # where the frames are not the first thing: more of them
            row = _frame(data[at : at + 4])
            at += row[0] if row else 0
            if row is None or (at < len(data) and _frame(data[at : at + 4]) is None):
                break
        else:
            return start + place, found[1], found[2]
        place = data.find(b"\xff", place + 1)
    return None


def _frame(head: bytes) -> tuple[int, int, int] | None:
    """(bytes, samples, place of a tag) of an MPEG frame with this header; None if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, bits, rate = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    first = version == 3
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    kbits, hertz = _KBITS[first, layer][bits - 1], _MPEG_RATES[version][rate]
    length, padding = samples * 125 * kbits // hertz, head[2] >> 1 & 1
    if layer == 1:
        length = length // 4 * 4
    mono = head[3] >> 6 == 3
    side = 4 + ((17 if mono else 32) if first else (9 if mono else 17))
    return length + padding * (4 if layer == 1 else 1), samples, side
