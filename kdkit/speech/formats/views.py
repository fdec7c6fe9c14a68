"""Parts of audio files: what a decoder is shown of a file, and what is wrong with one."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import BinaryIO


class Short(Exception):
    """The file ends before it should; the message says how that is known."""


class Damaged(Exception):
    """The file contradicts itself; the message says where."""


@dataclass(frozen=True)
class Part:
    """Bytes of a file that are one stream to a decoder."""

    start: int = 0
    stop: int | None = None  # None: the file's end
    patches: tuple[tuple[int, bytes], ...] = ()  # (place in the file, what the decoder shall see there)
    endless: bool = False  # a decoder that computes the length from the file's size shall think it huge
    samples: int | None = None  # that the header promises; None: as many as the decoder says; 0: nothing
    slack: int = 0  # samples that may be missing
    beyond: Part | None = None  # in which a decoder does not stop at what is promised

    @property
    def is_whole_file(self) -> bool:
        return self == Part(samples=self.samples, slack=self.slack)


class View(io.RawIOBase):
    """A :class:`Part` as a file object; nobody else may move ``file`` meanwhile."""

    def __init__(self, file: BinaryIO, part: Part):
        size = file.seek(0, os.SEEK_END)
        self._file, self._start, self._at, self._there = file, part.start, 0, size - part.start
        self._size = (size if part.stop is None else part.stop) - part.start
        self._claimed = 64 * self._size + (1 << 20) if part.endless else self._size
        self._patches = [(place - part.start, data) for place, data in part.patches]
        self._patched = max((place + len(data) for place, data in self._patches), default=0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._claimed)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:
        at, wanted = self._at, len(buffer)
        if at + wanted > self._size:
            if self._claimed > self._size and at >= self._claimed - 128:  # where an ID3v1 tag would be
                buffer[:] = bytes(wanted)
                self._at += wanted
                return wanted
            wanted = max(0, self._size - at)
            buffer = memoryview(buffer)[:wanted]
        if at != self._there:
            self._file.seek(self._start + at)
        found = self._file.readinto(buffer)
        if at < self._patched:
            for place, data in self._patches:
                for i, value in enumerate(data, start=place - at):
                    if 0 <= i < found:
                        buffer[i : i + 1] = bytes((value,))
        self._at = self._there = at + found
        return found


def read_at(file: BinaryIO, place: int, count: int) -> bytes:
    """Up to ``count`` bytes at ``place``; none so far behind the end that no file could be there."""
    try:
        file.seek(place)
    except (OSError, OverflowError):
        return b""
    return file.read(count)


def after_id3(file: BinaryIO, place: int = 0) -> int:
    """Where the sound begins behind ID3v2 tags, which stand before anything."""
    while (head := read_at(file, place, 10))[:3] == b"ID3" and len(head) == 10:
        a, b, c, d = head[6:]
        place += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 0x10 else 0)
    return place
