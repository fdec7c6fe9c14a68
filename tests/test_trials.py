"""Experiments run every trial with every seed, once, keep each as it ends, and go on where they were stopped."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.distill import Adaptation, DistillConfig
from kdkit.lessons import trials
from kdkit.lessons.experiments import kept_findings, run_experiment
from kdkit.lessons.trials import Distillations, FineTunings, Trial
from kdkit.losses import Loss, regression_loss
from kdkit.model.codebook import Codebook
from kdkit.model.speech_model import ModelConfig, SpeechModel, preset
from kdkit.probing import phone_probe
from kdkit.recognition.finetune import FineTuneConfig, fine_tune
from kdkit.speech.audio import write_audio
from kdkit.speech.batches import Batches
from kdkit.speech.manifest import Utterance
from kdkit.teachers import Teacher
from kdkit.teachers.targets import TargetCache
from kdkit.training.recipe import TrainConfig

CONFIG = ModelConfig(
    layers=2, dim=16, ffn=32, heads=2, conv_channels=(4,) * 7, pos_kernel=8, pos_groups=4, dropout=0.0
)
PAIRS = ((1, 1), (2, 2))
TRIALS = [
    Trial("regression", CONFIG, DistillConfig(PAIRS)),
    Trial("both", CONFIG, DistillConfig(PAIRS, discriminative_weight=0.5)),
]


@pytest.fixture
def speech(tmp_path):
    rng, phones = np.random.default_rng(0), ("a", "b")
    speech = []
    for i in range(8):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(16_000), 16_000)
        marks = tuple((0.25 * k, phones[(i + k) % 2]) for k in range(4))
        speech.append(Utterance(f"u{i}", path, 1.0, speaker=f"s{i % 2}", phones=marks))
    return speech


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    book = Codebook(16, 6, 8).requires_grad_(False).eval()
    return Teacher(SpeechModel(CONFIG).requires_grad_(False).eval(), book, "test", {})


def test_several_processes_find_the_same(tmp_path, speech, teacher):
    cache = TargetCache(teacher, (1, 2), speech, tmp_path).build(progress=False)
    cache.read(speech[:2], [49, 49], 49)  # an open file does not travel to another process

    def study(jobs):
        experiment = Distillations(
            TRIALS,
            teacher,
            lambda student: phone_probe(student, speech[:4], speech[4:], frames=60, test_frames=40),
            lambda seed: Batches(speech, 3.0, seed, targets=cache),
            TrainConfig(steps=3, precision="fp32", log_every=1),
        )
        return run_experiment(experiment, (0, 1), tmp_path / f"{jobs} jobs", jobs=jobs)

    alone, shared = study(1), study(2)
    assert [(f.name, f.seed, f.counts) for f in shared] == [(f.name, f.seed, f.counts) for f in alone]
    for one, other in zip(alone, shared, strict=True):
        assert other.losses == pytest.approx(one.losses, rel=1e-4)  # with another number of threads
    assert study(2) == shared  # kept


def test_a_study_runs_every_trial_once_and_goes_on(tmp_path, speech, teacher):
    judged, prepared = [], []
    note = judged.append  # what a function writes into does not tell it from another one

    def judge(student):
        note(student)
        return phone_probe(student, speech[:4], speech[4:], frames=60, test_frames=40)

    def study(**changes):
        recipe = TrainConfig(steps=changes.pop("steps", 3), precision="fp32", log_every=1)
        trials, seeds = changes.pop("trials", TRIALS), changes.pop("seeds", (0, 1))
        in_order = lambda seed: Batches(speech, 3.0, seed)  # noqa: E731
        experiment = Distillations(trials, teacher, judge, in_order, recipe, prepared.append)
        return run_experiment(experiment, seeds, tmp_path / "study", **changes)

    first = study(seeds=(0,))
    assert len(judged) == len(prepared) == 2
    both = study()
    assert len(judged) == 4 and [f.name for f in both] == ["regression", "both"] * 2
    assert [f.seed for f in both] == [0, 0, 1, 1]
    assert both[0] == first[0] and both[0].steps == 3
    assert set(both[1].losses) == {"loss", "regression", "discriminative", "spread", "codes"}
    assert sum(both[0].totals) <= 40
    assert both[0].counts != both[2].counts  # other seeds, other students
    study(seeds=(0,), steps=4, resume=False)
    assert len(judged) == 6  # another recipe is another study
    with pytest.raises(ConfigError, match="names of their own"):
        study(trials=[TRIALS[0], TRIALS[0]])


def test_a_trial_may_have_losses_of_ones_own(tmp_path, speech, teacher):
    head, judged = torch.nn.Linear(16, 16), []
    before, note = head.weight.clone(), judged.append

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = head

        def forward(self, output, states, mask):
            return regression_loss(self.head(output.last), states[1], mask)

    def study(weight):
        trials = [
            Trial("own", CONFIG, DistillConfig(PAIRS), extra=(Loss("own", weight, Own(), layers=(1,)),))
        ]

        def judge(student):
            note(weight)
            return phone_probe(student, speech[:4], speech[4:], frames=60, test_frames=40)

        recipe = TrainConfig(steps=2, precision="fp32", log_every=1)
        experiment = Distillations(trials, teacher, judge, lambda seed: Batches(speech, 3.0, seed), recipe)
        return run_experiment(experiment, (0, 1), tmp_path)

    assert [set(f.losses) for f in study(0.5)] == [{"loss", "regression", "spread", "own"}] * 2
    assert torch.equal(head.weight, before)  # every training has a copy
    study(0.5)
    assert judged == [0.5, 0.5]
    with pytest.raises(
        CheckpointError, match=r"own\.weight: 0\.5 then, 0\.25 now"
    ):  # another weight is another study
        study(0.25)


def test_adaptation_takes_of_the_steps_or_comes_on_top():
    losses = DistillConfig(((1, 1),), adaptation=Adaptation(3))
    common = TrainConfig(steps=10)
    inside = Trial("inside", preset("tiny-sw-fbank"), losses).recipe(common, 5)
    on_top = Trial("on top", preset("tiny-sw-fbank"), losses, on_top=True).recipe(common, 5)
    without = Trial("without", preset("tiny-sw-fbank"), DistillConfig(((1, 1),))).recipe(common, 5)
    assert [(r.steps, r.stages, r.seed) for r in (inside, on_top, without)] == [
        (10, (3,), 5),
        (13, (3,), 5),
        (10, (), 5),
    ]


def test_fine_tunings_are_kept_and_taken_up(tmp_path, monkeypatch):
    rng, speech = np.random.default_rng(0), []
    for i in range(4):
        write_audio(tmp_path / f"{i}.wav", rng.normal(0, 0.1, 8000).astype(np.float32))
        speech.append(Utterance(f"u{i}", tmp_path / f"{i}.wav", 0.5, "ab", "s"))
    tiny = ModelConfig(front_end="fbank", layers=1, dim=16, ffn=16, heads=2, pos_kernel=4, pos_groups=2)
    asked, weights = [], {0: 0, 1: 1}

    def fresh(labelled, seed):
        torch.manual_seed(weights[seed])
        return SpeechModel(tiny).requires_grad_(False)  # whatever comes is trained

    def counted(model, labelled, recipe, *rest):
        asked.append((len(labelled), recipe.seed))
        return fine_tune(model, labelled, recipe, *rest)

    monkeypatch.setattr(trials, "fine_tune", counted)

    recipe = TrainConfig(steps=3, lr=1e-3, precision="fp32", save_every=1)
    config = FineTuneConfig(batch_seconds=2, augmenting=None)
    budgets = {0.01: speech[:2], 0.03: speech}

    def fine_tuned(budgets=budgets, test=speech[:2], out="runs", jobs=1, measure="WER"):
        experiment = FineTunings({"a": fresh}, budgets, test, recipe, config, measure=measure)
        return run_experiment(experiment, (0, 1), tmp_path / out, jobs=jobs)

    found = fine_tuned()
    assert asked == [(2, 0), (4, 0), (2, 1), (4, 1)]
    assert [(f.minutes, f.seed, f.steps, len(f.counts)) for f in found] == [
        (0.01, 0, 3, 2), (0.03, 0, 3, 2), (0.01, 1, 3, 2), (0.03, 1, 3, 2)
    ]  # fmt: skip
    assert not list(tmp_path.rglob("*.safetensors"))  # only findings stay
    again = fine_tuned()
    assert len(asked) == 4 and [f.counts for f in again] == [f.counts for f in found]
    kept = kept_findings(tmp_path / "runs")
    assert [(f.name, f.minutes, f.seed) for f in kept] == [("a", m, seed) for m in budgets for seed in (0, 1)]
    (tmp_path / "runs" / "a" / "0.01min-seed0" / "finding.json").unlink()  # as if it had been stopped before
    fine_tuned()
    assert asked[4:] == [(2, 0)]
    (tmp_path / "runs" / "a" / "0.01min-seed0" / "finding.json").write_text('{"asked": [')  # damaged
    fine_tuned()
    assert asked[5:] == [(2, 0)]
    other = [replace(u, text="ba") for u in speech]
    fine_tuned({0.01: speech[:2], 0.03: other})
    assert asked[6:] == [(4, 0), (4, 1)]  # only what other speech was asked for
    fine_tuned({0.01: speech[:2]}, speech[1:3])
    assert asked[8:] == [(2, 0), (2, 1)]  # another test set
    letters = fine_tuned({0.01: speech[:2]}, measure="CER")
    assert [(f.measure, f.totals) for f in letters] == [("CER", (2, 2))] * 2, "two letters in an utterance"
    assert asked[10:] == [(2, 0), (2, 1)]
    weights[1] = 5
    fine_tuned({0.01: speech[:2]}, measure="CER")
    assert asked[12:] == [(2, 1)]  # it starts from other weights
    weights[1] = 1
    with pytest.raises(ConfigError, match="by WER or CER, not by 'phones'"):
        fine_tuned(measure="phones")
    shared = fine_tuned(out="shared", jobs=2)  # in two processes
    assert [(f.minutes, f.seed, f.counts) for f in shared] == [(f.minutes, f.seed, f.counts) for f in found]
