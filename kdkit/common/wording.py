"""Numbers, times and tables as text, for pages, notebooks and terminals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime


def percent(share: float, interval: Sequence[float] | None = None, digits: int = 1) -> str:
    """A share (0.231) in per cent, "23.1 %"; with its 95 % interval (low, high) "23.1 % (21.5 to 24.8)"."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%" + between(interval, "share")


def count(value: int | None) -> str:
    """A number of parameters: "4.00 M", "880 k", "312"; "" for None."""
    if value is None:
        return ""
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k" if value >= 1e4 else str(value)


def counted(number: int, one: str, many: str = "") -> str:
    """ "1 text", "2 texts"; ``many`` where the plural is not ``one`` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Seconds as "59 s", "1 min 01 s" or "2 h 03 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds >= 3600:
        return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def measure(value, unit: str = "") -> str:
    """A metric with its unit, four significant digits; shares become per cent."""
    if isinstance(value, (bool, str)):
        return str(value)
    if unit == "share":
        return percent(value)
    text = str(value) if isinstance(value, int) else f"{value:.4g}"
    return f"{text} {unit}".strip()


def rate(entry: dict) -> str:
    """An error rate {"value": 0.231, "interval": (0.215, 0.248)} as "23.1 % (21.5 to 24.8)"; the interval may lack."""
    return percent(entry["value"], entry.get("interval"))


def between(interval: Sequence[float] | None, unit: str = "") -> str:
    """An interval, to be put after its value: " (21.5 to 24.8)", of unit "share" in per cent; "" for None and for
    (nan, nan), the interval of a single utterance.
    """
    if interval is None or any(map(math.isnan, interval)):
        return ""
    low, high = (f"{100 * end:.1f}" if unit == "share" else measure(end) for end in interval)
    return f" ({low} to {high})"


def size(number_of_bytes: float) -> str:
    """Bytes as "500 MB" or "2.0 GB"."""
    return f"{number_of_bytes / 1e9:.1f} GB" if number_of_bytes >= 1e9 else f"{number_of_bytes / 1e6:.0f} MB"


def moment(iso: str | None) -> str:
    """A time in ISO 8601 as "2026-05-04 13:20 +02:00"; "" for None."""
    if not iso:
        return ""
    when = datetime.fromisoformat(iso)
    return f"{when:%Y-%m-%d %H:%M} " + (iso[19:] if when.utcoffset() else "UTC")


def columns(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table for a terminal; a row of one cell is a heading over all columns."""
    whole = [row for row in [head, *rows] if len(row) > 1]
    widths = [max(len(row[i]) for row in whole) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in [head, *rows]
    ]
