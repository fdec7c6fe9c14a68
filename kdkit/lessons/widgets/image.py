"""An image that reports where it was clicked."""

from __future__ import annotations

import anywidget
import traitlets

_SCRIPT = """
function render({ model, el }) {
  const image = document.createElement("img");
  image.style.maxWidth = "100%";
  image.style.minWidth = "min(100%, 40rem)";
  image.style.cursor = "crosshair";
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
    model.set("clicked", [across, down, Date.now()]);
    model.save_changes();
  });
  model.on("change:drawn", show);
  show();
  el.append(image);
  return () => model.off("change:drawn", show);
}
function initialize({ model }) {
  model.on("msg:custom", (message) => {
    if (message === "heard?") model.send("heard");
  });
}
export default { initialize, render };
"""


class ClickableImage(anywidget.AnyWidget):
    """``png``: the image; ``alt``: its description; ``drawn``: a counter, whose change makes the page show both;
    ``clicked``: (share of the width, share of the height, milliseconds since 1970).

    The page replies to the message "heard?" with "heard", which arrives where the kernel gets clicks while a cell runs.
    """

    _esm = _SCRIPT
    png = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    drawn = traitlets.Int(0).tag(sync=True)
    clicked = traitlets.Tuple(
        traitlets.Float(), traitlets.Float(), traitlets.Int(), default_value=(0.0, 0.0, 0)
    ).tag(sync=True)
