"""Numbers as people read them, on pages, in tables and in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime


def percent(value: float, unit: bool = True, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}" + ("\N{NO-BREAK SPACE}%" if unit else "")


def count(value: int | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k" if value >= 1e4 else str(value)


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds >= 3600:
        return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def measure(value, unit: str = "") -> str:
    """A metric as people read it; shares become per cent."""
    if isinstance(value, (bool, str)):
        return str(value)
    if unit == "share":
        return percent(value)
    text = str(value) if isinstance(value, int) else f"{value:.4g}"
    return f"{text} {unit}".strip()


def score(entry: dict) -> str:
    """A value with its 95 % interval: "23.1 % (21.5 to 24.8)"."""
    return f"{percent(entry['value'])}{between(entry.get('interval'), 'share')}"


def between(interval: Sequence[float] | None, unit: str = "") -> str:
    """An interval to stand behind its value: " (21.5 to 24.8)"; nothing where there is none."""
    if not interval:
        return ""
    low, high = (percent(end, unit=False) if unit == "share" else measure(end) for end in interval)
    return f" ({low} to {high})"


def size(count_of_bytes: float) -> str:
    return f"{count_of_bytes / 1e9:.1f} GB" if count_of_bytes >= 1e9 else f"{count_of_bytes / 1e6:.0f} MB"


def moment(iso: str | None) -> str:
    """A time of ``run.json`` for people: "2026-05-04 13:20 +02:00"."""
    if not iso:
        return ""
    when = datetime.fromisoformat(iso)
    return f"{when:%Y-%m-%d %H:%M} " + (iso[19:] if when.utcoffset() else "UTC")


def columns(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table for a terminal; a row of one cell is a heading over the whole width."""
    whole = [row for row in [head, *rows] if len(row) > 1]
    widths = [max(len(row[i]) for row in whole) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in [head, *rows]
    ]
