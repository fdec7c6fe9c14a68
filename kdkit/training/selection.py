"""Which weights of a run are used: the best on dev, or the average of the last few; and when to stop early.

All decisions depend on the rows of the log, which a resumed run reads back: a run that was killed ends at the same
step, with the same choice, as one that was not. Only dev speech decides, never test speech.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kdkit.common.errors import ConfigError, TrainingError
from kdkit.model.checkpoints import load_checkpoint, save_checkpoint
from kdkit.training.snapshots import load_trained_state, trained_state

if TYPE_CHECKING:
    from kdkit.training.recipe import TrainConfig


class Selection:
    """Keeps the weights of the best evaluation and of the ``last`` ones in ``folder``, as step-00000200.safetensors.

    ``measure`` names the value in the log that is minimised. ``patience`` evaluations without a new best end the run
    (0: never). Counting starts at the first evaluation below 1 (an empty transcript has an error rate of 1, and CTC
    writes nothing at first), and not before step ``not_before``.
    """

    def __init__(
        self, folder: Path, measure: str = "dev_wer", patience: int = 0, last: int = 1, not_before: int = 0
    ):
        if patience < 0 or last < 1:
            raise ConfigError(f"patience ({patience}) must be 0 or more, and last ({last}) 1 or more")
        self.folder, self.measure = Path(folder), measure
        self.patience, self.last, self.not_before = patience, last, not_before

    def identity(self, config: TrainConfig) -> dict:
        """The settings that the choice depends on (:mod:`kdkit.training.identity`)."""
        own = {
            "measure": self.measure,
            "patience": self.patience,
            "average": self.last,
            "not before": self.not_before,
        }
        return own | {"evaluate_every": config.evaluate_every}

    def history(self, rows: list[dict]) -> list[tuple[int, float]]:
        """[(step, measure), ...] of all evaluations in the rows of a log."""
        return [(row["step"], row[self.measure]) for row in rows if self.measure in row]

    def enough(self, rows: list[dict]) -> str:
        """The reason to end the run now; "" to go on."""
        history = self.history(rows)
        if not self.patience or not history:
            return ""
        step, value = min(history, key=lambda item: item[1])
        waited = sum(later > max(step, self.not_before) for later, _ in history)
        if value >= 1 or waited < self.patience:
            return ""
        return f"{self.measure} has not got better than {value:.4g} (step {step}) in {waited} evaluations"

    def keep(self, step: int, task: nn.Module, rows: list[dict]) -> None:
        """Saves the weights of the last evaluation in ``rows`` and removes those that can no longer be chosen."""
        save_checkpoint(self._path(step), trained_state(task), {"step": step})
        history = self.history(rows)
        wanted = {step for step, _ in history[-self.last :]} | {_best(history)[0]}
        for path in self.folder.glob("step-*.safetensors"):
            if int(path.stem[5:]) not in wanted:
                path.unlink(missing_ok=True)

    def choose(
        self, task: nn.Module, rows: list[dict], evaluate: Callable[[nn.Module], dict[str, float]]
    ) -> dict[str, object]:
        """Loads the best weights into the task or, with ``last`` > 1, the average of the last if it is better on dev.

        Returns {"chosen": description, "weights": [their steps], measure: value}, and the values of both candidates
        under "best" and "average". Raises :class:`TrainingError` when no weights were kept.
        """
        kept = [(step, value) for step, value in self.history(rows) if self._path(step).exists()]
        if not kept:
            raise TrainingError(
                f"{self.folder}: holds no weights to choose from; choose another folder, or start anew (--fresh, "
                "resume=False)"
            )
        step, value = _best(kept)
        choice = {"chosen": f"step {step}", "weights": [step], self.measure: value, "best": value}
        latest = [step for step, _ in kept[-self.last :]]
        if len(latest) > 1:
            load_trained_state(task, self._mean(latest), self.folder)
            task.eval()
            choice["average"] = average = evaluate(task)[self.measure]
            if average < value:
                words = f"mean of steps {', '.join(map(str, latest))}"
                return choice | {"chosen": words, "weights": latest, self.measure: average}
        load_trained_state(task, load_checkpoint(self._path(step))[0], self._path(step))
        return choice

    def clear(self) -> None:
        """Removes the weights of an earlier run."""
        for path in self.folder.glob("step-*.safetensors"):
            path.unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def _mean(self, steps: list[int]) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        for step in steps:
            for name, tensor in load_checkpoint(self._path(step))[0].items():
                total[name] = total.get(name, torch.zeros_like(tensor, dtype=torch.float64)) + tensor
        return {name: tensor / len(steps) for name, tensor in total.items()}


def _best(history: list[tuple[int, float]]) -> tuple[int, float]:
    """The evaluation with the lowest value, of equal ones the latest."""
    return min(history, key=lambda item: (item[1], -item[0]))
