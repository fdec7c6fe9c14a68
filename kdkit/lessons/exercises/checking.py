"""How an answer is checked: random cases, a guarded call, and hints for mistakes that are recognised.

A check is a generator ``steps(call, rng)``, of which :func:`checks` makes the function that is called. It calls the
learner's function by ``call(...)``, yields a sentence for each property that holds, and raises :class:`Wrong`, whose
text is the hint, at the first that does not. A mistake is recognised by making it: where the learner's results equal
those of a known wrong function on every case, that function's hint is given. Nothing is compared with a stored number,
and torch's global random state is not touched.
"""

from __future__ import annotations

import copy
import functools
import inspect
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor, nn

Steps = Callable[[Callable, np.random.Generator], Iterator[str]]
Mistake = tuple[str, Callable]  # the hint, and the wrong function
PATIENCE = 10.0  # seconds that one call of an answer may take
CHANGED = (
    "{name} changes its argument {parameter}: whoever calls it would go on with other data. Make a new value, such as "
    "`y = x / 2` instead of `x /= 2`, or work on a copy."
)


class Wrong(Exception):
    """The answer is not right; the text says what to look at."""


class NotWritten(Wrong):
    """The answer is still the stub."""


def check(name: str, attempt, own: Callable, steps: Steps) -> Callable:
    """Checks ``attempt`` and prints the result; returns ``attempt`` if it is right, else ``own``, and says which."""
    if attempt is own:  # only the check was run again, after it had returned this one
        print(
            f"… this is the kit's own {name}, not yours: run the cell with your function, then this one again."
        )
        return own
    rng = np.random.default_rng()  # from entropy: every run of the check has other cases
    try:
        with no_traceback():
            for sentence in steps(guard(attempt, name), rng):
                print(f"✓ {sentence[0].upper()}{sentence[1:]}.")
    except NotWritten:
        print(f"… {name} is not written yet: it returns None.")
        print("The notebook goes on with the kit's own, so you can come back to it.")
        return own
    except Wrong as wrong:
        print(f"✗ {wrong}")
        print(f"The notebook goes on with the kit's own {name}. Change yours, then run both cells again.")
        return own
    print("Right. The notebook goes on with this function.")
    return attempt


def checks(name: str, own: Callable) -> Callable[[Steps], Callable]:
    """Decorates ``steps`` of the function ``name``, whose own version in the kit is ``own``: called with a learner's
    attempt it is :func:`check`. Both stay at hand, as ``.steps`` and ``.own``, for whoever prints nothing (grading)."""

    def decorate(steps: Steps) -> Callable:
        @functools.wraps(steps)
        def checked(attempt) -> Callable:
            return check(name, attempt, own, steps)

        checked.steps, checked.own = steps, own
        return checked

    return decorate


def check_answer(name: str, answer, find: Callable[[object], str]) -> None:
    """Checks an answer that is read off a figure: ``find(answer)`` returns a sentence, or raises :class:`Wrong`.

    Returns nothing: the answer stays the learner's, and no later cell depends on it.
    """
    if answer is None:
        print(f"… {name} is None: no answer yet. Nothing further on depends on it.")
        return
    try:
        with no_traceback():
            print(f"✓ {find(answer)}")
    except Wrong as wrong:
        print(f"✗ {wrong}")
        print("Change your answer and run both cells again.")


@contextmanager
def no_traceback() -> Iterator[None]:
    """Turns an error of the check itself, on an answer that it did not expect, into :class:`Wrong`."""
    try:
        yield
    except Wrong:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Wrong(
            f"The check cannot use this answer ({what}): is it of the type that is asked for?"
        ) from error


def guard(attempt, name: str) -> Callable:
    """``attempt`` on copies of its arguments.

    The returned function raises :class:`Wrong` with the learner's line where ``attempt`` raises, where it takes longer
    than :data:`PATIENCE`, and where it has changed an argument; :class:`NotWritten` where it returns None.
    """
    if attempt is None:
        raise_later = NotWritten("None")
    elif not callable(attempt):
        raise_later = Wrong(
            f"{name} is a {type(attempt).__name__}, not a function: give the function itself."
        )
    else:
        raise_later = None

    def call(*arguments):
        if raise_later is not None:
            raise raise_later
        given = [_copy(argument) for argument in arguments]
        try:
            with _at_most(PATIENCE):
                result = attempt(*given)
        except Exception as error:  # whatever a learner's code may raise
            raise Wrong(_explain(error, attempt, name, arguments)) from error
        if result is None:
            raise NotWritten(name)
        for place, (before, after) in enumerate(zip(arguments, given, strict=True)):
            if not unchanged(before, after):
                raise Wrong(CHANGED.format(name=name, parameter=_parameter(attempt, place)))
        return result

    return call


class TooSlow(Exception):
    """A call took longer than it may."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises :class:`TooSlow` in the code within after so many seconds; no limit on Windows or off the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise TooSlow(f"one call takes longer than {seconds:g} seconds; does a loop never end?")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def compare(
    call: Callable,
    cases: Sequence[tuple],
    right: Callable,
    mistakes: Sequence[Mistake] = (),
    shape: str = "",
    tolerance: float = 1e-4,
) -> None:
    """Raises :class:`Wrong` unless ``call`` returns what ``right`` returns, on every one of ``cases`` (arguments).

    ``mistakes`` are tried in their order. ``shape`` is added to the hint where the shape or type differs.
    ``tolerance`` is relative, and absolute below 1.
    """
    expected = [right(*map(_copy, case)) for case in cases]
    found = []
    for case, wanted in zip(cases, expected, strict=True):
        found.append(same_kind(call(*case), wanted, shape))
    if all(close(a, b, tolerance) for a, b in zip(found, expected, strict=True)):
        return
    for hint, wrong in mistakes:
        if all(close(a, wrong(*map(_copy, case)), tolerance) for a, case in zip(found, cases, strict=True)):
            raise Wrong(hint)
    bad = min(
        (i for i in range(len(cases)) if not close(found[i], expected[i], tolerance)),
        key=lambda i: len(_given(cases[i])),  # the smallest case is the easiest to redo by hand
    )
    if isinstance(found[bad], (Tensor, float)) and not np.isfinite(float(torch.as_tensor(found[bad]).sum())):
        raise Wrong(
            "The result is not a finite number (nan or inf): look for a division by zero or a logarithm of zero."
        )
    raise Wrong(f"{_given(cases[bad])} {_differ(found[bad], expected[bad])}.")


def same_kind(found, wanted, shape: str = ""):
    """``found`` as the type of ``wanted``; raises :class:`Wrong`, which names its type, where it is another.

    A whole number may come as a float (3.0), as NumPy's floor and tables of zeros give it.
    """
    kind = type(found).__name__
    if isinstance(found, (Tensor, np.ndarray)):
        kind += f" of shape {tuple(found.shape)}"
    if isinstance(wanted, Tensor):
        if not isinstance(found, Tensor):
            last = " A gradient has to flow through it." if not wanted.ndim else ""
            raise Wrong(f"It returns a {kind}; a torch tensor is needed.{last}")
        if found.shape != wanted.shape:
            asked = "a single number" if not wanted.ndim else f"shape {tuple(wanted.shape)}"
            raise Wrong(f"It returns shape {tuple(found.shape)}, {asked} is asked for. {shape}".strip())
        return found.detach()
    if isinstance(found, (Tensor, np.ndarray)) and found.ndim == 0:
        found = found.item()
    if isinstance(wanted, Integral):
        if isinstance(found, Real) and not isinstance(found, Integral) and not float(found).is_integer():
            raise Wrong(f"It returns the float {found}; this is counted in whole numbers: divide with //.")
        if not isinstance(found, Real) or isinstance(found, bool):
            raise Wrong(f"It returns a {kind}; a whole number is asked for. {shape}".strip())
        return int(found)
    if isinstance(wanted, Real):
        if not isinstance(found, Real):
            raise Wrong(f"It returns a {kind}; a single number is asked for. {shape}".strip())
        return float(found)
    if not isinstance(found, type(wanted)):
        raise Wrong(f"It returns a {kind}; a {type(wanted).__name__} is asked for. {shape}".strip())
    return found


def close(a, b, tolerance: float = 1e-4) -> bool:
    """Equal up to ``tolerance``; values of other shapes or types are not equal."""
    if isinstance(a, (Tensor, Real)) and isinstance(b, (Tensor, Real)):
        a, b = (torch.as_tensor(x).double() for x in (a, b))
        return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)
    return type(a) is type(b) and a == b


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


def _copy(value):
    """A copy that an answer may change without harm; functions, numbers and texts as they are."""
    if isinstance(value, Tensor):
        return value.clone()  # connected: gradients flow through it
    return copy.deepcopy(value) if isinstance(value, (np.ndarray, list, dict, nn.Module)) else value


def unchanged(before, after) -> bool:
    """Is an argument after the call what it was before?"""
    if isinstance(before, nn.Module):
        return all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    if isinstance(before, Tensor):
        return before.shape == after.shape and torch.equal(before.detach(), after.detach())
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after)
    return not isinstance(before, (list, dict)) or before == after


def _parameter(attempt, place: int) -> str:
    """The name of a parameter of ``attempt``, or its number."""
    try:
        return f"`{list(inspect.signature(attempt).parameters)[place]}`"
    except (TypeError, ValueError, IndexError):  # built in, or *arguments
        return f"number {place + 1}"


def _explain(error: Exception, attempt, name: str, arguments: tuple) -> str:
    """What was raised, and the innermost line of the learner's own cell in the traceback."""
    what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    file = getattr(getattr(attempt, "__code__", None), "co_filename", None)
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not lines:
        return (
            f"{name} cannot be called with {len(arguments)} arguments: {what}. Keep the first line as it was."
        )
    where = f"line {lines[-1].lineno} of its cell"
    code = f", `{lines[-1].line}`" if lines[-1].line else ""
    return f"Your code stops in {where}{code} with {what}"


def _given(case: tuple) -> str:
    """The arguments of a case as text: small ones in full, large arrays by their shape."""
    return f"Given {', '.join(map(_show, case))}:" if case else "Called:"


def _differ(found, wanted) -> str:
    if isinstance(wanted, Tensor) and wanted.numel() > 1:
        place = np.unravel_index(int((found.double() - wanted.double()).abs().argmax()), wanted.shape)
        place = tuple(int(i) for i in place)
        return f"element {place} of the result is {_show(found[place])}, but {_show(wanted[place])} is right"
    return f"it gives {_show(found)}, but {_show(wanted)} is right"


def _show(value) -> str:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, (Tensor, np.ndarray)):
        small = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        if small.size > 12:
            return f"an array {tuple(small.shape)}"
        return str((np.round(small, 3) if small.dtype.kind == "f" else small).tolist())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (str, int, list, tuple)):
        text = repr(value)
        return text if len(text) <= 120 else f"{text[:117]}..."
    return f"a {type(value).__name__}"
