"""Ways to damage a file, drawn from a seed: of bytes, of lines of text, of JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

ODD = (
    *(None, True, False, 0, -1, 1, 5, 1.5, -0.0, 1e308, -1e308, 2**31, 2**63, 2**64, 10**30, 10**400),
    *("", "x", "nan", "../../x", "/etc/passwd", "\ud800", "\x00", "a\nb", "\u202e", "é", "🙂", "x" * 100_000),
    *([], {}, [1], [[]], [None], {"a": 1}, [1, "x", {}], "[" * 3000),
)
ODD_WORDS = (
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e400",
    "",
    "x" * 5000,
    "\x00",
    "\ufeff",
    "é",
    "-",
    "=",
    "9" * 5000,
)


def of_bytes(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One damage of a binary file: its name, and what is left."""
    place = rng.randrange(len(data))
    head = rng.randrange(min(len(data), 600))
    size = rng.choice((1, 16, 4096))
    noise = rng.randbytes(size)
    choices = (
        lambda: (f"truncate {place}", data[:place]),
        lambda: (
            f"shorten by {size}",
            data[:-size],
        ),  # of sound that is a millisecond, which some writers miscount
        lambda: (f"flip {place}", _with(data, place, bytes([data[place] ^ 1 << rng.randrange(8)]))),
        lambda: (f"flip {head}", _with(data, head, bytes([data[head] ^ 1 << rng.randrange(8)]))),
        lambda: (f"zeros {place}", _with(data, place, bytes(min(size, len(data) - place)))),
        lambda: (f"noise {place}", _with(data, place, noise[: len(data) - place])),
        lambda: (f"insert {place}", data[:place] + noise + data[place:]),
        lambda: ("twice", data + data),
        lambda: ("empty", b""),
    )
    return rng.choice(choices)()


def of_text(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One damage of a text file: lines lost, doubled or swapped, words replaced by odd ones; or :func:`of_bytes`."""
    if rng.random() < 0.2:
        return of_bytes(data, rng)
    lines = data.decode().split("\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    word = rng.choice(ODD_WORDS)
    separator = rng.choice(" \t=,")
    parts = lines[i].split(separator)
    k = rng.randrange(len(parts))
    name, changed = rng.choice(
        (
            (f"lose line {i}", lines[:i] + lines[i + 1 :]),
            (f"double line {i}", [*lines[:i], lines[i], *lines[i:]]),
            (f"line {i} for {j}", [*lines[:j], lines[i], *lines[j + 1 :]]),
            (
                f"line {i} word {k} {word[:9]!r}",
                _replaced(lines, i, separator.join([*parts[:k], word, *parts[k + 1 :]])),
            ),
            (f"line {i} {word[:9]!r}", _replaced(lines, i, word)),
        )
    )
    return name, "\n".join(changed).encode("utf-8", "surrogatepass")


def of_json(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One thing in a JSON file (or in one line of JSON lines) taken out or replaced; or :func:`of_text`."""
    if rng.random() < 0.2:
        return of_text(data, rng)
    try:
        rows, separator = [json.loads(data)], ""
    except ValueError:
        rows, separator = [json.loads(line) for line in data.decode().splitlines() if line], "\n"
    row = rng.randrange(len(rows))
    path = rng.choice(list(_places(rows[row])))
    place = rows[row]
    for key in path[:-1]:
        place = place[key]
    value = rng.choice((..., *ODD))
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    shown = "lost" if value is ... else repr(value)[:20]
    text = separator.join(json.dumps(item) for item in rows) + separator
    return f"row {row} {'.'.join(map(str, path))} {shown}", text.encode()


def _places(value: object, path: tuple = ()) -> Iterator[tuple]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _places(item, (*path, key))


def _with(data: bytes, place: int, other: bytes) -> bytes:
    return data[:place] + other + data[place + len(other) :]


def _replaced(lines: list[str], place: int, line: str) -> list[str]:
    return [*lines[:place], line, *lines[place + 1 :]]
