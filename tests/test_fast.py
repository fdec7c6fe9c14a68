"""Twins for GPUs are the same functions as what they stand for; here on a CPU, Triton's kernels in its interpreter."""

import contextlib
import os
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdkit import losses
from kdkit.distill import DistillConfig, DistillTask
from kdkit.model import encoder
from kdkit.model.codebook import Codebook
from kdkit.model.encoder import PositionalConv
from kdkit.model.fast import attention, checks, cnn, frozen, positions
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
from kdkit.training.graphs import Steps, recordable, rung

TWINS = FrozenCNN, FrozenPositions
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
    plain, batch = WaveformCNN(CHANNELS, bias=bias).double(), speech(9000, 5000, 4321)
    plain.norm.weight.data.normal_()
    plain.norm.bias.data.normal_()
    expected = plain(batch.waves, batch.lengths)
    found = FrozenCNN(plain, torch.float32)(batch.waves, batch.lengths)
    assert found.is_contiguous()  # the channels stayed beside each other
    for row, frames in enumerate(num_frames(batch.lengths).tolist()):
        torch.testing.assert_close(found[row, :frames], expected[row, :frames].float(), rtol=1e-4, atol=1e-4)


def test_frozen_positions_are_the_positional_convolution():
    torch.manual_seed(0)
    plain, x = PositionalConv(64, 16, 4), torch.randn(2, 45, 64)
    torch.testing.assert_close(FrozenPositions(plain, torch.float32)(x), plain(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [16, 9])
def test_grouped_convolution_is_the_one_of_torch_both_ways(kernel):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 30, 36, requires_grad=True), torch.randn(36, 6, kernel, requires_grad=True)
    y = F.conv1d(x.transpose(1, 2), weight, padding=kernel // 2, groups=6)[..., :30].transpose(1, 2)
    found, given = GroupedConv.apply(x, weight, 6), torch.randn(2, 30, 36)
    torch.testing.assert_close(found, y)
    for a, b in zip(*(torch.autograd.grad(out, (x, weight), given) for out in (found, y)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("by_kernel", [True, False])
@pytest.mark.parametrize("name", ["tiny-teacher", "tiny-dt-fbank"])
def test_hastened_models_are_the_same_function(name, by_kernel, monkeypatch):
    monkeypatch.setattr(frozen, "by_kernel", lambda device: by_kernel)
    torch.manual_seed(0)
    model, batch = SpeechModel(replace(preset(name), layers=3)).eval(), speech(9000, 6000)
    expected, found = (some(batch.waves, batch.lengths) for some in (model, hastened(model, torch.float32)))
    for a, b in zip(expected.hidden, found.hidden, strict=True):
        torch.testing.assert_close(b[expected.mask], a[expected.mask], rtol=1e-3, atol=1e-3)
    low = hastened(model, torch.bfloat16)(batch.waves, batch.lengths).last
    assert low.dtype == torch.bfloat16
    twins = [part for part in hastened(model, torch.bfloat16).modules() if isinstance(part, TWINS)]
    assert len(twins) == by_kernel * (2 if name == "tiny-teacher" else 1)
    apart = (low - expected.last)[expected.mask].norm() / expected.last[expected.mask].norm()
    assert apart < 0.03


def test_attention_assembles_the_gradient_of_its_input_once():
    torch.manual_seed(0)
    layer, x = encoder.Attention(32, 4, 0.0), torch.randn(2, 30, 32, requires_grad=True)
    with Watched() as watched:
        layer(x, None).sum().backward()
    assert watched.names["aten.stack.default"] == 1 and not watched.names["aten.clone.default"]


def test_segments_are_real_frames_and_padding_in_turn():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    assert segments(mask).tolist() == [0, 3, 4, 8, 8, 9, 12]


def test_kernels_do_what_their_plain_twins_do():
    triton = pytest.importorskip("triton")
    if Version(triton.__version__) < Version("3.1"):
        pytest.skip("Triton's interpreter hands no constants on from kernel to kernel yet")
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
            with Watched() as watched:
                found, by_name = steps(batch, share, add=add)
            assert watched.copied and all(map(in_one_pass, watched.copied))
            torch.testing.assert_close(found, loss, rtol=allowed, atol=0)
            assert by_name.keys() == parts.keys()
            if share in (0.5, 0.2):  # 0.3 + 0.2, added up, is 0.5 in one
                for (name, parameter), gradient in zip(parameters.items(), expected, strict=True):
                    assert parameter.grad.dtype == torch.float32
                    assert (parameter.grad - gradient).norm() <= allowed * gradient.norm() + 1e-6, name
        assert not task.quick
        steps.close()


class Watched(TorchDispatchMode):
    """Notes the operations: how often each, lists that are copied, and those that take or give a tensor of the host,
    which a graph cannot record.
    """

    def __init__(self):
        super().__init__()
        self.on_host, self.copied, self.attended, self.names = [], [], 0, Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.names[str(function)] += 1
        if "foreach_copy" in str(function):
            self.copied.append(args[:2])
        every = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        if any(t.device.type == "cpu" for t in every):
            self.on_host.append(str(function))
        self.attended += "flash_attention" in str(function)
        return out


def in_one_pass(copied: tuple[list, list]) -> bool:
    """Does a GPU copy these tensors together? torch says so of tensors of one dtype, which lie as their places do."""
    into, given = copied
    alike = all(a.stride() == b.stride() for a, b in zip(into, given, strict=True))
    return alike and len({tensor.dtype for tensor in given}) == 1


class OwnLoss(torch.nn.Module):
    def __init__(self, student: int, teacher: int):
        super().__init__()
        self.head = torch.nn.Linear(student, teacher)

    def forward(self, output, states, mask):
        return losses.regression_loss(self.head(output.last), states[2], mask)


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
    still = CTCTask(CTCModel(SpeechModel(student)))
    still.recogniser.model.front_end.requires_grad_(False)
    distilling = DistillTask(SpeechModel(student), teacher, config), {"weights": torch.ones(2)}
    own = losses.Loss("own", 0.5, OwnLoss(student.dim, tiny.dim), layers=(2,))
    with_own = DistillTask(SpeechModel(student), teacher, config, extra=[own])
    return {
        "distilling": distilling,
        "distilling, no kernels": distilling,
        "distilling, own loss": (with_own, {"weights": torch.ones(3)}),
        "pretraining": (
            PretrainTask(SpeechModel(tiny), Codebook(tiny.dim, 20, 16), Labels({}, 20, "none")),
            {"targets": torch.zeros(frames).long(), "hidden": torch.ones(frames).bool()},
        ),
        "filterbank": (FilterbankTask(SpeechModel(tiny), torch.zeros(80), torch.ones(80)), {}),
        "ctc": (CTCTask(CTCModel(SpeechModel(student))), labelled),
        "ctc, warped": (CTCTask(CTCModel(SpeechModel(replace(student, fbank_warp=0.1)))), labelled),
        "ctc, frozen": (still, labelled),
    }


@pytest.mark.parametrize(
    "name",
    [
        "distilling",
        "distilling, no kernels",
        "distilling, own loss",
        "pretraining",
        "filterbank",
        "ctc",
        "ctc, warped",
        "ctc, frozen",
    ],
)
@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.5"), reason="cannot pretend a GPU without a driver"
)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_graph_can_record_what_a_task_computes(name, dtype, monkeypatch):
    """On a GPU that is only pretended: no value is looked at, and nothing comes from the host."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(attention, "trusted", lambda name: name == "segments")
    monkeypatch.setattr(encoder, "trusted", lambda name: False)
    monkeypatch.setattr(frozen, "by_kernel", lambda device: name != "distilling, no kernels")
    for user in (cnn, positions):  # of a kernel that does not run here
        monkeypatch.setattr(user, "windows_product", windows_plain)
    monkeypatch.setattr(losses, "trusted", lambda *_: False)
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


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is only pretended, on which one kernel is wrong: ``gpu(capability, triton)``."""

    def wrong(device, low):
        checks.compare(torch.ones(3), torch.zeros(3) + 1.1, 1e-2)

    def pretended(capability: tuple[int, int] = (9, 0), triton: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setattr(checks, "AVAILABLE", triton)

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.random, "fork_rng", lambda **_: contextlib.nullcontext())
    right = dict.fromkeys(checks.CHECKS, lambda device, low: None)
    monkeypatch.setattr(checks, "CHECKS", right | {"broken": wrong})
    for known in (checks._right, checks._has_triton):
        known.cache_clear()
    yield pretended
    for known in (checks._right, checks._has_triton):
        known.cache_clear()


def trusted() -> set[str]:
    return {name for name in checks.CHECKS if checks.trusted(name)}


def test_a_kernel_that_is_wrong_here_is_not_used(gpu, monkeypatch):
    gpu()
    monkeypatch.setenv("KDKIT_FAST", "0")
    assert not trusted(), "not even tried"
    monkeypatch.delenv("KDKIT_FAST")
    with pytest.warns(UserWarning, match="kernel 'broken' does not work on this GPU.*9.1e-02 apart") as said:
        assert trusted() == {"windows", "weight_gradient", "rows", "ctc", "segments"} == trusted()
    assert len(said) == 1


def test_old_gpus_compile_no_matrix_products(gpu):
    gpu((7, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert trusted() == {"rows", "ctc", "segments"}


def test_without_triton_one_warning_says_so(gpu):
    gpu(triton=False)
    with pytest.warns(UserWarning, match="Triton is not installed") as said:
        assert trusted() == {"segments"}
    assert len(said) == 1


@pytest.mark.parametrize("right", [True, False])
def test_what_a_task_does_on_the_host_is_not_recorded(right, monkeypatch):
    monkeypatch.setattr(ctc, "has_kernel", lambda: right)
    assert recordable(tasks()["ctc"][0]) == right
    masked = SpeechModel(replace(preset("tiny-dt-fbank"), layers=1))
    masked.front_end.spec_augment = object()
    assert not recordable(CTCTask(CTCModel(masked)))


@given(st.integers(400, 3_000_000))
def test_few_widths_with_little_padding(samples):
    wide = rung(samples)
    assert samples <= wide <= max(samples + GRAIN - 1, samples * (1 + 1 / 16)) and rung(wide) == wide


def test_widening_adds_silence_and_nothing_else():
    batch = speech(9000, 6000)
    wide = batch.widened(12_000)
    assert wide.waves.shape == (2, 12_000) and not wide.waves[:, 9000:].any()
    assert torch.equal(wide.lengths, batch.lengths) and batch.widened(9000) is batch
