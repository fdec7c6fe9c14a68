"""Loss and gradients of one step: the backward pass of its batches, in every process."""

from __future__ import annotations

import contextlib
import os

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kdkit.model import fast
from kdkit.training.graphs import Steps, recordable


def gradients(
    accelerator: Accelerator,
    module: nn.Module,
    task: nn.Module,
    some: list,
    numbers: list[int],
    seed: int,
    group: int,
    graphs: Steps | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Backward pass of a step's batches ``some``, whose ``numbers`` seed their random numbers.

    Each batch is weighted by its share of the step's ``task.size``, over all processes; ``group``: batches of the step
    in all processes. Returns this process's part of the loss and of its parts: summed over the processes, they are the
    means over the whole step.
    """
    shares = [1.0]
    if group > 1:
        sizes = torch.tensor([float(size(task, batch)) for batch in some], device=accelerator.device)
        shares = sizes / accelerator.reduce(sizes.sum(), "sum")
    total, parts = 0.0, {}
    for turn, (batch, number, share) in enumerate(zip(some, numbers, shares, strict=True)):
        torch.manual_seed(seed * 1_000_003 + number)
        last = turn == len(some) - 1
        if graphs:
            loss, values = graphs(batch, share, add=len(some) > 1)
            total = total + loss * share
            for name, value in values.items():
                parts[name] = parts.get(name, 0.0) + value * share
            continue
        with contextlib.nullcontext() if last else accelerator.no_sync(module):
            loss, values = module(batch.to(accelerator.device))
            # accelerate averages gradients over the processes; the shares have to be summed
            accelerator.backward(loss * (share * accelerator.num_processes))
        total = total + loss.detach() * share
        for name, value in values.items():
            parts[name] = parts.get(name, 0.0) + value.detach() * share
    return total, parts


def graphs_for(
    accelerator: Accelerator, task: nn.Module, parameters: dict[str, Tensor], wanted: bool = True
) -> Steps | None:
    """CUDA graphs of the steps (:class:`Steps`) where they work: one process, a GPU, a task that can be recorded."""
    alone = accelerator.device.type == "cuda" and accelerator.num_processes == 1
    if not (wanted and fast.wanted() and alone and recordable(task)):
        return None
    scale = None
    if accelerator.scaler is not None:
        accelerator.scaler.scale(torch.zeros((), device=accelerator.device))  # creates the scale
        scale = accelerator.scaler._get_scale_async()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
    return Steps(task, parameters, dtype, scale)


@contextlib.contextmanager
def fixed_order(device: torch.device):
    """Deterministic algorithms on a GPU: the same batches give the same weights, bit for bit."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by torch
    before, warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # slow, and only for debugging
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def size(task: nn.Module, batch) -> float:
    """The number of items (frames, characters) that the task's loss of a batch is a mean over."""
    return task.size(batch) if hasattr(task, "size") else len(batch.utterances)
