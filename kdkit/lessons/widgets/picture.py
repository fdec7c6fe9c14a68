"""A picture that says where it was clicked."""

from __future__ import annotations

import anywidget
import traitlets

_SCRIPT = """
function render({ model, el }) {
  const image = document.createElement("img");
  image.style.maxWidth = "100%";
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
export default { render };
"""


class Picture(anywidget.AnyWidget):
    """``png``: what is shown; ``alt``: the same in words; ``drawn``: how often, which tells the page to show them;
    ``clicked``: (share of the width, of the height, when)."""

    _esm = _SCRIPT
    png = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    drawn = traitlets.Int(0).tag(sync=True)
    clicked = traitlets.Tuple(
        traitlets.Float(), traitlets.Float(), traitlets.Int(), default_value=(0.0, 0.0, 0)
    ).tag(sync=True)
