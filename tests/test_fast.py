"""Twins for GPUs are the same functions as what they stand for; here on a CPU, Triton's kernels in its interpreter."""

import contextlib
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdkit import losses
from kdkit.distill import DistillConfig, DistillTask
from kdkit.model import encoder
from kdkit.model.codebook import Codebook
from kdkit.model.encoder import PositionalConv
from kdkit.model.fast import checks
from kdkit.model.fast.attention import segments
from kdkit.model.fast.cnn import FrozenCNN
from kdkit.model.fast.frozen import hastened
from kdkit.model.fast.positions import FrozenPositions, GroupedConv
from kdkit.model.fast.windows import windows_plain
from kdkit.model.speech_model import SpeechModel, preset
from kdkit.model.waveform import WaveformCNN
from kdkit.recognition import ctc
from kdkit.recognition.ctc import CTCModel, CTCTask
from kdkit.speech.batches import GRAIN, Batch
from kdkit.speech.frames import num_frames
from kdkit.teachers import Teacher
from kdkit.teachers.pretrain import FilterbankTask, Labels, PretrainTask
from kdkit.training.graphs import Steps, rung

CHANNELS = (32, 32, 16, 16, 16, 16, 48)


def speech(*samples: int) -> Batch:
    torch.manual_seed(1)
    waves, lengths = torch.zeros(len(samples), max(samples)), torch.tensor(samples)
    for row, length in zip(waves, samples, strict=True):
        row[:length] = 0.3 * torch.randn(length).cumsum(0).sin()  # neighbours are alike, as in speech
    return Batch(waves, lengths, [None] * len(samples))


def test_windows_are_a_convolution():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 40, 16), torch.randn(24, 16, 3), torch.randn(24)
    expected = F.gelu(F.conv1d(x.transpose(1, 2), weight, bias, stride=2)).transpose(1, 2)
    as_product = weight.permute(2, 1, 0).flatten(0, 1)[None]
    found = windows_plain(x.flatten(1), as_product, bias[None], 19, 32, True, torch.float32)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("bias", [False, True])
def test_frozen_cnn_is_the_cnn(bias):
    torch.manual_seed(0)
    cnn, batch = WaveformCNN(CHANNELS, bias=bias).double(), speech(9000, 5000, 4321)
    cnn.norm.weight.data.normal_()
    cnn.norm.bias.data.normal_()
    expected = cnn(batch.waves, batch.lengths)
    found = FrozenCNN(cnn, torch.float32)(batch.waves, batch.lengths)
    for row, frames in enumerate(num_frames(batch.lengths).tolist()):
        torch.testing.assert_close(found[row, :frames], expected[row, :frames].float(), rtol=1e-4, atol=1e-4)


def test_frozen_positions_are_the_positional_convolution():
    torch.manual_seed(0)
    positions, x = PositionalConv(64, 16, 4), torch.randn(2, 45, 64)
    torch.testing.assert_close(
        FrozenPositions(positions, torch.float32)(x), positions(x), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kernel", [16, 9])
def test_grouped_convolution_is_the_one_of_torch_both_ways(kernel):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 30, 36, requires_grad=True), torch.randn(36, 6, kernel, requires_grad=True)
    y = F.conv1d(x.transpose(1, 2), weight, padding=kernel // 2, groups=6)[..., :30].transpose(1, 2)
    found, given = GroupedConv.apply(x, weight, 6), torch.randn(2, 30, 36)
    torch.testing.assert_close(found, y)
    for a, b in zip(*(torch.autograd.grad(out, (x, weight), given) for out in (found, y)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["tiny-teacher", "tiny-dt-fbank"])
def test_hastened_models_are_the_same_function(name):
    torch.manual_seed(0)
    model, batch = SpeechModel(replace(preset(name), layers=3)).eval(), speech(9000, 6000)
    expected, found = (some(batch.waves, batch.lengths) for some in (model, hastened(model, torch.float32)))
    for a, b in zip(expected.hidden, found.hidden, strict=True):
        torch.testing.assert_close(b[expected.mask], a[expected.mask], rtol=1e-3, atol=1e-3)
    low = hastened(model, torch.bfloat16)(batch.waves, batch.lengths).last
    assert low.dtype == torch.bfloat16
    apart = (low - expected.last)[expected.mask].norm() / expected.last[expected.mask].norm()
    assert apart < 0.03


def test_segments_are_real_frames_and_padding_in_turn():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    assert segments(mask).tolist() == [0, 3, 4, 8, 8, 9, 12]


def test_kernels_do_what_their_plain_twins_do():
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    here = os.path.join(os.path.dirname(__file__), "fast_kernels.py")
    done = subprocess.run([sys.executable, here], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_steps_have_the_gradients_of_the_plain_loop():
    torch.manual_seed(0)
    tiny = replace(preset("tiny-teacher"), layers=2)
    codebook = Codebook(tiny.dim, 20, 16).requires_grad_(False).eval()
    teacher = Teacher(SpeechModel(tiny).requires_grad_(False).eval(), codebook, "test", {})
    student = SpeechModel(replace(preset("tiny-dt-fbank"), layers=2))
    losses = DistillConfig(((1, 1), (2, 2)), discriminative_weight=0.5)
    task, batch = DistillTask(student, teacher, losses).train(), speech(9000, 6000)
    parameters = {name: p for name, p in task.named_parameters() if p.requires_grad}
    loss, parts = task(batch)
    expected = torch.autograd.grad(loss * 0.5, list(parameters.values()))
    for dtype, allowed in ((None, 1e-3), (torch.bfloat16, 0.1)):
        steps = Steps(task, parameters, dtype)
        for share, add in ((1.0, False), (0.5, False), (0.3, True), (0.2, True)):
            if not add or share == 0.3:
                task.zero_grad()
            found, by_name = steps(batch, share, add=add)
            torch.testing.assert_close(found, loss, rtol=allowed, atol=0)
            assert by_name.keys() == parts.keys()
            if share in (0.5, 0.2):  # 0.3 + 0.2, added up, is 0.5 in one
                for (name, parameter), gradient in zip(parameters.items(), expected, strict=True):
                    assert parameter.grad.dtype == torch.float32
                    assert (parameter.grad - gradient).norm() <= allowed * gradient.norm() + 1e-6, name
        assert not task.quick
        steps.close()


class Watched(TorchDispatchMode):
    """Notes the operations that take or give a tensor of the host, which a graph cannot record."""

    def __init__(self):
        super().__init__()
        self.on_host, self.attended = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        every = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        if any(t.device.type == "cpu" for t in every):
            self.on_host.append(str(function))
        self.attended += "flash_attention" in str(function)
        return out


def tasks() -> dict:
    """Name: (task, inputs of compute besides the waveforms)."""
    tiny = replace(preset("tiny-teacher"), layers=2, dropout=0.1)
    codebook = Codebook(tiny.dim, 20, 16).requires_grad_(False).eval()
    teacher = Teacher(SpeechModel(tiny).requires_grad_(False).eval(), codebook, "test", {})
    student = replace(preset("tiny-dt-fbank"), layers=2, dropout=0.1)
    config = DistillConfig(((1, 1), (2, 2)), discriminative_weight=0.5)
    frames = 4, 149
    labelled = {
        "time": torch.ones(frames).bool(),
        "channels": torch.ones(4, student.dim).bool(),
        "labels": torch.ones(4, 16).long(),
        "sizes": torch.ones(4).long(),
    }
    frozen = CTCTask(CTCModel(SpeechModel(student)))
    frozen.recogniser.model.front_end.requires_grad_(False)
    return {
        "distilling": (DistillTask(SpeechModel(student), teacher, config), {"weights": torch.ones(2)}),
        "pretraining": (
            PretrainTask(SpeechModel(tiny), Codebook(tiny.dim, 20, 16), Labels({}, 20, "none")),
            {"targets": torch.zeros(frames).long(), "hidden": torch.ones(frames).bool()},
        ),
        "filterbank": (FilterbankTask(SpeechModel(tiny), torch.zeros(80), torch.ones(80)), {}),
        "ctc": (CTCTask(CTCModel(SpeechModel(student))), labelled),
        "ctc, warped": (CTCTask(CTCModel(SpeechModel(replace(student, fbank_warp=0.1)))), labelled),
        "ctc, frozen": (frozen, labelled),
    }


@pytest.mark.parametrize(
    "name", ["distilling", "pretraining", "filterbank", "ctc", "ctc, warped", "ctc, frozen"]
)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_graph_can_record_what_a_task_computes(name, dtype, monkeypatch):
    """On a GPU that is only pretended: no value is looked at, and nothing comes from the host."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(encoder, "trusted", lambda name: name == "segments")
    monkeypatch.setattr(checks, "trusted", lambda name: False)
    monkeypatch.setattr(losses, "trusted", lambda name: False)
    monkeypatch.setattr(ctc, "ctc_loss", lambda log_probs, *_: log_probs.sum((1, 2)))
    task, inputs = tasks()[name]
    task.train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        pretend(task)
        parameters = {name: p for name, p in task.named_parameters() if p.requires_grad}
        steps = Steps(task, parameters, dtype, capture=False)
        waves = {"waves": torch.empty(4, 48_000), "lengths": torch.empty(4).long()}
        inputs = {n: torch.empty(t.shape, dtype=t.dtype, device="cuda") for n, t in (waves | inputs).items()}
        with Watched() as watched, _reparametrize_module(task, steps._leaves()):
            loss, _ = task.compute(inputs)
    assert loss.device.type == "cuda" and not watched.on_host
    # the others have no padding, or no encoder
    in_segments = dtype is not None and name.startswith(("distilling", "ctc"))
    assert bool(watched.attended) == in_segments


def pretend(module: torch.nn.Module) -> None:
    """Replaces weights and buffers by ones of a GPU that is not there."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    new = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    learns = isinstance(tensor, torch.nn.Parameter)
                    tensors[name] = torch.nn.Parameter(new, tensor.requires_grad) if learns else new


def test_what_cannot_be_recorded_is_computed_as_it_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    task, _ = tasks()["filterbank"]
    parameters = {name: p for name, p in task.train().named_parameters() if p.requires_grad}
    steps, batch = Steps(task, parameters), speech(9000, 6000)
    expected = steps(batch)[0]
    steps.capture = True

    def refuse(inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(steps, "_record", refuse)
    steps(batch)  # seen once: not worth a graph yet
    with pytest.warns(UserWarning, match="no CUDA graph of this task.*not permitted"):
        assert torch.equal(steps(batch)[0], expected)
    assert not steps.capture


def test_a_kernel_that_is_wrong_here_is_not_used(monkeypatch):
    def wrong(device, low):
        checks.compare(torch.ones(3), torch.zeros(3) + 1.1, 1e-2)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.random, "fork_rng", lambda **_: contextlib.nullcontext())
    monkeypatch.setitem(checks.CHECKS, "broken", wrong)
    monkeypatch.setattr(checks, "AVAILABLE", True)
    assert not checks.trusted("broken"), "not even tried, unless it is asked for"
    monkeypatch.setenv("KDKIT_FAST", "1")
    with pytest.warns(UserWarning, match="kernel 'broken' does not work on this GPU.*9.1e-02 apart"):
        assert not checks.trusted("broken")


@given(st.integers(400, 3_000_000))
def test_few_widths_with_little_padding(samples):
    wide = rung(samples)
    assert samples <= wide <= max(samples + GRAIN - 1, samples * (1 + 1 / 16)) and rung(wide) == wide


def test_widening_adds_silence_and_nothing_else():
    batch = speech(9000, 6000)
    wide = batch.widened(12_000)
    assert wide.waves.shape == (2, 12_000) and not wide.waves[:, 9000:].any()
    assert torch.equal(wide.lengths, batch.lengths) and batch.widened(9000) is batch
