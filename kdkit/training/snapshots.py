"""Checkpoints of a running training: whole, checked, the last few kept, the newest good one found again."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from kdkit.common.errors import CheckpointError, OutputError, TrainingError
from kdkit.common.files import sweep, writing
from kdkit.model.checkpoints import load_checkpoint, save_checkpoint
from kdkit.training.identity import differences

_SCALER = ("scale", "_growth_tracker")  # what changes in the state of torch's GradScaler


class Snapshots:
    """Weights and optimiser state of ``task``, one file ``step-00000200.safetensors`` a checkpoint.

    ``scaler`` is the loss scaling of fp16, whose scale and count of steps since it changed are saved too.
    ``identity`` is what a run must share with the one that it goes on from (:mod:`kdkit.training.identity`). A file
    carries a checksum over everything in it: one that is damaged is reported and passed over for the one before.
    """

    def __init__(
        self,
        folder: Path,
        task: nn.Module,
        parameters: dict[str, Tensor],
        optimiser: torch.optim.Optimizer,
        identity: dict,
        keep: int = 2,
        scaler: torch.amp.GradScaler | None = None,
    ):
        self.folder, self.task, self.parameters, self.optimiser = folder, task, parameters, optimiser
        self.identity, self.keep = json.loads(json.dumps(identity)), keep
        self.scaler = scaler
        with writing(folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)

    def check_room(self) -> None:
        """Raises :class:`TrainingError` when the disk has no room for the checkpoints of a run."""
        # two moments in the optimiser
        needed = (self.keep + 1) * sum(t.nbytes for t in trained_state(self.task).values()) * 3
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise TrainingError(
                f"{self.folder}: {self.keep} checkpoints need up to {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are "
                "free; make room, keep fewer, or take another folder"
            )

    def save(self, step: int, evaluations: list[dict]) -> None:
        """Writes the state after ``step`` steps, then removes all but the newest ``keep`` checkpoints."""
        tensors = {f"task.{name}": tensor for name, tensor in trained_state(self.task).items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value)
        if self.scaler:
            state = self.scaler.state_dict()
            tensors |= {f"scaler.{key}": torch.tensor(state[key]) for key in _SCALER}
        meta = {"step": step, "identity": self.identity, "evaluations": evaluations}
        path = self.folder / f"step-{step:08d}.safetensors"
        try:
            with writing(path):
                save_checkpoint(path, tensors, meta)
        except OutputError as error:
            raise TrainingError(
                f"{error}; then run the same command again: it goes on from the checkpoint before"
            ) from error
        for old in self._files()[: -self.keep]:
            old.unlink(missing_ok=True)

    def restore(self) -> tuple[int, list[dict]]:
        """Loads the newest good checkpoint; returns the number of steps done, 0 when there is none, and the
        evaluations so far.

        Raises :class:`CheckpointError` when it belongs to a run that was made of something else.
        """
        for path in reversed(self._files()):
            try:
                tensors, meta = load_checkpoint(path)
                step, identity, evaluations = (meta[name] for name in ("step", "identity", "evaluations"))
            except (CheckpointError, KeyError) as error:
                reason = error if isinstance(error, CheckpointError) else f"{path}: holds no {error}"
                warnings.warn(f"damaged checkpoint passed over: {reason}", stacklevel=3)
                continue
            if told := differences(identity, self.identity):
                raise CheckpointError(
                    f"{self.folder.parent}: holds an earlier run that was made of something else ({told}); "
                    "choose another folder, or start anew there (--fresh, resume=False)"
                )
            self._load(path, tensors)
            return step, evaluations
        return 0, []

    def clear(self) -> tuple[int, list[dict]]:
        """Removes what an earlier run left; returns the step to begin with, 0, and no evaluations."""
        for path in self._files():
            path.unlink(missing_ok=True)
        return 0, []

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))

    def _load(self, path: Path, tensors: dict[str, Tensor]) -> None:
        saved = {name.removeprefix("task."): t for name, t in tensors.items() if name.startswith("task.")}
        load_trained_state(self.task, saved, path)
        state: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, key, parameter = name.split(".", 2)
                state.setdefault(parameter, {})[key] = tensor
        for name, values in state.items():
            parameter = self.parameters[name]
            self.optimiser.state[parameter] = {
                key: value.to("cpu" if key == "step" else parameter.device) for key, value in values.items()
            }
        scaling = {key: tensors[f"scaler.{key}"].item() for key in _SCALER if f"scaler.{key}" in tensors}
        if self.scaler and scaling:  # a run that began on a GPU with bf16 has none
            self.scaler.load_state_dict(self.scaler.state_dict() | scaling)


def trained_state(task: nn.Module) -> dict[str, Tensor]:
    """The task's tensors without those of the sub-modules that it names in ``frozen`` (teachers are not saved)."""
    frozen = tuple(f"{name}." for name in getattr(task, "frozen", ()))
    return {
        name: t.detach() for name, t in task.state_dict().items() if not (frozen and name.startswith(frozen))
    }


def load_trained_state(task: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copies what :func:`trained_state` gave back into a task; ``path`` is where it was read, for the message."""
    own = trained_state(task)
    wrong = sorted(
        n
        for n in own.keys() | tensors.keys()
        if n not in own or n not in tensors or own[n].shape != tensors[n].shape
    )
    if wrong:
        raise CheckpointError(
            f"{path}: an earlier run of another model ({wrong[0]} differs); use another folder or remove it"
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
