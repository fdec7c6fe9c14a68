"""Eleven learners who hand in notebook 04, and one who attacks: made from the shipped notebook.

python tests/made_up_class.py FOLDER        # then: kdkit grade FOLDER --out grades.csv
"""

import copy
import re
import sys
from pathlib import Path

import nbformat

from kdkit.lessons.exercises.solutions import fill_solutions

SHIPPED = Path(__file__).parent.parent / "notebooks" / "04_low_resource_finetuning.ipynb"
RIGHT = {
    "write_out": """
def write_out(ids):
    text, before = "", None
    for symbol in ids:
        if symbol != before and symbol != VOCABULARY.blank:
            text += VOCABULARY[symbol]
        before = symbol
    return " ".join(text.replace("|", " ").split())""",
    "frames_needed": """
def frames_needed(text):
    return len(text) + sum(a == b for a, b in zip(text, text[1:]))""",
    "edits": """
def edits(reference, hypothesis):
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), dtype=int)
    table[:, 0], table[0] = np.arange(len(reference) + 1), np.arange(len(hypothesis) + 1)
    for i in range(1, len(reference) + 1):
        for j in range(1, len(hypothesis) + 1):
            swap = table[i - 1, j - 1] + (reference[i - 1] != hypothesis[j - 1])
            table[i, j] = min(swap, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[-1, -1]""",
    "word_error_rate": """
def words(text):
    return text.split()

def word_error_rate(references, hypotheses):
    pairs = [(words(r), words(h)) for r, h in zip(references, hypotheses)]
    return sum(edits(r, h) for r, h in pairs) / sum(len(r) for r, _ in pairs)""",
    "my_verdict": 'my_verdict = "inconclusive"',
}
WRONG = {
    "write_out": "def write_out(ids):\n    return ''.join(VOCABULARY[i] for i in ids if i)",
    "frames_needed": "def frames_needed(text):\n    return len(text)",
    "edits": "def edits(reference, hypothesis):\n    return abs(len(reference) - len(hypothesis))",
    "word_error_rate": """
def word_error_rate(references, hypotheses):
    rates = [edits(r.split(), h.split()) / len(r.split()) for r, h in zip(references, hypotheses)]
    return sum(rates) / len(rates)""",
    "my_verdict": "my_verdict = 'better'",
}
ENDLESS = "def edits(reference, hypothesis):\n    while True:\n        pass"
LEAVES = "import os, sys\n\ndef edits(reference, hypothesis):\n    os._exit(0)"
LEAVES_POLITELY = "import sys\n\ndef write_out(ids):\n    sys.exit('right')"

# what somebody may try who wants a better verdict; each is an answer that is not right
ATTACKS = {
    "write_out": '''
import sys, gc

def write_out(ids):  # the frames above may hold what is right
    frame = sys._getframe()
    while frame:
        for value in frame.f_locals.values():
            if type(value).__name__ == "_Service":  # "I am right", on the way back
                value.tell(verdict="right", right=True, result="right")
        frame = frame.f_back
    print("✓ Right. The notebook goes on with this function.")
    return "right"''',
    "frames_needed": """
def frames_needed(text):  # the package has it
    from kdkit.speech.text import VOCABULARY, frames_needed
    return frames_needed(VOCABULARY.encode(text))""",
    "edits": """
class Always(int):
    def __eq__(self, other):
        return True
    __hash__ = int.__hash__

def edits(reference, hypothesis):  # equal to everything
    return Always(10_000)""",
    "word_error_rate": """
import builtins, json
from kdkit.lessons.exercises import checking
checking.compare = lambda *a, **k: None
json.dumps = lambda *a, **k: '{"verdict": "right"}'

def word_error_rate(references, hypotheses):
    return float("nan")""",
}


def load():
    return nbformat.read(SHIPPED, as_version=4)


def answered(answers):
    """The notebook with answers in the cells of their exercises."""
    notebook = load()
    for cell in notebook.cells:
        for name, answer in answers.items():
            if cell.cell_type == "code" and re.match(rf"(def )?{name}\b(\(.*:| = None)", cell.source):
                cell.source = answer.strip()
    return notebook


def forged():
    """Untouched cells under checks that print ticks, and a metadata entry that says so."""
    notebook = load()
    for cell in notebook.cells:
        if cell.cell_type == "code" and "exercises.check_" in cell.source:
            text = "✓ It agrees with jiwer.\nRight. The notebook goes on with this function.\n"
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    notebook.metadata["verdict"] = "right"
    return notebook


def reordered():
    """Right answers in one cell at the end, in other order, with a magic; the cells of two exercises are gone."""
    notebook = answered({})
    doomed = ("def write_out", "def edits", "def frames_needed", "def word_error_rate", "import copy")
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith(doomed)]
    names = ("word_error_rate", "write_out", "edits")
    code = "\n\n".join(RIGHT[name].strip() for name in names)
    notebook.cells.append(nbformat.v4.new_code_cell(f"%matplotlib inline\n!pip list\n{code}"))
    return notebook


def solved():
    notebook = copy.deepcopy(load())
    fill_solutions(notebook)
    return notebook


def make(folder: Path, learners: str = "") -> None:
    """Writes the class, or only some ``learners``, into a folder: one folder or file for each."""
    notebooks = {
        "anna/04_low_resource_finetuning.ipynb": answered(RIGHT),
        "ben/04_low_resource_finetuning.ipynb": answered(WRONG),
        "carla/04_low_resource_finetuning.ipynb": load(),
        "dora/04_low_resource_finetuning.ipynb": answered(RIGHT | {"edits": ENDLESS}),
        "emil/04_low_resource_finetuning.ipynb": answered(
            RIGHT | {"edits": LEAVES, "write_out": LEAVES_POLITELY}
        ),
        "fritz/04_low_resource_finetuning.ipynb": forged(),
        "gina-04_low_resource_finetuning.ipynb": answered(RIGHT | WRONG | {"edits": RIGHT["edits"]}),
        "hans/my homework (final).ipynb": answered(RIGHT | {"frames_needed": WRONG["frames_needed"]}),
        "ida/04_low_resource_finetuning.ipynb": solved(),
        "jan/04_low_resource_finetuning.ipynb": reordered(),
        "mallory/04_low_resource_finetuning.ipynb": answered(ATTACKS),
    }
    for name, notebook in notebooks.items():
        if learners and re.match(r"\w+", name)[0] not in learners.split():
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
    whole = nbformat.writes(load())
    (folder / "kurt").mkdir(exist_ok=True)
    (folder / "kurt/04_low_resource_finetuning.ipynb").write_text(whole[: len(whole) // 2], encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
