"""The one training loop: pre-training, distillation and fine-tuning all run through :func:`train`.

A task is a module whose ``forward(batch)`` returns ``(loss, {part: value})``, the loss being a mean over
``size(batch)`` things (real frames, characters), which is what makes several processes, or several batches for one
step, the same as one large batch. A task may also have

* ``frozen``: names of its sub-modules that are not trained (teachers); they are neither saved nor moved by a step;
* ``settings``: what a run must have in common with the run it goes on from, besides its recipe and weights;
* ``drawn``: names of its parts that begin as random numbers, and so do not tell one run from another;
* ``rates``: {beginning of parameters' names: share of the learning rate that they have in the next step};
* ``schedule(step, steps)``: called before each step with its number, from 0, and how many there are;
* ``leaves_some_out``: true if some of its parameters get no gradient in some steps;
* ``complaints(rows)``: sentences about a run that goes wrong, given the rows of its log.

Batches come from an object whose ``batch(i)`` is a pure function of ``i``, and every batch has its own random numbers,
drawn from the seed and ``i``: so a run that was killed goes on as if nothing had happened. Several processes, on one
machine or many, are Hugging Face accelerate's business: start the same program with ``accelerate launch`` or torchrun.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from tqdm import tqdm

from kdkit.common.errors import ConfigError, TrainingError
from kdkit.common.files import alone
from kdkit.common.machine import best_device, training_precision
from kdkit.model.encoder import Layer
from kdkit.training import identity
from kdkit.training.diagnosis import check_frozen, not_finite, out_of_memory
from kdkit.training.gradients import fixed_order, gradients, graphs_for
from kdkit.training.interrupt import patient_interrupt
from kdkit.training.recipe import TrainConfig, learning_rate
from kdkit.training.run_log import RunLog, shown
from kdkit.training.selection import Selection
from kdkit.training.snapshots import Snapshots

_WRAPPERS = ("forward", "_original_forward")  # accelerate's, which compute in the precision of the run


def train(
    task: nn.Module,
    batches,
    config: TrainConfig,
    out: Path,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    resume: bool = True,
    title: str = "training",
    selection: Selection | None = None,
    watch: Callable[[list[dict]], bool] | None = None,
    decides: dict | None = None,
) -> list[dict]:
    """Trains ``task`` and returns the log: one dict per logged step (step, loss, parts, lr; evaluation results).

    Writes ``out/checkpoints`` (weights and optimiser; atomic, the last ``keep``) every ``save_minutes`` (or
    ``save_every`` steps) and ``out/metrics.jsonl``. With ``resume`` a run found in ``out`` goes on from its newest good
    checkpoint, and ends with the weights that it would have had without the interruption; a finished one is loaded and
    returned at once. Ctrl-C and SIGTERM save before they end it. ``selection`` (:mod:`kdkit.training.selection`)
    keeps the weights of every evaluation that may be wanted at the end, and may end the run early. ``watch`` is shown
    the log so far after every logged step; when it returns True the run stops as after Ctrl-C. ``decides``: what else
    decides the result, such as the speech that ``evaluate`` uses (:mod:`kdkit.training.identity`).

    Raises :class:`TrainingError` at a non-finite loss or when memory runs out, naming step and utterances,
    :class:`CheckpointError` when ``out`` holds a run that was made of something else, :class:`OutputError` when
    ``out`` cannot be written, and :class:`ConfigError` when another training runs there.
    """
    accelerator = _accelerator(config, getattr(task, "leaves_some_out", False))
    with alone(Path(out)) if accelerator.is_main_process else contextlib.nullcontext():
        rows = _train(
            accelerator, task, batches, config, Path(out), evaluate, resume, title, selection, watch, decides
        )
    accelerator.wait_for_everyone()
    task.eval()
    return rows


def _train(
    accelerator: Accelerator,
    task: nn.Module,
    batches,
    config: TrainConfig,
    out: Path,
    evaluate: Callable[[nn.Module], dict[str, float]] | None,
    resume: bool,
    title: str,
    selection: Selection | None,
    watch: Callable[[list[dict]], bool] | None,
    decides: dict | None,
) -> list[dict]:
    """:func:`train`, when nobody else works in ``out``."""
    group = accelerator.num_processes * config.accumulate  # batches of one step, in all processes
    task.to(accelerator.device).train()
    check_frozen(task)
    parameters = {name: p for name, p in task.named_parameters() if p.requires_grad}
    fused = accelerator.device.type in ("cpu", "cuda")
    groups = _by_rate(parameters, tuple(getattr(task, "rates", ())))
    optimiser = torch.optim.AdamW(
        groups, config.lr, config.betas, config.eps, config.weight_decay, fused=fused
    )
    start = identity.began_with(out, task, resume)
    made_of = config.result() | {"batches a step": group, "task": getattr(task, "settings", {}), **start}
    made_of |= (
        getattr(batches, "identity", {}) | (decides or {}) | (selection.identity(config) if selection else {})
    )
    snapshots = Snapshots(
        out / "checkpoints", task, parameters, optimiser, made_of, config.keep, accelerator.scaler
    )
    first, evaluations = snapshots.restore() if resume else snapshots.clear()
    if selection and not resume and accelerator.is_main_process:
        selection.clear()
    log = RunLog(out, first, accelerator.is_main_process, config.tensorboard, evaluations)
    finished = first == config.steps or bool(selection and selection.enough(log.rows))
    if not finished:
        snapshots.check_room()
    if config.compile:
        for part in task.modules():
            if isinstance(part, Layer):
                part.compile(dynamic=True)  # in place: names of the weights stay
    module, optimiser = accelerator.prepare(task, optimiser)
    batches.stride = accelerator.num_processes
    graphs = graphs_for(accelerator, task, parameters, config.graphs and not config.compile)
    bar = tqdm(
        total=config.steps,
        initial=first,
        desc=title,
        unit="step",
        mininterval=1.0,
        dynamic_ncols=True,
        disable=not accelerator.is_main_process,
    )

    def measure() -> None:
        task.eval()
        row = {"step": done} | _agreed(accelerator, evaluate(task))
        task.train()
        if selection and accelerator.is_main_process:
            selection.keep(done, task, [*log.rows, row])
        log.add_evaluation(row)

    def due() -> bool:
        regular = config.evaluate_every and done and done % config.evaluate_every == 0
        return bool(evaluate and (regular or done == config.steps) and not log.evaluated(done))

    seconds, began, done, whole = 0.0, time.perf_counter(), first, True
    saved_at = began
    try:
        with patient_interrupt() as asked_to_stop:
            if due():  # stopped in the middle of it
                measure()
            for step in range(first, config.steps):
                if selection and (reason := selection.enough(log.rows)):
                    if accelerator.is_main_process:
                        if step > first:
                            snapshots.save(step, log.evaluations)
                        bar.write(f"ended after step {step}: {reason}")
                    break
                place = step * config.accumulate * accelerator.num_processes + accelerator.process_index
                numbers = [place + turn * accelerator.num_processes for turn in range(config.accumulate)]
                some = [batches.batch(number) for number in numbers]
                seconds += sum(batch.seconds for batch in some) * accelerator.num_processes
                if hasattr(task, "schedule"):
                    task.schedule(step, config.steps)
                rates = getattr(task, "rates", {})
                for settings_of in optimiser.param_groups:
                    settings_of["lr"] = learning_rate(step, config) * rates.get(settings_of["named"], 1.0)
                whole = False  # from here to the end of the step the weights are between two states
                with fixed_order(accelerator.device):
                    loss, parts = gradients(
                        accelerator, module, task, some, numbers, config.seed, group, graphs
                    )
                norm = accelerator.clip_grad_norm_(parameters.values(), config.clip)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                done = step + 1
                logged = done % config.log_every == 0 or done == config.steps
                waited = time.perf_counter() - saved_at >= 60 * config.save_minutes
                saved = (
                    done % config.save_every == 0 if config.save_every else waited
                ) or done == config.steps
                # a look at the loss waits for the GPU, so it is taken there only when there is something to write
                if (logged or saved or loss.device.type == "cpu") and not torch.isfinite(loss):
                    raise TrainingError(not_finite(loss, step, some))
                whole = True
                bar.update()
                if logged:
                    values = accelerator.reduce(torch.stack([loss, *parts.values()]), "sum").tolist()
                    row = {"step": done, "loss": values[0], "lr": learning_rate(step, config)}
                    row |= {"grad_norm": norm.item()} | dict(zip(parts, values[1:]))
                    log.add(row | {"times_real_time": seconds / (time.perf_counter() - began)})
                    bar.set_postfix(shown(log.rows[-1], parts))
                if due():
                    measure()
                if logged:
                    for complaint in getattr(task, "complaints", lambda rows: ())(log.rows):
                        log.warn(f"{title}: {complaint}")  # a study runs many trainings
                if saved and accelerator.is_main_process:
                    snapshots.save(done, log.evaluations)
                    saved_at = time.perf_counter()
                if asked_to_stop or (logged and watch and watch(log.rows)):
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        if accelerator.is_main_process and whole:
            snapshots.save(done, log.evaluations)
            bar.write(
                f"stopped after step {done}, saved in {snapshots.folder}: run the same command again to go on"
            )
        raise
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if "memory" in str(error).lower():
            raise TrainingError(out_of_memory(done, some, config.accumulate)) from error
        raise
    finally:
        bar.close()
        log.close()
        if graphs:
            graphs.close()
        for name in _WRAPPERS:
            task.__dict__.pop(name, None)
        identity.left_with(out, task)
    return log.rows


def held(out: Path) -> contextlib.AbstractContextManager:
    """``out`` for this program alone (:func:`kdkit.common.files.alone`), whose main process holds it."""
    return alone(Path(out)) if processes().is_main_process else contextlib.nullcontext()


def processes() -> PartialState:
    """The processes that run this program together: ``.is_main_process``, ``.main_process_first()``, ..."""
    return PartialState(cpu=not torch.cuda.is_available())


def _accelerator(config: TrainConfig, leaves_some_out: bool) -> Accelerator:
    AcceleratorState._reset_state()  # a notebook trains more than once, not always in the same precision
    precision = training_precision(config.precision, best_device())
    if config.compile and not torch.cuda.is_available() and not shutil.which(os.environ.get("CXX", "g++")):
        raise ConfigError("compile needs a C++ compiler on a CPU: install g++, or name yours in $CXX")
    if precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("precision fp16 needs a GPU; on a CPU choose bf16 or fp32")
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if 0 < gpus < here:
        raise ConfigError(
            f"{here} processes on a machine with {gpus} GPU{'s' * (gpus > 1)}: start one for each GPU, or set "
            "CUDA_VISIBLE_DEVICES= (to nothing) to train on the CPU"
        )
    several = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=leaves_some_out)
    return Accelerator(
        mixed_precision={"fp32": "no"}.get(precision, precision),
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[several],
    )


def _agreed(accelerator: Accelerator, values: dict[str, float]) -> dict[str, float]:
    """The processes' mean of what each of them measured: all of them decide on the same numbers."""
    if accelerator.num_processes == 1 or not values:
        return values
    measured = torch.tensor(list(values.values()), dtype=torch.float64, device=accelerator.device)
    return dict(zip(values, accelerator.reduce(measured, "mean").tolist()))


def _by_rate(parameters: dict[str, nn.Parameter], beginnings: tuple[str, ...]) -> list[dict]:
    """The optimiser's groups: parameters whose names begin alike, as ``named`` says, and the others."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        named = next((beginning for beginning in beginnings if name.startswith(beginning)), "")
        groups.setdefault(named, []).append(parameter)
    return [{"params": some, "named": named} for named, some in groups.items()]
