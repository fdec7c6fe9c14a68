"""The places of the package stand in the order in which speech flows: each imports only what stands before it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import kdkit

HOUSE = Path(kdkit.__file__).parent
METHOD = ["losses", "fbank", "students", "distill"]
ORDER = [
    "common",
    "speech",
    "fbank",
    "model",
    "losses",
    "training",
    "teachers",
    "students",
    "distill",
    "probing",
    "recognition",
    "bench",
    "lessons",
    "report",
    "commands",
]


def modules() -> dict[str, Path]:
    found = {}
    for path in HOUSE.rglob("*.py"):
        parts = path.relative_to(HOUSE.parent).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of kdkit that a file imports, within functions and for types, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "kdkit":
            found |= {
                whole if (whole := f"{node.module}.{name.name}") in known else node.module
                for name in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.split(".")[0] == "kdkit"}
    return found


def place(module: str) -> str:
    return module.split(".")[1]


def test_the_first_look_shows_the_method_and_at_most_twelve_folders():
    files = {path.stem for path in HOUSE.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.name for path in HOUSE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert files == set(METHOD)
    assert len(folders) <= 12 and files | folders == {*ORDER, "assets"}


def test_no_place_imports_one_that_stands_after_it():
    known = modules()
    upwards = [
        f"{module} imports {other}"
        for module, path in known.items()
        if module not in ("kdkit", "kdkit.__main__")
        for other in imports(path, known)
        if other != "kdkit" and ORDER.index(place(other)) > ORDER.index(place(module))
    ]
    assert not upwards


def test_no_module_imports_itself_by_way_of_others():
    known = modules()
    arrows = {m: imports(path, known) - {m, m.rpartition(".")[0]} for m, path in known.items()}
    done, on_the_way = set(), []

    def visit(module: str) -> None:
        assert module not in on_the_way, " -> ".join([*on_the_way[on_the_way.index(module) :], module])
        if module in done or module not in known:
            return
        on_the_way.append(module)
        for other in sorted(arrows[module]):
            visit(other)
        on_the_way.pop()
        done.add(module)

    for module in known:
        visit(module)


def test_what_the_package_offers_is_there_and_costs_nothing_until_it_is_used():
    code = "import kdkit, sys; assert 'torch' not in sys.modules; [getattr(kdkit, name) for name in kdkit.__all__]"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"load_teacher", "DistillTask", "train", "Recogniser"} <= set(dir(kdkit))


def test_the_readme_shows_the_same_order():
    text = (HOUSE.parent / "README.md").read_text(encoding="utf-8")
    section = text.split("## How speech flows through the package")[1].split("\n## ")[0]
    picture = section.split("```")[1]
    left = " ".join(line[:40].replace("|", " ") for line in picture.splitlines())
    assert left.replace(",", " ").split() == ORDER
    rows = re.findall(r"^\| \[(\w+)\]\(kdkit/(\w+)(?:\.py)?\) \|", section, re.MULTILINE)
    assert [name for name, _ in rows] == [target for _, target in rows] == ORDER
    assert all((HOUSE.parent / link).exists() for link in re.findall(r"\]\((kdkit/[\w./]+)\)", section))
