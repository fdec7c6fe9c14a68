"""Pictures on a page that is light or dark: the page shows the one that fits, and changes with its theme."""

from __future__ import annotations

import base64
import hashlib
from html import escape

_COLAB = 'html[theme="dark"]'
_DARK = '[data-jp-theme-light="false"]', ".vscode-dark", ".vscode-high-contrast", _COLAB  # above a dark page


def image_html(light: bytes, alt: str, dark: bytes = b"") -> str:
    """An image from PNG bytes; on a dark page ``dark`` takes its place. ``alt`` is what it shows, in words.

    It is at most as wide as the page, but not so narrow that its text could not be read: then it is moved sideways.
    """
    key = f"kdkit-{hashlib.sha256(light).hexdigest()[:16]}"
    wide = "max-width: max(100%, 560px)"
    image = f'<img class="{key}" src="{_url(light)}" alt="{escape(alt)}" style="{wide}">'
    image = f'<div style="overflow-x: auto">{image}</div>'
    where = ", ".join(f"{theme} .{key}" for theme in _DARK)
    return f"{image}<style>{where} {{ content: url({_url(dark)}) }}</style>" if dark else image


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
