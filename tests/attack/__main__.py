"""Attack the kit for some minutes and print a table: ``python tests/attack --minutes 10 --seed 1``.

Damaged files at every entrance, odd options and places, malicious pickles and archives, kills of the real commands at
random moments, and a full disk. Exit status 1 when anything was raw, silent, hung or crashed; those cases are listed;
``--only ENTRANCE --seed N --cases 1`` tries one again.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

from judge import BAD, VERDICTS, Judge, Outcome
from tqdm import tqdm


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first case; each further one has the next"
    )
    parser.add_argument("--cases", type=int, default=10**9, help="at most so many")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", action="append", help="entrance; repeat for more")
    parser.add_argument("--out", type=Path, help="also write the table there, as Markdown")
    given = parser.parse_args()

    from entrances import OTHERS, entrances
    from interruptions import INTERRUPTIONS, interrupt

    turns = [name for name, entrance in entrances().items() for _ in range(entrance.weight)]
    turns += [name for name in OTHERS for _ in range(6)] + list(INTERRUPTIONS)
    random.Random(0).shuffle(turns)  # so that a short attack has something of everything
    if given.only:
        turns = [name for name in turns if name in given.only]
    if not turns:
        parser.error(f"no such entrance; there are {', '.join([*entrances(), *OTHERS, *INTERRUPTIONS])}")
    outcomes: list[Outcome] = []
    end, lock, numbers = time.monotonic() + 60 * given.minutes, threading.Lock(), iter(range(given.cases))

    def work() -> None:
        judge = Judge(Path(root))
        while time.monotonic() < end:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            name, seed = turns[number % len(turns)], given.seed + number
            outcome = interrupt(name, seed, Path(root)) if name in INTERRUPTIONS else judge.judge(name, seed)
            with lock:
                outcomes.append(outcome)
                bar.set_postfix(Counter(o.verdict for o in outcomes))
                bar.update()
                if outcome.verdict in BAD:
                    bar.write(
                        f"{outcome.verdict}: {outcome.entrance} (seed {outcome.seed}): {outcome.case}: {outcome.said}"[
                            :400
                        ]
                    )
        judge.close()

    with (
        tempfile.TemporaryDirectory(prefix="kdkit-attack-", ignore_cleanup_errors=True) as root,
        tqdm(unit="case") as bar,
    ):
        threads = [threading.Thread(target=work) for _ in range(given.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = table(outcomes)
    print(found)
    if given.out:
        given.out.write_text(found + "\n", encoding="utf-8")
    return int(any(outcome.verdict in BAD for outcome in outcomes))


def table(outcomes: list[Outcome]) -> str:
    """A row for every entrance, and their sum."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for outcome in outcomes:
        counts[outcome.entrance][outcome.verdict] += 1
        counts["all"][outcome.verdict] += 1
    order = sorted(counts, key=lambda name: (name == "all", name))
    lines = ["| entrance | cases | " + " | ".join(VERDICTS) + " |", "|---" * (2 + len(VERDICTS)) + "|"]
    for name in order:
        cells = [counts[name][verdict] for verdict in VERDICTS]
        lines.append(f"| {name} | {sum(cells)} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
