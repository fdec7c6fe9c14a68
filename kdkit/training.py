"""The one training loop: pre-training, distillation and fine-tuning all run through :func:`train`.

A task is a module whose ``forward(batch)`` returns ``(loss, {part: value})``; if it has a method ``schedule(share)``,
that is called before each step with the share of the steps that is done. Batches come from an object whose
``batch(step)`` is a pure function of the step, so that a run that was stopped goes on with the same data.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from kdkit.checkpoints import load_checkpoint, save_checkpoint
from kdkit.errors import CheckpointError, TrainingError


@dataclass(frozen=True)
class TrainConfig:
    """Recipe of one run. ``schedule``: "linear" (warm-up, then to zero) or "tri-stage" (warm-up, hold, decay)."""

    steps: int = 1000
    lr: float = 1e-3
    warmup: float = 0.07  # share of the steps
    hold: float = 0.4  # share of the steps, tri-stage only
    schedule: str = "linear"
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 1e-6
    clip: float = 5.0  # largest gradient norm
    precision: str = "auto"  # "fp32", "bf16", "auto": bf16 where the hardware multiplies it fast
    seed: int = 0
    log_every: int = 10
    evaluate_every: int = 0  # 0: only at the end
    save_every: int = 200


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of step 0 .. steps - 1: warm-up from near zero, decay to zero (tri-stage: to 5 %)."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.schedule == "linear":
        return config.lr * (config.steps - step) / max(1, config.steps - warm)
    hold = round(config.hold * config.steps)
    if step < warm + hold:
        return config.lr
    return config.lr * 0.05 ** ((step - warm - hold) / max(1, config.steps - warm - hold))


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_bf16(precision: str, device: torch.device) -> bool:
    """True where bf16 autocast is wanted: asked for, or "auto" on a GPU or CPU that multiplies bf16 faster."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    fast = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # older versions of torch lack one or both
    return any(getattr(torch.cpu, name, bool)() for name in fast)


def train(
    task: nn.Module,
    batches,
    config: TrainConfig,
    out: Path,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    resume: bool = True,
    title: str = "training",
) -> list[dict]:
    """Trains ``task`` and returns the log: one dict per logged step (step, loss, parts, lr; evaluation results).

    Writes ``out/state.safetensors`` (weights, optimiser, RNG; atomic) every ``save_every`` steps and
    ``out/metrics.jsonl``. With ``resume`` a run found in ``out`` goes on where it was saved; a finished one is
    loaded and returned at once. Ctrl-C saves before it leaves.

    Raises :class:`TrainingError` at a non-finite loss, naming step and utterances; :class:`CheckpointError` when
    ``out`` holds a run with another recipe.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    device = best_device()
    task.to(device).train()
    parameters = {name: p for name, p in task.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(
        parameters.values(),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
    torch.manual_seed(config.seed)
    state, log, first = out / "state.safetensors", [], 0
    if resume and state.exists():
        first, log = _restore(state, task, parameters, optimiser, config)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=use_bf16(config.precision, device))
    seconds, started = 0.0, time.perf_counter()
    bar = tqdm(
        total=config.steps, initial=first, desc=title, unit="step", mininterval=1.0, dynamic_ncols=True
    )
    step = first
    try:
        for step in range(first, config.steps):
            batch = batches.batch(step).to(device)
            if hasattr(task, "schedule"):
                task.schedule(step / config.steps)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, config)
            with autocast:
                loss, parts = task(batch)
            if not torch.isfinite(loss):
                names = ", ".join(u.id for u in batch.utterances[:4])
                raise TrainingError(
                    f"loss is {loss.item()} at step {step} (batch of {names} ...): lower lr, or look at these files"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters.values(), config.clip)
            optimiser.step()
            seconds += batch.lengths.sum().item() / 16_000
            bar.update()
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                row = {
                    "step": done,
                    "loss": loss.item(),
                    "lr": learning_rate(step, config),
                    "grad_norm": norm.item(),
                }
                row |= {name: float(value) for name, value in parts.items()}
                row["times_real_time"] = seconds / (time.perf_counter() - started)
                log.append(row)
                bar.set_postfix(
                    {"loss": f"{row['loss']:.3f}", "x real time": f"{row['times_real_time']:.0f}"}
                )
            if evaluate and (
                done == config.steps or (config.evaluate_every and done % config.evaluate_every == 0)
            ):
                task.eval()
                log.append({"step": done, **evaluate(task)})
                task.train()
            if done % config.save_every == 0 or done == config.steps:
                _save(state, task, parameters, optimiser, config, done, log)
    except KeyboardInterrupt:
        _save(state, task, parameters, optimiser, config, step, log)
        bar.write(f"stopped at step {step}; saved in {state}: run the same command again to go on")
        raise
    finally:
        bar.close()
    task.eval()
    with open(out / "metrics.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in log)
    return log


def _save(
    path: Path, task, parameters: dict[str, Tensor], optimiser, config, step: int, log: list[dict]
) -> None:
    tensors = {f"task.{name}": tensor for name, tensor in trained_state(task).items()}
    for name, parameter in parameters.items():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{key}.{name}"] = torch.as_tensor(value)
    tensors["rng"] = torch.get_rng_state()
    save_checkpoint(path, tensors, {"step": step, "config": asdict(config), "log": log})


def _restore(
    path: Path, task, parameters: dict[str, Tensor], optimiser, config: TrainConfig
) -> tuple[int, list[dict]]:
    tensors, meta = load_checkpoint(path)
    wanted = json.loads(json.dumps(asdict(config)))
    if meta["config"] != wanted:
        changed = sorted(k for k in wanted if meta["config"].get(k) != wanted[k])
        raise CheckpointError(
            f"{path}: an earlier run with other settings ({', '.join(changed)}); use another folder or remove it"
        )
    own = trained_state(task)
    missing = [name for name in own if f"task.{name}" not in tensors]
    if missing:
        raise CheckpointError(
            f"{path}: an earlier run of another model (no {missing[0]}); use another folder or remove it"
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[f"task.{name}"])
    for name, parameter in parameters.items():
        keys = {k.split(".")[1] for k in tensors if k.startswith("optimiser.") and k.split(".", 2)[2] == name}
        optimiser.state[parameter] = {
            key: tensors[f"optimiser.{key}.{name}"].to(parameter.device if key != "step" else "cpu")
            for key in keys
        }
    torch.set_rng_state(tensors["rng"])
    return meta["step"], meta["log"]


def trained_state(task: nn.Module) -> dict[str, Tensor]:
    """The task's tensors without those of frozen sub-modules it names in ``frozen`` (teachers are not saved)."""
    frozen = tuple(f"{name}." for name in getattr(task, "frozen", ()))
    return {
        name: t.detach() for name, t in task.state_dict().items() if not (frozen and name.startswith(frozen))
    }
