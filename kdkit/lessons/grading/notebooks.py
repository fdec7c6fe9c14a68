"""A learner's notebook as text: its cells, and what they bind to which name. Nothing is run."""

from __future__ import annotations

import ast
import json
import re
import symtable
import threading
from collections import defaultdict
from dataclasses import dataclass, field

CHECK = re.compile(r"^(?:\w+ *= *)?(?:exercises\.)?(?P<check>check_\w+)\( *(?P<argument>\w+)", re.MULTILINE)
_MAGIC = re.compile(r"^([ \t]*)[%!].*$|^([ \t]*)\S+\?{1,2}[ \t]*$", re.MULTILINE)
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Cell:
    is_code: bool
    source: str


def read_cells(data: bytes) -> list[Cell]:
    """The cells of an .ipynb file. Raises ValueError, with the reason in words."""
    if not data.strip():
        raise ValueError("the file is empty")
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"broken JSON in line {error.lineno} ({error.msg}); was it cut off? Ask for the file again"
        ) from None
    except RecursionError:
        raise ValueError("broken JSON (nested too deep)") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("it is JSON, but no notebook of format 4 (no list of cells)")
    cells = []
    for cell in notebook["cells"]:
        source = cell.get("source", "") if isinstance(cell, dict) else None
        source = "".join(map(str, source)) if isinstance(source, list) else source
        if not isinstance(source, str):
            raise ValueError(f"cell {len(cells) + 1} has no source text")
        cells.append(Cell(cell.get("cell_type") == "code", source))
    return cells


@dataclass(frozen=True)
class Binding:
    """A statement that binds a name, in the cell with that number (from 1 on, all cells counted)."""

    cell: int
    node: ast.stmt
    source: str  # of the cell

    @property
    def text(self) -> str:
        """The statement's lines, in the lines that they have in their cell."""
        first = min([self.node.lineno, *(d.lineno for d in getattr(self.node, "decorator_list", []))])
        return "\n" * (first - 1) + "\n".join(self.source.splitlines()[first - 1 : self.node.end_lineno])


@dataclass
class Code:
    """What the code cells of a notebook say. ``bound``: name -> statements that bind it, in the order of cells.

    ``checked``: check -> the name that it was given last. ``broken``: cells that are no Python, with the error.
    """

    bound: dict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    checked: dict[str, str] = field(default_factory=dict)
    broken: list[tuple[int, str, SyntaxError]] = field(default_factory=list)


def read_code(cells: list[Cell]) -> Code:
    """Reads the code cells, one after the other; magics (``%``, ``!``, ``?``) count for nothing."""
    code = Code()
    for number, cell in enumerate(cells, 1):
        if not cell.is_code:
            continue
        for match in CHECK.finditer(cell.source):
            code.checked[match["check"]] = match["argument"]
        source = _MAGIC.sub(lambda match: f"{match[1] or match[2] or ''}pass", cell.source)
        try:
            tree = parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            problem = error if isinstance(error, SyntaxError) else SyntaxError(str(error))
            code.broken.append((number, cell.source, problem))
            continue
        for node in tree.body:
            for name in _binds(node):
                code.bound[name].append(Binding(number, node, source))
    return code


def parse(source: str) -> ast.Module:
    """``ast.parse``, one thread at a time: that of Python 3.11 counts how deep all threads are together, and raises
    SystemError ("AST constructor recursion depth mismatch") where they meet.
    """
    with _ONE_AT_A_TIME:
        return ast.parse(source)


def _binds(node: ast.stmt) -> list[str]:
    """The names that a statement binds; the lines that check an answer bind nothing."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        if isinstance(node.value, ast.Call) and CHECK.match(ast.unparse(node.value)):
            return []
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return []


def reads(text: str) -> set[str]:
    """The names that a piece of code takes from outside of its functions."""

    def of(table: symtable.SymbolTable) -> set[str]:
        outside = table.get_type() == "module"
        names = {
            s.get_name() for s in table.get_symbols() if s.is_referenced() and (outside or s.is_global())
        }
        return names.union(*map(of, table.get_children()))

    return of(symtable.symtable(text, "<answer>", "exec"))
