"""A guess that is kept before an experiment runs: once the result is known, it cannot be changed any more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kdkit.common.errors import ConfigError
from kdkit.common.files import write_text
from kdkit.common.statistics import VERDICTS
from kdkit.lessons.experiments import Experiment, is_kept
from kdkit.training import identity


def keep_guess(
    guess: str | None, experiments: Sequence[Experiment], seeds: Sequence[int], folder: Path
) -> str | None:
    """The guess that counts: ``guess``, which is kept beside the findings of the last trial, or the earlier one where
    the result of these experiments is there already.

    ``guess``: one of :data:`kdkit.common.statistics.VERDICTS`, or None for no guess; ``folder`` is that of
    :func:`kdkit.lessons.experiments.run_experiment`. What counts is printed. Raises :class:`ConfigError` for another
    word.
    """
    if guess is not None and guess not in VERDICTS:
        raise ConfigError(
            f"the guess is {guess!r}: choose one of {', '.join(VERDICTS)}, or None for no guess"
        )
    tasks = [(some, case, seed) for some in experiments for seed in seeds for case in some.cases()]
    asked = {"of": {some.folder(case, seed): some.identity(case, seed) for some, case, seed in tasks}}
    last, case, seed = tasks[-1]
    path = (Path(folder) / last.folder(case, seed)).parent / "guess.json"
    if all(is_kept(some, case, seed, folder) for some, case, seed in tasks):
        before = (identity.kept(path, asked) or {"guess": None})["guess"]
        said = f"your guess was {before!r}" if before else "you made no guess"
        print(
            f"The result is there already: before it, {said}, and that counts. Another change, another guess."
        )
        return before
    write_text(path, json.dumps({"guess": guess, "asked": asked}) + "\n")
    print(
        f"Kept before anything is trained: {guess!r}."
        if guess
        else "No guess yet: write one, run this again."
    )
    return guess
