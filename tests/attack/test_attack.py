"""A sample of ``make attack``, another one on every commit of the file that holds the seed: see __main__.py."""

import random

from judge import BAD, Judge

SEED, CASES = 20261127, 36
SLOW = ("transcribe", "stopped training", "options", "places")  # these start commands or trainings


def test_a_sample_of_the_attack(tmp_path):
    from entrances import OTHERS, entrances

    names = [name for name in (*entrances(), *OTHERS) if not name.startswith(SLOW)]
    rng, judge, outcomes = random.Random(SEED), Judge(tmp_path), []
    for number in range(CASES):
        outcomes.append(judge.judge(names[number % len(names)], rng.randrange(10**6)))
    judge.close()
    assert [outcome for outcome in outcomes if outcome.verdict in BAD] == []
    assert {outcome.verdict for outcome in outcomes} == {"clear", "right"}
