"""One training in its folder: optimiser, checkpoints, log and evaluations around the steps of the loop.

:func:`kdkit.training.loop.train` is the loop; a :class:`Run` is what it calls.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kdkit.common.errors import TrainingError
from kdkit.common.progress import in_notebook, tqdm
from kdkit.training import identity
from kdkit.training.diagnosis import check_frozen, not_finite, out_of_memory
from kdkit.training.gradients import fixed_order, gradients, graphs_for
from kdkit.training.processes import averaged
from kdkit.training.recipe import TrainConfig, learning_rate
from kdkit.training.run_log import RunLog, shown
from kdkit.training.selection import Selection
from kdkit.training.snapshots import Snapshots

_WRAPPERS = ("forward", "_original_forward")  # accelerate's, which compute in the precision of the run


class Run:
    """A training that starts in ``out``, or resumes from the newest good checkpoint there.

    ``done`` counts the optimiser steps taken so far; ``log.rows`` is what :func:`kdkit.training.loop.train` returns,
    whose arguments these are.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        task: nn.Module,
        batches,
        config: TrainConfig,
        out: Path,
        evaluate: Callable[[nn.Module], dict[str, float]] | None,
        selection: Selection | None,
        title: str,
        resume: bool,
        decides: dict | None,
    ):
        self.accelerator, self.task, self.batches, self.config = accelerator, task, batches, config
        self.out, self.evaluate, self.selection, self.title = Path(out), evaluate, selection, title
        self.batches_per_step = accelerator.num_processes * config.accumulate
        task.to(accelerator.device).train()
        check_frozen(task)
        self.parameters = {name: p for name, p in task.named_parameters() if p.requires_grad}
        self.optimiser = self._new_optimiser()
        self.snapshots = Snapshots(
            self.out / "checkpoints",
            task,
            self.parameters,
            self.optimiser,
            self._made_of(resume, decides),
            config.keep,
            accelerator.scaler,
        )
        self.first, evaluations = self.snapshots.restore() if resume else self.snapshots.clear()
        if selection and not resume and accelerator.is_main_process:
            selection.clear()
        self.log = RunLog(self.out, self.first, accelerator.is_main_process, config.tensorboard, evaluations)
        if self.first < config.steps and not self._enough():
            self.snapshots.check_room()
        with warnings.catch_warnings():  # accelerate has no other name for it yet
            warnings.filterwarnings("ignore", ".broadcast_buffers. is deprecated", FutureWarning)
            self.module, self.optimiser = accelerator.prepare(task, self.optimiser)
        batches.stride = accelerator.num_processes
        self.graphs = graphs_for(accelerator, task, self.parameters, config.graphs)
        self.bar = tqdm(
            total=config.steps,
            initial=self.first,
            desc=title,
            unit="step",
            mininterval=1.0,
            dynamic_ncols=True,
            disable=not accelerator.is_main_process,
        )
        self.done, self.consistent = self.first, True
        self.step_batches: list = []
        self.seconds = 0.0  # of speech, since the last row of the log
        self.began = self.saved_at = time.perf_counter()

    # --- a step -----------------------------------------------------------------------------------------------

    def read_batches(self, step: int) -> list:
        """This process's batches of a step."""
        self.step_batches = [self.batches.batch(number) for number in self._numbers(step)]
        self.seconds += sum(batch.seconds for batch in self.step_batches) * self.accelerator.num_processes
        return self.step_batches

    def set_learning_rates(self, step: int) -> None:
        """Announces the step to the task and gives each group of parameters its learning rate."""
        if hasattr(self.task, "schedule"):
            self.task.schedule(step, self.config.steps)
        rates = getattr(self.task, "rates", {})
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.config) * rates.get(group["named"], 1.0)

    @contextmanager
    def changing_weights(self) -> Iterator[None]:
        """Around one optimiser step: an interrupt within leaves weights between two states, which are not saved."""
        self.consistent = False
        yield
        self.done += 1
        self.consistent = True
        self.bar.update()

    def gradients(self, step: int, batches: list) -> tuple[Tensor, dict[str, Tensor]]:
        """Backward pass of all batches of a step; loss and parts as :func:`kdkit.training.gradients.gradients`."""
        with fixed_order(self.accelerator.device):
            return gradients(
                self.accelerator,
                self.module,
                self.task,
                batches,
                self._numbers(step),
                self.config.seed,
                self.batches_per_step,
                self.graphs,
            )

    def update(self) -> Tensor:
        """Clips the gradients, changes the weights, and returns the norm of the gradients before clipping."""
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return norm

    def check_finite(self, loss: Tensor, step: int) -> None:
        """Raises :class:`TrainingError` that names step and utterances; waits for the GPU."""
        if not torch.isfinite(loss):
            raise TrainingError(not_finite(loss, step, self.step_batches))

    def _numbers(self, step: int) -> list[int]:
        """The numbers of this process's batches: the processes take turns."""
        count = self.accelerator.num_processes
        first = step * self.batches_per_step + self.accelerator.process_index
        return [first + turn * count for turn in range(self.config.accumulate)]

    # --- after a step -----------------------------------------------------------------------------------------

    def log_is_due(self, done: int) -> bool:
        return done % self.config.log_every == 0 or done == self.config.steps

    def save_is_due(self, done: int) -> bool:
        if self.config.save_every:
            regular = done % self.config.save_every == 0
        else:
            regular = time.perf_counter() - self.saved_at >= 60 * self.config.save_minutes
        return regular or done == self.config.steps

    def log_step(self, step: int, loss: Tensor, parts: dict[str, Tensor], norm: Tensor) -> None:
        """Adds a row to the log: loss, its parts, learning rate, norm, and the speed since the row before."""
        values = self.accelerator.reduce(torch.stack([loss, *parts.values()]), "sum").tolist()
        row = {"step": self.done, "loss": values[0], "lr": learning_rate(step, self.config)}
        row |= {"grad_norm": norm.item()} | dict(zip(parts, values[1:]))
        self.log.add(row | {"times_real_time": self.seconds / (time.perf_counter() - self.began)})
        self.seconds, self.began = 0.0, time.perf_counter()
        self.bar.set_postfix(shown(self.log.rows[-1], parts))

    def complain(self) -> None:
        """Warns of what the task finds wrong with the run, each sentence once."""
        for complaint in getattr(self.task, "complaints", lambda rows: ())(self.log.rows):
            self.log.warn(f"{self.title}: {complaint}")  # a study runs many trainings

    def evaluate_if_due(self) -> None:
        """Evaluates every ``evaluate_every`` steps and at the end, and what an interrupted run still owes."""
        every = self.config.evaluate_every
        due = (every and self.done and self.done % every == 0) or self.done == self.config.steps
        if not (self.evaluate and due) or self.log.evaluated(self.done):
            return
        paused = time.perf_counter()
        self.task.eval()
        row = {"step": self.done} | averaged(self.accelerator, self.evaluate(self.task))
        self.task.train()
        if self.selection and self.accelerator.is_main_process:
            self.selection.keep(self.done, self.task, [*self.log.rows, row])
        self.log.add_evaluation(row)
        self.began += time.perf_counter() - paused  # speed is that of training

    def save(self) -> None:
        """Writes a checkpoint, in the main process."""
        if self.accelerator.is_main_process:
            self.snapshots.save(self.done, self.log.evaluations)
            self.saved_at = time.perf_counter()

    # --- the end ----------------------------------------------------------------------------------------------

    def ends_early(self) -> bool:
        """Has the selection seen enough? Then the run is saved and says why it ends."""
        reason = self._enough()
        if reason and self.accelerator.is_main_process:
            if self.done > self.first:
                self.save()
            self.bar.write(f"ended after step {self.done}: {reason}")
        return bool(reason)

    def stops(self, wanted: bool, logged: bool) -> bool:
        """Is a stop that is ``wanted`` to happen now? Several processes stop together, after a step that is logged."""
        if self.accelerator.num_processes == 1:
            return wanted
        return logged and averaged(self.accelerator, {"wanted": float(wanted)})["wanted"] > 0

    def save_interrupted(self) -> str:
        """After Ctrl-C or SIGTERM: saves unless the weights are between two states. Returns what happened; a terminal
        is told how to go on, too.
        """
        if not self.consistent:
            return f"stopped in the middle of step {self.done + 1}, which is not saved"
        said = f"stopped after step {self.done} of {self.config.steps}, saved"
        if self.accelerator.is_main_process:
            self.save()
            if not in_notebook():
                self.bar.write(f"{said} in {self.snapshots.folder}: run the same command again to go on")
        return said

    def explain_out_of_memory(self, error: RuntimeError) -> None:
        """Raises :class:`TrainingError` that says what to change, if memory ran out."""
        if "memory" in str(error).lower() and self.step_batches:  # torch.OutOfMemoryError is a RuntimeError
            raise TrainingError(
                out_of_memory(self.done, self.step_batches, self.config.accumulate)
            ) from error

    def close(self) -> None:
        """Closes the files and leaves the task as it was given: without accelerate's wrappers, in float32."""
        self.bar.close()
        self.log.close()
        if self.graphs:
            self.graphs.close()
        for name in _WRAPPERS:
            self.task.__dict__.pop(name, None)
        identity.left_with(self.out, self.task)

    # --- the beginning ----------------------------------------------------------------------------------------

    def _new_optimiser(self) -> torch.optim.Optimizer:
        config = self.config
        fused = self.accelerator.device.type in ("cpu", "cuda")
        groups = _by_rate(self.parameters, tuple(getattr(self.task, "rates", ())))
        return torch.optim.AdamW(
            groups, config.lr, config.betas, config.eps, config.weight_decay, fused=fused
        )

    def _made_of(self, resume: bool, decides: dict | None) -> dict:
        """What the run must have in common with one that it resumes (:mod:`kdkit.training.identity`)."""
        settings = getattr(self.task, "settings", {})
        made_of = self.config.result() | {"batches a step": self.batches_per_step, "task": settings}
        made_of |= identity.began_with(self.out, self.task, resume)
        made_of |= getattr(self.batches, "identity", {}) | (decides or {})
        return made_of | (self.selection.identity(self.config) if self.selection else {})

    def _enough(self) -> str:
        return self.selection.enough(self.log.rows) if self.selection else ""


def _by_rate(parameters: dict[str, nn.Parameter], beginnings: tuple[str, ...]) -> list[dict]:
    """Parameter groups: those whose names share a beginning, which ``named`` says, and all others."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        named = next((beginning for beginning in beginnings if name.startswith(beginning)), "")
        groups.setdefault(named, []).append(parameter)
    return [{"params": some, "named": named} for named, some in groups.items()]
