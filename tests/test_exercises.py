"""Exercises in the notebooks: two forms in step, solutions filled in, stubs that run, a quiz with complete answers."""

import ast
import importlib.util
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kdkit.common.errors import ConfigError
from kdkit.lessons import exercises
from kdkit.lessons.exercises.questions import FILES, questions
from kdkit.lessons.exercises.quizzes import Quiz, marked
from kdkit.lessons.exercises.solutions import FILLED, digest, fill_solutions, folded, split
from kdkit.report import run_report
from kdkit.speech.text import VOCABULARY

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("[0-9][0-9]_*.ipynb"))
SOURCE = '''
def double(x):
    """Twice x."""
    # hint: Two times,
    #   or plus itself.
    # hint: `2 * x`
    # stub: y = x
    # stub: return None  # your line
    # solution
    if x:  # a comment of the solution
        return 2 * x
    return 0
    # end
'''.strip()


def load(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def triples(notebook):
    """(heading, stub, folded cell, check) of every exercise."""
    cells = notebook.cells
    return [cells[i - 1 : i + 3] for i, c in enumerate(cells) if "exercise" in c.metadata.get("tags", [])]


# --- the two forms -----------------------------------------------------------------------------------------------


def test_an_exercise_is_split_into_stub_solution_and_hints():
    exercise = split(SOURCE)
    assert exercise.stub == 'def double(x):\n    """Twice x."""\n    y = x\n    return None  # your line'
    assert exercise.solution.endswith(
        "    if x:  # a comment of the solution\n        return 2 * x\n    return 0"
    )
    assert exercise.hints == ("Two times, or plus itself.", "`2 * x`")
    for code, answer in ((exercise.stub, None), (exercise.solution, 6)):
        names = {}
        exec(code, names)
        assert names["double"](3) == answer


@pytest.mark.parametrize(
    "spoilt",
    [
        SOURCE.replace("    # end", ""),
        SOURCE.replace("    # solution\n", ""),
        re.sub(r"    # stub.*\n", "", SOURCE),
        SOURCE + "\n    # end",
        SOURCE.replace("# solution", "# end", 1),
        SOURCE.replace("Twice x", "```"),
    ],
    ids=["no end", "no solution", "no stub", "two ends", "end first", "fence"],
)
def test_markers_out_of_order_are_refused(spoilt):
    with pytest.raises(ConfigError, match="in that order"):
        split(spoilt)


def shipped():
    exercise = split(SOURCE)
    cells = [new_markdown_cell("# T"), new_code_cell(exercise.stub), new_markdown_cell(folded(exercise))]
    return new_notebook(cells=[*cells, new_code_cell("double(3)")]), exercise


def test_a_stub_is_filled_and_an_answer_stays():
    notebook, exercise = shipped()
    assert fill_solutions(notebook) == 1
    assert notebook.cells[1].source == f"{FILLED}\n{exercise.solution}"
    assert "Hints" in notebook.cells[2].source and "Solution" not in notebook.cells[2].source
    assert fill_solutions(notebook) == 0, "filling again changes nothing"

    for answer in ("def double(x):\n    return x + x", exercise.stub + "\n    # thinking", ""):
        notebook, _ = shipped()
        notebook.cells[1].source = answer
        before = [cell.source for cell in notebook.cells]
        assert fill_solutions(notebook) == 0 and [cell.source for cell in notebook.cells] == before


def test_editors_may_lose_tags_and_white_space_at_line_ends():
    notebook, exercise = shipped()
    notebook.cells[1].source = exercise.stub.replace("\n", " \n") + "\n"
    assert fill_solutions(notebook) == 1
    assert digest("a\n  b") != digest("a\nb"), "indentation is meant"


def test_pairing_makes_two_cells_and_keeps_them_in_step(tmp_path):
    spec = importlib.util.spec_from_file_location("pair", FOLDER / "pair.py")
    pair = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pair)
    (tmp_path / "src").mkdir()
    source = tmp_path / "src" / "01_x.py"
    source.write_text(f'# %% [markdown]\n# # T\n\n# %% tags=["exercise"]\n{SOURCE}\n\n# %%\ndouble(3)\n')
    pair.sync(tmp_path)
    made = nbformat.read(tmp_path / "01_x.ipynb", as_version=4)
    assert [c.cell_type for c in made.cells] == ["markdown", "code", "markdown", "code"]
    assert [c.metadata.get("tags") for c in made.cells[1:3]] == [["exercise"], ["solution"]]
    assert "2 * x" not in made.cells[1].source and "return 2 * x" in made.cells[2].source

    made.cells[2].source = made.cells[2].source.replace("2 * x", "3 * x")  # only the folded half was changed
    nbformat.write(made, tmp_path / "01_x.ipynb")
    assert pair.check(tmp_path) == ["01_x.ipynb is not what src/01_x.py makes"]
    pair.sync(tmp_path)
    assert pair.check(tmp_path) == []


# --- the shipped notebooks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_has_its_heading_solution_and_check(name):
    notebook = load(name)
    assert 3 <= len(triples(notebook)) <= 6
    for number, (heading, stub, solution, check) in enumerate(triples(notebook), 1):
        assert re.search(rf"^### Exercise {number}: ", heading.source, re.MULTILINE), heading.source
        assert re.search(r"\*Difficulty [123] of 3, about \w+ minutes\.\*", heading.source), heading.source
        assert "<details>" in solution.source and "<summary>Hints</summary>" in solution.source
        called = re.findall(r"^(?:(\w+) = )?exercises\.(check_\w+)\((\w+)", check.source, re.MULTILINE)
        assert len(called) == 1 and called[0][1] in exercises.__all__
        tree = ast.parse(stub.source).body
        assert len(tree) == 1, "a stub is one function, or one variable"
        if isinstance(tree[0], ast.FunctionDef):
            assert tree[0].name == called[0][0] == called[0][2] and ast.get_docstring(tree[0])
        else:  # read off a figure: the answer stays the learner's
            assert ast.unparse(tree[0]) == f"{called[0][2]} = None" and not called[0][0]
    quizzes = [i for i, cell in enumerate(notebook.cells) if f'exercises.quiz("{name}")' in cell.source]
    after = next(
        i for i, cell in enumerate(notebook.cells) if cell.source.startswith("## What you have seen")
    )
    assert quizzes == [after - 1]


@pytest.mark.parametrize("name", NAMES)
def test_all_stubs_are_filled(name):
    notebook = load(name)
    count = len(triples(notebook))
    assert fill_solutions(notebook) == count
    assert sum(cell.source.startswith(FILLED) for cell in notebook.cells) == count
    assert all(ast.parse(cell[1].source) for cell in triples(notebook))


FUNCTIONS = [
    (name, i)
    for name in NAMES
    for i, (_, stub, *_) in enumerate(triples(load(name)))
    if stub.source.startswith("def ")
]


@pytest.mark.parametrize(("name", "place"), FUNCTIONS)
def test_a_stub_runs_and_is_called_unwritten_and_its_solution_is_right(name, place, capsys):
    names = {"torch": torch, "F": F, "np": np, "VOCABULARY": VOCABULARY, "exercises": exercises}
    names["mel"] = lambda hertz: 1127 * np.log1p(np.asarray(hertz) / 700)
    names["edits"] = exercises.check_edits(None)
    capsys.readouterr()
    _, stub, _, check = triples(load(name))[place]
    checked = re.search(r"^\w+ = exercises\.check_\w+\(\w+\)$", check.source, re.MULTILINE)[0]
    exec(f"{stub.source}\n{checked}", names)
    assert "not written yet" in capsys.readouterr().out
    kits = names[stub.source[4 : stub.source.index("(")]]
    assert kits is not None and kits.__module__.startswith("kdkit")
    filled = load(name)
    fill_solutions(filled)
    exec(f"{triples(filled)[place][1].source}\n{checked}", names)
    said = capsys.readouterr().out
    assert "Right." in said and "✗" not in said


def test_a_report_runs_solutions_and_shows_them(tmp_path):
    notebook, exercise = shipped()
    parameters = 'profile = "quick"\nseed = 0\nout = "runs/x"'
    notebook.cells.insert(1, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    own = new_code_cell("def double(x):\n    return 5 * x"), new_markdown_cell(folded(exercise))
    notebook.cells += [*own, new_code_cell("double(3)")]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "01_x.ipynb")
    assert run_report("smoke", tmp_path / "out", notebooks=tmp_path / "notebooks") == 0
    run = nbformat.read(tmp_path / "out/notebooks/01_x.ipynb", as_version=4)
    values = [o.data["text/plain"] for c in run.cells for o in c.get("outputs", []) if "data" in o]
    assert values == ["6", "15"], (
        "the solution where there was a stub, the learner's answer where there was one"
    )
    page = (tmp_path / "out/notebooks/01_x.html").read_text(encoding="utf-8")
    assert FILLED in page and page.count("<summary>Solution</summary>") == 1


def test_an_unsolved_notebook_runs_to_its_end_and_a_learners_own_answer_is_run(tmp_path, monkeypatch):
    """Notebook 04 in profile smoke as it ships, but for one answer of a learner, which is wrong."""
    notebook = load("04_low_resource_finetuning")
    wrong = "def write_out(ids):\n    return ' '.join(VOCABULARY[i] for i in ids)"
    triples(notebook)[0][1].source = wrong
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "04_low_resource_finetuning.ipynb")
    monkeypatch.setattr("kdkit.report.execute.fill_solutions", lambda notebook: 0)  # nobody fills anything in
    assert run_report("smoke", tmp_path / "out", notebooks=tmp_path / "notebooks") == 0
    run = nbformat.read(tmp_path / "out/notebooks/04_low_resource_finetuning.ipynb", as_version=4)
    said = ["".join(o.get("text", "") for o in check.outputs) for _, _, _, check in triples(run)]
    assert "✗" in said[0] and "kit's own write_out" in said[0]
    assert all("not written yet" in text or "no answer yet" in text for text in said[1:]), said
    assert triples(run)[0][1].source == wrong
    page = (tmp_path / "out/notebooks/04_low_resource_finetuning.html").read_text(encoding="utf-8")
    assert page.count("<summary>Answer</summary>") == 5 and "widget-view" not in page


# --- the quiz ----------------------------------------------------------------------------------------------------


def test_every_notebook_has_a_quiz():
    assert sorted(FILES) == NAMES


@pytest.mark.parametrize("name", sorted(FILES))
def test_questions_are_complete(name):
    asked = questions(name)
    assert 4 <= len(asked) <= 5 and sum("would happen" in question.text for question in asked) >= 2
    assert len({question.text for question in asked}) == len(asked)
    assert len({question.right for question in asked}) > 1, (
        "the right choice must not always stand in one place"
    )
    for question in asked:
        assert sum(choice.right for choice in question.choices) == 1 and 3 <= len(question.choices) <= 4
        assert question.choices[question.right].right
        assert len({choice.text for choice in question.choices}) == len(question.choices)
        for choice in question.choices:
            assert len(choice.because) > 20 and len(choice.text) < 100, choice
            assert choice.because.rstrip("`*").endswith("."), choice


def test_the_length_of_a_choice_does_not_give_it_away():
    asked = [question for name in FILES for question in questions(name)]
    lengths = [[len(choice.text) for choice in question.choices] for question in asked]
    for question, of_choices in zip(asked, lengths, strict=True):
        assert max(of_choices) <= 1.25 * min(of_choices), f"{question.text}: {of_choices}"
    rights = [of_choices[question.right] for question, of_choices in zip(asked, lengths, strict=True)]
    for extreme in (max, min):
        share = np.mean([right == extreme(each) for right, each in zip(rights, lengths, strict=True)])
        assert share <= 0.5, f"the {extreme.__name__}imal length is right in {share:.0%} of the questions"


def test_answers_are_counted_and_explained():
    quiz = exercises.quiz("01_teacher_probing")
    first = quiz.questions[0]
    wrong = next(i for i in range(len(first.choices)) if i != first.right)
    reply = quiz.answer(0, wrong)
    assert not reply.right and reply.because == first.choices[wrong].because
    assert (quiz.right, quiz.answers) == (0, {0: wrong})
    assert quiz.answer(0, first.right).right and quiz.right == 1 and len(quiz.answers) == 1
    assert repr(quiz) == "Quiz: 1 of 5 right, 1 answered"
    with pytest.raises(ConfigError, match="05_nothing"):
        exercises.quiz("05_nothing")


def test_the_form_says_at_once_what_is_right():
    quiz = exercises.quiz("02_distillation")
    form = quiz.form()
    assert quiz.form() is form and len(form.questions) == 5 and form.replies == {}
    for number, question in enumerate(quiz.questions):
        assert form.questions[number]["text"] == marked(question.text)
        wrong = next(i for i in range(len(question.choices)) if i != question.right)
        form.answers = form.answers | {str(number): wrong}  # what a click does
        reply = form.replies[str(number)]
        assert "No." in reply and marked(question.choices[wrong].because) in reply
        assert form.score == f"{number} of 5 right"
        form.answers = form.answers | {str(number): question.right}
        reply = form.replies[str(number)]
        assert "Right." in reply and marked(question.choices[question.right].because) in reply
        assert form.score == f"{number + 1} of 5 right" and len(form.replies) == number + 1
    assert quiz.right == 5


def test_the_still_form_holds_everything_and_no_script():
    quiz = exercises.quiz("04_low_resource_finetuning")
    html = quiz.still()
    assert html.count("<details>") == 5 == html.count("<b>Right.</b>") and "<script" not in html
    for question in quiz.questions:
        assert marked(question.text) in html
        assert all(marked(c.text) in html and marked(c.because) in html for c in question.choices)
    visible = re.sub(r"<details>.*?</details>", "", html)
    assert "Right." not in visible, "answers are folded away"


def test_marks_in_texts():
    assert marked("a < `b*c` and *d*") == "a &lt; <code>b*c</code> and <em>d</em>"


def test_a_quiz_takes_any_questions():
    assert repr(Quiz(())) == "Quiz: 0 of 0 right, 0 answered"
