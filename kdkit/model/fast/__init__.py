"""Faster twins of parts of the models, for GPUs: the same functions, tested against the readable ones.

A GPU takes them, and steps as CUDA graphs, unless $KDKIT_FAST is 0. They have run on one kind of card, an NVIDIA H200;
so every kernel is compared with its plain twin before it is relied on (:mod:`kdkit.model.fast.checks`), and every
graph with what it recorded (:mod:`kdkit.training.graphs`).
"""

import os


def wanted() -> bool:
    """Shall a GPU take the twins, and steps as CUDA graphs?"""
    return os.environ.get("KDKIT_FAST") != "0"
