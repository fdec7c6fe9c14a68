"""On a GPU: the same function, the same training in every precision, and no step that waits for the device."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from kdkit.distill import Adaptation, DistillConfig, DistillTask, default_pairs
from kdkit.losses import regression_frames
from kdkit.model.codebook import Codebook
from kdkit.model.fast.checks import CHECKS, MULTIPLYING, trusted
from kdkit.model.inference import optimised
from kdkit.model.speech_model import SpeechModel, preset
from kdkit.recognition.ctc import CTCModel, CTCTask
from kdkit.recognition.ctc_loss import ctc_on_cpu
from kdkit.recognition.evaluate import emissions
from kdkit.speech.batches import Batches
from kdkit.speech.manifest import Utterance
from kdkit.teachers import Teacher
from kdkit.teachers.pretrain import FilterbankTask, PretrainTask, cluster, layer_features
from kdkit.training.gradients import fixed_order
from kdkit.training.graphs import Steps
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
RECIPE = TrainConfig(steps=12, lr=5e-4, log_every=1, save_every=4)
STUDENTS = ("tiny-sw-fbank", "tiny-sw-waveform", "tiny-dt-fbank")


@pytest.fixture(autouse=True, params=["fast", "plain"])
def way(request, monkeypatch):
    """Every test with kernels and graphs, and without."""
    monkeypatch.setenv("KDKIT_FAST", "0")
    if request.param == "fast":
        monkeypatch.delenv("KDKIT_FAST")
    return request.param


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("speech"), np.random.default_rng(0)
    utterances = []
    for i in range(12):
        seconds = 1 + 0.13 * i
        soundfile.write(folder / f"{i}.wav", 0.1 * rng.standard_normal(round(16_000 * seconds)), 16_000)
        utterances.append(Utterance(f"u{i}", folder / f"{i}.wav", seconds, text="some words"))
    return utterances


def task(name: str, **settings) -> DistillTask:
    torch.manual_seed(0)
    config = preset("tiny-teacher")
    codebook = Codebook(config.dim, 100, 64).requires_grad_(False).eval()
    teacher = Teacher(SpeechModel(config).requires_grad_(False).eval(), codebook, "test", {})
    student = SpeechModel(preset(name))
    losses = DistillConfig(default_pairs(student.config, config), discriminative_weight=1.0, **settings)
    return DistillTask(student, teacher, losses)


def weights(module) -> dict:
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", CHECKS)
def test_kernels_do_what_their_plain_twins_do(name, way):
    recent = torch.cuda.get_device_capability() >= (8, 0)
    if name in (*MULTIPLYING, "segments") and not recent:
        pytest.skip("for GPUs of 2020 or later")
    torch.manual_seed(0)
    twin = {"rows": (regression_frames,), "ctc": (ctc_on_cpu,)}.get(name, ())
    CHECKS[name](torch.device("cuda"), torch.bfloat16 if recent else torch.float16, *twin)
    assert trusted(name, *twin) == (way == "fast")


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["tiny-dt-fbank", "tiny-sw-waveform"])
def test_graphs_are_the_steps_they_record(speech, name, dtype):
    some, batches = task(name).cuda().train(), Batches(speech, 8, workers=0)
    parameters = {n: p for n, p in some.named_parameters() if p.requires_grad}
    batch = batches.batch(0)
    with (
        torch.autocast("cuda", dtype or torch.bfloat16, enabled=dtype is not None),
        fixed_order(torch.device("cuda")),
    ):
        plain, _ = some(batch.to("cuda"))
        expected = torch.autograd.grad(plain, list(parameters.values()))
    steps, seen = Steps(some, parameters, dtype), []
    for _ in range(4):  # as it is, recorded, played, played
        torch.manual_seed(0)
        with fixed_order(torch.device("cuda")):
            loss, parts = steps(batch)
        seen.append([loss, *parts.values(), *(p.grad.clone() for p in parameters.values())])
    assert len(steps.graphs) == 1
    for later in seen[1:]:
        for a, b in zip(seen[0], later, strict=True):
            assert torch.equal(a, b)
    torch.testing.assert_close(seen[0][0], plain, rtol=1e-2, atol=0)
    every = [torch.cat([g.flatten() for g in some]) for some in (expected, seen[0][1 + len(parts) :])]
    assert (every[0] - every[1]).norm() < (0.05 if dtype else 2e-3) * every[0].norm()
    steps.close()


def dropping() -> DistillTask:
    """Distillation with dropout, on the GPU."""
    torch.manual_seed(0)
    config = preset("tiny-teacher")
    teacher = Teacher(SpeechModel(config).requires_grad_(False).eval(), None, "test", {})
    student = SpeechModel(replace(preset("tiny-sw-fbank"), dropout=0.3))
    return DistillTask(student, teacher, DistillConfig(default_pairs(student.config, config))).cuda().train()


def losses_of(some: DistillTask, speech, seeds: tuple[int, ...]) -> list[float]:
    """Losses of the same batch again and again; the second time its graph is recorded."""
    parameters = {n: p for n, p in some.named_parameters() if p.requires_grad}
    steps, batch, losses = Steps(some, parameters, torch.bfloat16), Batches(speech, 8, workers=0).batch(0), []
    for seed in seeds:
        torch.manual_seed(seed)
        losses.append(steps(batch)[0].item())
    return losses


def test_dropout_in_a_graph_is_that_of_the_seed(speech):
    losses = losses_of(dropping(), speech, (1, 2, 1, 2, 3))
    assert losses[0] == losses[2] and losses[1] == losses[3]
    assert len(set(losses)) == 3


def test_a_recording_that_breaks_off_changes_nothing(speech, monkeypatch):
    some = dropping()
    compute = some.compute

    def looking(inputs):
        loss, parts = compute(inputs)
        assert loss.item() > 0  # which no graph can record
        return loss, parts

    monkeypatch.setattr(some, "compute", looking)
    with pytest.warns(UserWarning, match="no CUDA graph of this task"):
        losses = losses_of(some, speech, (1, 1, 2, 1, 2))
    assert losses[0] == losses[1] == losses[3] and losses[2] == losses[4]
    assert len(set(losses)) == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_run_ends_with_the_same_weights(speech, tmp_path, precision):
    recipe, ends = replace(RECIPE, precision=precision), []
    for stop in (None, 7):
        some = task("tiny-dt-fbank", adaptation=Adaptation(3))
        if stop:
            with pytest.raises(KeyboardInterrupt):
                train(
                    some, Batches(speech, 8), recipe, tmp_path / str(stop), watch=lambda rows: len(rows) >= 7
                )
            some = task("tiny-dt-fbank", adaptation=Adaptation(3))
        train(some, Batches(speech, 8), recipe, tmp_path / str(stop))
        ends.append(weights(some))
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name


@pytest.mark.parametrize("name", STUDENTS)
def test_every_precision_learns_the_same(speech, tmp_path, name):
    logs = {}
    for precision in ("fp32", "bf16", "fp16"):
        batches = Batches(speech, 8)
        recipe = replace(RECIPE, precision=precision)
        logs[precision] = [r["loss"] for r in train(task(name), batches, recipe, tmp_path / precision)]
        batches.close()
    assert logs["fp32"][-1] < 0.95 * logs["fp32"][0]
    for precision in ("bf16", "fp16"):
        assert logs[precision] == pytest.approx(logs["fp32"], rel=0.02)


@pytest.mark.parametrize("name", STUDENTS)
def test_no_step_waits_for_the_gpu(speech, name):
    some, batches = task(name).cuda().train(), Batches(speech, 8)
    for number in range(3):
        batch = batches.batch(number)
        torch.cuda.set_sync_debug_mode("error" if number else "default")  # the first sets things up
        try:
            with torch.autocast("cuda", torch.bfloat16):
                loss, _ = some(batch.to("cuda"))
            loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    batches.close()


def test_a_teacher_is_made(speech, tmp_path):
    torch.manual_seed(0)
    model = SpeechModel(preset("tiny-teacher"))
    filterbank = FilterbankTask(model, torch.full((80,), 6.0), torch.full((80,), 3.0))
    rows = train(filterbank, Batches(speech, 8), RECIPE, tmp_path / "filterbank")
    assert rows[-1]["loss"] < rows[0]["loss"]
    labels, centres = cluster(layer_features(model.cuda(), 3), speech, 8, "layer 3")
    codebook = Codebook.from_centroids(torch.from_numpy(centres).float())
    some = PretrainTask(model, codebook, labels, visible_weight=1.0)
    rows = train(some, Batches(speech, 8), replace(RECIPE, steps=30), tmp_path / "masked")
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_recogniser_is_fine_tuned(speech, tmp_path):
    torch.manual_seed(0)
    some = CTCTask(CTCModel(SpeechModel(preset("tiny-sw-fbank"))), freeze=0.25, speeds=(0.9, 1.0, 1.1))
    rows = train(some, Batches(speech, 8), replace(RECIPE, steps=40, lr=2e-3), tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert len(emissions(some.recogniser, speech).utterances) == len(speech)


@pytest.mark.parametrize("name", ["tiny-teacher", *STUDENTS])
@pytest.mark.parametrize("precision", ["plain", "fp32", "bf16"])
def test_models_are_the_same_function(speech, name, precision):
    torch.manual_seed(0)
    model = SpeechModel(preset(name)).eval()
    batch = Batches(speech, 12, workers=0).batch(0)
    with torch.inference_mode():
        expected = model(batch.waves, batch.lengths)
        model = copy.deepcopy(model).cuda()
        model = model if precision == "plain" else optimised(model, precision)
        found = model(batch.waves.cuda(), batch.lengths.cuda()).last.float().cpu()
    apart = (found - expected.last)[expected.mask].norm() / expected.last[expected.mask].norm()
    assert apart < (0.03 if precision == "bf16" else 3e-3)  # convolutions multiply in TF32
