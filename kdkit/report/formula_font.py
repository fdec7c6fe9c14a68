"""A font for the formulas of a page, in the page: machines without a font for mathematics would show boxes."""

from __future__ import annotations

import base64
import io
import re
import unicodedata
from functools import lru_cache
from html import unescape
from pathlib import Path

import matplotlib
from fontTools import subset

_ITALIC = 0x210E, *range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C)  # what browsers make of a single letter


def font_face(page: str) -> str:
    """CSS of the font ``formulas``: STIX, which matplotlib brings, with just the characters of the page's MathML."""
    formulas = " ".join(re.findall(r"<math.*?</math>", page, flags=re.DOTALL))
    characters = set(unescape(re.sub(r"<[^>]*>", "", formulas))) - {"\n"}
    characters |= {chr(code) for code in _ITALIC if unicodedata.normalize("NFKC", chr(code)) in characters}
    return _face("".join(sorted(characters))) if formulas else ""


@lru_cache(maxsize=8)
def _face(characters: str) -> str:
    options = subset.Options(layout_features=[], drop_tables=[*subset.Options().drop_tables, "FFTM"])
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf"
    font = subset.load_font(path, options)
    part = subset.Subsetter(options)
    part.populate(text=characters)
    part.subset(font)
    file = io.BytesIO()
    font.flavor = "woff"
    font.save(file)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'@font-face {{ font-family: formulas; src: url("data:font/woff;base64,{data}"); }}'
