"""Speed of inference as ratios from one run: teacher and students, both front-ends, all precisions.

All models take turns in every round, because timings fluctuate; a ratio is the median of the rounds' ratios. A turn is
two runs, of which the second counts: in use, the caches hold a model's own weights, not another's. Weights are random,
which does not change the speed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from kdkit.bench.measure import forget_peak, peak_gigabytes, quartiles
from kdkit.common.machine import best_device, use_bf16
from kdkit.common.progress import tqdm
from kdkit.model.costs import count_macs
from kdkit.model.inference import PackedLinear, optimised
from kdkit.model.speech_model import SpeechModel, parameter_count, preset
from kdkit.speech.frames import SAMPLE_RATE, num_frames

FULL = ("hubert-base", "dt-waveform", "dt-fbank", "sw-waveform", "sw-fbank")
TINY = ("tiny-teacher", "tiny-dt-waveform", "tiny-dt-fbank", "tiny-sw-waveform", "tiny-sw-fbank")
PEER = "transformers' DistilHuBERT"


@dataclass(frozen=True)
class Speed:
    """One model in one precision on one input shape. Times in seconds, one per round; memory in gigabytes: weights, and
    the peak of a forward pass beyond them (None where it cannot be measured).
    """

    name: str
    precision: str  # "plain" (float32, as it was trained), "fp32", "bf16" or "int8"
    batch: int
    seconds: float  # of each utterance
    parameters: int
    macs: float | None  # for a second of audio
    front_end: np.ndarray | None
    whole: np.ndarray
    weights: float
    activations: float | None

    @property
    def rtf(self) -> tuple[float, float, float]:
        """Real-time factor, seconds of computation per second of audio: lower quartile, median, upper quartile."""
        return quartiles(self.whole / (self.batch * self.seconds))


HEAD = (
    f"{'model':26} {'precision':14} {'params':>7} {'GMAC/s':>7}  {'RTF (quartiles)':>28}  {'front-end':>9} "
    f"{'encoder':>8}  {'memory':>13}  {'of teacher':>10}  {'of its twin':>11}"
)


def bench_inference(
    names: Sequence[str] = FULL,
    precisions: Sequence[str] = ("plain", "fp32", "bf16", "int8"),
    shapes: Sequence[tuple[int, float]] = ((1, 10.0), (8, 12.0)),
    rounds: int = 5,
    peer: bool = True,
    others: Mapping[str, SpeechModel] | None = None,
) -> list[Speed]:
    """Times forward passes of presets ``names`` for (batch, seconds) in ``shapes``, with utterances of equal length.

    ``others``: further models by name, such as those of recognisers. bf16 is left out where it would be emulated,
    int8 on a GPU. ``peer`` adds the usual alternative, transformers' HubertModel in DistilHuBERT's shape, where
    transformers is installed.
    """
    device = best_device()
    if not use_bf16("auto", device):
        precisions = [p for p in precisions if p != "bf16"]
    if device.type == "cuda":
        precisions = [p for p in precisions if p != "int8"]
    racers: dict[tuple[str, str], nn.Module] = {}
    models = {}
    for name in names:
        torch.manual_seed(0)
        models[name] = SpeechModel(preset(name))
    models |= others or {}
    for name, model in models.items():
        plain = model.eval().to(device)
        for precision in precisions:
            racers[name, precision] = plain if precision == "plain" else optimised(plain, precision)
    macs = {name: count_macs(model.config) for name, model in models.items()}
    found = []
    rival = distilhubert() if peer else None
    extra = {(PEER, "plain"): rival.to(device)} if rival else {}
    bar = tqdm(total=len(shapes) * rounds * len(racers | extra), desc="bench", unit="run")
    for batch, seconds in shapes:
        times: dict[tuple[str, str], list[tuple[float | None, float]]] = {key: [] for key in racers | extra}
        peaks: dict[tuple[str, str], float | None] = dict.fromkeys(times)
        waves = 0.1 * torch.randn(batch, round(SAMPLE_RATE * seconds), device=device)
        lengths = torch.full((batch,), waves.shape[1], device=device)
        for _ in range(rounds):
            for key, model in (racers | extra).items():
                run = _run_peer if key in extra else _run
                run(model, waves, lengths)
                before = forget_peak(device)
                times[key].append(run(model, waves, lengths))
                after = peak_gigabytes(device)
                if before is not None and after is not None:
                    peaks[key] = max(peaks[key] or 0.0, after - before)
                bar.update()
        for (name, precision), runs in times.items():
            model = (racers | extra)[name, precision]
            parts = [front for front, _ in runs]
            found.append(
                Speed(
                    name,
                    precision,
                    batch,
                    seconds,
                    parameter_count(models.get(name, model)),
                    macs.get(name),
                    None if None in parts else np.array(parts),
                    np.array([whole for _, whole in runs]),
                    _gigabytes(model),
                    peaks[name, precision],
                )
            )
    bar.close()
    return found


def ratio(slow: Speed, fast: Speed) -> tuple[float, float, float]:
    """Speed-up of ``fast``: quartiles of the ratios of the rounds."""
    return quartiles(slow.whole / fast.whole)


def table(rows: Sequence[Speed]) -> list[str]:
    """The rows as text, one block per shape, with ratios to the teacher and to the waveform twin in the same precision;
    then each student's fastest precision against the teacher's.
    """
    lines = []
    for shape in dict.fromkeys((row.batch, row.seconds) for row in rows):
        mine = {(row.name, row.precision): row for row in rows if (row.batch, row.seconds) == shape}
        teacher = next(iter(mine))[0]
        lines += [f"\n{shape[0]} x {shape[1]:g} s", HEAD]
        for (name, precision), row in mine.items():
            same = mine.get((teacher, precision))
            twin = mine.get((name.replace("fbank", "waveform"), precision)) if "fbank" in name else None
            lines.append(_line(row, same if name != teacher else None, twin))
        best = {}
        for (name, _), row in mine.items():
            if name not in best or np.median(row.whole) < np.median(best[name].whole):
                best[name] = row
        lines.append(f"best precision of each against {teacher}'s ({best[teacher].precision}):")
        for name, row in best.items():
            if name != teacher:
                lines.append(f"  {name:26} {row.precision:14} {_times(ratio(best[teacher], row))}")
    return lines


def _line(row: Speed, teacher: Speed | None, twin: Speed | None) -> str:
    low, middle, high = row.rtf
    digits = 4 if middle > 1e-3 else 6
    spent = f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
    per = 1e3 * np.median(row.whole)
    front = None if row.front_end is None else 1e3 * np.median(row.front_end)
    digits = 0 if per > 10 else 1
    macs = "" if row.macs is None else f"{row.macs / 1e9:.2f}"
    parts = ("", "") if front is None else (f"{front:.{digits}f} ms", f"{per - front:.{digits}f} ms")
    memory = f"{row.weights:.2f}" + ("" if row.activations is None else f" + {row.activations:.2f}") + " GB"
    against = "".join(
        f"  {'' if other is None else f'{ratio(other, row)[1]:.2f} x':>{width}}"
        for other, width in ((teacher, 10), (twin, 11))
    )
    return (
        f"{row.name:26} {row.precision:14} {row.parameters / 1e6:6.1f}M {macs:>7}  {spent:>28}  {parts[0]:>9} "
        f"{parts[1]:>8}  {memory:>13}"
        f"{against}"
    )


def _times(quarters: tuple[float, float, float]) -> str:
    low, middle, high = quarters
    return f"{middle:.2f} x ({low:.2f}-{high:.2f})"


@torch.inference_mode()
def _run(model: SpeechModel, waves: Tensor, lengths: Tensor) -> tuple[float, float]:
    began = time.perf_counter()
    features = model.front_end(waves, lengths, False)
    _wait(features)
    middle = time.perf_counter()
    _wait(model.encode(features, num_frames(lengths), False).last)
    return middle - began, time.perf_counter() - began


@torch.inference_mode()
def _run_peer(model: nn.Module, waves: Tensor, lengths: Tensor) -> tuple[None, float]:
    began = time.perf_counter()
    _wait(model(waves).last_hidden_state)
    return None, time.perf_counter() - began


def _wait(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize()


def _gigabytes(model: nn.Module) -> float:
    """Gigabytes of the weights, including packed ones: those of quantised layers are part of the state, those of bf16
    layers with AMX are not.
    """
    total = 0
    packed = [part.packed for part in model.modules() if isinstance(part, PackedLinear)]
    for value in (*model.state_dict().values(), packed):
        parts = value if isinstance(value, (tuple, list)) else (value,)
        total += sum(t.numel() * t.element_size() for t in parts if isinstance(t, Tensor))
    return total / 1e9


def distilhubert() -> nn.Module | None:
    """transformers' HubertModel in DistilHuBERT's shape with random weights, the usual alternative; None if
    transformers cannot be imported, as beside a torchaudio that refuses this torch.
    """
    try:
        from transformers import HubertConfig, HubertModel
    except (ImportError, RuntimeError, OSError):
        return None
    torch.manual_seed(0)
    return HubertModel(HubertConfig(num_hidden_layers=2)).eval()
