"""Prepares a trained model for inference: the same function with less work.

    fast = optimised(model, "bf16")
    fast(waves, lengths)

"fp32": the weight norm is folded and the spectrum of the positional convolution is stored. "bf16": weights are cast
once instead of in every call; Fbank, softmax and the statistics of the norms stay float32. With AMX the positional
convolution is computed in bf16, too, weights are stored in the order in which the matrix units read them, and frames
are padded to a multiple of 32, with which torch's attention is faster. "int8": dynamic quantisation of the encoder's
linear layers, weights by output channel, activations by their range; convolutions and attention in bf16 where that is
faster. Measure what int8 costs in WER on a test set. The range covers the whole call, neighbours and padding included:
in shared batches two thirds of the texts of test-other change. So :func:`kdkit.recognition.network.hear` gives such a
module one recording at a time (``alone``).
"""

from __future__ import annotations

import copy
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.common.errors import ConfigError
from kdkit.common.machine import use_bf16
from kdkit.model.encoder import Attention, Encoder, PositionalConv
from kdkit.model.fast.attention import has_amx
from kdkit.model.fast.frozen import to_dtype
from kdkit.model.speech_model import SpeechModel

PRECISIONS = ("fp32", "bf16", "int8")
ROUND = 32  # frames: rows of a tile of AMX, twice


def optimised(module: nn.Module, precision: str = "fp32") -> nn.Module:
    """A copy of a :class:`SpeechModel`, or of what contains one, for inference on the device it is on.

    Raises :class:`ConfigError` for an unknown precision, and for int8 on a GPU.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}: choose one of {', '.join(PRECISIONS)}")
    module = copy.deepcopy(module).eval().requires_grad_(False)
    device = next(module.parameters()).device
    if precision == "int8" and device.type != "cpu":
        raise ConfigError("int8 is for CPUs: on a GPU choose bf16")
    with_bf16 = precision == "bf16" or (precision == "int8" and use_bf16("auto", device))
    on_amx = with_bf16 and device.type == "cpu" and has_amx()
    for part in list(module.modules()):
        if isinstance(part, PositionalConv):
            part.fold(with_bf16)
        elif isinstance(part, Encoder) and on_amx:
            part.multiple = ROUND
    if precision == "bf16":
        to_dtype(module, torch.bfloat16)
        if on_amx:
            _pack(module)
    elif precision == "int8":
        for part in list(module.modules()):
            if isinstance(part, SpeechModel):
                _to_int8(part, with_bf16)
        module.alone = True
    return module


def _pack(module: nn.Module) -> None:
    """Packs linear layers, except those that narrow by more than half: they would be slower with few frames."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child) is nn.Linear and child.in_features <= 2 * child.out_features:
                setattr(part, name, PackedLinear(child))


class PackedLinear(nn.Module):
    """A linear layer in bf16 that stores its weights in the layout of oneDNN's CPU kernels.

    The result is the same; the reordering of the weights in every call is saved. torch.compile does so with the same
    operators.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return F.linear(x, self.weight, self.bias)
        if self.packed is None:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), None)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")

    def __getstate__(self) -> dict:  # a packed tensor can be neither copied nor saved
        return {**self.__dict__, "packed": None}


def _to_int8(model: SpeechModel, with_bf16: bool) -> None:
    for part in list(model.encoder.modules()):
        if with_bf16 and isinstance(part, Attention):
            part.dtype = torch.bfloat16
        for name, child in part.named_children():
            if isinstance(child, nn.Linear):
                setattr(part, name, int8_linear(child))
    if with_bf16:
        for name in ("cnn", "first", "conv"):  # of either front-end
            if getattr(model.front_end, name, None) is not None:
                getattr(model.front_end, name).to(torch.bfloat16)


def int8_linear(linear: nn.Linear) -> nn.Module:
    """A dynamically quantised copy of a linear layer: float32 in and out, int8 inside."""
    engine = torch.backends.quantized.engine
    if "onednn" in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = "onednn"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch 2.11 announces that this will move to another package
            box = nn.Sequential(linear)
            box.qconfig = torch.ao.quantization.per_channel_dynamic_qconfig
            return torch.ao.quantization.quantize_dynamic(box, {nn.Linear: box.qconfig})[0]
    finally:
        torch.backends.quantized.engine = engine
