"""What all widgets share: controls, a picture that follows them, and a still form for pages without a kernel.

A :class:`Panel` keeps its ``state`` in plain Python, {name of the control: value}, and draws it with ``figure()``. It
is a thin shell: everything works without a display (``panel.update(layer=3).figure()``), and a notebook that is run by
papermill carries, beside the live widget, the picture that it began with.
"""

from __future__ import annotations

import base64
import gc
import html
import io
from collections.abc import Callable

import ipywidgets
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from kdkit.errors import ConfigError
from kdkit.widgets.picture import Picture

DPI = 80


class Panel:
    """Controls above, a picture below, and perhaps words and sound under it.

    A subclass gives ``controls`` to ``__init__`` and writes ``figure``; it may write ``words`` (HTML under the
    picture), ``alt`` (the picture in words, for those who cannot see it) and ``clicked`` (what a click does).

    ``state``: {name: value} of every control. Changing it by :meth:`update` is what moving the control does.
    """

    title = "widget"

    def __init__(self, **controls: ipywidgets.ValueWidget):
        _look_away_from_what_is_loaded()
        self.controls = controls
        self.state = {name: control.value for name, control in controls.items()}
        self.figures_drawn = 0
        self._box: ipywidgets.VBox | None = None
        self._axes: list = []
        for name, control in controls.items():
            control.observe(lambda change, name=name: self._moved(name, change["new"]), "value")

    # --- what a subclass writes -------------------------------------------------------------------------------

    def figure(self) -> Figure:
        """The picture of the present state."""
        raise NotImplementedError

    def words(self) -> str:
        """HTML under the picture: numbers, a player."""
        return ""

    def alt(self) -> str:
        """The picture in words."""
        return f"{self.title}: " + ", ".join(f"{name} {value}" for name, value in self.state.items())

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
        """Hook: control ``name`` has moved, ``state`` holds its new value; called before the picture is drawn."""

    def _moved(self, name: str, value) -> None:
        self.state[name] = value
        self.changed(name)
        self.redraw()

    # --- what is shown ----------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Draws the present state, where there is somebody to see it."""
        if self._box is None:
            return
        png, self._axes = self._draw()
        self._words.value = self.words()
        self.picture.alt, self.picture.png = self.alt(), png
        self.picture.drawn = self.figures_drawn  # last: who waits for the picture finds everything else, too

    def _draw(self) -> tuple[bytes, list]:
        figure = self.figure()
        png = to_png(figure)
        self.figures_drawn += 1
        return png, [(axes.get_position(), axes.transData.inverted(), axes) for axes in figure.axes]

    def extra(self) -> list[ipywidgets.Widget]:
        """Hook: widgets between the controls and the picture, such as buttons."""
        return []

    @property
    def box(self) -> ipywidgets.VBox:
        """The live widget, made when it is first wanted."""
        if self._box is None:
            self.picture, self._words = Picture(), ipywidgets.HTML()
            wrap = ipywidgets.Layout(display="flex", flex_flow="row wrap")
            rows = [ipywidgets.Box(list(self.controls.values()), layout=wrap)]
            rows += [ipywidgets.Box(extra, layout=wrap)] if (extra := self.extra()) else []
            self._box = ipywidgets.VBox([*rows, self.picture, self._words])
            self._box.add_class("kdkit-widget")
            self.redraw()
            self.picture.observe(lambda change: self._click(*change["new"][:2]), "clicked")
        return self._box

    def _click(self, across: float, down: float) -> None:
        """A click at shares of the picture's width and height: finds the axes under it, or nearest above or below."""
        beside = [
            (max(place.y0 - (1 - down), (1 - down) - place.y1, 0), number)
            for number, (place, _, _) in enumerate(self._axes)
            if place.x0 <= across <= place.x1
        ]
        if beside and min(beside)[0] < 0.1:
            _, number = min(beside)
            _, to_data, axes = self._axes[number]
            pixels = axes.figure.bbox
            x, y = to_data.transform((across * pixels.width, (1 - down) * pixels.height))
            self.clicked(number, float(x), float(y))

    def _repr_mimebundle_(self, **options) -> tuple[dict, dict]:
        """Live widget and still picture in one: a front-end shows the best that it can."""
        box = self.box
        view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
        data = {
            "text/plain": self.alt(),
            "image/png": base64.b64encode(self.picture.png).decode("ascii"),
            "application/vnd.jupyter.widget-view+json": view,
        }
        return data, {"image/png": {"alt": self.alt()}}


def _look_away_from_what_is_loaded() -> None:
    """Python's full garbage collection looks at all that torch and others have loaded: a third of a second, every few
    pictures. What is alive now is left out of it until the next panel is made.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def to_png(figure: Figure, dpi: int = DPI) -> bytes:
    """The whole figure, not cropped, so that a click into it can be found again; fast rather than small."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    buffer = io.BytesIO()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    imsave(buffer, pixels, format="png", pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def player(wave, rate: int = 16_000, label: str = "") -> str:
    """HTML that plays ``wave`` (samples,)."""
    from IPython.display import Audio

    sound = Audio(wave.numpy() if hasattr(wave, "numpy") else wave, rate=rate, normalize=False)._repr_html_()
    return f"<div>{html.escape(label)} {sound}</div>"


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
    return kind(value=value, min=low, max=high, step=step, **about, **options)


def choice(label: str, options, value=None) -> ipywidgets.Dropdown:
    """One of several: a list of values, or of (words, value)."""
    options = list(options)
    first = options[0][1] if isinstance(options[0], tuple) else options[0]
    value = first if value is None else value
    return ipywidgets.Dropdown(options=options, value=value, description=label, style=_WHOLE)
