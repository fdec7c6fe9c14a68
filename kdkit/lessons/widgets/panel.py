"""What all widgets share: controls, a picture that follows them, and a still form for pages without a kernel.

A :class:`Panel` keeps its ``state`` in plain Python, {name of the control: value}, and ``figure()`` is its picture. It
is a thin shell: everything works without a display (``panel.update(layer=3).figure()``), and a notebook that is run by
papermill carries, beside the live widget, the picture that it began with.

Matplotlib takes longer to make axes, ticks and their labels than to fill them. So the axes are kept (``layout``), and
their contents are redrawn for every state (``draw``).
"""

from __future__ import annotations

import gc
import html
import struct
import threading
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import ipywidgets
import matplotlib
import numpy as np
import torch
from IPython.display import DisplayHandle
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kdkit.common.errors import ConfigError
from kdkit.lessons.plots.style import DARK_INK, DARK_PAPER, INK, PAPER, WRONG, Picture, theme
from kdkit.lessons.widgets import drawing, still
from kdkit.lessons.widgets.image import ClickableImage
from kdkit.recognition.wer import EQUAL
from kdkit.speech.frames import SAMPLE_RATE
from kdkit.speech.manifest import Utterance

WIDE, NARROW = 11.5, 5.0  # inches of a picture
# a narrow picture is sharp at any width below that at which it gives way to the wide one
_DPI, _NARROW_DPI = 80, 120


class Panel:
    """Controls above, a picture below, and perhaps words and sound under it.

    A subclass gives ``controls`` to ``__init__`` and writes ``layout`` and ``draw``; it may write ``shape`` (what the
    layout depends on), ``words`` (HTML under the picture), ``alt`` (the picture in words, for those who cannot see it)
    and ``clicked`` (what a click does).

    ``state``: {name: value} of every control. Changing it by :meth:`update` is what moving the control does.
    ``narrow`` and ``dark`` say what page the picture is on: :meth:`layout` puts axes of a narrow one under one another.
    """

    title = "widget"

    def __init__(self, **controls: ipywidgets.ValueWidget):
        _freeze_loaded_objects()
        self.controls = controls
        self.state = {name: control.value for name, control in controls.items()}
        self.figures_drawn = 0
        self.narrow = self.dark = False
        self._following = False
        self._box: ipywidgets.VBox | None = None
        self._still: DisplayHandle | None = None
        self._figures: dict[Hashable, Figure] = {}
        self._drawing = threading.RLock()  # a training in the background draws, too
        for name, control in controls.items():
            control.observe(lambda change, name=name: self._moved(name, change["new"]), "value")

    # --- what a subclass writes -------------------------------------------------------------------------------

    def layout(self) -> Figure:
        """Axes, and what stays in every state: labels, grids, fixed limits."""
        raise NotImplementedError

    def draw(self, *axes: Axes) -> None:
        """The present state, into the axes of the layout, which are empty."""
        raise NotImplementedError

    def shape(self) -> Hashable:
        """What the layout depends on: another shape has other axes."""
        return None

    def words(self) -> str:
        """HTML under the picture: numbers, a player."""
        return ""

    def alt(self) -> str:
        """The picture in words."""
        return f"{self.title}: " + ", ".join(f"{name} {value}" for name, value in self.state.items())

    def idle(self) -> set[str]:
        """Names of controls that change nothing in the present state: they are disabled."""
        return set()

    def clicked(self, axes: int, x: float, y: float) -> None:
        """A click into axes number ``axes`` of the figure, at data coordinates."""

    # --- state ------------------------------------------------------------------------------------------------

    def update(self, **state) -> Panel:
        """Changes the state, as moving the controls would; returns the panel.

        Raises :class:`ConfigError` for a control that there is none of, or a value that it does not take.
        """
        for name, value in state.items():
            if name not in self.controls:
                raise ConfigError(f"{self.title} has no control {name!r}; it has {', '.join(self.controls)}")
            try:
                self.controls[name].value = value
            except Exception as error:  # traitlets raises its own kinds
                raise ConfigError(f"{self.title}: {name} cannot be {value!r}: {error}") from error
            if self.controls[name].value != value:  # a slider moves to its end without a word
                low, high = (getattr(self.controls[name], end, None) for end in ("min", "max"))
                self.state[name] = self.controls[name].value
                raise ConfigError(f"{self.title}: {name} cannot be {value!r}; it goes from {low} to {high}")
        return self

    def changed(self, name: str) -> None:
        """Hook: control ``name`` has moved, ``state`` holds its new value; called before the picture is drawn.

        Controls that it moves in turn do not come here again, and all of them together make one picture.
        """

    def _moved(self, name: str, value) -> None:
        self.state[name] = value
        if self._following:
            return
        self._following = True
        try:
            self.changed(name)
        finally:
            self._following = False
        self.redraw()

    # --- what is shown ----------------------------------------------------------------------------------------

    def figure(self) -> Figure:
        """The picture of the present state; the next picture of that shape is drawn into the same figure."""
        with matplotlib.rc_context(theme(self.dark)):
            if self._kind not in self._figures:
                self._figures[self._kind] = self.layout()
            figure = self._figures[self._kind]
            for axes in figure.axes:
                drawing.wipe(axes)
            self.draw(*figure.axes)
        return figure

    @property
    def _kind(self) -> tuple:
        """What the figure depends on."""
        return self.narrow, self.dark, self.shape()

    def paper(self, wide: float, narrow: float) -> Picture:
        """An empty figure, so many inches high on a wide or a narrow page."""
        return Picture(figsize=(NARROW, narrow) if self.narrow else (WIDE, wide))

    def say(self) -> None:
        """Writes :meth:`words` under the picture, in the page's colours."""
        ink, paper, scheme = (DARK_INK, DARK_PAPER, "dark") if self.dark else (INK, PAPER, "light")
        style = (
            f"background: {paper}; color: {ink}; color-scheme: {scheme}; padding: 2px 8px; line-height: 1.6"
        )
        self._words.value = f"<div style='{style}'>{self.words()}</div>"

    def redraw(self) -> None:
        """Draws the present state, if the widget is shown."""
        if self._box is None:
            return
        with self._drawing, _one_thread():
            png = to_png(self.figure(), _NARROW_DPI if self.narrow else _DPI)
            self.figures_drawn += 1
            self.say()
            for name, control in self.controls.items():
                control.disabled = name in self.idle()
            self.picture.alt, self.picture.png = self.alt(), png
            self.picture.drawn = self.figures_drawn  # last: who waits for it finds everything else, too

    def extra(self) -> list[ipywidgets.Widget]:
        """Hook: widgets between the controls and the picture, such as buttons."""
        return []

    @property
    def box(self) -> ipywidgets.VBox:
        """The live widget, made when it is first wanted."""
        if self._box is None:
            self.picture, self._words = ClickableImage(), ipywidgets.HTML()
            self.picture.clickable = type(self).clicked is not Panel.clicked
            wrap = ipywidgets.Layout(display="flex", flex_flow="row wrap")
            rows = [ipywidgets.Box(list(self.controls.values()), layout=wrap)]
            rows += [ipywidgets.Box(extra, layout=wrap)] if (extra := self.extra()) else []
            self._box = ipywidgets.VBox([*rows, self.picture, self._words])
            self._box.add_class("kdkit-widget")
            self.redraw()
            self.picture.observe(lambda change: self._click(*change["new"][:2]), "clicked")
            self.picture.observe(lambda _: self._look(), ["dark", "narrow"])
        return self._box

    def _look(self) -> None:
        """Draws anew where the page has become dark or narrow, or is so no longer."""
        page = self.picture.dark, self.picture.narrow
        if page != (self.dark, self.narrow):
            self.dark, self.narrow = page
            self.redraw()

    def _click(self, across: float, down: float) -> None:
        """A click at shares of the picture's width and height: finds the axes under it, or nearest above or below."""
        figure, up = self._figures[self._kind], 1 - down
        places = [axes.get_position() for axes in figure.axes]
        beside = [
            (max(place.y0 - up, up - place.y1, 0), number)
            for number, place in enumerate(places)
            if place.x0 <= across <= place.x1
        ]
        if beside and min(beside)[0] < 0.1:
            _, number = min(beside)
            pixels = figure.transFigure.transform((across, up))
            x, y = figure.axes[number].transData.inverted().transform(pixels)
            self.clicked(number, float(x), float(y))

    def still(self) -> dict[str, str]:
        """The present picture for a page without a kernel, wide, on light and on dark paper."""
        page, pictures = (self.narrow, self.dark), []
        with self._drawing, _one_thread():
            for self.narrow, self.dark in ((False, False), (False, True)):
                pictures.append(to_png(self.figure()))
            self.narrow, self.dark = page
        light, dark = pictures
        return still.picture(light, self.alt(), dark)

    def _ipython_display_(self) -> None:
        """Shows the live widget, and the picture that a page without a kernel keeps."""
        self._still = still.show(self.box, self.still())


def _freeze_loaded_objects() -> None:
    """Excludes all objects that exist now from garbage collection, until the next panel is made.

    A full collection visits everything that torch and others have loaded: a third of a second, every few pictures.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits torch to one thread: waking others takes longer than the small computations of a redraw."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def to_png(figure: Figure, dpi: int = _DPI) -> bytes:
    """The whole figure, not cropped, so that a click into it can be found again; fast rather than small."""
    canvas = figure.canvas if isinstance(figure.canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
    usual, figure.dpi = figure.dpi, dpi
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    figure.dpi = usual
    return _encode(pixels)


def _encode(pixels: np.ndarray) -> bytes:
    """PNG of (height, width, 3) bytes. Libraries try five filters on every row, which takes three times as long."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # 0 before a row: no filter
    rows[:, 1:] = pixels.reshape(height, -1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),  # 8 bits of red, green and blue
        (b"IDAT", zlib.compress(rows, level=1)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def player(wave, rate: int = SAMPLE_RATE, label: str = "") -> str:
    """HTML that plays ``wave`` (samples,)."""
    from IPython.display import Audio

    sound = Audio(wave.numpy() if hasattr(wave, "numpy") else wave, rate=rate, normalize=False)._repr_html_()
    return f"<div>{html.escape(label)} {sound}</div>"


def marked_edits(edits: Sequence[tuple[str, str, str]]) -> str:
    """HTML of a transcript against its reference: what was left out struck through, what was put in bold."""
    marks = []
    for kind, said, written in edits:
        if kind == EQUAL:
            marks.append(html.escape(said))
        else:
            missing = f"<s>{html.escape(said)}</s> " if said else ""
            marks.append(f'<span style="color: {WRONG}">{missing}<b>{html.escape(written)}</b></span>')
    return " ".join(marks) or "(nothing)"


def button(label: str, does: Callable[[], None], hint: str = "") -> ipywidgets.Button:
    """A button that calls ``does`` without arguments."""
    made = ipywidgets.Button(description=label, tooltip=hint, layout=ipywidgets.Layout(width="auto"))
    made.on_click(lambda _: does())
    return made


_WHOLE = {"description_width": "initial"}  # labels are never cut


def slider(label: str, value, low, high, step=1, **options) -> ipywidgets.ValueWidget:
    """A slider for whole or real numbers that moves its picture when it is let go."""
    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    about = {"description": label, "style": _WHOLE, "continuous_update": False}
    return named(kind(value=value, min=low, max=high, step=step, **about, **options), label)


def choice(label: str, options, value=None, width: str | None = None) -> ipywidgets.Dropdown:
    """One of several: a list of values, or of (words, value). ``width``: CSS, for long words; the page's at most."""
    options = list(options)
    first = options[0][1] if isinstance(options[0], tuple) else options[0]
    value = first if value is None else value
    layout = ipywidgets.Layout(width=width, max_width="calc(100% - 4px)") if width else ipywidgets.Layout()
    about = {"description": label, "style": _WHOLE, "layout": layout}
    return named(ipywidgets.Dropdown(options=options, value=value, **about), label)


def choice_of_utterance(utterances: Sequence[Utterance]) -> ipywidgets.Dropdown:
    """One of the utterances, by number and text; the value is its index."""
    texts = [(f"{i + 1}: {u.text[:48]}", i) for i, u in enumerate(utterances)]
    return choice("utterance", texts, width="30em")


def named(control: ipywidgets.DOMWidget, name: str) -> ipywidgets.DOMWidget:
    """Gives a control the title that a screen reader reads; ipywidgets 7 has none for most of them."""
    if control.has_trait("tooltip"):
        control.tooltip = name
    return control
