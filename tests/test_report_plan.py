"""What a report refuses before anything runs, and the parameters that it hands on."""

import json
import re

import pytest
from tiny_lessons import PARAMETERS, ran, run, three, write_notebook
from typer.testing import CliRunner

from kdkit.commands.main import app
from kdkit.common.errors import ConfigError
from kdkit.report import choose_parameters, declared_parameters, find_notebooks, run_report
from kdkit.report.plan import parse_settings
from kdkit.report.record import read_run, repeat_command
from kdkit.speech.manifest import Utterance, write_manifest


def test_parameters_are_checked_first(tmp_path):
    write_notebook(tmp_path, "01_first")
    paths = find_notebooks(tmp_path)
    assert declared_parameters(paths[0]) == {"profile": "quick", "seed": 0, "out": "runs/lab", "factor": 1.5}
    given = {"profile": "smoke", "seed": 1, "out": "x"}
    assert choose_parameters(paths, {**given, "factor": 2})[paths[0]]["factor"] == 2
    with pytest.raises(ConfigError, match="01_first does not have a parameter 'fctor'; there are factor"):
        choose_parameters(paths, {**given, "fctor": 2})
    with pytest.raises(ConfigError, match=r"01_first\.ipynb: parameter factor is a float, not '2'"):
        choose_parameters(paths, {**given, "factor": "2"})
    with pytest.raises(ConfigError, match="seed is a int, not True"):
        choose_parameters(paths, {**given, "seed": True})


@pytest.mark.parametrize(
    ("parameters", "words"),
    [("seed = 0", "lacks profile, out"), ("seed = 1 + x", "plain literals"), ("seed = (", "plain literals")],
)
def test_a_bad_parameters_cell_is_named(tmp_path, parameters, words):
    write_notebook(tmp_path, "01_first", parameters=parameters)
    with pytest.raises(ConfigError, match=rf"01_first\.ipynb: .*{words}"):
        choose_parameters(find_notebooks(tmp_path), {})


def test_places_that_are_not_ours(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_first")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="holds no earlier report"):
        run(tmp_path)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigError, match="is a file"):
        run_report("smoke", tmp_path / "out/thesis.txt", notebooks=tmp_path / "notebooks")
    with pytest.raises(ConfigError, match="no profile 'big': choose one of smoke, quick, full, colab, paper"):
        run_report("big", tmp_path / "new", notebooks=tmp_path / "notebooks")
    with pytest.raises(ConfigError, match="no notebooks"):
        run_report("smoke", tmp_path / "new", notebooks=tmp_path / "nowhere")
    (tmp_path / "notebooks/02_broken.ipynb").write_text("{")
    with pytest.raises(ConfigError, match=r"02_broken\.ipynb: not a notebook"):
        run_report("smoke", tmp_path / "new", notebooks=tmp_path / "notebooks")
    assert not (tmp_path / "new").exists()


def test_a_world_file_beside_the_user_is_found_by_the_notebooks(tmp_path, monkeypatch):
    parameters = PARAMETERS + '\nworld = "auto"'
    tell = "import pathlib; results.metric('read', pathlib.Path(world).read_text()[:1])"
    write_notebook(tmp_path / "notebooks", "01_first", tell, parameters=parameters)
    for name, voice in (("train", "ann"), ("dev", "cy"), ("test", "dee")):
        said = [Utterance(f"{name}{i}", tmp_path / "x.wav", 2.0, "a", voice) for i in range(10)]
        write_manifest(tmp_path / f"{name}.jsonl", said)
    world = {"teacher": "tiny", "unlabelled": "train.jsonl", "labelled": "train.jsonl", "dev": "dev.jsonl"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(world | {"tests": {"test": "test.jsonl"}}))
    monkeypatch.chdir(tmp_path)
    command = ["report", "--profile", "smoke", "--notebooks", "notebooks", "--world", "mine.json"]
    answer = CliRunner().invoke(app, command)
    made = read_run(tmp_path / "runs" / "smoke-mine")
    assert answer.exit_code == 0 and made["metrics"]["01_first"]["read"]["value"] == "{"
    assert made["parameters"] == {"world": str(path)} and f"--world {path}" in repeat_command(made)

    mark = made["notebooks"][0]["fingerprint"]["parameters"]
    path.write_text(json.dumps(world | {"tests": {"test": "test.jsonl"}, "name": "other"}))
    assert CliRunner().invoke(app, [*command, "--resume"]).exit_code == 0
    made = read_run(tmp_path / "runs" / "smoke-mine")
    assert made["notebooks"][0]["fingerprint"]["parameters"] != mark, "another world is another run"

    path.write_text(json.dumps(world | {"tests": {"test": "gone.jsonl"}}))
    answer = CliRunner().invoke(app, [*command, "--out", "new"])
    assert "gone.jsonl, which is not there" in str(answer.exception) and not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match="--set world: it has an option of its own, --world"):
        parse_settings(find_notebooks(tmp_path / "notebooks"), ["world=toy"])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("factor=2.5", 2.5),
        ("factor = 2", 2),
        ("name=HUBERT_BASE", "HUBERT_BASE"),
        ("name='HUBERT_BASE'", "HUBERT_BASE"),
        ("name=3", "3"),
        ("name=", ""),
        ("name=a=b", "a=b"),
        ("flag=true", True),
        ("flag=False", False),
        ("anything=[1, 2]", [1, 2]),
    ],
)
def test_settings_have_the_types_of_the_parameters_cell(tmp_path, setting, value):
    more = '\nname = "tiny"\nflag = False\nanything = None'
    write_notebook(tmp_path, "01_first", parameters=PARAMETERS + more)
    paths = find_notebooks(tmp_path)
    (found,) = parse_settings(paths, [setting]).values()
    assert found == value and type(found) is type(value)
    name = setting.partition("=")[0].strip()
    assert (
        choose_parameters(paths, {"profile": "x", "seed": 0, "out": "", name: found})[paths[0]][name] == value
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["factor"], "--set factor: write it as name=value"),
        (["=3"], "write it as name=value"),
        (["seed=3"], "--set seed: it has an option of its own, --seed"),
        (["factor=1", "factor=2"], "--set factor is given twice"),
        (["factor=two"], "--set factor: 'two' is not a float like 1.5"),
        (["fctor=2"], "01_first does not have a parameter 'fctor'; there are factor"),
    ],
)
def test_bad_settings_are_refused_by_name(tmp_path, settings, words):
    write_notebook(tmp_path, "01_first")
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse_settings(find_notebooks(tmp_path), settings)


def test_the_command_line_hands_everything_on(tmp_path, capfd):
    three(tmp_path)
    command = [
        "report",
        "--profile",
        "smoke",
        "--notebooks",
        str(tmp_path / "notebooks"),
        "--out",
        str(tmp_path / "out"),
    ]
    answer = CliRunner().invoke(
        app, [*command, "--only", "01", "--set", "factor=4", "--seed", "3", "--timeout", "5"]
    )
    assert answer.exit_code == 0, answer.output
    made = read_run(tmp_path / "out")
    assert made["notebooks"][0]["parameters"] == {"profile": "smoke", "seed": 3, "factor": 4}
    assert ran(tmp_path) == [1, 0, 0]
    for more, message in (
        (["--set", "fctor=1"], "no notebook has a parameter"),
        (["--profile", "papers"], "choose one of smoke, quick, full, colab, paper"),
    ):
        answer = CliRunner().invoke(app, [*command, *more])
        assert isinstance(answer.exception, ConfigError) and message in str(answer.exception)
    assert ran(tmp_path) == [1, 0, 0]
