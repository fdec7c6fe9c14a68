"""Studies: every trial with every seed, kept as it ends; verdicts that ask utterances and seeds."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.distill import Adaptation, DistillConfig
from kdkit.lessons.studies import Finding, Trial, contrast, run_study, summary
from kdkit.losses import Loss, regression_loss
from kdkit.model.codebook import Codebook
from kdkit.model.speech_model import ModelConfig, SpeechModel, preset
from kdkit.probing import phone_probe
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


def findings(name, *hits_of_each_seed, total=100):
    return [
        Finding(name, seed, 10, 1.0, {}, tuple(hits), (total,) * len(hits))
        for seed, hits in enumerate(hits_of_each_seed)
    ]


def test_better_needs_the_interval_and_every_seed():
    rng = np.random.default_rng(0)
    base = rng.integers(40, 60, 50)
    plus, minus = base + 8, base - 3
    theirs = findings("base", base, base)
    assert contrast([*theirs, *findings("a", plus, plus + 1)], "a", "base").verdict == "better"
    assert contrast([*theirs, *findings("a", minus, minus - 1)], "a", "base").verdict == "worse"
    # better on the mean, but the seeds disagree
    torn = contrast([*theirs, *findings("a", plus, minus)], "a", "base")
    assert torn.interval[0] > 0 and torn.verdict == "inconclusive"
    # the seeds agree, but so little that other utterances could undo it
    noise = np.tile([-15, 15], 25)
    slight = contrast([*theirs, *findings("a", base + noise + 1, base + noise + 1)], "a", "base")
    assert slight.verdict == "inconclusive"
    assert contrast([*theirs, *findings("a", plus, plus)], "a", "base").difference == pytest.approx(0.08)


def test_only_seeds_that_both_have_are_compared():
    one, two = findings("a", [60], [10])[:1], findings("base", [50], [50])
    assert contrast([*one, *two], "a", "base").seeds == {0: pytest.approx(0.1)}
    with pytest.raises(ConfigError, match="no seed in common"):
        contrast([*findings("a", [1])[:1], *findings("base", [1], [1])[1:]], "a", "base")
    with pytest.raises(ConfigError, match="no findings of 'x'"):
        contrast(two, "x", "base")


def test_summary_is_the_mean_over_seeds():
    found = summary(findings("a", [60, 40, 50], [70, 50, 60]), "a")
    assert found.accuracy == pytest.approx(0.55) and found.seeds == {0: 0.5, 1: 0.6}
    assert found.interval[0] < 0.55 < found.interval[1]


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
        return run_study(
            TRIALS,
            teacher,
            lambda student: phone_probe(student, speech[:4], speech[4:], frames=60, test_frames=40),
            lambda seed: Batches(speech, 3.0, seed, targets=cache),
            TrainConfig(steps=3, precision="fp32", log_every=1),
            (0, 1),
            tmp_path / f"{jobs} jobs",
            jobs=jobs,
        )

    alone, shared = study(1), study(2)
    assert [(f.name, f.seed, f.hits) for f in shared] == [(f.name, f.seed, f.hits) for f in alone]
    for one, other in zip(alone, shared, strict=True):
        assert other.parts == pytest.approx(one.parts, rel=1e-4)  # with another number of threads
    assert study(2) == [replace(f, hits=list(f.hits), totals=list(f.totals)) for f in shared]  # kept


def test_a_study_runs_every_trial_once_and_goes_on(tmp_path, speech, teacher):
    judged, prepared = [], []

    def judge(student):
        judged.append(student)
        return phone_probe(student, speech[:4], speech[4:], frames=60, test_frames=40)

    def study(**changes):
        recipe = TrainConfig(steps=changes.pop("steps", 3), precision="fp32", log_every=1)
        return run_study(
            changes.pop("trials", TRIALS),
            teacher,
            judge,
            lambda seed: Batches(speech, 3.0, seed),
            recipe,
            changes.pop("seeds", (0, 1)),
            tmp_path / "study",
            prepared.append,
            **changes,
        )

    first = study(seeds=(0,))
    assert len(judged) == len(prepared) == 2
    both = study()
    assert len(judged) == 4 and [f.name for f in both] == ["regression", "both"] * 2
    assert [f.seed for f in both] == [0, 0, 1, 1]
    assert json.loads(json.dumps(both[0].parts)) == first[0].parts
    assert list(both[0].hits) == list(first[0].hits)
    assert set(both[1].parts) == {"loss", "regression", "discriminative", "spread", "codes"}
    assert sum(both[0].totals) <= 40
    assert both[0].accuracy != both[2].accuracy or both[0].hits != both[2].hits  # other seeds, other students
    study(seeds=(0,), steps=4, resume=False)
    assert len(judged) == 6  # another recipe is another study
    with pytest.raises(ConfigError, match="names of their own"):
        study(trials=[TRIALS[0], TRIALS[0]])


def test_a_trial_may_have_losses_of_ones_own(tmp_path, speech, teacher):
    head, judged = torch.nn.Linear(16, 16), []
    before = head.weight.clone()

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
            judged.append(weight)
            return phone_probe(student, speech[:4], speech[4:], frames=60, test_frames=40)

        recipe = TrainConfig(steps=2, precision="fp32", log_every=1)
        return run_study(
            trials, teacher, judge, lambda seed: Batches(speech, 3.0, seed), recipe, (0, 1), tmp_path
        )

    assert [set(f.parts) for f in study(0.5)] == [{"loss", "regression", "spread", "own"}] * 2
    assert torch.equal(head.weight, before)  # every training has a copy
    study(0.5)
    assert judged == [0.5, 0.5]
    with pytest.raises(
        CheckpointError, match=r"own: 0\.5 then, 0\.25 now"
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
