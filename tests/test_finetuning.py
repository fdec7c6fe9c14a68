"""Fine-tuning: freezing, what dev decides, exact resume through all of it, label budgets, and warnings in words."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from kdkit.commands.main import app
from kdkit.common.errors import CheckpointError, ConfigError, TextError, TrainingError
from kdkit.lessons.experiments import run_experiment
from kdkit.lessons.trials import FineTunings
from kdkit.lessons.widgets import CTCViewer
from kdkit.model.checkpoints import load_checkpoint
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.recognition.ctc import CTCModel, CTCTask, explain_blanks, load_recogniser, save_recogniser
from kdkit.recognition.evaluate import evaluate
from kdkit.recognition.export.onnx import EXPORTS
from kdkit.recognition.finetune import (
    FineTuneConfig,
    augmented_fbank,
    budget_table,
    budgets_of,
    dev_scores,
    fine_tune,
    fine_tune_budgets,
    from_scratch,
)
from kdkit.recognition.finetune import test_scores as scores_of_tests
from kdkit.speech.audio import write_audio
from kdkit.speech.augment import AUGMENTED, AugmentConfig
from kdkit.speech.batches import Batches, collate
from kdkit.speech.manifest import Utterance, read_manifest, write_manifest
from kdkit.speech.text import alphabet
from kdkit.training.recipe import TrainConfig
from kdkit.training.selection import Selection

TINY = ModelConfig(
    front_end="fbank", layers=1, dim=32, ffn=64, heads=2, pos_kernel=16, pos_groups=4, dropout=0.1
)  # fmt: skip
RECIPE = TrainConfig(
    steps=24, lr=3e-3, warmup=0.1, schedule="tri-stage", precision="fp32", log_every=3, save_every=4,
    evaluate_every=3,
)  # fmt: skip
CONFIG = FineTuneConfig(batch_seconds=4, augmenting=None, freeze=0.25, average=3)
HERTZ = {"a": 250, "b": 600, "c": 1400, "d": 3000}


def speech(folder: Path, count: int, seed: int) -> list[Utterance]:
    """Words of two letters, each a tone in noise."""
    rng, made = np.random.default_rng(seed), []
    seconds = np.arange(3200) / 16_000
    for i in range(count):
        word = "".join(rng.choice(list(HERTZ), 2, replace=False))
        wave = 0.3 * np.concatenate([np.sin(2 * np.pi * HERTZ[letter] * seconds) for letter in word])
        wave = (wave + 0.003 * rng.standard_normal(len(wave))).astype(np.float32)
        write_audio(folder / f"{seed}-{i}.wav", wave)
        made.append(Utterance(f"{seed}-{i}", folder / f"{seed}-{i}.wav", 0.4, word, speaker=f"s{seed}"))
    return made


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tones")
    return {"train": speech(folder, 40, 1), "dev": speech(folder, 12, 2), "test": speech(folder, 12, 3)}


def model() -> SpeechModel:
    torch.manual_seed(5)
    network = SpeechModel(TINY)
    network.front_end.set_statistics(torch.full((80,), 6.0), torch.full((80,), 5.0))
    return network


def weights(module: nn.Module) -> dict:
    return {name: tensor.cpu().clone() for name, tensor in module.state_dict().items()}


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# freezing


def test_while_frozen_only_the_head_moves():
    task = CTCTask(CTCModel(model()), augmenting=None, freeze=0.5).train()
    batch = collate([torch.randn(8000) * 0.1], [Utterance("a", Path("a"), 0.5, "abc")])
    for step, learns in ((0, False), (4, False), (5, True), (9, True)):
        task.zero_grad(set_to_none=True)
        task.schedule(step, 10)
        task(batch)[0].backward()
        assert task.recogniser.head.weight.grad is not None
        below = [p.grad is not None for p in task.recogniser.model.parameters()]
        assert any(below) == learns
    with pytest.raises(ConfigError, match="freeze"):
        CTCTask(CTCModel(model()), freeze=1.0)


def test_a_run_starts_frozen_and_ends_free(tones, tmp_path):
    before = weights(model())
    stopped = replace(RECIPE, steps=24, save_every=6, keep=9)
    recogniser, _ = fine_tune(model(), tones["train"], stopped, tmp_path, config=replace(CONFIG, average=1))
    prefix = "task.recogniser.model."

    def saved(step):
        tensors, _ = load_checkpoint(tmp_path / "checkpoints" / f"step-{step:08d}.safetensors")
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    assert same(saved(6), before) and not same(saved(12), before)
    assert same(weights(recogniser.model), saved(24))


# what dev decides


def selection(folder, **settings) -> Selection:
    return Selection(folder, measure="wer", **settings)


def rows_of(*values: float) -> list[dict]:
    return [{"step": 10 * i, "wer": value} for i, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ((1.0, 1.0, 1.0, 1.0, 1.0), False),  # says nothing yet: that is no reason to end
        ((1.0, 0.9, 0.8, 0.7), False),
        ((1.0, 0.9, 0.95, 0.9), True),  # as good is not better
        ((1.0, 0.9, 0.95, 0.89), False),
        ((3.0, 1.0, 1.0, 1.0, 1.0), False),  # from babble to silence
        ((0.5, 0.6, 0.7), True),
        ((1.0, 0.9, 0.95), False),
    ],
)
def test_early_stopping(tmp_path, values, ends):
    assert bool(selection(tmp_path, patience=2).enough(rows_of(*values))) == ends
    assert not selection(tmp_path, patience=0).enough(rows_of(*values))
    assert not selection(tmp_path, patience=2, not_before=30).enough(rows_of(*values))


def test_impossible_selections():
    for settings in ({"patience": -1}, {"last": 0}):
        with pytest.raises(ConfigError, match="patience"):
            Selection(Path("x"), **settings)


class Scalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(
    ("values", "mean_is_worth", "chosen", "weight"),
    [
        ((0.5, 0.2, 0.4, 0.3), 0.9, "step 20", 2.0),
        ((0.5, 0.2, 0.4, 0.3), 0.1, "mean of steps 30, 40", 3.5),
        ((0.5, 0.2, 0.2, 0.3), 0.2, "step 30", 3.0),
    ],
)
def test_best_or_mean_as_dev_says(tmp_path, values, mean_is_worth, chosen, weight):
    task, chooser = Scalar(), selection(tmp_path, last=2)
    for i in range(1, len(values) + 1):
        task.weight.data.fill_(float(i))
        chooser.keep(10 * i, task, rows_of(*values[:i]))
    kept = {"step-00000030", "step-00000040"} | ({"step-00000020"} if chosen != "step 30" else set())
    assert {path.stem for path in tmp_path.iterdir()} == kept
    asked = []

    def evaluate(task):
        asked.append(task.weight.item())
        return {"wer": mean_is_worth}

    choice = chooser.choose(task, rows_of(*values), evaluate)
    assert asked == [3.5]  # the mean of the last two
    assert choice["chosen"] == chosen and task.weight.item() == weight
    assert choice["best"] == 0.2 and choice["wer"] == min(0.2, mean_is_worth)
    chooser.clear()
    with pytest.raises(TrainingError, match="no weights"):
        chooser.choose(task, rows_of(*values), evaluate)


def test_the_best_weights_come_back_and_the_run_ends_early(tones, tmp_path):
    recipe = replace(RECIPE, steps=300, evaluate_every=5, lr=1e-2)
    config = FineTuneConfig(batch_seconds=4, mask=None, augmenting=None, patience=4)
    start = from_scratch(model(), tones["train"])
    recogniser, facts = fine_tune(start, tones["train"], recipe, tmp_path, tones["dev"], config)
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    history = [(row["step"], row["dev_wer"]) for row in log if "dev_wer" in row]
    best = min(history, key=lambda item: (item[1], -item[0]))
    assert facts["dev_wer"] == best[1] and facts["chosen"] == f"step {best[0]}"
    assert best[1] < 0.5 and facts["steps"] == history[-1][0] < 300
    first = next(i for i, (_, value) in enumerate(history) if value == best[1])
    assert len(history) - 1 - first == 4
    found = evaluate(recogniser, tones["dev"]).score
    wrong = sum(text != said for text, said in zip(found.hypotheses, found.references, strict=True))
    assert wrong / len(tones["dev"]) == pytest.approx(best[1])
    with pytest.raises(CheckpointError, match="other weights of recogniser"):
        fine_tune(model(), tones["train"], recipe, tmp_path, tones["dev"], config)  # another start
    start = from_scratch(model(), tones["train"])
    again, same_facts = fine_tune(start, tones["train"], recipe, tmp_path, tones["dev"], config)
    assert same(weights(again), weights(recogniser)) and same_facts["steps"] == facts["steps"]


def test_without_dev_nothing_can_be_decided(tones, tmp_path):
    for settings in ({"patience": 1}, {"average": 2}):
        with pytest.raises(ConfigError, match="dev"):
            fine_tune(model(), tones["train"], RECIPE, tmp_path, config=FineTuneConfig(**settings))
    assert list(tmp_path.iterdir()) == []


# exact resume

PROGRAM = """
import sys, time
from pathlib import Path

import torch

sys.path.insert(0, {tests!r})
import test_finetuning as t
from kdkit.speech.manifest import read_manifest

torch.set_num_threads({threads})
batch = t.Batches.batch
t.Batches.batch = lambda self, step: time.sleep(0.1) or batch(self, step)
folder, out = map(Path, sys.argv[1:])
speech = [read_manifest(folder / f"{{name}}.jsonl") for name in ("train", "dev")]
t.fine_tune(t.model(), speech[0], t.RECIPE, out, speech[1], t.CONFIG)
"""


def test_killed_while_frozen_and_later_it_ends_with_the_same_choice(tones, tmp_path, monkeypatch):
    """Killed in a process of its own while frozen, then stopped dead (nothing is saved) between two evaluations."""
    for name in ("train", "dev"):
        write_manifest(tmp_path / f"{name}.jsonl", tones[name])
    speech = [read_manifest(tmp_path / f"{name}.jsonl") for name in ("train", "dev")]

    def run(name):
        recogniser, facts = fine_tune(model(), speech[0], RECIPE, tmp_path / name, speech[1], CONFIG)
        return weights(recogniser), {n: facts[n] for n in ("chosen", "weights", "dev_wer", "average")}

    whole = run("whole")
    out = tmp_path / "killed"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=str(Path(__file__).parent), threads=torch.get_num_threads()))
    command = [sys.executable, str(program), str(tmp_path), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(out.glob("checkpoints/step-00000004*")):  # frozen until step 6
        assert process.poll() is None
        time.sleep(0.003)
    process.kill()
    assert process.wait() == -signal.SIGKILL

    class Dead(Exception):
        pass

    batch = Batches.batch
    for stop in (
        10,
        19,
    ):  # evaluations and candidates of steps 9 and 18 are there, checkpoints only of 8 and 16

        def dying(self, step, stop=stop):
            if step == stop:
                raise Dead
            return batch(self, step)

        monkeypatch.setattr(Batches, "batch", dying)
        with pytest.raises(Dead):
            run("killed")
        monkeypatch.setattr(Batches, "batch", batch)
    killed = run("killed")
    assert killed[1] == whole[1] and same(killed[0], whole[0])
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    for row in logs[0] + logs[1]:
        row.pop("times_real_time", None)
    assert logs[0] == logs[1] and sum("dev_wer" in row for row in logs[0]) == 8
    kept = [
        sorted(p.name for p in (tmp_path / name / "candidates").iterdir()) for name in ("whole", "killed")
    ]
    assert kept[0] == kept[1]


# label budgets


def test_budgets_make_a_table_and_a_file(tones, tmp_path):
    budgets = budgets_of(tones["train"], [0.2, 0.1, 0.2])
    assert list(budgets) == [0.1, 0.2] and budgets[0.2][: len(budgets[0.1])] == budgets[0.1]
    recipe = replace(RECIPE, steps=3)
    config = replace(CONFIG, average=1)
    asked = []

    def start(some):
        asked.append(len(some))
        return from_scratch(model(), some)

    rows = fine_tune_budgets(
        start, budgets, recipe, tmp_path, tones["dev"], {"test": tones["test"]}, config, {"from": "tones"}
    )
    assert asked == [len(budgets[0.1]), len(budgets[0.2])]
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    assert [(row["budget"], row["from"], row["steps"]) for row in rows] == [
        (0.1, "tones", 3),
        (0.2, "tones", 3),
    ]
    for row in rows:
        _, meta = load_recogniser(Path(row["recogniser"]))
        assert meta["budget"] == row["budget"] and meta["tests"]["test"]["words"] == 12
    head, *body = budget_table(rows).splitlines()
    assert (
        "dev WER" in head and "test WER" in head and len(body) == 2 and len({len(line) for line in body}) == 1
    )
    for wrong in ([0.0], [5.0]):
        with pytest.raises(ConfigError, match=r"labelled minutes are wanted, but there are 0\.3"):
            budgets_of(tones["train"], wrong)


def test_a_test_set_without_texts_is_refused_before_training(tones, tmp_path):
    asked = []
    mute = {"mute": [replace(tones["test"][0], text="")]}
    with pytest.raises(TextError, match="mute: not one of 1 utterances has a text"):
        fine_tune_budgets(asked.append, {1.0: tones["train"]}, RECIPE, tmp_path, tests=mute)
    assert asked == []


# what cannot be scored


@pytest.fixture
def damaged(tones, tmp_path) -> list[Utterance]:
    """The test tones, a file that cannot be read ("bad") and an utterance without a text ("mute") among them."""
    bad = replace(tones["test"][3], id="bad", audio=tmp_path / "bad.wav", text="a b a b a b")
    bad.audio.write_bytes(b"RIFF")
    return [*tones["test"][:3], bad, replace(tones["test"][0], id="mute", text=""), *tones["test"][3:]]


LEFT_OUT = "1 of 14 utterances left out, for want of a text"


@pytest.mark.filterwarnings("ignore:skipped an utterance")
def test_what_cannot_be_scored_is_left_out_of_every_score(tones, damaged, tmp_path):
    """No deletions, no insertions, no KeyError: wherever a recogniser is scored, it is as if it were not listed."""
    recogniser = CTCModel(model())
    right = evaluate(recogniser, tones["test"])
    with pytest.warns(UserWarning, match=f"mine: {LEFT_OUT}"):
        found = evaluate(recogniser, damaged, name="mine")
    assert found.score == right.score and found.utterances == tuple(tones["test"])
    ((name, reason),) = found.skipped
    assert name == "bad" and "bad.wav" in reason and not right.skipped
    with pytest.warns(UserWarning, match=LEFT_OUT):
        assert dev_scores(recogniser, damaged) == dev_scores(recogniser, tones["test"])
    with pytest.warns(UserWarning, match=f"damaged: {LEFT_OUT}"):
        kept = scores_of_tests(recogniser, {"damaged": damaged, "whole": tones["test"]})
    assert kept["damaged"] == kept["whole"] | {"skipped": ["bad"]}
    with pytest.warns(UserWarning, match=LEFT_OUT):
        viewer = CTCViewer({"tones": recogniser}, damaged)
    assert viewer.heard()[1] == right.score
    recipe, speech = replace(RECIPE, steps=2), {0.1: tones["train"][:4]}
    ways, config = {"a": lambda labelled, seed: model()}, replace(CONFIG, average=1)
    with pytest.warns(UserWarning, match=LEFT_OUT):
        rows = [
            run_experiment(
                FineTunings(ways, speech, test, recipe, config), (0,), tmp_path / f"runs{len(test)}"
            )
            for test in (damaged, tones["test"])
        ]
    assert rows[0][0].totals == rows[1][0].totals and rows[0][0].counts == rows[1][0].counts


@pytest.mark.filterwarnings("ignore:skipped an utterance")
@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_commands_leave_it_out_and_say_so(command, tones, damaged, tmp_path):
    path = tmp_path / "r.safetensors"
    save_recogniser(path, CTCModel(model()), {})
    if command == "export":
        pytest.importorskip("onnxruntime")
        if not EXPORTS:
            pytest.skip("this torch exports one length of input only")
    options = {"evaluate": ["--examples", "0"], "export": ["--int8"]}[command]

    def scores(speech: list[Utterance]) -> tuple[list[str], str]:
        write_manifest(tmp_path / "speech.jsonl", speech)
        arguments = [command, str(path), "--data", str(tmp_path / "speech.jsonl"), *options]
        said = CliRunner().invoke(app, arguments, catch_exceptions=False).output
        return re.findall(r"WER .*?CER [0-9.]+ %|\d+ substitutions.*", said), said

    with pytest.warns(UserWarning, match=rf"speech\.jsonl: {LEFT_OUT}"):
        found, said = scores(damaged)
    assert "1 utterances were left out, the first: bad: " in said and "bad.wav" in said
    assert found == scores(tones["test"])[0] and found


def test_from_scratch_has_other_weights_and_its_own_statistics(tones):
    given = model()
    fresh = from_scratch(given, tones["train"])
    assert fresh.config == given.config
    assert not torch.equal(
        *(torch.cat([p.flatten() for p in m.encoder.parameters()]) for m in (fresh, given))
    )
    assert not torch.equal(fresh.front_end.mean, given.front_end.mean)
    assert same(weights(fresh), weights(from_scratch(given, tones["train"])))


def test_spec_augment_masks_in_training_only(tones):
    given = model()
    assert augmented_fbank(given) is given
    masked = augmented_fbank(given, spec_augment=True)
    waves, lengths = torch.randn(2, 16_000) * 0.1, torch.tensor([16_000, 16_000])
    assert torch.equal(masked.eval()(waves, lengths).last, given.eval()(waves, lengths).last)
    assert not torch.equal(masked.front_end.train()(waves, lengths), given.front_end.train()(waves, lengths))
    with pytest.raises(ConfigError, match="waveform CNN"):
        augmented_fbank(
            SpeechModel(ModelConfig(dim=32, ffn=32, heads=2, layers=1, conv_channels=(4,) * 7)), warp=0.1
        )


def test_warped_voices_are_for_training_only(tones):
    given = model()
    warped = augmented_fbank(given, warp=0.2)
    assert warped.config == replace(given.config, fbank_warp=0.2)
    waves, lengths = torch.randn(2, 16_000) * 0.1, torch.tensor([16_000, 16_000])
    assert torch.equal(warped.eval()(waves, lengths).last, given.eval()(waves, lengths).last)
    assert not torch.equal(warped.front_end.train()(waves, lengths), given.front_end.train()(waves, lengths))


def test_a_frozen_front_end_stays_and_the_rest_learns(tones, tmp_path):
    given = model()
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    recipe = replace(RECIPE, steps=4, evaluate_every=0)
    config = replace(CONFIG, freeze=0.0, average=1, front_end_rate=0.0)
    recogniser, facts = fine_tune(given, tones["train"], recipe, tmp_path, (), config)
    changed = {n for n, t in recogniser.model.state_dict().items() if not torch.equal(t, before[n])}
    assert any(name.startswith("encoder.") for name in changed) and facts["front_end_rate"] == 0
    assert not any(name.startswith("front_end.") for name in changed)
    with pytest.raises(ConfigError, match="share of the learning rate"):
        fine_tune(model(), tones["train"], recipe, tmp_path / "wrong", (), replace(config, front_end_rate=-1))


def test_a_front_end_of_a_smaller_rate_moves_that_much_less(tones, tmp_path):
    """Adam's first step is as long as the learning rate, whatever the gradient."""
    recipe = replace(RECIPE, steps=1, warmup=0.0, evaluate_every=0, clip=1e9)
    moved = {}
    for rate in (1.0, 0.1):
        given = model()
        before = {name: p.detach().clone() for name, p in given.named_parameters()}
        config = replace(CONFIG, freeze=0.0, average=1, front_end_rate=rate)
        after = fine_tune(given, tones["train"], recipe, tmp_path / str(rate), (), config)[0].model
        moved[rate] = {name: (p - before[name]).abs().median() for name, p in after.named_parameters()}
    for name in ("front_end.conv.weight", "front_end.projection.weight"):
        assert moved[0.1][name].item() == pytest.approx(0.1 * moved[1.0][name].item(), rel=0.05)
    assert moved[0.1]["encoder.layers.0.ffn_in.weight"].item() == pytest.approx(
        moved[1.0]["encoder.layers.0.ffn_in.weight"].item(), rel=0.05
    )


# in words


def test_text_without_room_is_named_and_adds_nothing():
    torch.manual_seed(0)
    task = CTCTask(CTCModel(model()), mask=None, augmenting=None).eval()
    waves = [torch.randn(16_000) * 0.1, torch.randn(4_000) * 0.1]  # 49 and 12 frames
    good = Utterance("good", Path("a"), 1.0, "abc")
    long = Utterance("long", Path("b"), 9.0, "a" * 10)  # 10 letters and 9 blanks between
    both = collate(waves, [good, long])
    alone, _ = task(collate(waves[:1], [good]))
    loss, _ = task(both)
    torch.testing.assert_close(loss, alone, atol=1e-4, rtol=1e-4)
    assert task.size(both) == 3
    (said,) = task.complaints([])
    assert said.startswith("long: its text needs 19 frames, its audio has 12") and "9.00 s" in said
    nothing, _ = task(collate(waves[1:], [long]))
    nothing.backward()
    assert nothing == 0 and task.size(collate(waves[1:], [long])) == 1
    for i in range(9):
        task(collate(waves[1:], [replace(long, id=f"u{i}")]))
    assert len(task.complaints([])) == 4


def log_of(*shares: float) -> list[dict]:
    return [{"step": 10 * i, "loss": 1.0, "blanks": share} for i, share in enumerate(shares, start=1)]


def test_blanks_are_explained():
    assert explain_blanks(log_of(*[0.99] * 19)) == []  # too early to say
    (said,) = explain_blanks([{"step": 1, "dev_wer": 1.0}, *log_of(*[0.99] * 20)])
    assert "blank for the last ten logged steps" in said and "safest guess" in said
    assert explain_blanks(log_of(*[0.99] * 30, *[0.7] * 3)) == []
    (said,) = explain_blanks(log_of(0.2, *[0.99] * 20))  # a head of random weights babbles
    assert "safest guess" in said
    (said,) = explain_blanks(log_of(*[0.99] * 10, 0.6, *[0.99] * 10))
    assert "fallen back to blanks: at step 110 60 % of the frames" in said and "lower lr" in said


def test_infeasible_alignments_are_told_while_training_runs(tones, tmp_path):
    """The manifest says 4 s, the file has 0.4: found when the audio is read, named, and the run goes on."""
    wrong = replace(tones["train"][0], id="wrong", duration=4.0, text="abcd" * 10)
    with pytest.warns(UserWarning, match=r"wrong: its text needs 40 frames, its audio has 19"):
        _, facts = fine_tune(
            model(),
            [wrong, *tones["train"]],
            replace(RECIPE, steps=30),
            tmp_path,
            config=FineTuneConfig(batch_seconds=8),
        )
    assert np.isfinite(facts["loss"])


def test_the_command_compares_budgets(tones, tmp_path):

    from kdkit.teachers import save_model

    save_model(tmp_path / "model.safetensors", model(), {})
    for name, some in tones.items():
        write_manifest(tmp_path / f"{name}.jsonl", some)
    command = [
        "finetune", tmp_path / "model.safetensors", "--data", tmp_path / "train.jsonl", "--dev", tmp_path / "dev.jsonl",
        "--test", tmp_path / "test.jsonl", "--minutes", 0.1, "--minutes", 0.2, "--steps", 4, "--batch-seconds", 4,
        "--freeze", 0.3, "--spec-augment", "--patience", 3, "--average", 2, "--out", tmp_path / "out",
    ]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False)
    assert result.exit_code == 0 and "test WER" in result.output
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["budget"] for row in rows] == [0.1, 0.2] and all("dev_wer" in row for row in rows)
    assert Path(rows[1]["recogniser"]) == tmp_path / "out" / "0.2min" / "recogniser.safetensors"
    shutil.rmtree(tmp_path / "out")
    write_manifest(
        tmp_path / "test.jsonl", [replace(u, speaker="s1") for u in read_manifest(tmp_path / "test.jsonl")]
    )
    with pytest.raises(ConfigError, match="1 speaker of test test also in train: s1"):
        CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_another_language_is_an_alphabet_that_is_stored_with_the_model(tmp_path):
    from make_german import NUMBERS, THINGS, make_german

    from kdkit.teachers import save_model

    letters = "abcdefghijklmnopqrstuvwxyzäöüß"
    assert set("".join((*NUMBERS, *THINGS))) <= set(letters)
    spoken = make_german(tmp_path, {"train": 0.1, "dev": 0.04, "test": 0.04})
    assert not {u.speaker for u in spoken["test"]} & {u.speaker for u in spoken["train"]}
    save_model(tmp_path / "model.safetensors", model(), {})
    command = ["finetune", tmp_path / "model.safetensors", "--data", tmp_path / "train.jsonl", "--steps", 2]
    command += ["--test", tmp_path / "test.jsonl", "--alphabet", letters, "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False)
    assert result.exit_code == 0 and "new, 32 symbols: a-z ß ä ö ü and space" in result.output
    path = tmp_path / "out" / "recogniser.safetensors"
    recogniser, _ = load_recogniser(path)
    assert recogniser.vocabulary == alphabet(letters) and recogniser.head.out_features == 32
    found = evaluate(recogniser, spoken["test"])
    assert found.score.references == tuple(u.text for u in spoken["test"]), "umlauts are not errors"
    command = [
        "finetune",
        path,
        "--data",
        tmp_path / "train.jsonl",
        "--alphabet",
        "abc",
        "--out",
        tmp_path / "new",
    ]
    with pytest.raises(ConfigError, match="add --new-head"):
        CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], AUGMENTED),
        (["--no-augment"], None),  # not even a Fourier transform there and back
        (["--gain", "20"], replace(AUGMENTED, gain=(-20.0, 20.0))),
        (["--no-augment", "--gain", "20"], AugmentConfig(equaliser=0.0, noise=0.0, gain=(-20.0, 20.0))),
    ],
)
def test_the_command_augments_as_it_is_told(tones, tmp_path, monkeypatch, options, expected):
    asked = []

    def instead(model, budgets, recipe, out, dev, tests, config, *more):
        asked.append(config.augmenting)
        raise ConfigError("enough")

    monkeypatch.setattr("kdkit.recognition.finetune.fine_tune_budgets", instead)
    write_manifest(tmp_path / "train.jsonl", tones["train"])
    command = [
        "finetune",
        "tiny-sw-fbank",
        "--data",
        str(tmp_path / "train.jsonl"),
        "--out",
        str(tmp_path / "out"),
    ]
    CliRunner().invoke(app, [*command, *options])
    assert asked == [expected]
