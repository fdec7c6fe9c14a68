"""A learner's answer to an exercise: found by what the cells say, wherever they stand, and the code that it needs."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

from kdkit.lessons.exercises.solutions import FILLED
from kdkit.lessons.grading.catalogue import Exercise, Lesson
from kdkit.lessons.grading.notebooks import Binding, Cell, Code, parse, read_code, reads

_COPIED = 2  # a solution of so many statements is not hit upon by chance, letter for letter
_RENAMED = 5  # nor one of so many with other names of variables


@dataclass(frozen=True)
class Answer:
    """``verdict``: where it is known without running anything, else "". ``parts``: [file, source] to run, in order.

    ``parameters``: of the function, for hints. ``value``: the source of what is bound to the name.
    """

    verdict: str = ""
    hint: str = ""
    name: str = ""
    parts: list[tuple[str, str]] = field(default_factory=list)
    parameters: tuple[str, ...] = ()
    value: str = ""


def belongs(cells: list[Cell], lesson: Lesson) -> bool:
    """Is it a notebook of that lesson? By its exercises and checks, whatever it is called."""
    code = read_code(cells)
    return any(e.check in code.checked or e.name in code.bound for e in lesson.exercises)


def find(cells: list[Cell], exercise: Exercise, lesson: Lesson) -> Answer:
    """The last answer to an exercise in a notebook: one's own before the kit's, the kit's before the stub."""
    code = read_code(cells)
    name = code.checked.get(exercise.check, exercise.name)
    kinds = [(_kind(binding, exercise), binding) for binding in code.bound.get(name, [])]
    for wanted in ("", "solution shown"):
        found = [binding for kind, binding in kinds if kind == wanted]
        if found and wanted:
            return Answer(wanted, "the kit's solution, as it is printed under the exercise")
        if found:
            return _written(found[-1], name, code, read_code(list(lesson.cells)), lesson.given(exercise))
    for number, source, problem in code.broken:
        if re.search(rf"^\s*(def {name}\b|{name}\s*=)", source, re.MULTILINE):
            return Answer("crashed", f"cell {number} is no Python: line {problem.lineno}, {problem.msg}")
    return Answer("not answered", "the cell is as it ships" if kinds else f"no cell defines {name}")


def _written(binding: Binding, name: str, code: Code, shipped: Code, given: dict[str, object]) -> Answer:
    """An answer with the statements that it needs, of the learner's notebook, or of the kit's where one is missing."""
    chosen, waiting = {}, [binding]
    while waiting:
        part = waiting.pop()
        if (part.cell, part.node.lineno, part.source) in chosen:
            continue
        chosen[part.cell, part.node.lineno, part.source] = part
        for other in reads(part.text.lstrip("\n")) - {name} - given.keys():
            waiting += (code.bound.get(other) or shipped.bound.get(other) or [])[-1:]
    before = [part for part in chosen.values() if part is not binding]
    before.sort(key=lambda part: (part.cell, part.node.lineno))
    parts = [(f"<answer {number}>", part.text) for number, part in enumerate([*before, binding])]
    function = (
        binding.node if isinstance(binding.node, ast.FunctionDef) else getattr(binding.node, "value", None)
    )
    arguments = getattr(function, "args", None)
    parameters = tuple(a.arg for a in arguments.args) if isinstance(arguments, ast.arguments) else ()
    value = (
        ""
        if isinstance(binding.node, ast.FunctionDef)
        else ast.unparse(getattr(binding.node, "value", binding.node))
    )
    return Answer(name=name, parts=parts, parameters=parameters, value=value)


# --- whose is it? ------------------------------------------------------------------------------------------------


def _kind(binding: Binding, exercise: Exercise) -> str:
    """ "not answered" for the stub and whatever says as little, "solution shown" for the kit's solution, else ""."""
    if binding.source.startswith(FILLED):
        return "solution shown"
    stub, solution = (_last(source) for source in (exercise.stub, exercise.solution))
    body = _body(binding.node)
    if body == _body(stub) or _says_nothing(binding.node):
        return "not answered"
    if isinstance(solution, ast.FunctionDef):
        # without itself and its docstring
        length = sum(isinstance(node, ast.stmt) for node in ast.walk(solution)) - 2
        same = body == _body(solution) and length >= _COPIED
        return (
            "solution shown"
            if same or (length >= _RENAMED and _renamed(binding.node) == _renamed(solution))
            else ""
        )
    value = getattr(binding.node, "value", None)
    copied = not isinstance(value, ast.Constant) and body == _body(solution)
    return "solution shown" if copied else ""


def _last(source: str) -> ast.stmt:
    return parse(source).body[-1]


def _body(node: ast.stmt) -> str:
    """What a function does, or what is assigned, without docstring, comments and layout."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return "\n".join(ast.dump(statement) for statement in _statements(node))
    value = getattr(node, "value", None)
    return ast.dump(value) if value is not None else ast.dump(node)


def _statements(node: ast.FunctionDef) -> list[ast.stmt]:
    said = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
    return node.body[1:] if said and isinstance(node.body[0].value.value, str) else node.body


def _says_nothing(node: ast.stmt) -> bool:
    """None, or a function that only returns None, passes, or raises NotImplementedError."""
    if not isinstance(node, ast.FunctionDef):
        value = getattr(node, "value", None)
        return isinstance(value, ast.Constant) and value.value is None
    texts = {ast.unparse(statement) for statement in _statements(node)}
    return texts <= {
        "pass",
        "...",
        "return None",
        "return",
        "raise NotImplementedError",
        "raise NotImplementedError()",
    }


def _renamed(node: ast.stmt) -> str:
    """What a function does, its variables and arguments numbered in the order in which they occur."""
    if not isinstance(node, ast.FunctionDef):
        return ""
    copy = parse(ast.unparse(node)).body[0]
    copy.body = _statements(copy)
    numbers: dict[str, str] = {}
    own = {n.id for n in ast.walk(copy) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= {n.arg for n in ast.walk(copy) if isinstance(n, ast.arg)}
    for part in ast.walk(copy):
        for place in ("arg", "id"):
            if isinstance(part, (ast.arg, ast.Name)) and getattr(part, place, None) in own:
                setattr(part, place, numbers.setdefault(getattr(part, place), f"v{len(numbers)}"))
    return "\n".join(ast.dump(statement) for statement in copy.body)
