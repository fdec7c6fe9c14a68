"""Faster twins of parts of the models, for GPUs: the same functions, tested against the readable ones.

They were written and tested without a GPU, so a GPU takes them only where $KDKIT_FAST is 1; otherwise it takes the
plain operations, which have run on one.
"""

import os


def wanted() -> bool:
    """Shall a GPU take the twins, and steps as CUDA graphs?"""
    return os.environ.get("KDKIT_FAST") == "1"
