"""The notebooks: made from their sources, clean, and all of them run through papermill in profile smoke."""

import fnmatch
import importlib.util
import json
import re
from dataclasses import replace
from html import escape
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pytest

from kdkit.distill import DistillConfig, default_pairs
from kdkit.lessons.trials import Trial
from kdkit.lessons.widgets.designer import in_short
from kdkit.losses import Loss
from kdkit.model.costs import propose
from kdkit.model.speech_model import preset
from kdkit.report import GIVEN, declared_parameters, find_notebooks, run_report
from kdkit.report.compare import read_tolerances, rows_of
from kdkit.report.findings import CLAIMS, answers
from kdkit.report.record import read_run
from kdkit.speech.corpora.synthetic.build import build_synthetic
from kdkit.speech.manifest import write_manifest

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = ["01_teacher_probing", "02_distillation", "03_fbank_front_end", "04_low_resource_finetuning"]


@pytest.fixture(scope="module")
def pair():
    spec = importlib.util.spec_from_file_location("pair", FOLDER / "pair.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lessons_are_there():
    assert [path.stem for path in find_notebooks()] == NAMES


def test_notebooks_agree_with_their_sources(pair):
    assert pair.check() == [], "edit the sources, then: make notebooks"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_clean(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    lines = [line for cell in code for line in cell.source.split("\n")]
    assert [line for line in lines if len(line) > 106] == [], (
        "JupyterLab on a screen of 1280 pixels shows no more"
    )
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    tagged = [cell for cell in notebook.cells if cell.metadata.get("tags") == ["parameters"]]
    assert len(tagged) == 1
    defaults = declared_parameters(FOLDER / f"{name}.ipynb")
    assert {n: type(defaults[n]) for n in GIVEN} == {"profile": str, "seed": int, "out": str}
    assert defaults["profile"] == "auto"


def test_every_notebook_links_a_glossary_that_has_its_words():
    lines = (FOLDER.parent / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    assert all(len(row) == 2 and row[1].endswith(".") for row in rows) and len(rows) >= 40
    words = " ".join(row[0] for row in rows)
    assert all(
        word in words
        for word in ("chance", "phone", "formant", "stop", "MFCC", "FFN", "GLU", "IPA", "WER", "CTC")
    )
    for name in NAMES:
        cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
        assert "](../docs/glossary.md)" in cells[0].source + cells[1].source, name


@pytest.mark.parametrize("name", NAMES)
def test_dots_say_how_much_a_section_matters_in_the_notebook_and_for_lecturers(name):
    text = (FOLDER / "src" / f"{name}.py").read_text(encoding="utf-8")
    headings = re.findall(r"^# ## (.+)$", text, re.MULTILINE)
    assert [h for h in headings if not h.endswith("●")] == ["Set-up", "Quiz", "What you have seen"]
    assert text.count("●●● core") == text.count("# **Before.**") == 1
    dotted = [re.fullmatch(r"(.+) (●{1,3})", h).groups() for h in headings if h.endswith("●")]
    teaching = (FOLDER.parent / "docs" / "teaching.md").read_text(encoding="utf-8")
    (row,) = [
        line
        for line in teaching.split("## What matters")[1].splitlines()
        if line.startswith(f"| {name[:2]} |")
    ]
    for dots, cell in zip(("●●●", "●●", "●"), row.strip("| ").split(" | ")[2:], strict=True):
        assert cell.split("; ") == [heading for heading, own in dotted if own == dots], dots


@pytest.mark.parametrize("layers", [None, 6])
def test_what_was_taken_in_the_designer_is_trained_in_an_experiment_of_ones_own(layers):
    cells = jupytext.read(FOLDER / "src" / "02_distillation.py").cells
    (cell,) = [cell.source for cell in cells if cell.source.startswith("my_change =")]
    deep, shallow = preset("tiny-dt-fbank"), preset("tiny-sw-fbank")
    taken = layers and replace(deep, layers=layers)
    used = (preset, propose, Trial, DistillConfig, default_pairs, Loss, in_short)
    names = {one.__name__: one for one in used}
    names |= {"designer": SimpleNamespace(taken=taken), "own": len, "last": 12}
    names |= {"dt_fbank": "tiny-dt-fbank", "sw_fbank": "tiny-sw-fbank", "sizes": {"tiny-dt-fbank": 800_000}}
    names["teacher"] = SimpleNamespace(config=preset("tiny-teacher"))
    exec(cell, names)
    standard, mine = names["standard"], names["mine"]
    assert (standard.student, mine.student) == ((deep, taken) if taken else (shallow, shallow))
    assert mine.name == ("my student" if taken else "my loss") and not standard.extra
    assert [loss.name for loss in mine.extra] == ([] if taken else ["own"])


def test_pairing_sees_what_is_wrong_and_mends_it(pair, tmp_path):
    (tmp_path / "src").mkdir()
    source = tmp_path / "src" / "01_x.py"
    source.write_text(
        '# %% [markdown]\n# # Title\n\n# %% tags=["parameters"]\nseed = 0\n\n# %%\nseed\n\n# %%\nseed\n'
    )
    assert pair.check(tmp_path) == ["01_x.ipynb is missing"]
    made = tmp_path / "01_x.ipynb"
    assert pair.sync(tmp_path) == [made] and pair.check(tmp_path) == [] and pair.sync(tmp_path) == []
    first = json.loads(made.read_text())
    ids = [cell["id"] for cell in first["cells"]]
    assert len(set(ids)) == 4, "the two equal cells need ids of their own"

    source.write_text(source.read_text().replace("# # Title", "# # Other title"))
    assert pair.check(tmp_path) == ["01_x.ipynb is not what src/01_x.py makes"]
    pair.sync(tmp_path)
    assert [cell["id"] for cell in json.loads(made.read_text())["cells"]][1:] == ids[1:]

    run = nbformat.read(made, as_version=4)  # somebody ran it and saved
    run.cells[2].outputs, run.cells[2].execution_count = [nbformat.v4.new_output("stream", text="0")], 1
    run.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    nbformat.write(run, made)
    assert len(pair.check(tmp_path)) == 1
    pair.sync(tmp_path)
    clean = nbformat.read(made, as_version=4)
    assert clean.cells[2].outputs == [] and "widgets" not in clean.metadata

    (tmp_path / "02_y.ipynb").write_text("{}")
    assert pair.check(tmp_path) == ["02_y.ipynb has no source in src"]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> tuple[int, Path]:
    """Exit status and run folder of all notebooks in profile smoke."""
    out = tmp_path_factory.mktemp("report") / "run"
    return run_report("smoke", out), out


def test_all_notebooks_run_in_profile_smoke(smoke):
    status, out = smoke
    metrics = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert status == 0, [notebook["error"] for notebook in metrics["notebooks"]]
    assert [(n["name"], n["status"]) for n in metrics["notebooks"]] == [(name, "done") for name in NAMES]
    assert all(metrics["metrics"][name] for name in NAMES)
    assert all(notebook["data"] and notebook["models"] for notebook in metrics["notebooks"])

    systems = metrics["systems"]
    assert {"teacher", "distilled", "scratch"} <= {system["role"] for system in systems}
    for system in systems:
        for split, score in system["wer"].items():
            assert 0 <= score["value"] < 5, (system["name"], split)
            if "interval" in score:
                assert score["interval"][0] <= score["value"] <= score["interval"][1], (system["name"], split)
    assert any({"test-clean", "test-other"} <= set(system["wer"]) for system in systems)

    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page and not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)
    images = re.findall(r"<img [^>]*>", page)
    assert images and all(re.search(r'alt="[^"]+"', image) for image in images)
    for name in NAMES:
        record = json.loads((out / "metrics" / f"{name}.json").read_text(encoding="utf-8"))
        assert record["profile"] == "smoke" and record["items"], name
        executed = (out / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        assert "<script" not in executed and not re.search(r"""src=["'](?:https?:)?//""", executed)


def test_all_notebooks_run_in_a_world_of_ones_own(tmp_path):
    minutes = {"unlabelled": 1.0, "train": 1.0, "dev": 0.75, "test-clean": 1.0, "test-other": 1.0}
    for split, speech in build_synthetic(minutes=minutes).items():
        write_manifest(tmp_path / f"{split}.jsonl", speech)
    world = {"teacher": "tiny", "students": "tiny", "finished": {"tiny-sw-waveform": "tiny-sw-waveform"}}
    world |= {"unlabelled": "unlabelled.jsonl", "labelled": "train.jsonl", "dev": "dev.jsonl"}
    world |= {"tests": {name: f"{name}.jsonl" for name in ("test-clean", "test-other")}}
    world |= {"probing": ["train.jsonl", "test-clean.jsonl"]}  # those that have phone times
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(world))
    status = run_report("smoke", tmp_path / "run", overrides={"world": str(path)})
    record = read_run(tmp_path / "run")
    assert status == 0, [notebook["error"] for notebook in record["notebooks"]]
    probed = {metric for metric in record["metrics"]["02_distillation"] if metric.startswith("probe/")}
    assert "probe/tiny-sw-waveform published" in probed and not any("shipped" in name for name in probed)


def test_what_is_said_about_notebooks_elsewhere_is_true(smoke):
    """Claims of the paper and tolerances name verdicts and metrics: they must be there."""
    run = read_run(smoke[1])
    for claim in CLAIMS:
        patterns = len(claim.contrasts) + (1 if claim.first else len(claim.evidence))
        verdicts = [verdict | {"text": ""} for verdict in run["verdicts"]]
        assert len(answers(claim, verdicts, run["metrics"])) >= patterns, claim.text
    page = (smoke[1] / "index.html").read_text(encoding="utf-8")
    assert all(escape(claim.text) in page for claim in CLAIMS)
    numbers = [f"{row.notebook}/{row.name}" for row in rows_of([run])]
    for pattern in read_tolerances(FOLDER.parent / ".github/tolerances.json").only:
        assert fnmatch.filter(numbers, pattern), f"no number is called {pattern}"


def test_the_same_inputs_give_the_same_numbers(smoke, tmp_path):
    """A second run, in other processes: equal to the last digit, but for times and speeds."""
    assert run_report("smoke", tmp_path / "again") == 0
    first, second = read_run(smoke[1]), read_run(tmp_path / "again")
    rows = [row for row in rows_of([first, second]) if not row.timing]
    assert [(row.notebook, row.name, row.entries) for row in rows if not row.equal] == []
    assert len(rows) > 100 and {row.notebook for row in rows} == set(NAMES)
    used = [[(n["name"], n["data"], n["models"]) for n in run["notebooks"]] for run in (first, second)]
    assert used[0] == used[1]


def run_setup(monkeypatch, folder: Path, kit: str = "") -> list[list[str]]:
    """Runs the set-up cell in ``folder`` as if kdkit were not installed; returns what it would have run."""
    ran = []

    def run(command, check):
        assert check
        ran.append([*command, Path(command[-1]).read_text()])

    monkeypatch.chdir(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", run)
    source = (FOLDER / "setup_cell.py").read_text(encoding="utf-8")
    exec(source.replace('KIT = ""', f'KIT = "{kit}"'), {})
    return ran


def test_the_setup_cell_installs_what_it_finds_and_leaves_torch_alone(monkeypatch, tmp_path):
    below = tmp_path / "kit" / "notebooks"
    below.mkdir(parents=True)
    (tmp_path / "kit" / "pyproject.toml").write_text('[project]\nname = "kdkit"\n')
    ((*command, constraints),) = run_setup(monkeypatch, below)
    assert command[1:6] == ["-m", "pip", "install", "--quiet", str(tmp_path / "kit")] and command[6] == "-c"
    kept = dict(line.split("==") for line in constraints.splitlines())
    assert kept["torch"] == version("torch") and kept["torchaudio"] == version("torchaudio")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(SystemExit, match="set KIT in this cell"):
        run_setup(monkeypatch, elsewhere)
    assert run_setup(monkeypatch, elsewhere, "git+https://x/y")[0][5] == "git+https://x/y"
    (elsewhere / "kdkit-0.1.0-py3-none-any.whl").touch()
    assert run_setup(monkeypatch, elsewhere)[0][5].endswith("kdkit-0.1.0-py3-none-any.whl")


def test_the_setup_cell_does_nothing_where_kdkit_is_installed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("subprocess.run", lambda *command, **options: pytest.fail("something was installed"))
    exec((FOLDER / "setup_cell.py").read_text(encoding="utf-8"), {})


def test_a_home_gives_badges_and_a_place_to_install_from(pair, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "01_x.py").write_text('# %% [markdown]\n# # Title\n\n# %% tags=["setup"]\n# here\n')
    pair.sync(tmp_path)
    plain = nbformat.read(tmp_path / "01_x.ipynb", as_version=4)
    assert 'KIT = ""' in plain.cells[1].source and "badge" not in plain.cells[0].source
    pair.move("owner/kit", "main", tmp_path)
    assert pair.check(tmp_path) == ["01_x.ipynb is not what src/01_x.py makes"]
    pair.sync(tmp_path)
    badge, _, setup = nbformat.read(tmp_path / "01_x.ipynb", as_version=4).cells
    assert "/github/owner/kit/blob/main/notebooks/01_x.ipynb" in badge.source
    assert 'KIT = "git+https://github.com/owner/kit@main"' in setup.source
    with pytest.raises(ValueError, match="OWNER/REPOSITORY"):
        pair.move("no slash", "main", tmp_path)
