"""A guess is kept before an experiment runs, and counts as it was once the result is known."""

from dataclasses import dataclass, replace

import pytest

from kdkit.common.errors import ConfigError
from kdkit.lessons.experiments import Finding, run_experiment
from kdkit.lessons.guesses import keep_guess


@dataclass(frozen=True)
class Coins:
    """An experiment without training: trial ``mine`` against "standard"."""

    mine: str = "loss"
    steps: int = 3

    def cases(self):
        return ["standard", self.mine]

    def folder(self, case, seed):
        return f"{case}/{seed}"

    def identity(self, case, seed):
        return {"steps": self.steps}

    def train(self, case, seed, folder, resume):
        return Finding(case, seed, (1, 2), (4, 4), steps=self.steps)


def test_a_guess_counts_as_it_was_before_the_result(tmp_path, capsys):
    coins, seeds = Coins(), (0, 1)
    assert keep_guess(None, [coins], seeds, tmp_path) is None and "No guess yet" in capsys.readouterr().out
    assert keep_guess("worse", [coins], seeds, tmp_path) == "worse"
    assert keep_guess("better", [coins], seeds, tmp_path) == "better", "before the result it may change"
    run_experiment(coins, (0,), tmp_path)
    assert keep_guess("worse", [coins], seeds, tmp_path) == "worse", "one seed is not yet the result"
    run_experiment(coins, seeds, tmp_path)
    capsys.readouterr()
    assert keep_guess("better", [coins], seeds, tmp_path) == "worse"
    assert "your guess was 'worse', and that counts" in capsys.readouterr().out
    student = replace(coins, mine="student")
    assert keep_guess("better", [student], seeds, tmp_path) == "better", "another experiment, another guess"
    run_experiment(student, seeds, tmp_path)
    assert keep_guess("better", [coins], seeds, tmp_path) == "worse", "each keeps its own"
    assert keep_guess("worse", [student], seeds, tmp_path) == "better"
    assert keep_guess("better", [replace(coins, steps=4)], seeds, tmp_path) == "better", "other settings"


def test_a_result_without_a_guess_gets_none_afterwards(tmp_path, capsys):
    run_experiment(Coins(), (0,), tmp_path)
    assert keep_guess("better", [Coins()], (0,), tmp_path) is None
    assert "you made no guess" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="'good': choose one of better, worse, inconclusive"):
        keep_guess("good", [Coins()], (0,), tmp_path)
