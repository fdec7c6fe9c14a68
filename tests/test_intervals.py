"""Intervals over utterances of what probing measures: against brute force, and do they hold the truth?"""

import numpy as np
import pytest
import torch

from kdkit import probing
from kdkit.common.statistics import jackknife_error, unbiased_share
from kdkit.model.codebook import Codebook
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.probing.activations import Frames
from kdkit.probing.clusters import cluster_score

MIX_X, MIX_Y = np.random.default_rng(5).normal(size=(2, 4, 6))
MIX_Y = 0.5 * MIX_X + 0.5 * MIX_Y
NOISE = 0.2  # variance of what each feature has to itself


def frames_of(features, utterances, labels=None) -> Frames:
    labels = np.array(utterances if labels is None else labels).astype(str)
    return Frames(list(features), labels, np.array(utterances), labels, ["x"] * len(features))


def drawn(count: int, seed: int) -> tuple[Frames, Frames]:
    """Two features of one source; of its variance a third belongs to the utterance, not to the frame."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(count), rng.integers(5, 16, count))
    source = np.sqrt(1 / 3) * rng.normal(size=(count, 4))[owner]
    source += np.sqrt(2 / 3) * rng.normal(size=(len(owner), 4))
    x, y = (
        (source @ mix + np.sqrt(NOISE) * rng.normal(size=(len(owner), 6))).astype("f")
        for mix in (MIX_X, MIX_Y)
    )
    return frames_of([x], owner), frames_of([y], owner)


def true_cka() -> float:
    """Of infinitely many frames, from the covariances that :func:`drawn` has."""
    own = [np.linalg.norm(mix.T @ mix + NOISE * np.eye(6)) for mix in (MIX_X, MIX_Y)]
    return float(np.square(MIX_X.T @ MIX_Y).sum() / (own[0] * own[1]))


def test_unknown_speakers_are_not_one_speaker():
    ids, owners = np.tile([0, 1, 2, 0], 20), np.repeat(np.arange(20), 4)
    voices = np.where(owners < 8, "anna", np.where(owners < 16, "ben", ""))
    all_of_them = frames_of([np.zeros((80, 2))], owners, voices)
    known = frames_of([np.zeros((64, 2))], owners[:64], voices[:64])
    found, expected = cluster_score("x", ids, all_of_them), cluster_score("x", ids[:64], known)
    assert (found.speaker_nmi, found.speaker_interval) == (expected.speaker_nmi, expected.speaker_interval)
    nobody = cluster_score("x", ids, frames_of([np.zeros((80, 2))], owners, np.full(80, "")))
    assert np.isnan([nobody.speaker_nmi, *nobody.speaker_interval]).all()


# --- CKA ----------------------------------------------------------------------------------------------------


def test_the_map_without_an_utterance_is_the_map_of_the_others():
    rng = np.random.default_rng(0)
    owner = rng.permutation(np.repeat(np.arange(12), rng.integers(3, 400, 12)))  # in no order, some long
    source = rng.normal(size=(len(owner), 5)) + 0.5 * rng.normal(size=(12, 5))[owner]
    features = [
        (source @ rng.normal(size=(5, d)) + rng.normal(size=(len(owner), d)) + 3).astype("f")
        for d in (4, 7, 6)
    ]
    ours, theirs = frames_of(features[:2], owner), frames_of(features[1:], owner)
    for a, b in ((ours, ours), (ours, theirs)):
        values, without = probing.cka_jackknife(a, b)
        assert values.shape == (2, 2) and without.shape == (12, 2, 2)
        for i, x in enumerate(a.features):
            for j, y in enumerate(b.features):
                assert values[i, j] == pytest.approx(probing.linear_cka(x, y), abs=1e-6)
                brute = [probing.linear_cka(x[owner != u], y[owner != u]) for u in range(12)]
                assert without[:, i, j] == pytest.approx(brute, abs=1e-6)


def test_the_intervals_of_cka_hold_the_truth_and_bare_values_are_too_high():
    truth, bare, found = true_cka(), [], []
    for seed in range(200):
        a, b = drawn(20, seed)
        values, without = probing.cka_jackknife(a, b)
        bare.append(values[0, 0])
        found.append(unbiased_share(values, without)[0, 0])
    value, low, high = np.array(found).T
    assert 0.9 < np.mean((low < truth) & (truth < high)) < 0.99
    assert np.mean(bare) - truth > 3 * abs(np.mean(value) - truth), "most of the bias is taken off"
    assert np.mean(high - low) == pytest.approx(2 * 2.09 * np.std(value), rel=0.2)
    frames = []
    for seed in range(50):  # every frame its own utterance: looks surer than it is
        a, b = drawn(20, seed)
        single = np.arange(len(a))
        frames.append(
            probing.cka_intervals(frames_of(a.features, single), frames_of(b.features, single))[0, 0]
        )
    _, low, high = np.array(frames).T
    assert np.mean(high - low) < 0.8 * np.mean(found, axis=0) @ [0, -1, 1]


def test_the_error_of_cka_is_that_of_a_bootstrap_whose_middle_is_beside_the_value():
    a, b = drawn(60, 3)
    [[value]], without = probing.cka_jackknife(a, b)
    rng, [x], [y] = np.random.default_rng(0), a.features, b.features
    rows = [np.flatnonzero(a.utterances == u) for u in range(60)]
    again = []
    for _ in range(400):
        chosen = np.concatenate([rows[u] for u in rng.integers(0, 60, 60)])
        again.append(probing.linear_cka(x[chosen], y[chosen]))
    assert jackknife_error(without).item() == pytest.approx(np.std(again), rel=0.2)
    assert np.mean(again) > value > unbiased_share(np.array(value), without[:, 0, 0])[0]


def test_cka_of_the_same_and_of_one_utterance():
    a, _ = drawn(5, 0)
    turned = frames_of(
        [a.features[0] @ np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]], a.utterances
    )
    assert probing.cka_intervals(a, turned)[0, 0] == pytest.approx([1, 1, 1], abs=1e-6)
    one = frames_of(a.features, np.zeros(len(a), dtype=int))
    value, low, high = probing.cka_intervals(one, one)[0, 0]
    assert value == pytest.approx(1) and np.isnan([low, high]).all()


def test_the_interval_of_a_mean_of_pairs():
    a, b = drawn(20, 1)
    both = frames_of([a.features[0], b.features[0]], a.utterances)
    values, without = probing.cka_jackknife(both, both)
    value, low, high = unbiased_share(values.mean(), without.mean((1, 2)))
    single = unbiased_share(values, without)[0, 1]
    assert single[0] < value < 1 and high - low < single[2] - single[1], "half of the pairs are 1, exactly"


# --- clusters, codebook, attention --------------------------------------------------------------------------


def test_every_cluster_measure_has_the_interval_of_leaving_utterances_out():
    rng = np.random.default_rng(0)
    owner = rng.permutation(np.repeat(np.arange(15), 20))
    phones, voices = rng.integers(0, 5, 300).astype(str), (owner % 3).astype(str)
    ids = np.where(rng.random(300) < 0.5, phones.astype(int), rng.integers(0, 6, 300))
    score = cluster_score("x", ids, Frames([], phones, owner, voices))
    measures = {
        ("pnmi", "interval"): (probing.pnmi, phones),
        ("phone_purity", "phone_purity_interval"): (probing.phone_purity, phones),
        ("cluster_purity", "cluster_purity_interval"): (probing.cluster_purity, phones),
        ("speaker_nmi", "speaker_interval"): (probing.pnmi, voices),
    }
    for (name, interval), (measure, labels) in measures.items():
        value = measure(ids, labels)
        brute = np.array([measure(ids[owner != u], labels[owner != u]) for u in range(15)])
        reach = 1.96 * jackknife_error(brute)
        assert getattr(score, name) == pytest.approx(value)
        assert getattr(score, interval) == pytest.approx((max(0, value - reach), value + reach)), name
    alone = cluster_score("x", ids, Frames([], phones, np.zeros(300), voices))
    assert alone.pnmi == score.pnmi and np.isnan(alone.phone_purity_interval).all()


def test_a_paired_comparison_sees_what_two_intervals_do_not():
    """Ids that are wrong in the same hard utterances, and one in twenty more of them in the second."""
    rng = np.random.default_rng(1)
    owner, phones = np.repeat(np.arange(30), 40), rng.integers(0, 5, 1200)
    hard = rng.random(30)[owner] > rng.random(1200)
    ours = np.where(hard, 5, phones)
    theirs = np.where(rng.random(1200) < 0.05, 5, ours)
    frames = Frames([], phones.astype(str), owner, owner.astype(str))
    scores = [cluster_score("x", ids, frames) for ids in (ours, theirs)]
    assert scores[1].interval[1] > scores[0].interval[0], "the intervals touch"
    found = probing.compare_ids(ours, theirs, frames)
    assert found.verdict == "better" and found.measure == "PNMI" and found.seeds == {}
    assert found.difference == pytest.approx(scores[0].pnmi - scores[1].pnmi, abs=0.01)
    assert probing.compare_ids(theirs, ours, frames).verdict == "worse"
    assert probing.compare_ids(ours, ours, frames).verdict == "inconclusive"


def test_pairs_of_layers_are_compared_on_the_same_utterances():
    x, y = (part.features[0] for part in drawn(20, 1))
    owner = drawn(20, 1)[0].utterances
    both = frames_of([x, x + 0.1 * y, y], owner)
    values, without = probing.cka_jackknife(both, both)
    found = probing.compare_cka(values, without, (0, 1), (0, 2))
    assert found.verdict == "better" and found.interval[0] < found.difference < found.interval[1]
    assert probing.compare_cka(values, without, (0, 2), (0, 1)).verdict == "worse"
    assert probing.compare_cka(values, without, (0, 2), (2, 0)).verdict == "inconclusive"


def test_codebook_usage_has_intervals_that_hold_what_many_utterances_give():
    torch.manual_seed(0)
    codebook = Codebook(4, 12, 4, tau=0.1).requires_grad_(False)

    def hidden(count: int, seed: int):
        rng = np.random.default_rng(seed)
        owner = np.repeat(np.arange(count), 10)
        return (rng.normal(size=(count, 4))[owner] + rng.normal(size=(len(owner), 4))).astype("f"), owner

    [truth] = probing.codebook_usage(codebook, hidden(4000, 999)[0], [0.2])
    assert np.isnan(truth.used_interval).all(), "it was not told the utterances"
    held = np.zeros(3)
    for seed in range(100):
        [usage] = probing.codebook_usage(codebook, *((hidden(40, seed)[0], [0.2], hidden(40, seed)[1])))
        for k, name in enumerate(("choices", "used", "top")):
            low, high = getattr(usage, f"{name}_interval")
            assert low < getattr(usage, name) < high
            held[k] += low < getattr(truth, name) < high
    assert (held > 85).all() and held[0] < 100, held


def test_heads_that_look_everywhere_reach_as_far_as_even_weights(utterances):
    torch.manual_seed(0)
    small = ModelConfig(
        layers=2, dim=32, ffn=32, heads=2, conv_channels=(8,) * 7, pos_kernel=16, pos_groups=4
    )
    model = SpeechModel(small).eval()
    torch.nn.init.zeros_(model.encoder.layers[0].attention.qkv.weight)
    torch.nn.init.zeros_(model.encoder.layers[0].attention.qkv.bias)
    reach, frames = probing.head_reach(model, utterances[:4])
    assert reach.shape == (4, 2, 2) and frames.shape == (4,)
    even = np.array([probing.even_distance(n) for n in frames])
    assert even[0] == pytest.approx(
        float(probing.attention_distance(torch.full((frames[0], frames[0]), 1 / frames[0])).mean())
    )
    assert reach[:, 0] / frames[:, None] == pytest.approx(np.stack([even, even], -1), rel=1e-4)
    assert not np.allclose(reach[:, 1] / frames[:, None], even[:, None], rtol=1e-3)
    (value, low, high), _ = probing.attention_reach(model, utterances[:4])
    assert low < value < high and value == pytest.approx((even * frames).sum() / frames.sum(), rel=1e-4)
