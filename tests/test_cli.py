"""The command line: help, errors in one line, and the whole way from speech to a word error rate at toy size."""

import inspect
import json
import re
import subprocess
import sys
import typing
import warnings
from dataclasses import dataclass
from typing import Annotated

import pytest
import torch
import typer
from typer.testing import CliRunner

from kdkit.commands import Commands, running
from kdkit.commands.distilling import layer_pairs
from kdkit.commands.main import app, main
from kdkit.commands.running import plain_warning
from kdkit.commands.speech import split_minutes
from kdkit.common.errors import ConfigError
from kdkit.model.checkpoints import load_checkpoint
from kdkit.model.speech_model import PRESETS, ModelConfig, SpeechModel
from kdkit.recognition.export.onnx import EXPORTS
from kdkit.teachers import save_model
from kdkit.training.interrupt import TrainingInterrupted

COMMANDS = [
    *("report", "grade", "corpus", "align", "models", "structures", "probe", "statistics", "swap"),
    *("distill", "finetune", "lm", "evaluate", "transcribe", "export"),
]


def kdkit(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    said = kdkit(command, "--help")
    assert re.search(f"Examples?: kdkit {command}", said)


def test_bench_has_an_example_too():
    assert "Example: kdkit bench distill" in kdkit("bench", "distill", "--help")


def test_help_lists_every_command_and_loads_no_torch():
    code = "import sys; from kdkit.commands.main import app; commands = app.registered_commands; "
    code += "print('torch' in sys.modules, [command.callback.__name__ for command in commands])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    groups = ["report"]  # a command that has commands of its own
    assert said.split(" ", 1) == ["False", f"{[name for name in COMMANDS if name not in groups]}\n"]


def commands(group=None, path=()):
    """Every command with its words: (("bench", "distill"), command), ..."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(("words", "command"), [pytest.param(*c, id=" ".join(c[0])) for c in commands()])
def test_numbers_that_are_none_and_empty_values_are_refused_before_anything_runs(words, command, tmp_path):
    hints = typing.get_type_hints(inspect.unwrap(command.callback))
    given, cases = [], []
    for parameter in command.params:
        number = any(kind in str(hints.get(parameter.name)) for kind in ("int", "float"))
        if parameter.required:
            value = "1" if number else str(tmp_path / "x")
            given += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
        elif "float" in str(hints.get(parameter.name)):
            cases += [(parameter.opts[0], value) for value in ("nan", "inf", "-inf")]
        elif parameter.name == "seed":
            cases += [("--seed", value) for value in ("-1", str(2**32))]
    cases = [(*given, *case) for case in [("",), *cases]]
    for case in cases:
        result = CliRunner().invoke(app, [*words, *case])
        assert result.exit_code == 2, (case, result.output)
        assert re.search("finite|range|empty value|should be (less|greater)", result.output), (
            case,
            result.output,
        )


def test_odd_options_end_in_one_line():
    for command, said in (
        (("structures", "--layers", "2,a", "--budget", "1e6"), "--layers 2,a: write numbers of layers"),
        (("structures", "--layers", "0", "--budget", "1e6"), "--layers 0: write"),
        (("corpus", "--minutes", "train=nan"), "--minutes train=nan: write SPLIT=MINUTES"),
        (("corpus", "--minutes", "train=-1"), "--minutes train=-1: write SPLIT=MINUTES"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            CliRunner().invoke(app, command, catch_exceptions=False)


def test_an_error_is_one_line_and_status_2(tmp_path, capsys, monkeypatch):
    missing = tmp_path / "missing.safetensors"
    monkeypatch.setattr(sys, "argv", ["kdkit", "evaluate", str(missing)])
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr()
    assert exit_.value.code == 2
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and str(missing) in said.err
    assert said.out == ""


def test_the_module_runs_as_a_command(tmp_path):
    command = [sys.executable, "-m", "kdkit", "report", "--profile", "huge", "--out", str(tmp_path / "out")]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr == "error: no profile 'huge': choose one of smoke, quick, full, colab, paper\n"
    assert not (tmp_path / "out").exists()


def test_pairs_of_layers():
    assert layer_pairs("6:6,12:12") == ((6, 6), (12, 12))
    for wrong in ("6", "6:x", "6:6;7:7", "1:2:3"):
        with pytest.raises(ConfigError, match="write STUDENT:TEACHER"):
            layer_pairs(wrong)


def test_structures_for_a_budget():
    said = kdkit(
        "structures", "--budget", "9e5", "--like", "tiny-dt-fbank", "--layers", "2,12", "--rounds", "0"
    )
    first, second = said.splitlines()
    assert first.startswith("2 x 160") and second.startswith("12 x 96") and "GMAC/s" in second


def test_minutes_of_splits():
    assert split_minutes(["train=10", "test-clean=0.5"]) == {"train": 10.0, "test-clean": 0.5}
    for wrong in ("train", "train=ten"):
        with pytest.raises(ConfigError, match=f"--minutes {wrong}: write SPLIT=MINUTES"):
            split_minutes([wrong])


def test_models_lists_presets_with_their_size():
    said = kdkit("models")
    assert all(name in said for name in PRESETS)
    assert "22,938,880" in said  # deep & thin, waveform


def test_from_speech_to_a_word_error_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path / "cache"))
    assert "train: " in kdkit("corpus", "--minutes", "train=0.2", "--minutes", "test-clean=0.1")
    assert list((tmp_path / "cache").rglob("train/manifest.jsonl"))

    torch.manual_seed(0)
    config = ModelConfig(
        layers=2, dim=32, ffn=32, heads=2, conv_channels=(4,) * 7, pos_kernel=8, pos_groups=4
    )
    teacher = tmp_path / "teacher.safetensors"
    save_model(teacher, SpeechModel(config), {})
    short = ("--steps", 2, "--minutes", 0.2, "--batch-seconds", 8)

    said = kdkit("distill", "tiny-sw-fbank", "--teacher", teacher, "--out", tmp_path / "student", *short)
    student = tmp_path / "student" / "student.safetensors"
    assert f"student: {student}" in said and student.is_file()
    assert "Phones are best in H" in kdkit("probe", student, "--minutes", 0.3, "--test-minutes", 0.1)

    said = kdkit("finetune", student, "--out", tmp_path / "recogniser", *short)
    recogniser = tmp_path / "recogniser" / "recogniser.safetensors"
    assert f"recogniser: {recogniser}" in said and recogniser.is_file()

    statistics = tmp_path / "statistics.json"
    assert "hours; means" in kdkit("statistics", "--minutes", 0.2, "--bins", 40, "--out", statistics)
    adapted = ("--adapt", 1, "--statistics", statistics, "--spec-augment", "--teacher", teacher)
    with pytest.raises(ConfigError, match="normalised by every utterance's own"):
        kdkit("distill", "tiny-sw-fbank", *adapted, "--out", tmp_path / "adapted", *short)
    adapted += ("--normalisation", "corpus")
    kdkit("distill", "tiny-sw-fbank", *adapted, "--out", tmp_path / "adapted", *short)
    rows = [json.loads(row) for row in (tmp_path / "adapted" / "metrics.jsonl").read_text().splitlines()]
    assert "regression" in rows[-1]

    kdkit("finetune", teacher, "--out", tmp_path / "slow", *short)
    slow = tmp_path / "slow" / "recogniser.safetensors"
    levers = (
        "--bins",
        40,
        "--normalisation",
        "utterance",
        "--floor",
        50,
        "--channels",
        24,
        "--adapt-to",
        "both",
    )
    kdkit("swap", slow, "--out", tmp_path / "swapped", "--adapt", 1, *levers, *short)
    tensors, meta = load_checkpoint(tmp_path / "swapped" / "recogniser.safetensors")
    assert meta["model"]["front_end"] == "fbank" and meta["model"]["bins"] == 40
    assert torch.equal(tensors["head.weight"], load_checkpoint(slow)[0]["head.weight"])
    with pytest.raises(
        ConfigError, match="targets of the adaptation is 'h1': choose 'h0' or 'front-end' or 'both'"
    ):
        kdkit("swap", slow, "--out", tmp_path / "twice", "--adapt-to", "h1")
    with pytest.raises(ConfigError, match="fbank front-end already"):
        kdkit("swap", recogniser, "--out", tmp_path / "twice")

    said = kdkit("export", slow, "--to", "huggingface", "--out", tmp_path / "hf")
    assert re.search(r"largest difference from PyTorch: \d.\de-0[4-9]", said) and (tmp_path / "hf").is_dir()
    if EXPORTS:
        said = kdkit("export", recogniser, "--int8", "--minutes", 0.1)
        assert (
            tmp_path / "recogniser" / "recogniser-int8.onnx"
        ).is_file() and "int8 against float32: " in said
        assert "WER " in kdkit("evaluate", tmp_path / "recogniser" / "recogniser.onnx", "--minutes", 0.1)

    said = kdkit("evaluate", recogniser, "--minutes", 0.1, "--examples", 1)
    assert said.count("heard: ") == 1 and "WER " in said and "CER " in said
    manifest = next((tmp_path / "cache").rglob("test-clean/manifest.jsonl"))
    page = tmp_path / "errors.html"
    said = kdkit("evaluate", recogniser, "--data", manifest, "--examples", 0, "--errors", page)
    assert "WER " in said and "real-time factor" in said and "<article" in page.read_text(encoding="utf-8")


def test_evaluate_with_a_language_model_chooses_its_weights_on_dev(tmp_path, monkeypatch):
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    from kdkit.speech.corpora.synthetic.build import build_synthetic

    monkeypatch.setenv("KDKIT_CACHE", str(tmp_path / "cache"))
    build_synthetic(minutes={"dev": 0.1, "test-clean": 0.3, "train": 3})
    train, dev, test = (
        next((tmp_path / "cache").rglob(f"{split}/manifest.jsonl"))
        for split in ("train", "dev", "test-clean")
    )
    arpa = tmp_path / "lm.arpa"
    assert "unknown words" in kdkit("lm", train, "--out", arpa, "--order", 2, "--test", dev)
    given = ("tiny_sw_fbank_distilled_60", "--data", test, "--lm", arpa, "--jobs", 1, "--examples", 0)
    with pytest.raises(ConfigError, match="--dev MANIFEST"):
        kdkit("evaluate", *given)
    said = kdkit("evaluate", *given, "--dev", dev)
    assert "chosen on dev: LM weight" in said and "the best of 24 settings" in said
    assert "beam search against greedy: better" in said and "speakers: WER" in said
    assert "chosen on dev" not in kdkit("evaluate", *given, "--lm-weight", 1.5)


def test_warnings_for_users_have_no_place_in_the_code():
    assert plain_warning("left out 2", UserWarning, "a.py", 3) == "note: left out 2\n"
    assert "a.py:3: FutureWarning: soon" in plain_warning("soon", FutureWarning, "a.py", 3)


@pytest.mark.parametrize(
    ("problem", "status", "said"),
    [
        (ConfigError("no such layer: 13"), 2, "error: no such layer: 13\n"),
        (
            TrainingInterrupted("stopped after step 3 of 9, saved"),
            130,
            "3 of 9, saved: the same command goes on",
        ),
        (KeyboardInterrupt(), 130, "\nstopped\n"),
    ],
)
def test_commands_and_scripts_end_in_one_line(problem, status, said, monkeypatch, capsys):
    monkeypatch.setattr(running, "terminate_as_interrupt", lambda: None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)

    def fails():
        raise problem

    with pytest.raises(SystemExit) as end:
        running.run(fails)
    shown = capsys.readouterr().err
    assert end.value.code == status and said in shown and "Traceback" not in shown


@dataclass
class Group:
    steps: Annotated[int, typer.Option(min=1)] = 7
    rates: Annotated[list[float] | None, typer.Option("--rate")] = None


def test_a_group_of_options_reaches_its_command_as_one_object():
    seen, commands = [], Commands()

    @commands.command()
    def one(name: Annotated[str, typer.Argument()], *, group: Group, loud: bool = False):
        """Says something."""
        seen.append((name, group, loud))

    for given in (["a"], ["b", "--steps", "3", "--rate", "0.5", "--rate", "2", "--loud"]):
        assert CliRunner().invoke(commands, given).exit_code == 0
    assert seen == [("a", Group(), False), ("b", Group(3, [0.5, 2.0]), True)]
    assert CliRunner().invoke(commands, ["c", "--steps", "0"]).exit_code == 2
    assert CliRunner().invoke(commands, ["c", "--rate", "nan"]).exit_code == 2
