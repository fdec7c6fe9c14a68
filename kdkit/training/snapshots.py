"""Checkpoints of a training: atomic, with a checksum; the last few are kept, and the newest good one is found."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from kdkit.common.errors import CheckpointError, OtherRunError, OutputError, TrainingError
from kdkit.common.files import free_bytes, sweep, writing
from kdkit.model.checkpoints import load_checkpoint, save_checkpoint
from kdkit.training.identity import differences

_SCALER = ("scale", "_growth_tracker")  # what changes in the state of torch's GradScaler


class Snapshots:
    """Weights and optimiser state of ``task``, one file ``step-00000200.safetensors`` per checkpoint.

    ``scaler`` is the loss scaling of fp16, whose scale and count of steps since the last change are saved too.
    ``identity`` is what a run must share with the one that it resumes (:mod:`kdkit.training.identity`). A damaged
    file, which its checksum reveals, is reported, and the one before is used.
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
        """Raises :class:`TrainingError` when the disk has no space for the checkpoints of a run."""
        # weights, and the optimiser's two moments of each
        needed = (self.keep + 1) * sum(t.nbytes for t in trained_state(self.task).values()) * 3
        free = free_bytes(self.folder)
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
        """Loads the newest good checkpoint. Returns the steps done (0: there is none) and the evaluations so far.

        Raises :class:`OtherRunError` when it belongs to a run with another identity.
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
                raise OtherRunError(
                    f"{self.folder.parent}: holds an earlier run that was made of something else ({told}); "
                    "choose another folder, or start anew there (--fresh, resume=False)",
                    told,
                )
            self._load(path, tensors)
            return step, evaluations
        return 0, []

    def clear(self) -> tuple[int, list[dict]]:
        """Removes the checkpoints of an earlier run. Returns what :meth:`restore` does for a new run: 0 and []."""
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
        if self.scaler and scaling:  # a run that started in bf16 has none
            self.scaler.load_state_dict(self.scaler.state_dict() | scaling)


def trained_state(task: nn.Module) -> dict[str, Tensor]:
    """The task's tensors by name, without those of modules that it names in ``frozen`` (teachers are not saved)."""
    frozen = tuple(f"{name}." for name in getattr(task, "frozen", ()))
    return {
        name: t.detach() for name, t in task.state_dict().items() if not (frozen and name.startswith(frozen))
    }


def load_trained_state(task: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copies tensors of :func:`trained_state` into a task; ``path``: their file, for the message.

    Raises :class:`CheckpointError` when names or shapes differ.
    """
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
