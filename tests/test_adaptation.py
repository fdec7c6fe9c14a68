"""Front-end adaptation: what learns when, live and cached, stopped, in several processes; and the swap."""

import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from kdkit.common.errors import ConfigError
from kdkit.distill import Adaptation, DistillConfig, DistillTask, swap_losses
from kdkit.model.checkpoints import load_checkpoint
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.speech.batches import Batches
from kdkit.speech.manifest import Utterance, write_manifest
from kdkit.students import new_student, swap_front_end
from kdkit.teachers import Teacher, save_model
from kdkit.teachers.targets import TargetCache
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig, learning_rate

WAVEFORM = ModelConfig(
    layers=2, dim=16, ffn=32, heads=2, conv_channels=(4,) * 7, pos_kernel=8, pos_groups=4, dropout=0.0
)
FBANK = replace(WAVEFORM, front_end="fbank", dim=8)
PAIRS = ((1, 1), (2, 2))
RECIPE = TrainConfig(steps=8, lr=1e-2, stages=(4,), precision="fp32", log_every=1, save_every=2)
LOSSES = DistillConfig(PAIRS, adaptation=Adaptation(4))


def teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(SpeechModel(WAVEFORM).requires_grad_(False).eval(), None, "test", {})


def task(losses: DistillConfig = LOSSES, structure: ModelConfig = FBANK) -> DistillTask:
    return DistillTask(new_student(structure, seed=3), teacher(), losses)


def state(task) -> dict:
    return {name: tensor.cpu().clone() for name, tensor in task.state_dict().items()}


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("speech"), np.random.default_rng(0)
    utterances = []
    for i, seconds in enumerate((0.4, 0.61, 0.5, 0.83, 0.7)):
        path = folder / f"{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(round(seconds * 16_000)), 16_000)
        utterances.append(Utterance(f"u{i}", path, seconds, text="a", speaker="s"))
    return utterances


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name].cpu())}


def test_first_the_front_end_alone_learns_then_all_of_the_student(speech, tmp_path):
    some = task()
    start, learning = state(some), RECIPE.steps // 2
    rows = train(some, Batches(speech, 2), RECIPE, tmp_path)
    assert ["adaptation" in row for row in rows] == [True] * learning + [False] * learning
    assert ["regression" in row for row in rows] == [False] * learning + [True] * learning

    middle = task()
    train(middle, Batches(speech, 2), replace(RECIPE, steps=4, stages=()), tmp_path / "first stage")
    moved = changed(start, state(middle))
    assert "student.front_end.conv.weight" in moved and "adaptation_head.weight" in moved
    assert all(name.startswith(("student.front_end.", "adaptation_head.")) for name in moved)
    moved = changed(state(middle), state(some))
    assert "student.encoder.layers.1.ffn_out.weight" in moved and "heads.0.weight" in moved
    assert "adaptation_head.weight" not in moved  # thrown away after its stage
    assert not any(name.startswith("teacher.") for name in changed(start, state(some)))


def test_the_loss_is_the_distance_of_a_linear_map_to_the_teachers_first_state(speech):
    some, batch = task().eval(), Batches(speech, 4).batch(0)
    loss, parts = some(batch)
    with torch.no_grad():
        features = some.adaptation_head(some.student.front_end(batch.waves, batch.lengths))
        output = some.teacher(batch.waves, batch.lengths)
        expected = (features - output.hidden[0])[output.mask].abs().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and set(parts) == {"adaptation"}
    squared = task(replace(LOSSES, distance="l2")).eval()(batch)[0]
    assert squared.item() == pytest.approx(
        (features - output.hidden[0])[output.mask].square().mean().item(), rel=1e-5
    )


@pytest.mark.parametrize(("to", "targets"), [("front-end", ["front-end"]), ("both", ["h0", "front-end"])])
def test_the_teachers_front_end_may_be_the_target(speech, tmp_path, to, targets):
    losses = replace(LOSSES, adaptation=Adaptation(4, to))
    some, batch = task(losses).eval(), Batches(speech, 4).batch(0)
    assert some.layers == ({0, 1, 2} if "h0" in targets else {1, 2})
    with torch.no_grad():
        loss = some(batch)[0]
        front_end = some.teacher.front_end(batch.waves, batch.lengths)
        output = some.teacher(batch.waves, batch.lengths)
        predicted = some.adaptation_head(some.student.front_end(batch.waves, batch.lengths))
        wanted = [{"h0": output.hidden[0], "front-end": front_end}[name] for name in targets]
        each = [(p - w)[output.mask].abs().mean() for p, w in zip(predicted.chunk(len(targets), -1), wanted)]
    assert loss.item() == pytest.approx(sum(each).item(), rel=1e-5)
    cache = TargetCache(teacher(), sorted(some.layers), speech, tmp_path, precision="fp32")
    cached = task(losses).eval()(Batches(speech, 4, targets=cache.build(progress=False)).batch(0))[0]
    assert cached.item() == pytest.approx(loss.item(), rel=2e-3)


def test_a_swapped_front_end_may_follow_the_old_one_itself(speech):
    torch.manual_seed(5)
    old = Teacher(SpeechModel(WAVEFORM), None, "old")
    losses = replace(swap_losses(WAVEFORM, 40), adaptation=Adaptation(40, "front-end"))
    some, batch = DistillTask(swap_front_end(old.model), old, losses).eval(), Batches(speech, 4).batch(0)
    wanted = old.model.front_end(batch.waves, batch.lengths)
    features, mask = some.student.front_end(batch.waves, batch.lengths), some.teacher(*given(batch)).mask
    expected = (features - wanted)[mask].abs().mean()
    assert some(batch)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def given(batch):
    return batch.waves, batch.lengths


def test_each_stage_has_its_rate_of_the_front_end(speech, tmp_path):
    """Adam's first step is as long as the learning rate, whatever the gradient; the other stage's rate is another."""
    recipe = replace(RECIPE, warmup=0.0, clip=1e9, weight_decay=0.0)

    def moved(steps: int, **settings) -> dict[str, float]:
        adaptation = Adaptation(4, rate=settings.pop("rate")) if "rate" in settings else None
        some = task(DistillConfig(PAIRS, adaptation=adaptation, **settings))
        before = state(some)
        own = replace(recipe, steps=steps, stages=())
        train(some, Batches(speech, 4), own, tmp_path / f"{settings}{adaptation}", resume=False)
        return {n: (t - before[n]).abs().median().item() for n, t in state(some).items()}

    whole, tenth = moved(1), moved(1, front_end_rate=0.1)
    conv, layer = "student.front_end.conv.weight", "student.encoder.layers.0.ffn_out.weight"
    assert tenth[conv] == pytest.approx(0.1 * whole[conv], rel=0.05)
    assert tenth[layer] == pytest.approx(whole[layer], rel=0.05)
    slow = moved(1, rate=0.5, front_end_rate=0.1)
    assert slow[conv] == pytest.approx(0.5 * whole[conv], rel=0.05) and slow[layer] == 0


def test_adaptation_lowers_its_loss(speech, tmp_path):
    some = task(replace(LOSSES, adaptation=Adaptation(60)))
    rows = train(some, Batches(speech, 4), replace(RECIPE, steps=60, stages=()), tmp_path)
    first, last = (np.mean([row["adaptation"] for row in rows[part]]) for part in (slice(5), slice(-5, None)))
    assert last < 0.8 * first


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_a_run_that_was_stopped_goes_on_in_its_stage(speech, tmp_path, stop):
    class Stopped(Batches):
        def batch(self, number):
            if number == stop:
                raise KeyboardInterrupt
            return super().batch(number)

    whole = task()
    train(whole, Batches(speech, 2), RECIPE, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(task(), Stopped(speech, 2), RECIPE, tmp_path / "stopped")
    resumed = task()
    rows = train(resumed, Batches(speech, 2), RECIPE, tmp_path / "stopped")
    assert not changed(state(whole), state(resumed))
    assert ["adaptation" in row for row in rows] == [True] * 4 + [False] * 4


def test_cached_targets_serve_both_stages(speech, tmp_path):
    live, cached = task(), task()
    assert live.layers == {0, 1, 2}
    cache = TargetCache(teacher(), sorted(live.layers), speech, tmp_path / "cache", precision="fp32")
    cache.build(progress=False)
    one = train(live, Batches(speech, 2), RECIPE, tmp_path / "live")
    two = train(cached, Batches(speech, 2, targets=cache), RECIPE, tmp_path / "cached")
    for a, b in zip(one, two):
        assert b["loss"] == pytest.approx(a["loss"], rel=2e-3)
    without = TargetCache(teacher(), (1, 2), speech, tmp_path / "cache", precision="fp32").build(
        progress=False
    )
    with pytest.raises(ConfigError, match=r"lack the layers \[0\]"):
        train(task(), Batches(speech, 2, targets=without), RECIPE, tmp_path / "refused")


def test_the_learning_rate_starts_anew_if_it_shall():
    recipe = TrainConfig(steps=300, lr=1.0, warmup=0.1, stages=(100,))
    rates = [learning_rate(step, recipe) for step in range(300)]
    assert rates[9] == 1.0 and rates[99] == pytest.approx(1 / 90) and rates[100] == pytest.approx(1 / 20)
    assert rates[119] == 1.0 and rates[299] == pytest.approx(1 / 180)
    whole = [learning_rate(step, replace(recipe, stages=())) for step in range(300)]
    assert whole[100] > 0.7 and max(whole[100:]) == whole[100]
    for wrong in ((0,), (300,), (50, 20), (20, 20)):
        with pytest.raises(ConfigError, match="rising numbers of steps"):
            replace(recipe, stages=wrong)


def test_bad_settings_are_refused():
    for wrong, message in (
        (lambda: Adaptation(0), "whole number from 1"),
        (lambda: Adaptation(3, "h1"), "choose 'h0' or 'front-end' or 'both'"),
        (lambda: Adaptation(3, rate=0.0), "rate of the adaptation is 0.0"),
        (lambda: DistillConfig(PAIRS, front_end_rate=-1), "front_end_rate is -1: a number from 0"),
        (lambda: task(replace(LOSSES, heads=False)), "need the same width, not 8 and 16"),
    ):
        with pytest.raises(ConfigError, match=message):
            wrong()


def test_two_machines_are_one_process_with_a_batch_of_the_same_size(speech, tmp_path):
    """torchrun once for each of two machines, both of them this one (gloo), through both stages.

    On GPUs ``accelerate launch`` starts torchrun too; on CPUs it knows only MPI.
    """
    manifest, model = tmp_path / "speech.jsonl", tmp_path / "teacher.safetensors"
    write_manifest(manifest, speech)
    save_model(model, SpeechModel(WAVEFORM), {})
    command = ["distill", "tiny-sw-fbank", "--teacher", model, "--data", manifest, "--precision", "fp32"]
    command += ["--pairs", "2:2", "--adapt", "3", "--steps", "6", "--batch-seconds", "1", "--lr", "0.003"]
    command = [str(word) for word in command]
    alone = [sys.executable, "-m", "kdkit", *command, "--accumulate", "2", "--out", str(tmp_path / "alone")]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # two cannot share a GPU
    subprocess.run(alone, check=True, capture_output=True, env=env)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    launch += ["--master_addr", "127.0.0.1", "--master_port", port]
    machines = [
        subprocess.Popen(
            [*launch, "--node_rank", rank, "-m", "kdkit", *command, "--out", str(tmp_path / "together")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
        )
        for rank in "01"
    ]
    for machine in machines:
        said, _ = machine.communicate(timeout=240)
        assert machine.returncode == 0, said
    one, two = (load_checkpoint(tmp_path / name / "student.safetensors")[0] for name in ("alone", "together"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)


def test_a_swapped_student_keeps_its_encoder_and_learns_to_hear_again(speech, tmp_path):
    torch.manual_seed(5)
    old = SpeechModel(WAVEFORM).eval()
    new = swap_front_end(old)
    assert new.config == replace(WAVEFORM, front_end="fbank", normalisation="utterance")  # as in "sw-fbank"
    tiny = swap_front_end(old, like="tiny-sw-fbank", bins=24).config
    assert (tiny.bins, tiny.fbank_floor, tiny.fbank_channels) == (24, 50, 80) and tiny.dim == WAVEFORM.dim
    encoder = {name: t.clone() for name, t in new.encoder.state_dict().items()}
    assert not changed(encoder, old.encoder.state_dict())
    old = Teacher(old.requires_grad_(False), None, "the old student", {})
    some = DistillTask(new, old, swap_losses(WAVEFORM, 40))
    assert not any(name.startswith(("heads", "adaptation_head")) for name, _ in some.named_parameters())
    recipe = replace(RECIPE, steps=40, stages=())
    rows = train(some, Batches(speech, 4), recipe, tmp_path)
    assert rows[-1]["adaptation"] < 0.8 * rows[0]["adaptation"]
    assert not changed(encoder, new.encoder.state_dict())  # in adaptation it is kept to the bit
    train(DistillTask(new, old, swap_losses(WAVEFORM, 0)), Batches(speech, 4), recipe, tmp_path / "joint")
    assert changed(encoder, new.encoder.state_dict())
