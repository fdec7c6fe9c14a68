"""Pictures on a page that is light or dark: the page shows the one that fits, and changes with its theme."""

from __future__ import annotations

import base64
import hashlib
from html import escape

_COLAB = 'html[theme="dark"]'
_DARK = (
    '[data-jp-theme-light="false"]',
    ".vscode-dark",
    ".vscode-high-contrast",
    _COLAB,
)  # above a dark page


def image_html(light: bytes, alt: str, dark: bytes = b"") -> str:
    """An image from PNG bytes, at most as wide as the page; on a dark page ``dark`` takes its place. ``alt`` is what it
    shows, in words.
    """
    key = f"kdkit-{hashlib.sha256(light).hexdigest()[:16]}"
    image = f'<img class="{key}" src="{_url(light)}" alt="{escape(alt)}" style="max-width: 100%">'
    where = ", ".join(f"{theme} .{key}" for theme in _DARK)
    return f"{image}<style>{where} {{ content: url({_url(dark)}) }}</style>" if dark else image


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
