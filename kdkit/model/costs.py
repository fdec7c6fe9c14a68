"""The cost of a structure: parameters, MACs and measured latency; and structures within a budget.

    for row in cost_table({"D&T": preset("dt-waveform"), "S&W": preset("sw-waveform")}):
        print(row)
    propose(23_000_000, like=preset("dt-waveform"), layers=(2, 4, 8, 12))

Counts are taken from the modules themselves, on the "meta" device, without memory for weights.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdkit.common.errors import ConfigError
from kdkit.model.speech_model import ModelConfig, SpeechModel, parameter_count
from kdkit.speech.frames import SAMPLE_RATE


def count_parameters(config: ModelConfig) -> int:
    """Parameters of a structure, heads not included."""
    with torch.device("meta"):
        return parameter_count(SpeechModel(config))


def count_macs(config: ModelConfig, seconds: float = 10.0) -> float:
    """Multiply-accumulates for one second of audio, in an utterance of ``seconds`` (attention grows with its length).

    torch's flop counter counts matrix products, convolutions and attention; norms, activations and the Fourier
    transform of Fbank are left out.
    """
    with FakeTensorMode():  # shapes without numbers
        model = SpeechModel(config).eval()
        model.encoder.positions.by_fourier = False  # count the convolution itself
        samples = round(SAMPLE_RATE * seconds)
        waves, lengths = torch.zeros(1, samples), torch.full((1,), samples)
        # the counter does not know the CPU's fused attention
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(waves, lengths, padded=False)
    return counter.get_total_flops() / 2 / seconds


@torch.inference_mode()
def measure_latency(
    models: Mapping[str, SpeechModel], seconds: float = 10.0, rounds: int = 7, batch: int = 1
) -> dict[str, np.ndarray]:
    """Seconds that each model takes for ``batch`` utterances of ``seconds``: {name: (rounds,)}.

    The models take turns, because timings drift; a first round warms up and is not counted. Take ratios of two models
    round by round.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            device = next(model.parameters()).device
            wave = torch.randn(batch, round(SAMPLE_RATE * seconds), device=device) * 0.1
            lengths = torch.full((batch,), wave.shape[1], device=device)
            began = time.perf_counter()
            model(wave, lengths, padded=False).last.sum().item()  # .item() waits for the device
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: np.array(spent) for name, spent in times.items()}


@dataclass(frozen=True)
class Cost:
    """One row of :func:`cost_table`. ``latency``: quartiles in seconds, or None if not measured."""

    name: str
    config: ModelConfig
    parameters: int
    macs: float  # for a second of audio
    latency: tuple[float, float, float] | None = None

    def __str__(self) -> str:
        c = self.config
        shape = f"{c.layers:2} x {c.dim:4}, FFN {c.ffn:4}, {c.heads:2} heads, {c.front_end:8}"
        spent = f"  {1e3 * self.latency[1]:6.1f} ms" if self.latency else ""
        return f"{self.name:20} {shape}  {self.parameters / 1e6:6.2f} M  {self.macs / 1e9:7.3f} GMAC/s{spent}"


def cost_table(configs: Mapping[str, ModelConfig], seconds: float = 10.0, rounds: int = 7) -> list[Cost]:
    """Parameters, MACs and latency (one utterance of ``seconds``, on this machine, float32) of structures.

    ``rounds=0``: no latency.
    """
    times = {}
    if rounds:
        times = measure_latency({n: SpeechModel(c).eval() for n, c in configs.items()}, seconds, rounds)
    return [
        Cost(
            name,
            config,
            count_parameters(config),
            count_macs(config, seconds),
            tuple(np.quantile(times[name], [0.25, 0.5, 0.75]).tolist()) if times else None,
        )
        for name, config in configs.items()
    ]


def propose(
    parameters: int,
    like: ModelConfig,
    layers: Sequence[int] = (2, 4, 8, 12),
    ffn_ratio: float | None = None,
) -> dict[str, ModelConfig]:
    """The widest structure of each depth with at most ``parameters``: {"4 x 288": config, ...}.

    Everything but depth, width, FFN and heads is taken from ``like``. ``ffn_ratio`` is FFN width over width; by default
    it falls from 4 at two layers (shallow & wide) to 1 at twelve (deep & thin), as in the presets. Widths are multiples
    of the positional convolution's groups; the FFN, in steps of 8, takes the rest of the budget. Heads are about as
    wide as in ``like``.

    Raises :class:`ConfigError` when even the narrowest network of a depth is too large.
    """
    found = {}
    for depth in layers:
        ratio = ffn_ratio or float(np.interp(depth, (2, 12), (4, 1)))
        best = None
        for dim in range(like.pos_groups, 4096, like.pos_groups):
            ffn = max(8, 8 * round(ratio * dim / 8))
            config = replace(like, layers=depth, dim=dim, ffn=ffn, heads=_heads(dim, like))
            left = parameters - count_parameters(config)
            if left < 0:
                break
            best = replace(config, ffn=ffn + 8 * (left // (8 * depth * (2 * dim + 1))))
        if best is None:
            raise ConfigError(
                f"no network of {depth} layers has fewer than {parameters:,} parameters with the {like.front_end} "
                f"front-end of this size: raise the budget, or take fewer layers or narrower convolutions"
            )
        found[f"{depth} x {best.dim}"] = best
    return found


def _heads(dim: int, like: ModelConfig) -> int:
    size = like.dim / like.heads
    return min((h for h in range(1, dim + 1) if dim % h == 0), key=lambda h: abs(dim / h - size))
