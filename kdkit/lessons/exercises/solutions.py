"""The two forms of an exercise: what learners get (a stub, and a folded solution beneath it) and what a report runs.

In the source of a notebook an exercise is one code cell tagged ``exercise``, which holds the solution::

    def mel(hertz):
        \"\"\"Mel value of a frequency in Hz.\"\"\"
        # hint: `np.log1p(x)` is the natural logarithm of 1 + x;
        #   it takes arrays, too.
        # stub: return None  # your lines go here
        # solution
        return 1127 * np.log1p(hertz / 700)
        # end

``notebooks/pair.py`` makes of it the code cell with the stub and, after it, a markdown cell with hints and solution,
folded away (:func:`split`, :func:`folded`). :func:`fill_solutions` is the way back, for runs without a learner.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise

from kdkit.common.errors import ConfigError

FILLED = "# the kit's solution, filled in because the cell was as it ships"  # first line of such a cell
_MARK = re.compile(r"<!-- of the cell above, whose stub is ([0-9a-f]{12}) -->")
_SOLUTION = re.compile(
    r"<details>\n<summary>Solution</summary>\n\n```python\n(.*?)\n```\n\n</details>", re.DOTALL
)


@dataclass(frozen=True)
class Exercise:
    """``stub`` and ``solution`` are whole cells; ``hints`` are sentences in Markdown."""

    stub: str
    solution: str
    hints: tuple[str, ...]


def split(source: str) -> Exercise:
    """The parts of an exercise cell as it stands in the source of a notebook.

    Raises :class:`ConfigError` when markers are missing or out of order.
    """
    stub, solution, hints, waiting = [], [], [], []  # waiting: stub lines whose solution has not begun
    place = "shared"  # "hint", "stub", "solution"
    for line in source.splitlines():
        text, indent = line.strip(), line[: len(line) - len(line.lstrip())]
        if text.startswith("# hint: ") and place != "solution":
            place = "hint"
            hints.append(text.removeprefix("# hint: "))
        elif text.startswith("#   ") and place == "hint":
            hints[-1] += " " + text.removeprefix("#   ")
        elif text.startswith("# stub: ") and place != "solution":
            place = "stub"
            waiting.append(indent + text.removeprefix("# stub: "))
        elif text == "# solution" and place == "stub":
            place = "solution"
            stub += waiting
        elif text == "# end" and place == "solution":
            place, waiting = "shared", []
        elif text in ("# solution", "# end") or (waiting and place != "solution"):
            break
        else:
            place = place if place == "solution" else "shared"
            solution.append(line)
            if place == "shared":
                stub.append(line)
    else:
        if place == "shared" and stub != solution and "```" not in source:
            return Exercise(*("\n".join(lines).strip("\n") for lines in (stub, solution)), tuple(hints))
    raise ConfigError(
        "an exercise has '# stub: ...', '# solution', its lines and '# end', in that order, and nowhere three "
        f"backticks:\n{source}"
    )


def digest(source: str) -> str:
    """Tells whether a cell is still the one that ships; editors may strip white space at the ends of lines."""
    text = "\n".join(line.rstrip() for line in source.strip().splitlines())
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folded(exercise: Exercise) -> str:
    """The markdown cell after the stub: hints and solution, each behind a triangle.

    The empty lines within ``details`` make JupyterLab, Colab, VS Code and GitHub read Markdown there.
    """
    parts = [f"<!-- of the cell above, whose stub is {digest(exercise.stub)} -->"]
    if exercise.hints:
        hints = "\n".join(f"- {hint}" for hint in exercise.hints)
        parts.append(f"<details>\n<summary>Hints</summary>\n\n{hints}\n\n</details>")
    code = f"```python\n{exercise.solution}\n```"
    parts.append(f"<details>\n<summary>Solution</summary>\n\n{code}\n\n</details>")
    return "\n".join(parts)


def stub_and_solution(cell: str, after: str) -> tuple[str, str] | None:
    """The two sources of an exercise from its shipped cells, stub and folded solution; None where they are neither."""
    mark, code = _MARK.search(after), _SOLUTION.search(after)
    return (cell, code[1]) if mark and code and digest(cell) == mark[1] else None


def fill_solutions(notebook) -> int:
    """Puts the folded solution into every exercise cell of a notebook node that is still the shipped stub.

    What a learner wrote stays. Works on text alone, so that cell ids and tags which an editor has lost do not matter.
    Returns how many cells were filled.
    """
    filled = 0
    for cell, after in pairwise(notebook.cells):
        parts = stub_and_solution(cell.source, after.source) if cell.cell_type == "code" else None
        if parts:
            cell.source = f"{FILLED}\n{parts[1]}"
            after.source = _SOLUTION.sub("", after.source)  # it stands above now
            filled += 1
    return filled
