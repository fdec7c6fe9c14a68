"""A live widget and a still form of it, as two outputs of a cell.

Widgets live as long as their kernel. A notebook that is saved and opened again, or converted, holds only the still
form; in place of the live one JupyterLab says "Error displaying widget: model not found". So a style in the still form
hides it while the live one is on the page, and hides that message otherwise.
"""

from __future__ import annotations

import base64

import ipywidgets
from IPython.display import DisplayHandle, display

from kdkit.lessons.plots.page import image_html

WIDGET = "application/vnd.jupyter.widget-view+json"

_STYLE = """<style>
body:has(.live-{key}) .still-{key} {{ display: none }}
.jp-OutputArea-child:has(.still-{key}) + .jp-OutputArea-child:not(:has(.live-{key})) {{ display: none }}
</style>"""


def show(widget: ipywidgets.DOMWidget, still: dict[str, str]) -> DisplayHandle:
    """Shows both under the cell: ``still`` is a MIME bundle with "text/html". Returns the handle of the still form, for
    :func:`renew`.
    """
    widget.add_class(f"live-{widget.model_id}")
    handle = display(_marked(widget, still), raw=True, display_id=True)
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    display({WIDGET: view, "text/plain": ""}, raw=True)
    return handle


def renew(handle: DisplayHandle, widget: ipywidgets.DOMWidget, still: dict[str, str]) -> None:
    """Puts another still form in the place of the first."""
    handle.update(_marked(widget, still), raw=True)


def picture(light: bytes, alt: str, dark: bytes) -> dict[str, str]:
    """The MIME bundle of a still picture, PNG for a light and for a dark page; ``alt`` describes it."""
    said = "<p><small>A still picture: the controls come when the cell runs.</small></p>"
    data = base64.b64encode(light).decode("ascii")
    return {"text/html": image_html(light, alt, dark) + said, "image/png": data, "text/plain": alt}


def _marked(widget: ipywidgets.DOMWidget, still: dict[str, str]) -> dict[str, str]:
    key = widget.model_id
    html = f'<div class="still-{key}">{still["text/html"]}</div>{_STYLE.format(key=key)}'
    return still | {"text/html": html}
