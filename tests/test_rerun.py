"""A study in a cell: stopped, it says what is kept; run again, in another kernel, too, it goes on."""

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from kdkit.common.code_identity import code_identity
from kdkit.lessons.experiments import Finding
from kdkit.lessons.rerun import StoppedTraining, study_in_cell
from kdkit.training import identity
from kdkit.training.loop import train
from kdkit.training.recipe import TrainConfig


class Line(torch.nn.Module):
    """A line through two points; ``then`` is called in every step."""

    def __init__(self, then):
        super().__init__()
        self.slope, self.then = torch.nn.Parameter(torch.zeros(())), then

    def forward(self, batch):
        self.then()
        return (self.slope - 1) ** 2, {}


class One:
    seconds, utterances = 1.0, ["u"]

    def to(self, device):
        return self


class Same:
    stride = 1

    def batch(self, number):
        return One()


@dataclass
class Lines:
    """Two slopes; steps are noted in ``seen``, and the kernel is interrupted in step ``stop`` of them."""

    seen: list
    stop: int = -1
    lr: float = 0.1

    def cases(self):
        return ["a", "b"]

    def folder(self, case, seed):
        return f"{case}/{seed}"

    def identity(self, case, seed):
        return {"lr": self.lr}

    def train(self, case, seed, folder, resume):
        def then():
            self.seen.append((case, seed))
            if len(self.seen) == self.stop:
                signal.raise_signal(signal.SIGINT)

        task, recipe = Line(then), TrainConfig(steps=6, lr=self.lr, seed=seed, log_every=1)
        train(task, Same(), recipe, Path(folder), resume=resume)
        return Finding(case, seed, (round(1e6 * task.slope.item()),), (10**6,))


def restart_the_kernel():
    """What a process remembers of its trainings is gone."""
    identity._starts.clear()
    identity._came_from.clear()


def test_a_stopped_study_goes_on_in_another_kernel_and_finds_the_same(tmp_path, capsys):
    alone = study_in_cell([Lines([])], (0, 1), tmp_path / "alone")
    assert capsys.readouterr().out == "", "nothing was there before"
    first = Lines([], stop=15)
    with pytest.raises(StoppedTraining) as stopped:
        study_in_cell([first], (0, 1), tmp_path / "study")
    assert str(stopped.value) == (
        "study: stopped, 2 of 4 trainings are finished and kept; the one at work stopped after step 3 of 6, saved. "
        "Run the cell again to go on."
    )
    assert stopped.value._render_traceback_() == [f"StoppedTraining: {stopped.value}"]
    assert len(first.seen) == 15

    restart_the_kernel()
    again = Lines([])
    assert study_in_cell([again], (0, 1), tmp_path / "study") == alone
    assert again.seen == [("a", 1)] * 3 + [("b", 1)] * 6
    assert "study: 2 of 4 trainings were finished earlier with the same settings" in capsys.readouterr().out
    assert study_in_cell([third := Lines([])], (0, 1), tmp_path / "study") == alone and not third.seen
    anew = Lines([])
    assert study_in_cell([anew], (0, 1), tmp_path / "study", resume=False) == alone and len(anew.seen) == 24


def test_other_settings_start_anew_also_where_a_training_was_stopped(tmp_path):
    with pytest.raises(StoppedTraining, match="1 of 2 trainings"):
        study_in_cell([Lines([], stop=8)], (0,), tmp_path / "study")
    restart_the_kernel()
    other = Lines([], lr=0.2)
    found = study_in_cell([other], (0,), tmp_path / "study")
    assert found == study_in_cell([Lines([], lr=0.2)], (0,), tmp_path / "alone") and len(other.seen) == 12


def written_in_a_notebook(*lines, **names):
    """The last name that the lines of a cell define."""
    cell = {"__name__": "__main__", "torch": torch} | names
    exec("\n".join(lines), cell)
    return [*cell.values()][-1]


SCALE = ("def scale(x):", "    return 2 * x")
LOSS = ("def loss(p, h):", "    return scale(p - h).abs().mean()")


def test_a_function_is_another_one_when_what_it_does_changes():
    first = code_identity(written_in_a_notebook(*SCALE, *LOSS))
    commented = written_in_a_notebook("# twice", *SCALE, "", *LOSS)
    assert code_identity(commented) == first, "as in another kernel, where it stands elsewhere"
    for changed in (
        written_in_a_notebook(*SCALE, LOSS[0], LOSS[1].replace("abs", "square")),
        written_in_a_notebook(*SCALE, LOSS[0], LOSS[1].replace("p - h", "h - p")),
        written_in_a_notebook(SCALE[0], "    return 3 * x", *LOSS),  # what it calls
        written_in_a_notebook(*SCALE, "def loss(p, h, w=1.0):", LOSS[1]),
    ):
        assert code_identity(changed) != first


def test_what_a_function_refers_to_counts_by_its_content():
    weighted = ("def loss(p):", "    return weight * p")
    assert code_identity(written_in_a_notebook(*weighted, weight=1.0)) != code_identity(
        written_in_a_notebook(*weighted, weight=2.0)
    )

    def starting_from(model):
        return lambda speech, seed: model

    torch.manual_seed(0)
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = code_identity(starting_from(one))
    assert before == code_identity(starting_from(one.eval())) != code_identity(starting_from(other))
    assert code_identity(one, weights=False) == code_identity(other, weights=False)
    recipe = TrainConfig(steps=3)
    reads = ("def judge(x):", "    return recipe.steps * x")
    for changes, same in (({"lr": 0.5}, True), ({"steps": 4}, False)):
        changed = TrainConfig(**({"steps": 3} | changes))
        first, second = (written_in_a_notebook(*reads, recipe=r) for r in (recipe, changed))
        assert (code_identity(first) == code_identity(second)) == same, "only the fields that it reads"


def test_classes_of_a_notebook_and_functions_that_call_each_other_are_described():
    lines = ("class Own(torch.nn.Module):", "    def forward(self, x):", "        return x * 2")
    one, other = (written_in_a_notebook(*lines[:2], line)() for line in (lines[2], lines[2] + "0"))
    assert code_identity(one) != code_identity(other)
    assert code_identity(
        written_in_a_notebook("def a(n):", "    return b(n)", "def b(n):", "    return a(n)")
    )
    assert code_identity(train) == code_identity(train) != code_identity(restart_the_kernel)
