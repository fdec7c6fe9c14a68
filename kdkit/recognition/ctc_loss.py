"""The CTC loss, deterministic on every device.

On a CPU it is torch's. On a GPU torch's gradient is not deterministic, so there it is a Triton kernel,
:mod:`kdkit.model.fast.ctc`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdkit.model.fast.checks import trusted
from kdkit.model.fast.ctc import ctc_on_gpu
from kdkit.speech.text import VOCABULARY


def ctc_loss(
    log_probs: Tensor, labels: Tensor, frames: Tensor, sizes: Tensor, blank: int = VOCABULARY.blank
) -> Tensor:
    """Negative log-likelihood (B,) of every utterance's label, in nats, summed over all alignments (Graves 2006).

    Args:
        log_probs: (B, T, V) float32. labels: (B, L) character ids, padded. frames, sizes: (B,) true lengths of both; an
            utterance of size -1 has loss 0 and no gradient. blank: its number.
    """
    on_gpu = log_probs.device.type == "cuda" and has_kernel()
    return (ctc_on_gpu if on_gpu else ctc_on_cpu)(log_probs, labels, frames, sizes, blank)


def has_kernel() -> bool:
    """Whether the kernel works on this GPU; otherwise the loss is computed on the CPU."""
    return trusted("ctc", ctc_on_cpu)


def ctc_on_cpu(log_probs: Tensor, labels: Tensor, frames: Tensor, sizes: Tensor, blank: int) -> Tensor:
    """:func:`ctc_loss` by torch on the CPU, for tensors on any device."""
    some, labels, frames, sizes = (t.cpu() for t in (log_probs, labels, frames, sizes))
    rows = sizes >= 0
    if not rows.any():
        return log_probs.sum((1, 2)) * 0.0
    loss = F.ctc_loss(
        some[rows].transpose(0, 1), labels[rows], frames[rows], sizes[rows], blank, reduction="none"
    )
    return torch.zeros(len(rows)).masked_scatter(rows, loss).to(log_probs.device)
