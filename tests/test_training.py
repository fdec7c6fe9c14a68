"""The training loop: schedule, exact resume, interruption, broken files, a loss that is not a number."""

import json
import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from kdkit.checkpoints import load_checkpoint, save_checkpoint
from kdkit.errors import CheckpointError, TrainingError
from kdkit.training import TrainConfig, learning_rate, train

RECIPE = TrainConfig(steps=12, lr=0.01, save_every=4, log_every=1, precision="fp32")


@dataclass
class Item:
    id: str


@dataclass
class Batch:
    waves: torch.Tensor
    lengths: torch.Tensor
    utterances: list

    def to(self, device):
        return self


class Batches:
    """Deterministic in the step; ``stop`` raises Ctrl-C at that step, ``poison`` makes that batch infinite."""

    def __init__(self, stop=None, poison=None):
        self.stop, self.poison, self.asked = stop, poison, []

    def batch(self, step):
        if step == self.stop:
            raise KeyboardInterrupt
        self.asked.append(step)
        waves = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        if step == self.poison:
            waves[0, 0] = math.inf
        return Batch(waves, torch.full((4,), 6), [Item(f"u{step}-{i}") for i in range(4)])


class Task(nn.Module):
    """Random dropout makes the RNG state matter; a frozen part must not be saved."""

    frozen = ("teacher",)

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.teacher = nn.Linear(6, 1).requires_grad_(False)

    def forward(self, batch):
        loss = (self.net(batch.waves) - self.teacher(batch.waves)).square().mean()
        return loss, {"square": loss.detach()}


def weights(task):
    return {n: p.detach().clone() for n, p in task.named_parameters()}


def test_learning_rate_warms_up_and_decays():
    config = TrainConfig(steps=100, lr=1.0, warmup=0.1)
    rates = [learning_rate(s, config) for s in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and rates[99] == pytest.approx(1 / 90)
    changes = [later - earlier for earlier, later in pairwise(rates)]
    assert all(c > 0 for c in changes[:9]) and all(c <= 0 for c in changes[9:])
    tri = replace(config, schedule="tri-stage", hold=0.4)
    assert [learning_rate(s, tri) for s in (10, 30, 49)] == [1.0] * 3
    assert learning_rate(99, tri) == pytest.approx(0.05 ** (49 / 50))


def test_a_stopped_run_ends_with_the_same_weights(tmp_path):
    whole = Task()
    log = train(whole, Batches(), RECIPE, tmp_path / "whole")
    part = Task()
    with pytest.raises(KeyboardInterrupt):
        train(part, Batches(stop=7), RECIPE, tmp_path / "part")
    again, batches = Task(), Batches()
    resumed = train(again, batches, RECIPE, tmp_path / "part")
    assert batches.asked == list(range(7, 12))  # went on, did not start again
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name
    strip = [{k: v for k, v in row.items() if k != "times_real_time"} for row in log]
    assert strip == [{k: v for k, v in row.items() if k != "times_real_time"} for row in resumed]


def test_a_finished_run_is_loaded_not_repeated(tmp_path):
    first = Task()
    log = train(first, Batches(), RECIPE, tmp_path)
    second, batches = Task(), Batches()
    assert train(second, batches, RECIPE, tmp_path) == log
    assert batches.asked == []
    assert all(torch.equal(weights(first)[n], v) for n, v in weights(second).items())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))


def test_frozen_parts_are_neither_saved_nor_changed(tmp_path):
    task = Task()
    before = task.teacher.weight.clone()
    train(task, Batches(), RECIPE, tmp_path)
    tensors, _ = load_checkpoint(tmp_path / "state.safetensors")
    assert torch.equal(before, task.teacher.weight)
    assert not [name for name in tensors if "teacher" in name]


def test_a_loss_that_is_not_finite_names_step_and_utterances(tmp_path):
    with pytest.raises(TrainingError, match=r"step 5 .*u5-0"):
        train(Task(), Batches(poison=5), RECIPE, tmp_path)
    assert load_checkpoint(tmp_path / "state.safetensors")[1]["step"] == 4  # what was saved is still good


def test_another_recipe_or_a_truncated_state_is_refused(tmp_path):
    train(Task(), Batches(), RECIPE, tmp_path)
    with pytest.raises(CheckpointError, match="lr"):
        train(Task(), Batches(), replace(RECIPE, lr=0.5), tmp_path)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="truncated"):
        train(Task(), Batches(), RECIPE, tmp_path)
    train(Task(), Batches(), RECIPE, tmp_path, resume=False)  # starting over is possible


def test_evaluation_rows_are_in_the_log(tmp_path):
    seen = []

    def evaluate(task):
        seen.append(task.training)
        return {"wer": 0.5}

    log = train(Task(), Batches(), replace(RECIPE, evaluate_every=5), tmp_path, evaluate)
    assert [row["step"] for row in log if "wer" in row] == [5, 10, 12]
    assert seen == [False] * 3


def test_checkpoint_says_what_does_not_fit(tmp_path):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.ones(2)}, {"n": [1, "two"]})
    tensors, meta = load_checkpoint(path)
    assert torch.equal(tensors["a"], torch.ones(2)) and meta == {"n": [1, "two"]}
    with pytest.raises(CheckpointError, match="no such"):
        load_checkpoint(tmp_path / "absent.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"not a model at all")
    with pytest.raises(CheckpointError, match=r"junk\.safetensors"):
        load_checkpoint(tmp_path / "junk.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["junk.safetensors", "x.safetensors"]  # no leftovers
