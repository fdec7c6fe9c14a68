"""The processes that train together, on one machine or several, and the precision that they compute in.

Hugging Face accelerate does the work: start the same program with ``accelerate launch`` or torchrun.
"""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from kdkit.common.errors import ConfigError
from kdkit.common.files import alone
from kdkit.common.machine import best_device, training_precision

# How long processes wait for one another. The main one downloads and scores alone, for hours at the paper's size; torch
# ends the others after 10 minutes on GPUs. One that dies ends them all by the launcher.
PATIENCE = timedelta(days=2)


def processes() -> PartialState:
    """The processes that run this program together: ``.is_main_process``, ``.main_process_first()``, ..."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def held(out: Path) -> contextlib.AbstractContextManager:
    """``out`` for this program alone (:func:`kdkit.common.files.alone`); its main process holds the lock."""
    return alone(Path(out)) if processes().is_main_process else contextlib.nullcontext()


def accelerator_for(precision: str, leaves_some_out: bool = False) -> Accelerator:
    """Device, processes and ``precision`` ("auto", "fp32", "bf16", "fp16") of a training.

    ``leaves_some_out``: some parameters get no gradient in some steps. Raises :class:`ConfigError` for fp16 without a
    GPU, and for more processes on this machine than it has GPUs.
    """
    processes()  # with their patience
    AcceleratorState._reset_state()  # a notebook trains more than once, not always in the same precision
    precision = training_precision(precision, best_device())
    if precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("precision fp16 needs a GPU; on a CPU choose bf16 or fp32")
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if 0 < gpus < here:
        raise ConfigError(
            f"{here} processes on a machine with {gpus} GPU{'s' * (gpus > 1)}: start one for each GPU, or set "
            "CUDA_VISIBLE_DEVICES= (to nothing) to train on the CPU"
        )
    distributed = DistributedDataParallelKwargs(
        broadcast_buffers=False, find_unused_parameters=leaves_some_out
    )
    return Accelerator(
        mixed_precision={"fp32": "no"}.get(precision, precision),
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[distributed],
    )


def averaged(accelerator: Accelerator, values: dict[str, float]) -> dict[str, float]:
    """The mean over the processes of what each of them measured, so that all decide on the same numbers."""
    if accelerator.num_processes == 1 or not values:
        return values
    measured = torch.tensor(list(values.values()), dtype=torch.float64, device=accelerator.device)
    return dict(zip(values, accelerator.reduce(measured, "mean").tolist()))
