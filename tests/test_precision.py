"""Which precision "auto" is on which GPU, and loss scaling in fp16, on a CPU that stands for the GPU."""

from dataclasses import replace

import pytest
import torch
from test_training import RECIPE, Batches, Task, newest, weights

from kdkit.common.machine import training_precision
from kdkit.model.checkpoints import load_checkpoint
from kdkit.training import loop
from kdkit.training.loop import train

GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("gpu", "capability", "bf16", "expected"),
    [
        ("P100", (6, 0), False, "fp16"),
        ("P40", (6, 1), False, "fp32"),  # multiplies fp16 64 times slower than fp32
        ("V100", (7, 0), False, "fp16"),
        ("T4", (7, 5), False, "fp16"),
        ("A100", (8, 0), True, "bf16"),
        ("L4", (8, 9), True, "bf16"),
        ("H100", (9, 0), True, "bf16"),
    ],
)
def test_auto_is_what_the_gpu_multiplies_fast(monkeypatch, gpu, capability, bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert training_precision("auto", GPU) == expected
    assert training_precision("fp32", GPU) == "fp32"


def test_a_cpu_never_trains_in_fp16_by_itself(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert training_precision("auto", torch.device("cpu")) == "fp32"


@pytest.fixture
def fp16(monkeypatch):
    """accelerate refuses fp16 on a CPU, though torch can compute it: switched on by hand, with a scale that grows
    every second step and, far too large at first, makes gradients overflow."""
    if torch.cuda.is_available():
        return
    real = loop.accelerator_for

    def faked(precision, leaves_some_out):
        accelerator = real("fp32", leaves_some_out)
        accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**17, growth_interval=2)
        return accelerator

    monkeypatch.setattr(loop, "accelerator_for", faked)


def scaling(out):
    tensors, _ = load_checkpoint(newest(out))
    return {name: tensor.item() for name, tensor in tensors.items() if name.startswith("scaler.")}


def test_a_run_in_fp16_that_was_stopped_goes_on_with_its_scale(fp16, tmp_path):
    recipe = replace(RECIPE, precision="fp16", steps=11)  # stopped after an odd number of steps of one scale
    whole = Task()
    log = train(whole, Batches(), recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Task(), Batches(stop=6), recipe, tmp_path / "part")
    stopped = scaling(tmp_path / "part")
    again = Task()
    resumed = train(again, Batches(), recipe, tmp_path / "part")
    assert [row["loss"] for row in resumed] == [row["loss"] for row in log]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name
    assert scaling(tmp_path / "part") == scaling(tmp_path / "whole") != stopped


def test_steps_that_overflow_are_skipped_and_the_others_learn(fp16, tmp_path):
    task, before = Task(), weights(Task())
    log = train(task, Batches(), replace(RECIPE, precision="fp16"), tmp_path)
    norms = torch.tensor([row["grad_norm"] for row in log])
    if not torch.cuda.is_available():
        assert not norms.isfinite().all()  # the first scale is too large
    assert norms.isfinite().any() and any(not torch.equal(before[n], v) for n, v in weights(task).items())
    assert all(v.isfinite().all() for v in weights(task).values())


def test_a_run_goes_on_where_its_gpu_needs_no_scaling(tmp_path, fp16, monkeypatch):
    auto = replace(RECIPE, precision="auto")
    with pytest.raises(KeyboardInterrupt):
        train(Task(), Batches(stop=7), auto, tmp_path)
    monkeypatch.undo()
    batches = Batches()
    train(Task(), batches, auto, tmp_path)
    assert batches.asked == list(range(7, 12))
