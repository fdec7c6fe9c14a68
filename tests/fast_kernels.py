"""Triton's kernels beside their plain twins in Triton's interpreter, which must be asked for before Triton is imported:
tests/test_fast.py runs this file with TRITON_INTERPRET=1.
"""

import torch
import triton

from kdkit.losses import regression_frames
from kdkit.model import encoder  # noqa: F401 (registers the checks)
from kdkit.model.fast.checks import CHECKS
from kdkit.recognition.ctc_loss import ctc_on_cpu

TWINS = {"rows": (regression_frames,), "ctc": (ctc_on_cpu,)}


class Whole(type):
    def __instancecheck__(cls, value) -> bool:
        return isinstance(value, int)


class Int(int, metaclass=Whole):
    """``int`` as Triton's interpreter means it: arrays of one number are numbers, which NumPy 2.5 denies."""

    def __new__(cls, value=0, *rest):
        return int(value.item() if hasattr(value, "item") else value, *rest)


if __name__ == "__main__":
    triton.runtime.interpreter.int = Int
    torch.manual_seed(0)
    for name, check in CHECKS.items():
        if name != "segments":  # no kernel of Triton's
            # float16: the interpreter takes bfloat16 for whole numbers
            check(torch.device("cpu"), torch.float16, *TWINS.get(name, ()))
