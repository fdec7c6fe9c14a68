"""WER over minutes of labels: what each start saves, whether it saves more when labels are few, and the runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdkit.common.errors import ConfigError
from kdkit.lessons.low_resource import (
    FineTuned,
    budgets_in,
    gain,
    interaction,
    kept_findings,
    load_findings,
    mean_wer,
    overview,
    run_low_resource,
    save_findings,
)
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.recognition.finetune import FineTuneConfig
from kdkit.recognition.wer import compare, score
from kdkit.speech.audio import write_audio
from kdkit.speech.manifest import Utterance
from kdkit.training.recipe import TrainConfig


def losing(way, minutes, *words, seed=0):
    """A system that loses so many of ten words, in turns, in 60 utterances."""
    errors = tuple(words[i % len(words)] for i in range(60))
    return FineTuned(way, minutes, seed, 10, 1000, 1.0, errors, (10,) * 60)


def test_help_that_shrinks_with_labels_is_seen():
    found = [losing("a", 1, 3, 4), losing("b", 1, 6), losing("a", 9, 1, 2), losing("b", 9, 2)]
    assert gain(found, "a", "b", 1).value == pytest.approx(0.25)
    assert gain(found, "a", "b", 9).value == pytest.approx(0.05)
    more = interaction(found, "a", "b", 1, 9)
    assert more.value == pytest.approx(0.2) and more.verdict == "better"
    assert more.interval == pytest.approx((0.2, 0.2))  # the same in every utterance
    assert interaction(found, "a", "b", 9, 1).verdict == "not better"
    assert interaction(found, "a", "b", 1, 1).value == 0
    assert "+20.0 points (+20.0 to +20.0; one seed)" in str(more)


def test_a_verdict_asks_every_seed():
    one = [losing("a", 1, 3), losing("b", 1, 6)]
    agreeing = [losing("a", 1, 4, seed=1), losing("b", 1, 6, seed=1)]
    torn = [losing("a", 1, 7, seed=1), losing("b", 1, 6, seed=1)]
    assert gain(one + agreeing, "a", "b", 1).verdict == "better"
    found = gain(one + torn, "a", "b", 1)
    assert found.interval[0] > 0 and found.verdict == "inconclusive"
    assert found.seeds == {0: pytest.approx(0.3), 1: pytest.approx(-0.1)}
    only_one = gain([*one, *agreeing, losing("a", 1, 0, seed=2)], "a", "b", 1)
    assert set(only_one.seeds) == {0, 1}  # a seed that one of them lacks is left out


def test_the_overview_has_the_mean_and_every_seed():
    found = [losing("a", 1, 3), losing("a", 1, 4, seed=1), losing("b", 0.5, 6)]
    assert [" ".join(line.split()) for line in overview(found).splitlines()] == [
        "a 1 min WER 35.0 % (35.0 to 35.0; each seed 30.0, 40.0)",
        "b 0.5 min WER 60.0 % (60.0 to 60.0; each seed 60.0)",
    ]


def test_one_seed_is_what_the_paired_comparison_says():
    rng = np.random.default_rng(0)
    references = [" ".join("abcdefgh")] * 40
    texts = [[" ".join("abcdefgh"[k:]) for k in rng.integers(0, 7, 40)] for _ in range(2)]
    scores = [score(references, own) for own in texts]
    found = [
        FineTuned(name, 1, 0, 1, 1, 1.0, tuple(s.word_errors), tuple(s.word_counts))
        for name, s in zip("ab", scores)
    ]
    ours, theirs = gain(found, "a", "b", 1), compare(*scores)
    assert ours.value == pytest.approx(-theirs.difference)
    assert mean_wer(found, "a", 1) == pytest.approx((scores[0].wer, *scores[0].wer_interval))


def test_what_is_missing_is_named():
    found = [losing("a", 1, 3), losing("b", 1, 6, seed=1), losing("b", 9, 1)]
    with pytest.raises(ConfigError, match="no seed in common"):
        gain(found, "a", "b", 1)
    with pytest.raises(ConfigError, match="nothing of 'a' on 9 labelled minutes; there is a on 1 min"):
        gain(found, "a", "b", 9)
    other = replace(found[0], way="c", words=(*found[0].words[:-1], 99))
    with pytest.raises(ConfigError, match="scored on different utterances"):
        gain([*found, other], "c", "a", 1)
    assert budgets_in(found) == [1, 9] == budgets_in(found, "b") and budgets_in(found, "a", "b") == [1]


def test_findings_survive_a_file(tmp_path):
    found = [losing("a", 1, 3, 4), losing("b", 1, 6)]
    save_findings(tmp_path / "found.json", found)
    again = load_findings(tmp_path / "found.json")
    assert [(f.way, list(f.errors), list(f.words)) for f in again] == [
        (f.way, list(f.errors), list(f.words)) for f in found
    ]
    with pytest.raises(ConfigError, match="2 test sets"):
        save_findings(
            tmp_path / "found.json", [*found, FineTuned("c", 1, 0, 1, 1, 1.0, (1,) * 60, (9,) * 60)]
        )


def test_runs_are_kept_and_taken_up(tmp_path):
    rng, speech = np.random.default_rng(0), []
    for i in range(4):
        write_audio(tmp_path / f"{i}.wav", rng.normal(0, 0.1, 8000).astype(np.float32))
        speech.append(Utterance(f"u{i}", tmp_path / f"{i}.wav", 0.5, "ab", "s"))
    tiny = ModelConfig(front_end="fbank", layers=1, dim=16, ffn=16, heads=2, pos_kernel=4, pos_groups=2)
    asked = []

    def fresh(labelled, seed):
        asked.append((len(labelled), seed))
        torch.manual_seed(seed)
        return SpeechModel(tiny).requires_grad_(False)  # whatever comes is trained

    recipe = TrainConfig(steps=3, lr=1e-3, precision="fp32", save_every=1)
    config = FineTuneConfig(batch_seconds=2, augmenting=None)
    budgets = {0.01: speech[:2], 0.03: speech}
    arguments = (budgets, speech[:2], recipe, (0, 1), tmp_path / "runs", config)
    found = run_low_resource({"a": fresh}, *arguments)
    assert asked == [(2, 0), (4, 0), (2, 1), (4, 1)]
    assert [(f.minutes, f.seed, f.steps, len(f.errors)) for f in found] == [
        (0.01, 0, 3, 2), (0.03, 0, 3, 2), (0.01, 1, 3, 2), (0.03, 1, 3, 2)
    ]  # fmt: skip
    assert not list(tmp_path.rglob("*.safetensors"))  # only findings stay
    again = run_low_resource({"a": fresh}, *arguments)
    assert len(asked) == 4 and [f.wer for f in again] == [f.wer for f in found]
    kept = kept_findings(tmp_path / "runs")
    assert [(f.way, f.minutes, f.seed) for f in kept] == [("a", m, seed) for m in budgets for seed in (0, 1)]
    (tmp_path / "runs" / "a" / "0.01min-seed0" / "finding.json").unlink()  # as if it had been stopped before
    run_low_resource({"a": fresh}, *arguments)
    assert asked[4:] == [(2, 0)]
    (tmp_path / "runs" / "a" / "0.01min-seed0" / "finding.json").write_text('{"asked": [')  # damaged
    run_low_resource({"a": fresh}, *arguments)
    assert asked[5:] == [(2, 0)]
    other = [replace(u, text="ba") for u in speech]
    run_low_resource({"a": fresh}, {0.01: speech[:2], 0.03: other}, *arguments[1:])
    assert asked[6:] == [(4, 0), (4, 1)]  # only what other speech was asked for
    run_low_resource({"a": fresh}, {0.01: speech[:2]}, speech[1:3], *arguments[2:])
    assert asked[8:] == [(2, 0), (2, 1)]  # another test set
    elsewhere = (*arguments[:4], tmp_path / "shared", config)
    shared = run_low_resource({"a": fresh}, *elsewhere, jobs=2)  # in two processes
    assert [(f.minutes, f.seed, f.errors) for f in shared] == [(f.minutes, f.seed, f.errors) for f in found]
