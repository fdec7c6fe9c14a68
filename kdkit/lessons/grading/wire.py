"""Values between the two processes, as JSON: numbers, texts, lists, tensors and arrays, and functions by number.

Nothing here is run or unpickled: from whatever a learner's process writes, :func:`load` makes plain values or raises
ValueError. Imported without the rest of the kit, by :mod:`.worker`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from numbers import Real
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

LONGEST = 64 << 20  # characters of one message
_KINDS = "biufcU"  # of NumPy's dtypes: no objects


class Named(SimpleNamespace):
    """Values by name, and, where it has ``items``, by number: a codebook, a vocabulary, a table."""

    def __getitem__(self, key):
        return vars(self)[key] if isinstance(key, str) else self.items[key]

    def __len__(self) -> int:
        return len(self.items)

    def __call__(self, *arguments):
        raise TypeError("the kit's own is not to be called while grading: write out what it does")


def dump(value: object, number_of: Callable[[Callable], int] | None = None) -> object:
    """``value`` as what JSON can hold; ``number_of(function)`` gives a function its number, and None leaves them out.

    Of a value that has no form here only the name of its type is kept (:class:`Foreign` on the other side).
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 256 else ["foreign", "int"]
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, (list, tuple)):
        return ["list" if isinstance(value, list) else "tuple", [dump(v, number_of) for v in value]]
    if isinstance(value, Tensor):
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
        data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        dtype = str(value.dtype).removeprefix("torch.")
        return ["tensor", dtype, list(value.shape), _text(data), value.requires_grad]
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        return ["array", value.dtype.str, list(value.shape), _text(np.ascontiguousarray(value).tobytes())]
    if isinstance(value, Named):
        return ["named", {name: dump(v, number_of) for name, v in vars(value).items()}]
    if isinstance(value, nn.Linear):
        return ["linear", dump(value.weight.detach()), dump(value.bias.detach())]
    if callable(value) and number_of is not None:
        return ["function", number_of(value)]
    return ["foreign", type(value).__name__]


def load(written: object, function: Callable[[int], Callable] | None = None) -> object:
    """What :func:`dump` was given. ``function(number)`` is what stands for a function of the other side.

    Raises ValueError for anything that :func:`dump` does not write.
    """
    if written is None or isinstance(written, (bool, str, int, float)):
        return written
    try:
        kind, *parts = written
        if kind in ("list", "tuple"):
            items = [load(part, function) for part in parts[0]]
            return items if kind == "list" else tuple(items)
        if kind == "tensor":
            return _tensor(*parts)
        if kind == "array":
            return _array(*parts)
        if kind == "named":
            return Named(**{name: load(part, function) for name, part in parts[0].items()})
        if kind == "linear":
            return _linear(*map(load, parts))
        if kind == "function" and function is not None:
            return function(int(parts[0]))
        if kind == "foreign":
            return foreign(str(parts[0]))
    except (TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"not a value: {error}") from error
    raise ValueError("not a value")


def foreign(name: str) -> object:
    """An object whose type has the name of one that cannot be sent."""
    return type(name if name.isidentifier() else "object", (), {})()


def line(message: dict) -> bytes:
    """A message as one line."""
    return json.dumps(message).encode() + b"\n"


def message(written: bytes) -> dict:
    """A line as a message; raises ValueError where it is none."""
    try:
        found = json.loads(written)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError("not a message")
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _tensor(dtype: str, shape: list, data: str, grad: bool) -> Tensor:
    kind = getattr(torch, dtype) if isinstance(dtype, str) else None
    if not isinstance(kind, torch.dtype):
        raise ValueError("no such dtype")
    raw = bytearray(base64.b64decode(data))
    made = torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)
    made = made.reshape([int(n) for n in shape])
    return made.requires_grad_() if grad and made.is_floating_point() else made


def _array(dtype: str, shape: list, data: str) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind not in _KINDS:
        raise ValueError("no such dtype")
    return np.frombuffer(base64.b64decode(data), kind).reshape([int(n) for n in shape]).copy()


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    made = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0]).requires_grad_(False)
    made.weight.copy_(weight)
    made.bias.copy_(bias)
    return made
