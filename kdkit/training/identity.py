"""The identity of a run: everything that decides its result. A run resumes in a folder only if all of it is the same.

Recipe, settings of the task, initial weights (teachers included), and speech
(:func:`kdkit.speech.manifest.speech_identity`). Weights are compared by a hash of their bytes. Constants such as Fbank
statistics are computed from speech, and their last digits depend on the machine: each tensor is represented by mean
and deviation, which are compared with a tolerance.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn
from torch import uint8 as byte

_SHOWN = 6  # differences in a message
_MARK = "sha256:"  # begins a digest

_starts: dict[Path, dict[str, object]] = {}  # by folder: initial weights of the last training of this process
# (folder, part, its weights after the training): its weights before
_came_from: dict[tuple[Path, str, str], object] = {}


def began_with(out: Path, task: nn.Module, resume: bool) -> dict[str, object]:
    """:func:`weights` of a task before it is trained in ``out``.

    In a notebook the same model object may be trained again after a stop. With ``resume``, a part that this process
    has trained in ``out`` before counts with the weights that it had before that training.
    """
    out, start = Path(out).resolve(), weights(task)
    if resume:
        start = {part: _came_from.get((out, part, str(value)), value) for part, value in start.items()}
    _starts[out] = start
    return start


def left_with(out: Path, task: nn.Module) -> None:
    """Records the weights of a task after a training in ``out``, for :func:`began_with`."""
    out = Path(out).resolve()
    for part, value in weights(task).items():
        _came_from[out, part, str(value)] = _starts[out].get(part, value)


def weights(task: nn.Module) -> dict[str, object]:
    """{"weights of PART": digest, "constants of PART": [mean, deviation, ...]} of a task's parts, frozen ones included.

    Parts that the task names in ``drawn`` are left out: heads whose initial weights are random.
    """
    drawn = tuple(f"{name}." for name in getattr(task, "drawn", ()))
    parts: dict[str, list[tuple[str, Tensor]]] = {}
    for name, parameter in task.named_parameters():
        if not (drawn and f"{name}.".startswith(drawn)):
            parts.setdefault(name.split(".", 1)[0], []).append((name, parameter))
    constants: dict[str, list[float]] = {}
    for name, buffer in task.named_buffers():
        if buffer.is_floating_point() and buffer.numel() > 1 and not (drawn and name.startswith(drawn)):
            values = buffer.detach().double()
            found = [float(f"{value:.9g}") for value in (values.mean().item(), values.std().item())]
            constants.setdefault(name.split(".", 1)[0], []).extend(found)
    digests = {f"weights of {part}": digest(dict(tensors)) for part, tensors in parts.items()}
    return digests | {f"constants of {part}": values for part, values in constants.items()}


def digest(tensors: dict[str, Tensor]) -> str:
    """A short hash of names, types and values of tensors."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(byte).numpy())
    return _MARK + found.hexdigest()[:16]


def kept(path: Path, asked: dict) -> dict | None:
    """The content of a JSON result file whose entry "asked" equals ``asked``; None if the file is missing, damaged, or
    answers something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        same = not differences(found.pop("asked"), json.loads(json.dumps(asked)))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    return found if same else None


def differences(then: object, now: object) -> str:
    """The differences between two identities as a sentence; "" when there are none."""
    before, after = dict(_leaves(then)), dict(_leaves(now))
    told = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if _same(old, new):
            continue
        if all(isinstance(value, str) and value.startswith(_MARK) for value in (old, new)) or (
            isinstance(old, list) and isinstance(new, list) and name.split(".")[-1].startswith("constants")
        ):
            told.append(f"other {name}")
        else:
            told.append(f"{name}: {old!r} then, {new!r} now")
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return "; ".join(told[:_SHOWN]) + more


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{name}.{key}" if name else str(key))


def _same(old: object, new: object) -> bool:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return all(_same(a, b) for a, b in zip(old, new, strict=True))
    if isinstance(old, float) and isinstance(new, float):
        return old == new or math.isclose(old, new, rel_tol=1e-4, abs_tol=1e-6)
    return old == new
