"""A frozen network, the teacher, made fast once for a whole training: weights in bf16 or fp16, the widest layer of the
CNN in one pass, the positional convolution by matrix products.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from kdkit.fbank import FbankFrontEnd
from kdkit.model.fast.checks import trusted
from kdkit.model.fast.cnn import FrozenCNN
from kdkit.model.fast.positions import FrozenPositions, fits
from kdkit.model.speech_model import SpeechModel


def hastened(model: SpeechModel, dtype: torch.dtype) -> SpeechModel:
    """A copy of a model for inference in ``dtype`` on the device it is on; the same function, up to rounding. On a GPU
    where the kernel is not trusted (:mod:`kdkit.model.fast.checks`), only cast.
    """
    with torch.no_grad():
        model = copy.deepcopy(model).eval().requires_grad_(False)
        positions, cnn = model.encoder.positions, getattr(model.front_end, "cnn", None)
        quick = by_kernel(next(model.parameters()).device)
        if quick and fits(positions.conv):
            positions = FrozenPositions(positions, dtype)
        else:
            positions.fold()
        if quick and FrozenCNN.suits(cnn):
            cnn = FrozenCNN(cnn, dtype)
        to_dtype(model, dtype)
        model.encoder.positions = positions
        if cnn is not None:
            model.front_end.cnn = cnn
    return model


def by_kernel(device: torch.device) -> bool:
    """May the networks of a device be replaced by twins that a kernel computes, or its plain twin on a CPU?"""
    return device.type != "cuda" or trusted("windows")


def to_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Casts weights and buffers in place, all but what Fbank computes with."""
    kept = {id(t) for part in module.modules() if isinstance(part, FbankFrontEnd) for t in part.buffers()}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.is_floating_point() and id(tensor) not in kept:
                    new = tensor.to(dtype)
                    tensors[name] = (
                        nn.Parameter(new, requires_grad=False) if tensors is part._parameters else new
                    )
