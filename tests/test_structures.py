"""Costs of structures against counts worked out by hand, and proposals that keep to their budget."""

import pytest
import torch

from kdkit.common.errors import ConfigError
from kdkit.model.costs import cost_table, count_macs, count_parameters, measure_latency, propose
from kdkit.model.speech_model import ModelConfig, SpeechModel, parameter_count, preset

SMALL = ModelConfig(
    layers=1, dim=16, ffn=32, heads=2, conv_channels=(4,) * 7, pos_kernel=8, pos_groups=4, front_end="fbank"
)


def test_parameters_are_those_of_the_module():
    assert count_parameters(SMALL) == parameter_count(SpeechModel(SMALL))
    assert count_parameters(preset("dt-waveform")) == 22_938_880


def test_macs_by_hand():
    seconds, frames, windows, dim, ffn = 1.0, 49, 98, 16, 32
    mel = windows * 257 * 80
    front_end = frames * (5 * 80 * 2 * dim + dim * dim)
    positions = (frames + 1) * 8 * (dim // 4) * dim  # an even kernel gives one frame too many
    projections = frames * (4 * dim * dim + 2 * dim * ffn)
    attention = 2 * frames * frames * dim
    expected = mel + front_end + positions + projections + attention
    assert count_macs(SMALL, seconds) == pytest.approx(expected, rel=1e-6)


def test_longer_utterances_cost_more_a_second_because_of_attention():
    short, long = count_macs(SMALL, 1.0), count_macs(SMALL, 20.0)
    assert short < long < 3 * short


def test_the_papers_front_end_saves_more_macs_than_parameters():
    waveform, fbank = cost_table({n: preset(n) for n in ("dt-waveform", "dt-fbank")}, rounds=0)
    assert fbank.parameters / waveform.parameters == pytest.approx(1 - 0.167, abs=0.001)
    assert fbank.macs < 0.5 * waveform.macs
    assert waveform.latency is None and "22.94 M" in str(waveform)


def test_latency_is_measured_for_every_round():
    times = measure_latency({"a": SpeechModel(SMALL).eval(), "b": SpeechModel(SMALL).eval()}, 1.0, rounds=3)
    assert {name: t.shape for name, t in times.items()} == {"a": (3,), "b": (3,)}
    assert all((t > 0).all() for t in times.values())
    (row,) = cost_table({"a": SMALL}, 1.0, rounds=2)
    assert 0 < row.latency[0] <= row.latency[1] <= row.latency[2]


@pytest.mark.parametrize(("like", "budget"), [("dt-waveform", 23_500_000), ("tiny-dt-fbank", 880_000)])
def test_proposals_fill_the_budget_and_run(like, budget):
    found = propose(budget, preset(like), layers=(2, 6, 12))
    assert [config.layers for config in found.values()] == [2, 6, 12]
    for config in found.values():
        assert 0.96 * budget < count_parameters(config) <= budget
        assert config.front_end == preset(like).front_end
    widths = [config.dim for config in found.values()]
    assert widths == sorted(widths, reverse=True)  # the deeper, the thinner
    if like.startswith("tiny"):
        model = SpeechModel(list(found.values())[1]).eval()
        with torch.inference_mode():
            model(torch.randn(1, 4000), torch.tensor([4000]))


def test_a_budget_that_nothing_fits_is_refused():
    with pytest.raises(ConfigError, match="raise the budget"):
        propose(1_000_000, preset("dt-waveform"))
