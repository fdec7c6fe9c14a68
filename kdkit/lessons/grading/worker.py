"""The process in which a learner's code runs: started by :mod:`.process` with this file, without the rest of the kit.

It is told by lines on its standard input, and writes lines: what a function returned, what it raised, which function of
the other side it calls. Whatever stands in them, right and wrong are decided elsewhere.
"""

from __future__ import annotations

import importlib.abc
import json
import linecache
import math
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType


def main() -> None:
    """Reads what it may, gives up its rights, then serves one request after the other."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what a learner's code prints is not listened to
        os.dup2(nowhere, stream)
    told = json.loads(asked.readline())
    work = Path(told["work"])
    hidden, needed = ([Path(path) for path in told[name]] for name in ("hidden", "needed"))
    sys.path[:] = [told["code"], *told["path"]]
    confine = import_module("confine")
    holds = confine.by_kernel(work, hidden, needed)
    sys.path.pop(0)
    import numpy as np
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    sys.meta_path.insert(0, _NoKit())
    confine.limit(told["memory"])
    confine.by_python(work, hidden, needed)
    ready = {"np": np, "numpy": np, "torch": torch, "F": F, "nn": torch.nn, "math": math}
    _Service(asked, answers, ready).serve(holds)


class _NoKit(importlib.abc.MetaPathFinder):
    """The kit is not to be imported: an answer has to stand for itself."""

    def find_spec(self, name: str, path=None, target=None) -> None:
        if name.partition(".")[0] == "kdkit":
            _refuse(name)


def _refuse(name: str) -> None:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"{name} of the kit is not there while grading: the answer has to be your own")


class _Service:
    """Runs what the other side asks for; ``ready`` are names that every answer may use."""

    def __init__(self, asked, answers, ready: dict[str, object]):
        self.asked, self.answers, self.ready = asked, answers, ready
        self.names: dict[str, object] = {}

    def serve(self, holds: dict[str, bool]) -> None:
        self.tell(holds=holds)
        while request := self.asked.readline():
            request = wire.message(request)
            try:
                getattr(self, request.pop("do"))(**request)
            except BaseException as error:  # sys.exit is one, too
                self.tell(raised=_told(error))

    def tell(self, **message) -> None:
        self.answers.write(wire.line(message))
        self.answers.flush()

    def prepare(self, parts: list, given: dict, name: str) -> None:
        """Runs statements ``[file, source]`` in order; all but the last, the answer, may fail."""
        self.names = dict(self.ready) | {key: self._load(value) for key, value in given.items()}
        self.names["__name__"] = "__main__"
        _offer_vocabulary(self.names.get("VOCABULARY"))
        for number, (file, source) in enumerate(parts):
            linecache.cache[file] = (len(source), None, source.splitlines(True), file)
            try:
                exec(compile(source, file, "exec"), self.names)
            except BaseException:
                if number == len(parts) - 1:
                    raise
        self.tell(result=wire.dump(self.names.get(name)))

    def call(self, name: str, arguments: list) -> None:
        """Calls the function ``name``; the arguments go back, too, for whoever looks whether they were changed."""
        given = [_derived(self._load(argument)) for argument in arguments]
        result = self.names[name](*given)
        self.tell(result=wire.dump(result), after=[wire.dump(value) for value in given])

    def _load(self, written: object) -> object:
        return wire.load(written, self._remote)

    def _remote(self, number: int):
        """The function ``number`` of the other side."""

        def function(*arguments):
            self.tell(ask=number, arguments=[wire.dump(argument) for argument in arguments])
            reply = wire.message(self.asked.readline())
            if "raised" in reply:
                raise RuntimeError(reply["raised"])
            return wire.load(reply["result"])

        return function


def _derived(value: object) -> object:
    """A tensor that requires a gradient as one that was computed from it, which may be changed in place."""
    return value.clone() if getattr(value, "requires_grad", False) else value


def _offer_vocabulary(vocabulary: object) -> None:
    """``from kdkit.speech.text import VOCABULARY`` within an answer: the one thing of the kit that answers need."""
    for name in ("kdkit", "kdkit.speech", "kdkit.speech.text"):
        module = sys.modules[name] = ModuleType(name)
        module.__path__, module.__getattr__ = [], _refuse
    module.VOCABULARY = vocabulary


def _told(error: BaseException) -> str:
    """The error, and the innermost line of the learner's own code in its traceback."""
    said = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
    if isinstance(error, SyntaxError) and error.lineno:
        return f"line {error.lineno} of its cell cannot be read: {said}"
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<answer")
    ]
    if not own:
        return f"it cannot be called: {said}. The first line has to stay as it was."
    code = f", `{own[-1].line}`" if own[-1].line else ""
    return f"it stops in line {own[-1].lineno} of its cell{code} with {said}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    wire = import_module("wire")
    main()
