"""The training loop: schedule, exact resume, interruption, broken files, a loss that is not a number."""

import errno
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from kdkit.common.errors import CheckpointError, ConfigError, TrainingError
from kdkit.model.checkpoints import load_checkpoint, save_checkpoint
from kdkit.training import snapshots
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig, learning_rate

NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}  # several processes cannot share one
RECIPE = TrainConfig(steps=12, lr=0.01, save_every=4, log_every=1, precision="fp32")


@dataclass
class Item:
    id: str


@dataclass
class Batch:
    waves: torch.Tensor
    lengths: torch.Tensor
    utterances: list
    seconds: float = 1.0

    def to(self, device):
        return replace(self, waves=self.waves.to(device), lengths=self.lengths.to(device))


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

    def train(self, mode=True):
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch):
        loss = (self.net(batch.waves) - self.teacher(batch.waves)).square().mean()
        return loss, {"square": loss.detach()}


def newest(out):
    return max((out / "checkpoints").iterdir())


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(task):
    return {n: p.detach().cpu().clone() for n, p in task.named_parameters()}


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


def test_the_logged_speed_is_that_since_the_last_row_without_evaluations(tmp_path, monkeypatch):
    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    class Timed(Batches):
        def batch(self, step):  # 1 s of speech: in 0.5 s at first, then in 2 s
            clock.now += 0.5 if step < 4 else 2.0
            return super().batch(step)

    def evaluate(task):
        clock.now += 100
        return {"score": 1.0}

    clock = Clock()
    monkeypatch.setattr("kdkit.training.run.time", clock)
    recipe = replace(RECIPE, steps=8, log_every=2, evaluate_every=4)
    log = train(Task(), Timed(), recipe, tmp_path, evaluate)
    assert [row["times_real_time"] for row in log if "times_real_time" in row] == [2.0, 2.0, 0.5, 0.5]


def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(tmp_path):
    class Pressed(Task):
        def forward(self, batch):
            if batch.utterances[0].id == "u6-0":
                signal.raise_signal(signal.SIGINT)
            return super().forward(batch)

    whole = Task()
    train(whole, Batches(), RECIPE, tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(Pressed(), Batches(), RECIPE, tmp_path / "part")
    assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(newest(tmp_path / "part"))[1]["step"] == 7
    again, batches = Task(), Batches()
    train(again, batches, RECIPE, tmp_path / "part")
    assert batches.asked == list(range(7, 12))
    assert all(torch.equal(weights(again)[n], v) for n, v in weights(whole).items())


def test_a_second_ctrl_c_does_not_wait_and_saves_nothing_half_done(tmp_path):
    class Impatient(Task):
        def forward(self, batch):
            if batch.utterances[0].id == "u6-0":
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            return super().forward(batch)

    with pytest.raises(KeyboardInterrupt):
        train(Impatient(), Batches(), RECIPE, tmp_path)
    assert load_checkpoint(newest(tmp_path))[1]["step"] == 4  # the last regular one


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
    tensors, _ = load_checkpoint(newest(tmp_path))
    assert torch.equal(before, task.teacher.weight.cpu())
    assert not [name for name in tensors if "teacher" in name]


def test_a_loss_that_is_not_finite_names_step_and_utterances(tmp_path):
    with pytest.raises(TrainingError, match=r"step 5 .*u5-0"):
        train(Task(), Batches(poison=5), RECIPE, tmp_path)
    assert load_checkpoint(newest(tmp_path))[1]["step"] == 4  # what was saved is still good


def test_another_recipe_or_model_is_refused(tmp_path):
    train(Task(), Batches(), RECIPE, tmp_path)
    with pytest.raises(CheckpointError, match=r"lr: 0.01 then, 0.5 now"):
        train(Task(), Batches(), replace(RECIPE, lr=0.5), tmp_path)
    other = Task()
    other.net[0] = nn.Linear(6, 8, bias=False)
    with pytest.raises(CheckpointError, match="other weights of net"):
        train(other, Batches(), RECIPE, tmp_path)
    task = Task()
    task.settings = {"losses": "others"}
    with pytest.raises(CheckpointError, match="others"):
        train(task, Batches(), RECIPE, tmp_path)
    train(Task(), Batches(), replace(RECIPE, lr=0.5), tmp_path, resume=False)  # starting over is possible


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, damage):
    whole = Task()
    train(whole, Batches(), RECIPE, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Task(), Batches(stop=11), replace(RECIPE, keep=3), tmp_path / "part")
    path = newest(tmp_path / "part")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-5] ^= 0x10
    path.write_bytes({"truncated": content[:-40], "flipped": content, "empty": b""}[damage])
    again, batches = Task(), Batches()
    with pytest.warns(UserWarning, match=f"passed over.*{path.name}"):
        train(again, batches, RECIPE, tmp_path / "part")
    assert batches.asked == list(range(8, 12))
    assert all(torch.equal(weights(again)[n], v) for n, v in weights(whole).items())


def test_the_last_checkpoints_are_kept(tmp_path):
    train(Task(), Batches(), replace(RECIPE, save_every=2, keep=3), tmp_path)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [f"step-{step:08d}.safetensors" for step in (8, 10, 12)]


def test_several_batches_for_one_step_are_one_large_batch(tmp_path):
    class Joined(Batches):
        def batch(self, step):
            first, second = (super(Joined, self).batch(2 * step + i) for i in (0, 1))
            return Batch(torch.cat([first.waves, second.waves]), torch.full((8,), 6), first.utterances * 2)

    def no_dropout():
        task = Task()
        task.net[1] = nn.Identity()
        return task

    one, two = no_dropout(), no_dropout()
    logs = [
        train(one, Joined(), RECIPE, tmp_path / "one"),
        train(two, Batches(), replace(RECIPE, accumulate=2), tmp_path / "two"),
    ]
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(two)[name], value)
    assert [row["loss"] for row in logs[1]] == pytest.approx([row["loss"] for row in logs[0]], rel=1e-4)


def test_uneven_batches_count_by_their_size(tmp_path):
    """A step of 1 and of 3 utterances is a mean over 4, not a mean of two means."""

    class Uneven(Batches):
        def batch(self, step):
            whole = super().batch(step // 2)
            part = slice(0, 1) if step % 2 == 0 else slice(1, 4)
            return Batch(whole.waves[part], whole.lengths[part], whole.utterances[part])

    def task():
        made = Task()
        made.net[1] = nn.Identity()
        return made

    one, two = task(), task()
    train(one, Batches(), RECIPE, tmp_path / "one")
    train(two, Uneven(), replace(RECIPE, accumulate=2), tmp_path / "two")
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(two)[name], value)


def test_a_teacher_that_would_be_trained_is_refused(tmp_path):
    task = Task()
    task.teacher.requires_grad_(True)
    with pytest.raises(TrainingError, match="teacher would be trained"):
        train(task, Batches(), RECIPE, tmp_path)
    task = Task()
    task.train = lambda mode=True: nn.Module.train(
        task, mode
    )  # forgets that teachers stay in evaluation mode
    with pytest.raises(TrainingError, match="training mode"):
        train(task, Batches(), RECIPE, tmp_path)


def test_out_of_memory_names_the_batch_and_what_to_change(tmp_path):
    class Hungry(Task):
        def forward(self, batch):
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
            )

    with pytest.raises(TrainingError, match=r"4 utterances .* fewer seconds"):
        train(Hungry(), Batches(), RECIPE, tmp_path)


def test_a_full_disk_is_found_before_the_first_step(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    batches = Batches()
    with pytest.raises(TrainingError, match="make room"):
        train(Task(), batches, RECIPE, tmp_path)
    assert batches.asked == []


def test_a_disk_that_fills_up_keeps_what_was_saved(tmp_path, monkeypatch):
    calls = []

    def full(path, tensors, meta):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_checkpoint(path, tensors, meta)

    monkeypatch.setattr(snapshots, "save_checkpoint", full)
    with pytest.raises(TrainingError, match=r"step-00000008.*make room"):
        train(Task(), Batches(), RECIPE, tmp_path)
    assert load_checkpoint(newest(tmp_path))[1]["step"] == 4


def test_a_trained_task_computes_in_float32_again(tmp_path):
    task = Task()
    train(task, Batches(), replace(RECIPE, precision="bf16"), tmp_path)
    device = next(task.parameters()).device
    same, batch = Task().to(device), Batches().batch(0).to(device)
    same.load_state_dict(task.state_dict())
    assert torch.equal(task(batch)[0], same.eval()(batch)[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="what needs a GPU is refused where there is none")
def test_fp16_is_refused_without_a_gpu(tmp_path):
    batches = Batches()
    with pytest.raises(ConfigError, match="needs a GPU"):
        train(Task(), batches, replace(RECIPE, precision="fp16"), tmp_path)
    assert batches.asked == []


def test_more_processes_than_gpus_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes on a machine with 1 GPU: start one for each"):
        train(Task(), Batches(), RECIPE, tmp_path)


@pytest.mark.parametrize(
    "settings", [{"schedule": "cosine"}, {"precision": "fp8"}, {"steps": 0}, {"accumulate": 0}, {"keep": 0}]
)
def test_impossible_recipes_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        TrainConfig(**settings)


def test_complaints_are_said_once_and_name_the_training(tmp_path):
    class Worried(Task):
        def complaints(self, rows):
            return ["all is lost"] if len(rows) > 3 else []

    with pytest.warns(UserWarning, match="^scratch, seed 1: all is lost$") as said:
        train(Worried(), Batches(), RECIPE, tmp_path, title="scratch, seed 1")
    assert len(said) == 1


def test_tensorboard_has_the_curves(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = train(Task(), Batches(), replace(RECIPE, tensorboard=True), tmp_path)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx([row["loss"] for row in log], rel=1e-5)


PROGRAM = """
import sys
from pathlib import Path

import torch

sys.path.insert(0, {tests!r})
import test_training as t
from kdkit.training.selection import Selection
from kdkit.training.loop import train
from kdkit.training.processes import processes

state = processes()
assert state.num_processes == int(t.os.environ.get("WORLD_SIZE", 1))
if state.num_processes > 1:  # torch waits for minutes, but the main process may download for hours
    group = torch.distributed.group.WORLD._get_backend(torch.device("cpu"))
    assert group.options._timeout.total_seconds() > 86_400

class Slow(t.Batches):
    def batch(self, step):
        import time
        if step == {ctrl_c} and not (out / "interrupted").exists():
            (out / "interrupted").touch()
            t.os.kill(t.os.getpid(), t.signal.SIGINT)
        time.sleep({pause})
        return super().batch(step)

def evaluate(task):  # every process measures something else
    return {{"dev_wer": [0.4, 0.4, 0.6][processes().process_index + processes().num_processes - 1]}}

torch.set_num_threads(1)
task, out = t.Task(), Path(sys.argv[1])
recipe = t.replace(t.RECIPE, save_every=1, steps={steps}, accumulate={accumulate}, evaluate_every={patience} and 4)
selection = Selection(out / "candidates", patience={patience}) if {patience} else None
train(task, Slow(), recipe, out, evaluate if {patience} else None, selection=selection)
torch.save(t.weights(task), out / f"weights-{{t.os.environ.get('RANK', '0')}}.pt")
"""


def program(tmp_path, patience=0, ctrl_c=-1, **values) -> list[str]:
    path = tmp_path / "program.py"
    values |= {"patience": patience, "ctrl_c": ctrl_c, "tests": str(Path(__file__).parent)}
    path.write_text(PROGRAM.format(**values))
    return [sys.executable, str(path)]


def test_killed_again_and_again_it_ends_with_the_same_weights(tmp_path):
    command = program(tmp_path, pause=0.05, steps=30, accumulate=1)
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    out = tmp_path / "killed"
    for wanted in (4, 13, 22):  # killed at moments that nobody chose, some steps on
        process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not any(int(p.stem[5:]) >= wanted for p in out.glob("checkpoints/step-*")):
            assert process.poll() is None
            time.sleep(0.003)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    one, two = (
        torch.load(tmp_path / name / "weights-0.pt", weights_only=True) for name in ("whole", "killed")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    steps = [[row["step"] for row in rows(tmp_path / name)] for name in ("whole", "killed")]
    assert steps[0] == steps[1] == list(range(1, 31))


def test_two_processes_are_one_with_a_batch_of_the_same_size(tmp_path):
    """Two processes (gloo) against one that takes two batches for a step: same weights, same losses, same early end.

    Ctrl-C reaches one of the two, and both stop after the same step.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    alone = program(tmp_path, pause=0, steps=12, accumulate=2, patience=1)
    subprocess.run(
        [*alone, str(tmp_path / "alone")], check=True, capture_output=True, env=os.environ | NO_GPU
    )
    together = program(tmp_path, pause=0, steps=12, accumulate=1, patience=1, ctrl_c=5)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"} | NO_GPU
    for interrupted in (True, False):
        processes = [
            subprocess.Popen(
                [*together, str(tmp_path / "together")],
                env=os.environ | where | {"RANK": rank, "LOCAL_RANK": rank},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in "01"
        ]
        for process in processes:
            _, errors = process.communicate(timeout=120)
            if interrupted:
                assert "TrainingInterrupted: stopped after step 3 of 12, saved" in errors
            else:
                assert process.returncode == 0, errors
    one = torch.load(tmp_path / "alone" / "weights-0.pt", weights_only=True)
    for rank in "01":
        two = torch.load(tmp_path / "together" / f"weights-{rank}.pt", weights_only=True)
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6)
    one, two = rows(tmp_path / "alone"), rows(tmp_path / "together")
    dev = [[(row["step"], row.pop("dev_wer")) for row in log if "dev_wer" in row] for log in (one, two)]
    assert dev == [[(4, 0.4), (8, 0.4)], [(4, 0.5), (8, 0.5)]]  # the mean of 0.4 and 0.6
    one, two = ([row for row in log if "loss" in row] for log in (one, two))
    assert len(one) == 8  # of 12: both ended early
    for key in ("step", "loss", "square", "grad_norm"):
        assert [row[key] for row in two] == pytest.approx([row[key] for row in one], rel=1e-4), key


LAUNCHED = """
import sys
from pathlib import Path

import torch
from accelerate import debug_launcher, notebook_launcher

sys.path.insert(0, {tests!r})

def run(out, accumulate):
    import test_training as t
    from kdkit.training.loop import train
    from kdkit.training.processes import processes

    torch.set_num_threads(1)
    task = t.Task()
    train(task, t.Batches(), t.replace(t.RECIPE, accumulate=accumulate), Path(out))
    if processes().is_main_process:
        torch.save(t.weights(task), Path(out) / "weights.pt")

if __name__ == "__main__":
    if sys.argv[1] == "two":
        debug_launcher(run, (sys.argv[2], 1), num_processes=2)
    else:
        notebook_launcher(run, (sys.argv[2], 2), num_processes=1)
"""


def test_functions_that_a_notebook_launches(tmp_path):
    """``notebook_launcher``, which starts one process on a CPU, and its sibling that starts two: the same weights."""
    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED.format(tests=str(Path(__file__).parent)))
    found = []
    for how in ("one", "two"):
        out = tmp_path / how
        command = [sys.executable, str(script), how, str(out)]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | NO_GPU)
        found.append(torch.load(out / "weights.pt", weights_only=True))
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-5, atol=1e-6)


def test_evaluation_rows_are_in_the_log(tmp_path):
    seen = []

    def evaluate(task):
        seen.append(task.training)
        return {"wer": 0.5}

    log = train(Task(), Batches(), replace(RECIPE, evaluate_every=5), tmp_path, evaluate)
    assert [row["step"] for row in log if "wer" in row] == [5, 10, 12]
    assert seen == [False] * 3


def test_the_same_checkpoint_is_the_same_bytes(tmp_path):
    tensors, meta = (
        {name: torch.full((2,), float(n)) for n, name in enumerate("abc")},
        {"n": [1, "two"], "m": 3},
    )
    for n in range(8):  # a hash map's order would differ from one time to the next
        save_checkpoint(tmp_path / f"{n}.safetensors", tensors, meta)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


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
