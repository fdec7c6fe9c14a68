"""Continuous integration: workflow files by their schema, and what they call by the command line itself."""

import fnmatch
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from kdkit.commands.main import app
from kdkit.lessons.profiles import PROFILES
from kdkit.lessons.worlds import WORLDS
from kdkit.report.compare import read_tolerances

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
}
COMMAND = re.compile(r"^(?:accelerate launch(?: --\S+ \S+)* -m )?kdkit ((?:.*\\\n)*.*)$", re.MULTILINE)


def schema_check(*files: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    return subprocess.run([*command, *map(str, files)], capture_output=True, text=True)


def parse(*words: str) -> dict:
    """Parses a kdkit command without running it; the parameters of the innermost command."""
    command, context = typer.main.get_command(app), None
    words = list(words)
    while True:
        context = command.make_context(command.name, words, parent=context, resilient_parsing=False)
        rest = [*getattr(context, "_protected_args", getattr(context, "protected_args", [])), *context.args]
        if not rest or not hasattr(command, "get_command"):
            return context.params
        command, words = command.get_command(context, rest[0]), rest[1:]
        assert command is not None, f"no command {rest[0]}"


def test_workflows_follow_the_schema(tmp_path):
    assert [path.name for path in WORKFLOWS] == ["notebooks.yml", "test.yml"]
    process = schema_check(*WORKFLOWS)
    assert process.returncode == 0, process.stdout + process.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))
    assert schema_check(wrong).returncode == 1


def test_every_push_is_tested_and_gpu_notebooks_run_nightly_one_at_a_time():
    notebooks, test = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in WORKFLOWS)
    assert "push" in test[True] and "pull_request" in test[True]  # YAML 1.1 reads "on" as true
    assert set(notebooks[True]) == {"schedule", "workflow_dispatch"}
    assert notebooks["concurrency"]["cancel-in-progress"] is False
    job = notebooks["jobs"]["report"]
    assert job["if"] == "vars.GPU_RUNNER != ''" and "vars.GPU_RUNNER" in job["runs-on"][1]
    choice = notebooks[True]["workflow_dispatch"]["inputs"]["profile"]
    assert choice["default"] == "colab" and job["env"]["PROFILE"] == "${{ inputs.profile || 'colab' }}"
    assert set(choice["options"]) <= set(PROFILES)
    worlds = notebooks[True]["workflow_dispatch"]["inputs"]["world"]["options"]
    assert set(worlds) == set(WORLDS) and job["env"]["WORLD"] == "${{ inputs.world || 'librispeech' }}"
    kept = [step["with"]["key"] for step in job["steps"] if "key" in step.get("with", {})]
    assert kept and all("${{ env.WORLD }}" in key for key in kept), "compared with another world's numbers"
    uses = [step.get("uses", "") for step in job["steps"]]
    assert sum(name.startswith("actions/cache") for name in uses) == 2
    kept = next(step for step in job["steps"] if step.get("uses", "").startswith("actions/upload-artifact"))
    assert kept["if"] == "${{ !cancelled() }}", "a report that failed is the one that somebody wants to see"


def test_commands_in_the_workflow_are_commands_of_kdkit():
    job = yaml.safe_load(WORKFLOWS[0].read_text(encoding="utf-8"))["jobs"]["report"]
    script = "\n".join(step.get("run", "") for step in job["steps"]).replace("\\\n", " ")
    calls = re.findall(r"\$KDKIT (report [^|>\n]*)", script)
    assert len(calls) == 3
    made, summary, checked = (parse(*shlex.split(call.replace("$PROFILE", "colab"))) for call in calls)
    assert PROFILES["colab"].expected_minutes / 4 < made["timeout"] < job["timeout-minutes"] / 4
    assert made["world"] == "$WORLD" and not made["set_"]
    assert Path(made["out"]) == Path(summary["run"]) == Path(checked["new"]) == Path("runs/colab")
    assert (ROOT / checked["tolerances"]).is_file()
    read_tolerances(ROOT / checked["tolerances"])


def test_the_image_holds_what_it_needs(tmp_path):
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    ignored = [line for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")]
    for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists() and f"!{source}" in ignored
    code = re.search(r'python -c "(.*?)" > requirements.txt', dockerfile, re.DOTALL)[1].replace("\\\n", "")
    code = code if sys.version_info >= (3, 11) else code.replace("tomllib", "tomli")
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    names = {re.split(r"[^\w-]", line)[0] for line in process.stdout.splitlines()}
    assert {"torch", "papermill", "psutil", "flashlight-text"} <= names


def test_the_paper_s_sizes_are_commands_with_the_profile_s_numbers():
    section = PAGES["distilling.md"].partition("## The paper's sizes")[2].partition("\n## ")[0]
    block = section.partition("```")[2].partition("```")[0].replace("\\\n", " ")
    calls = [line for line in block.splitlines() if "kdkit" in line]
    parsed = [parse(*shlex.split(line.partition("kdkit ")[2], comments=True)) for line in calls]
    assert len(parsed) >= 3
    steps = [found["steps"] for found in parsed if "steps" in found]
    assert PROFILES["paper"].distill_steps in steps


@pytest.mark.parametrize("name", PAGES)
def test_commands_on_pages_are_understood(name):
    code = "\n".join(PAGES[name].split("```")[1::2])
    for words in COMMAND.findall(code):
        parse(*shlex.split(words.replace("\\\n", " "), comments=True))


def test_the_pages_have_commands():
    assert sum(len(COMMAND.findall(page)) for page in PAGES.values()) > 40


@pytest.mark.parametrize("name", PAGES)
def test_links_between_pages_lead_somewhere(name):
    folder = ROOT if name == "README.md" else ROOT / "docs"
    for target, heading in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([\w-]+))?\)", PAGES[name]):
        path = folder / target if target else folder / name
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}, heading


def test_patterns_of_tolerances_do_not_hide_each_other():
    patterns = list(read_tolerances(ROOT / ".github/tolerances.json").only)
    for i, later in enumerate(patterns):
        assert not any(fnmatch.fnmatchcase(later, earlier) for earlier in patterns[:i]), later
