"""What a run was made of: code, packages, machine, models. In ``run.json``; decides what ``--resume`` keeps."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution, distributions, version
from pathlib import Path

from kdkit.common.machine import environment
from kdkit.report.plan import PACKAGE, read_notebook

COMMIT = "KDKIT_COMMIT"  # environment variable: the commit, where neither git nor pip can tell (a container)

# What a notebook's numbers depend on, as people call it; the order in which --resume names what changed.
PARTS = {
    "parameters": "other parameters",
    "notebook": "another notebook",
    "package": "another version of kdkit",
    "assets": "other shipped models",
    "environment": "other packages or another machine",
    "before": "an earlier notebook ran anew",
}


def code_version() -> dict[str, object]:
    """Which code this is: ``version``, ``commit``, ``dirty`` (None: unknown), ``sources`` (SHA-256 of the package).

    Of git where the package lies in its own working tree ("dirty": changed or new files in kdkit or notebooks), else of
    what pip noted when it installed from a repository, else of the environment variable KDKIT_COMMIT.
    """
    try:
        installed = version("kdkit")
    except PackageNotFoundError:
        installed = None
    found = {"version": installed, "commit": None, "dirty": None, "sources": hash_files(_sources(), PACKAGE)}
    if (PACKAGE.parent / ".git").exists() and (PACKAGE.parent / "pyproject.toml").exists():
        found["commit"] = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", "kdkit", "notebooks")
        found["dirty"] = None if changes is None else bool(changes)
    found["commit"] = found["commit"] or _commit_of_pip() or os.environ.get(COMMIT) or None
    return found


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(PACKAGE.parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _commit_of_pip() -> str | None:
    """The commit of ``pip install git+https://...``, which pip keeps in direct_url.json."""
    try:
        kept = json.loads(distribution("kdkit").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    return kept.get("vcs_info", {}).get("commit_id")


def package_versions() -> dict[str, str]:
    """Name and version of everything that is installed where this runs."""
    found = {}
    for each in distributions():  # a package may be on the path twice: the first one is imported
        found.setdefault(each.metadata["Name"], each.version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def checkpoint_hashes(folder: Path | None = None) -> dict[str, str]:
    """SHA-256 of every shipped file that notebooks may read, by name. Loads torch."""
    from kdkit.teachers import ASSETS

    folder = folder or ASSETS
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".safetensors", ".json")
    }


def provenance() -> dict[str, object]:
    """Everything of a run that is the same for all its notebooks: code, machine, packages, checkpoints and, where they
    did not ship with the kit, their folder ("assets")."""
    return {
        "code": code_version(),
        "machine": environment(),
        "packages": package_versions(),
        "checkpoints": checkpoint_hashes(),
        "assets": os.environ.get("KDKIT_ASSETS") or None,
    }


def fingerprints(
    paths: Sequence[Path], chosen: dict[Path, dict[str, object]], made_of: dict[str, object]
) -> dict[str, dict[str, str]]:
    """For each notebook a short digest of everything that its numbers depend on, part by part (:data:`PARTS`).

    ``chosen`` are its parameters; the run folder's name among them does not count. ``before`` stands for the notebooks
    that run before it, because a later one may use what an earlier one left.
    """
    shared = {
        "package": digest(made_of["code"]["sources"]),
        "assets": digest(made_of["checkpoints"]),
        "environment": digest([made_of["machine"], made_of["packages"]]),
    }
    found, before = {}, []
    for path in paths:
        parameters = {name: value for name, value in sorted(chosen[path].items()) if name != "out"}
        cells = [(cell.cell_type, cell.source) for cell in read_notebook(path).cells]
        own = {"parameters": digest(parameters), "notebook": digest(cells)}
        found[path.stem] = {**own, **shared, "before": digest(before)}
        before.append(own)
    return found


def changes(earlier: dict[str, str] | None, now: dict[str, str]) -> list[str]:
    """In words, what differs between two fingerprints of a notebook; empty: nothing."""
    earlier = earlier or {}
    return [words for part, words in PARTS.items() if earlier.get(part) != now[part]]


def digest(value: object) -> str:
    """Sixteen hexadecimal digits that stand for ``value``, which JSON must be able to write."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def hash_files(paths: Iterable[Path], root: Path) -> str:
    """SHA-256 of several files with their names below ``root``, whatever their line ends."""
    total = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        total.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _sources() -> list[Path]:
    return list(PACKAGE.rglob("*.py"))
