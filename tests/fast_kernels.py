"""Triton's kernels beside their plain twins in Triton's interpreter, which must be asked for before Triton is imported:
tests/test_fast.py runs this file with TRITON_INTERPRET=1.
"""

import torch
import triton

from kdkit.model.fast.checks import CHECKS


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
            check(torch.device("cpu"), torch.float16)
