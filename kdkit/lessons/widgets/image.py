"""An image that reports where it was clicked, and what the page around it is like: dark or light, narrow or wide."""

from __future__ import annotations

import anywidget
import traitlets

_SCRIPT = """
const NARROW = 700;  // CSS pixels: below, text in a wide picture would be too small to read

function isDark(element) {  // by the first background that is not transparent
  for (let e = element; e; e = e.parentElement ?? e.getRootNode().host) {
    const [red, green, blue, alpha = 1] = (getComputedStyle(e).backgroundColor.match(/[\\d.]+/g) ?? []).map(Number);
    if (red !== undefined && alpha > 0.5) return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128;
  }
  return false;
}

function nameControls(panel) {  // for screen readers: ipywidgets gives sliders and their numbers no names
  for (const control of panel.querySelectorAll(".widget-slider")) {
    const name = control.querySelector("label")?.textContent;
    control.querySelector(".noUi-handle")?.setAttribute("aria-label", name);
    control.querySelector(".widget-readout")?.setAttribute("aria-label", `${name}, as a number`);
  }
}

function render({ model, el }) {
  const image = document.createElement("img");
  image.style.maxWidth = "100%";
  if (model.get("clickable")) image.style.cursor = "crosshair";
  const show = () => {
    if (image.src) URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
    image.alt = model.get("alt");
    image.dataset.drawn = model.get("drawn");
  };
  image.addEventListener("click", (event) => {
    const box = image.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width;
    const down = (event.clientY - box.top) / box.height;
    model.send({ clicked: [across, down, Date.now()] });
  });
  const look = () => {
    if (!el.clientWidth) return;  // not in the page yet, or hidden
    const panel = el.closest(".kdkit-widget");
    if (panel) {
      panel.dataset.lmSuppressShortcuts = "true";  // JupyterLab would move to another cell with the arrow keys
      nameControls(panel);
    }
    const narrow = el.clientWidth < NARROW, dark = isDark(el);
    if (narrow === model.get("narrow") && dark === model.get("dark")) return;
    model.set({ narrow, dark });
    model.send({ narrow, dark });
  };
  const size = new ResizeObserver(look);
  size.observe(el);
  const theme = new MutationObserver(() => setTimeout(look, 300));  // the theme's colours come after its name
  for (const e of [document.documentElement, document.body]) theme.observe(e, { attributes: true });
  model.on("change:drawn", show);
  show();
  el.append(image);
  return () => {
    model.off("change:drawn", show);
    size.disconnect();
    theme.disconnect();
  };
}
function initialize({ model }) {
  model.on("msg:custom", (message) => {
    if (message === "heard?") model.send("heard");
  });
}
export default { initialize, render };
"""

_STYLE = """
[data-jp-theme-light="false"] .kdkit-widget select {  /* ipywidgets draws its arrow in black */
  background-image: url("data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 18 18'%3E\
%3Cpath fill='%23ddd' d='M5.2 5.9 9 9.7l3.8-3.8 1.2 1.2-4.9 5-4.9-5z'/%3E%3C/svg%3E") !important;
}
"""


class ClickableImage(anywidget.AnyWidget):
    """``png``: the image; ``alt``: its description; ``drawn``: a counter, whose change makes the page show both;
    ``clickable``: does a click do anything? The pointer says so; ``clicked``: (share of the width, share of the height,
    milliseconds since 1970); ``dark`` and ``narrow``: the page around the picture, which the browser tells, and tells
    again when it changes.

    The page tells by messages, not by saving state: a state that is saved while a cell runs can hold back all later
    ones of the same widget. It replies to "heard?" with "heard", which arrives where the kernel gets clicks while a
    cell runs.
    """

    _esm = _SCRIPT
    _css = _STYLE
    png = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    drawn = traitlets.Int(0).tag(sync=True)
    clickable = traitlets.Bool(True).tag(sync=True)
    clicked = traitlets.Tuple(
        traitlets.Float(), traitlets.Float(), traitlets.Int(), default_value=(0.0, 0.0, 0)
    ).tag(sync=True)
    dark = traitlets.Bool(False).tag(sync=True)
    narrow = traitlets.Bool(False).tag(sync=True)

    def __init__(self):
        super().__init__()
        self.on_msg(self._told)

    def _told(self, _, content: object, __) -> None:
        """A message of the page: {"clicked": [across, down, time]}, or {"narrow": ..., "dark": ...}."""
        if isinstance(content, dict):
            with self.hold_trait_notifications():
                for name in content.keys() & {"clicked", "narrow", "dark"}:
                    value = content[name]
                    setattr(self, name, tuple(value) if isinstance(value, list) else value)
