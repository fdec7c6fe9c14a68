"""What installs the kit: pins that agree with each other, a wheel with everything in it, make on poor machines."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tiny_lessons import GOOD, write_notebook

from kdkit.report.record import read_run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def direct() -> list[Requirement]:
    return [
        Requirement(line) for line in project()["dependencies"] + project()["optional-dependencies"]["dev"]
    ]


def pins(python: str, file: str = "constraints.txt") -> dict[str, str]:
    """Name -> version in a file of pins for that Python on Linux."""
    found = {}
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line.strip())
            where = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
            if requirement.marker is None or requirement.marker.evaluate(where):
                version = re.fullmatch(r"==([^,*]+)", str(requirement.specifier))
                assert version, f"not an exact pin: {line}"
                name = canonicalize_name(requirement.name)
                assert name not in found, f"{name} is pinned twice for Python {python}"
                found[name] = version[1]
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_within_its_range(python):
    pinned = pins(python)
    for requirement in direct():
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            continue  # no wheel for that Python
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} does not allow {pinned[name]}"


def test_the_oldest_column_has_what_is_promised_and_todays_tools():
    oldest, today = pins("3.10", ".ci/oldest.txt"), pins("3.10")
    for requirement in direct():
        name = canonicalize_name(requirement.name)
        [promised] = (Version(part.version).release for part in requirement.specifier)
        if oldest[name] != today[name] and name != "greenlet":  # of which playwright needs a newer one
            assert Version(oldest[name]).release[: len(promised)] == promised, requirement
    assert oldest["torch"] == oldest["torchaudio"] == "2.4.0" and oldest["ruff"] == today["ruff"]


def test_named_dependencies_are_declared_and_torch_is_not_capped():
    declared = {canonicalize_name(r.name): r for r in direct()}
    assert {
        "torch",
        "torchaudio",
        "jupyterlab",
        "ipywidgets",
        "matplotlib",
        "jiwer",
        "papermill",
    } <= declared.keys()
    needed = {canonicalize_name(Requirement(line).name) for line in project()["dependencies"]}
    # a hosted notebook keeps what it has
    assert not needed & {"jupyterlab", "notebook", "jupyter-server", "jupyter"}
    for name in ("torch", "torchaudio", "numpy"):
        assert all(part.operator == ">=" for part in declared[name].specifier), declared[name]


def test_everything_imported_is_declared():
    provided = {"sklearn": "scikit-learn", "yaml": "pyyaml", "IPython": "ipykernel", "pygments": "nbconvert"}
    provided |= {"fontTools": "matplotlib", "tomllib": "tomli"}
    provided |= {"mistune": "nbconvert", "traitlets": "nbconvert", "markupsafe": "jinja2"}
    provided |= {
        "triton": "torch"
    }  # which brings it where it has GPUs; kdkit.model.fast does without it elsewhere
    extras = [
        line
        for extra, lines in project()["optional-dependencies"].items()
        if extra != "dev"
        for line in lines
    ]
    declared = {canonicalize_name(Requirement(line).name) for line in project()["dependencies"] + extras}
    for path in sorted((ROOT / "kdkit").rglob("*.py")):
        for name in re.findall(
            r"^\s*(?:from|import) ([A-Za-z_]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            if name not in sys.stdlib_module_names and name != "kdkit":
                package = canonicalize_name(provided.get(name, name))
                assert package in declared, (
                    f"{path.name} imports {name}, which pyproject.toml does not declare"
                )


def test_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python = next(
        d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python=")
    ).split("=")[1]
    lines = next(d for d in environment["dependencies"] if isinstance(d, dict))["pip"]
    pinned = pins(python)
    wanted = [r for r in direct() if r.marker is None or r.marker.evaluate({"python_version": python})]
    names = [canonicalize_name(requirement.name) for requirement in wanted]
    assert lines == ["--constraint constraints.txt", *(f"{n}=={pinned[n]}" for n in names), "--editable ."]


# ----------------------------------------------------------------------------------------------------- release


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that was built from nothing but it."""
    folder = tmp_path_factory.mktemp("release")
    source = folder / "source"
    for name in ("kdkit", "notebooks", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return next(folder.glob("kdkit-*.tar.gz")), next(folder.glob("kdkit-*.whl"))


def test_the_wheel_holds_every_asset_and_the_command(built):
    wheel = zipfile.ZipFile(built[1])
    held = {name for name in wheel.namelist() if name.startswith("kdkit/")}
    files = (
        path for path in (ROOT / "kdkit").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    assert held == {path.relative_to(ROOT).as_posix() for path in files}
    assert "kdkit/report/templates/notebook/index.html.j2" in held
    assert "kdkit/recognition/templates/errors.html.j2" in held
    entry = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "kdkit = kdkit.commands.main:main" in wheel.read(entry).decode()
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    notebooks = [name.rpartition("/")[2] for name in wheel.namelist() if "share/kdkit/notebooks/" in name]
    assert sorted(notebooks) == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


USE = """
import numpy, pathlib, sys
import kdkit
from kdkit.report import find_notebooks
print(pathlib.Path(kdkit.__file__).parent)
print(find_notebooks()[0].parent)
print(kdkit.load_teacher("tiny").config.layers)
kdkit.Recogniser.load("tiny_sw_fbank_distilled_60")(numpy.zeros(16000, dtype="float32"), 16000)
"""


def test_an_installed_kit_works_outside_the_source_tree(built, tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    ours = Path(
        subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    )
    # torch and the other dependencies are those of this environment; lines of a .pth file come after the venv's own
    (ours / "dependencies.pth").write_text(
        "\n".join({sysconfig.get_path(n) for n in ("purelib", "platlib")}) + "\n"
    )
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    process = subprocess.run([*install, str(built[1])], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr

    write_notebook(tmp_path / "lessons", "01_first", GOOD)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def kit(*command) -> str:
        process = subprocess.run(command, cwd=elsewhere, env=clean, capture_output=True, text=True)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    package, notebooks, layers = kit(python, "-c", USE).splitlines()[:3]
    assert Path(package) == ours / "kdkit" and layers == "12"
    assert Path(notebooks) == venv / "share/kdkit/notebooks"
    command = venv / "bin" / "kdkit"
    assert "report" in kit(command, "--help")
    kit(command, "report", "--profile", "smoke", "--notebooks", tmp_path / "lessons", "--out", "run")
    made = read_run(elsewhere / "run")
    assert made["status"] == "done" and made["metrics"]["01_first"]["interpreter"]["value"] == str(python)
    assert made["code"]["version"] == project()["version"] and made["code"]["dirty"] is None
    assert "smoke" in kit(command, "report", "list", ".")


# ------------------------------------------------------------------------------------------------ make and CI


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert lines[:2] == ["set -e", 'cd "$(dirname "$0")/.."'] and lines[-1] == "make test"
    assert not any(re.search(r"\b(make|pytest|python)\b", line) for line in lines[2:-1])
    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    [step] = [step for step in job["steps"] if step.get("run") == ".ci/run"]
    assert step["env"] == {"TORCH": "${{ matrix.torch }}"}  # make takes it from there
    columns = job["strategy"]["matrix"]["include"]
    assert {column["torch"] for column in columns} == {"oldest", "pinned", "newest"}
    assert {"torch": "oldest", "python": "3.10"} in columns


def fake_python(folder: Path, body: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def environment(folder: Path, python: Path | str = "") -> subprocess.CompletedProcess:
    command = ["sh", str(ROOT / ".ci/environment"), str(folder), *([str(python)] if python else [])]
    return subprocess.run(command, capture_output=True, text=True)


def test_an_old_python_is_refused_in_words(tmp_path):
    old = fake_python(tmp_path, 'case "$1" in --version) echo Python 3.8.10;; *) exit 1;; esac')
    process = environment(tmp_path / "venv", old)
    assert process.returncode == 1 and not (tmp_path / "venv").exists()
    assert "needs Python 3.10 or newer" in process.stderr and "3.8.10" in process.stderr


def test_a_missing_python_is_refused_in_words(tmp_path):
    process = environment(tmp_path / "venv", tmp_path / "nowhere")
    assert process.returncode == 1 and "needs Python 3.10 or newer" in process.stderr


def test_a_python_without_venv_is_refused_in_words(tmp_path):
    bare = fake_python(tmp_path, 'case "$2" in *ensurepip*) exit 1;; esac; exit 0')
    process = environment(tmp_path / "venv", bare)
    assert process.returncode == 1 and "apt install python3-venv" in process.stderr


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    process = environment(tmp_path, sys.executable)
    assert process.returncode == 1 and "is no virtual environment" in process.stderr
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_broken_environment_is_made_again_and_a_good_one_is_kept(tmp_path):
    venv = tmp_path / "venv"
    venv.mkdir()
    for name in ("pyvenv.cfg", "left_over"):
        (venv / name).touch()
    process = environment(venv, sys.executable)
    assert process.returncode == 0 and "making" in process.stdout, process.stderr
    assert (venv / "bin" / "pip").exists() and not (venv / "left_over").exists()
    (venv / "mark").touch()
    assert environment(venv, sys.executable).stdout == "" and (venv / "mark").exists()


def install(folder: Path, body: str, *options: str) -> subprocess.CompletedProcess:
    """What .ci/install does with an environment whose Python is a script."""
    (folder / "bin").mkdir()
    fake_python(folder / "bin", body)
    command = ["sh", str(ROOT / ".ci/install"), str(folder), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


CUDA = 'case "$*" in *torch.version.cuda*) exit {cuda};; *--index-url*) exit {index};; esac; echo pip "$@"'


@pytest.mark.parametrize(
    ("torch", "pins"),
    [
        ("pinned", "--constraint constraints.txt"),
        ("oldest", "--constraint .ci/oldest.txt"),
        ("newest", "--upgrade --upgrade-strategy eager"),
    ],
)
def test_each_column_has_its_pins(tmp_path, torch, pins):
    process = install(tmp_path, CUDA.format(cuda=1, index=0), torch)
    assert process.returncode == 0
    assert process.stdout.endswith(f"pip -m pip install --editable .[dev] {pins}\n")


def test_wheels_without_cuda_or_words_about_them(tmp_path):
    index = "https://example.org/cpu"
    for name, cuda, answer, words in (
        ("taken", 1, 0, ""),
        ("missing", 1, 1, f"no wheels of torch without CUDA from {index}"),
        ("late", 0, 0, "has torch with CUDA already: make clean"),
    ):
        (tmp_path / name).mkdir()
        process = install(tmp_path / name, CUDA.format(cuda=cuda, index=answer), "pinned", index)
        assert process.returncode == bool(words) and words in process.stderr
        assert ("pip install --editable" in process.stdout) != bool(words)
        assert "CUDA, which only a GPU uses" not in process.stdout


def test_a_column_that_is_none_is_refused_in_words(tmp_path):
    process = install(tmp_path, "exit 1", "latest")
    assert process.returncode == 1 and "choose oldest, pinned or newest" in process.stderr


def test_make_help_names_the_targets():
    said = subprocess.run(
        ["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True
    ).stdout
    for target in ("report", "wheel", "test", "lint", "notebooks", "clean", "help"):
        assert re.search(rf"^make {target}\b", said, re.MULTILINE), target


def test_the_tables_in_the_readme_are_those_of_the_shipped_scores(tmp_path):
    spec = importlib.util.spec_from_file_location("make_card", ROOT / "data_scripts" / "make_card.py")
    make_card = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_card)
    copy, speech = (Path(shutil.copy(ROOT / file, tmp_path)) for file in ("README.md", "docs/speech.md"))
    assets = ROOT / "kdkit" / "assets"
    make_card.write_headline(copy, assets / "metrics.json")
    make_card.write_between(copy, "steps", make_card.convergence_table(assets / "convergence.json"))
    make_card.write_between(speech, "digits", make_card.digits_table(assets))
    assert speech.read_text(encoding="utf-8") == (ROOT / "docs/speech.md").read_text(encoding="utf-8")
    assert copy.read_text(encoding="utf-8") == (ROOT / "README.md").read_text(encoding="utf-8")
    assert "teacher, pre-trained" in copy.read_text(encoding="utf-8")
    assert "| held out | labels | student | seeds | " in speech.read_text(encoding="utf-8")
    card = (assets / "README.md").read_text(encoding="utf-8")
    assert card.startswith(make_card.INTRODUCTION)
    assert all(make_card.study_section(s, assets / f"study_{s}.json") in card for s in make_card.STUDIES)
    assert make_card.minutes_section(assets / "low_resource.json") in card
    assert make_card.convergence_section(assets / "convergence.json") in card
    assert make_card.digits_section(assets) in card
