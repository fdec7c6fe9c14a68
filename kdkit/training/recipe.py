"""The recipe of a training: steps, learning rate schedule, optimiser, precision, intervals of log and checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from kdkit.common.errors import ConfigError


@dataclass(frozen=True)
class TrainConfig:
    """Recipe of one run. ``schedule``: "linear" (warm-up, then decay to 0) or "tri-stage" (warm-up, hold, decay).

    Raises :class:`ConfigError` for impossible values.
    """

    steps: int = 1000
    lr: float = 1e-3
    warmup: float = 0.07  # share of the steps
    hold: float = 0.4  # share of the steps, tri-stage only
    schedule: str = "linear"
    stages: tuple[int, ...] = ()  # steps at which the learning rate restarts, with its own warm-up and decay
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 1e-6
    clip: float = 5.0  # maximal gradient norm
    precision: str = "auto"  # "fp32", "bf16", "fp16" (GPU); "auto": kdkit.common.machine.training_precision
    seed: int = 0
    accumulate: int = 1  # batches per step, in every process
    graphs: bool = True  # on a GPU, unless $KDKIT_FAST is 0: steps as CUDA graphs (kdkit.training.graphs)
    log_every: int = 10
    evaluate_every: int = 0  # 0: only at the end
    save_minutes: float = 5.0  # between checkpoints
    save_every: int = 0  # steps; 0: as save_minutes says
    keep: int = 2  # checkpoints
    tensorboard: bool = False  # also write OUT/tensorboard

    def __post_init__(self):
        if self.schedule not in ("linear", "tri-stage"):
            raise ConfigError(f"schedule is {self.schedule!r}: choose 'linear' or 'tri-stage'")
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise ConfigError(f"precision is {self.precision!r}: choose auto, fp32, bf16 or fp16")
        object.__setattr__(self, "stages", tuple(self.stages))  # JSON gives lists
        if list(self.stages) != sorted({s for s in self.stages if 0 < s < self.steps}):
            raise ConfigError(f"stages are {self.stages}: rising numbers of steps between 0 and {self.steps}")
        for name in ("steps", "accumulate", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if self.save_every < 0 or not self.save_minutes > 0:
            raise ConfigError(
                f"save_every is {self.save_every} steps, save_minutes {self.save_minutes}: give one of them, above 0"
            )

    def result(self) -> dict:
        """The settings that decide the final weights; the others may change when a run resumes."""
        aside = {"accumulate", "graphs", "log_every", "evaluate_every"}
        aside |= {"save_minutes", "save_every", "keep", "tensorboard"}
        return {name: value for name, value in asdict(self).items() if name not in aside}


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of step 0 .. steps - 1: warm-up from near 0, decay to 0 (tri-stage: to 5 % of the peak)."""
    start = max((s for s in config.stages if s <= step), default=0)
    end = min((s for s in config.stages if s > step), default=config.steps)
    step, steps = step - start, end - start
    warm = max(1, round(config.warmup * steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.schedule == "linear":
        return config.lr * (steps - step) / max(1, steps - warm)
    hold = round(config.hold * steps)
    if step < warm + hold:
        return config.lr
    return config.lr * 0.05 ** ((step - warm - hold) / max(1, steps - warm - hold))
