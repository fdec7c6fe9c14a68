"""Fbank: log-mel energies by Kaldi's conventions, their statistics, SpecAugment, and the front-end made of them.

Shapes: ``waves`` (batch, samples) float32 in [-1, 1], 16 kHz, zero-padded; ``lengths`` (batch,) true samples.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from kdkit.audio import read_audio
from kdkit.errors import AudioError, ConfigError
from kdkit.fftconv import fourier_matrix
from kdkit.files import write_text
from kdkit.frontends import frame_mask, num_frames
from kdkit.manifest import Utterance
from kdkit.schemas import NOT_NEGATIVE, NUMBER, fields, list_of, read_json

BINS, WINDOW, SHIFT, FFT = 80, 400, 160, 512  # mel bins; the others in samples: 25 ms, 10 ms, 32 ms
LOUDEST = 32_768.0  # Kaldi counts in 16-bit units
NORMALISATIONS = ("corpus", "utterance")


def mel_filterbank(bins: int = BINS, fft: int = FFT, rate: int = 16_000, low: float = 20.0) -> Tensor:
    """Kaldi's triangular mel filters: (fft // 2 + 1, bins), triangles straight on the mel axis, low to rate / 2."""

    def mel(hertz):
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(low), mel(rate / 2), bins + 2)
    frequency = mel(np.arange(fft // 2 + 1) * rate / fft)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    filters = np.minimum(rising, falling).clip(0.0)
    filters[-1] = 0.0  # Kaldi leaves the Nyquist bin out
    return torch.as_tensor(filters, dtype=torch.float32)


class Fbank(nn.Module):
    """80 log-mel energies at 100 Hz by Kaldi's conventions, batched and differentiable (DESIGN 1.4).

    25 ms Povey window, 10 ms shift, snip_edges, DC offset removed, pre-emphasis 0.97, power spectrum of 512
    points, no dither, waveform scaled by 2^15, log floored at the float32 epsilon: the same as
    ``torchaudio.compliance.kaldi.fbank`` to 1e-3, whatever the padding. (Only where a bin is more than about 80 dB
    below the loudest of its frame, beside a pure tone or in very clean speech, float32 itself knows less than that.)

    (batch, samples) -> (batch, frames at 100 Hz, 80). Always float32, inside autocast too: 2^15 squared and the log
    of small energies need the range. Scriptable and exportable; exported, the Fourier transform is a matrix product,
    which every runtime does fast.
    """

    def __init__(self, bins: int = BINS):
        super().__init__()
        window = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64).pow(0.85).float()
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", mel_filterbank(bins), persistent=False)
        self.register_buffer("fourier", fourier_matrix(WINDOW, FFT), persistent=False)
        self.size, self.shift, self.fft, self.scale = WINDOW, SHIFT, FFT, LOUDEST  # for TorchScript
        self.smallest = torch.finfo(torch.float32).eps

    def forward(self, waves: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # knows no autocast for a device that is only known at run time
            return self.log_mel(waves.float(), False)
        with torch.autocast(waves.device.type, enabled=False):
            if torch.compiler.is_compiling() or waves.device.type != "cpu":
                return self.log_mel(waves.float(), torch.compiler.is_compiling())
            # one utterance after the other stays in the processor's cache
            return torch.cat([self.log_mel(wave, False) for wave in waves.float().split(1)])

    def log_mel(self, waves: Tensor, by_product: bool) -> Tensor:
        frames = (waves * self.scale).unfold(-1, self.size, self.shift)  # (B, T, 400)
        frames = frames - frames.mean(-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        frames = (frames - 0.97 * previous) * self.window
        if by_product:
            power = (frames @ self.fourier).square().unflatten(-1, (2, -1)).sum(-2)  # (B, T, 257)
        else:
            spectrum = torch.fft.rfft(frames, n=self.fft)
            power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.filters).clamp_min(self.smallest).log()


class SpecAugment(nn.Module):
    """Masks bands of mel bins and stretches of time, in training only (arXiv 1904.08779, without its time warping).

    ``forward(features (B, T, bins), frames (B,))`` puts zeros, the mean of normalised features, on ``frequency_masks``
    bands of up to ``bins`` bins and ``time_masks`` stretches of up to ``span`` frames; all widths and places are drawn
    for every utterance alone, evenly, stretches among its real frames and never more than half of them together.
    """

    def __init__(self, frequency_masks: int = 2, bins: int = 30, time_masks: int = 2, span: int = 40):
        super().__init__()
        self.frequency_masks, self.bins, self.time_masks, self.span = frequency_masks, bins, time_masks, span

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        if not self.training:
            return features
        batch, total, width = features.shape
        everywhere = torch.full((batch,), width)
        longest = frames.cpu() // (2 * max(1, self.time_masks))
        bands = _stretches(self.frequency_masks, everywhere, everywhere.clamp_max(self.bins), width)
        times = _stretches(self.time_masks, frames.cpu(), longest.clamp_max(self.span), total)
        hidden = bands[:, None] | times[..., None]  # (B, T, bins)
        return features.masked_fill(hidden.to(features.device), 0.0)


def _stretches(count: int, lengths: Tensor, longest: Tensor, total: int) -> Tensor:
    """(B, total) bool: ``count`` stretches in the first ``lengths``, each of 0 to ``longest``, both (B,)."""
    shape = (len(lengths), count)
    width = (torch.rand(shape) * (longest[:, None] + 1)).long()
    start = (torch.rand(shape) * (lengths[:, None] - width + 1)).long()
    place = torch.arange(total)
    inside = (place >= start[..., None]) & (place < (start + width)[..., None])  # (B, count, total)
    return inside.any(1)


class FbankFrontEnd(nn.Module):
    """Fbank, normalisation, one strided convolution with GLU, projection: 50 Hz (DESIGN 1.4).

    ``normalisation`` "corpus": by ``mean`` and ``std`` (80,), buffers of the checkpoint, to be set from a corpus with
    :meth:`set_statistics`. "utterance": by mean and deviation of the utterance's own frames, which takes out what
    microphone and room add, and needs the whole utterance before the first frame. ``spec_augment`` masks in training.

    (batch, samples) -> (batch, frames, dim); padding does not change the real frames: padded Fbank frames are
    replaced by zeros, which is what the convolution's own padding puts after an utterance that is alone.
    """

    def __init__(
        self,
        dim: int,
        bins: int = BINS,
        dropout: float = 0.0,
        normalisation: str = "corpus",
        spec_augment: bool = False,
    ):
        super().__init__()
        self.fbank, self.normalisation = Fbank(bins), normalisation
        self.register_buffer("mean", torch.zeros(bins))
        self.register_buffer("std", torch.ones(bins))
        self.spec_augment = SpecAugment() if spec_augment else None
        self.conv = nn.Conv1d(bins, 2 * dim, kernel_size=5, stride=2, padding=2)
        self.projection = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Global statistics of the log-mel bins, each (80,)."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def normalise(self, features: Tensor, frames: Tensor) -> Tensor:
        """Log-mel (B, T, 80) -> zero mean, unit variance over the corpus or utterance, zeros on padding."""
        mask = frame_mask(frames, features.shape[1])[..., None]
        mean, std = self.mean, self.std
        if self.normalisation == "utterance":
            count = frames[:, None, None]
            mean = (features * mask).sum(1, keepdim=True) / count  # (B, 1, 80)
            std = ((features - mean).square() * mask).sum(1, keepdim=True) / count
            std = (std + 1e-5).sqrt()  # a silent utterance stays finite
        return (features - mean) / std * mask

    def features(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """Normalised log-mel energies (B, T at 100 Hz, 80), masked by SpecAugment in training if it is on."""
        frames = (lengths - WINDOW) // SHIFT + 1
        x = self.normalise(self.fbank(waves), frames)
        return x if self.spec_augment is None else self.spec_augment(x, frames)

    def forward(self, waves: Tensor, lengths: Tensor, padded: bool = True) -> Tensor:
        x = self.features(waves, lengths).to(self.conv.weight.dtype)
        total = num_frames(waves.shape[-1])  # a padded wave can hold half a hop more than the CNN would take
        x = F.glu(self.convolve(x)[:, :total])
        return self.dropout(self.projection(x.to(self.projection.weight.dtype)))

    def convolve(self, x: Tensor) -> Tensor:
        """``conv`` of (B, T, bins) as one matrix product, (B, T / 2, 2 dim): on a CPU at least twice as fast."""
        (kernel,), (stride,), (padding,) = self.conv.kernel_size, self.conv.stride, self.conv.padding
        stretches = F.pad(x, (0, 0, padding, padding)).unfold(1, kernel, stride)  # (B, T / 2, bins, kernel)
        return F.linear(stretches.flatten(2), self.conv.weight.flatten(1), self.conv.bias)


class Statistics:
    """Mean and deviation of features that pass by once, in float64, without the cancellation of a sum of squares.

    Two parts are joined by their counts, means and sums of squared deviations (Chan, Golub and LeVeque, 1983).
    """

    def __init__(self, bins: int = BINS):
        self.count, self.seconds = 0, 0.0
        self.centre = torch.zeros(bins, dtype=torch.float64)
        self.squares = torch.zeros(bins, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Adds features (T, bins)."""
        some, count = features.double(), len(features)
        centre = some.mean(0)
        apart, total = centre - self.centre, self.count + count
        self.squares += (some - centre).square().sum(0) + apart.square() * self.count * count / total
        self.centre += apart * count / total
        self.count = total

    @property
    def mean(self) -> Tensor:
        """(bins,) float32."""
        return self.centre.float()

    @property
    def std(self) -> Tensor:
        """(bins,) float32, of the population; at least 1e-5, so that a bin that never changes divides nothing by 0."""
        return (self.squares / max(1, self.count)).sqrt().clamp_min(1e-5).float()


def fbank_statistics(utterances: Sequence[Utterance], progress: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the log-mel bins over a corpus, (80,) each: for ``FbankFrontEnd.set_statistics``.

    One pass, one utterance at a time, so memory stays flat. Files that cannot be read are left out and named in one
    warning; :class:`ConfigError` when none can.
    """
    found = corpus_statistics(utterances, progress)
    return found.mean, found.std


def corpus_statistics(utterances: Sequence[Utterance], progress: bool = True) -> Statistics:
    """:func:`fbank_statistics` with its counts."""
    fbank, statistics, bad = Fbank(), Statistics(), []
    for utterance in tqdm(utterances, desc="Fbank statistics", unit="utt", disable=not progress):
        try:
            wave = read_audio(utterance.audio)
        except AudioError as error:
            bad.append(str(error))
            continue
        statistics.update(fbank(wave[None])[0])
        statistics.seconds += len(wave) / 16_000
    if bad:
        warnings.warn(f"{len(bad)} of {len(utterances)} files left out, the first: {bad[0]}", stacklevel=2)
    if not statistics.count:
        raise ConfigError("no speech to take Fbank statistics of: no utterance, or none that can be read")
    return statistics


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Writes what :func:`load_statistics` reads, as JSON."""
    values = {"mean": statistics.mean.tolist(), "std": statistics.std.tolist()}
    about = {"frames": statistics.count, "hours": round(statistics.seconds / 3600, 4)}
    write_text(Path(path), json.dumps(about | values, indent=1) + "\n")


STATISTICS = fields({"mean": list_of(NUMBER), "std": list_of(NOT_NEGATIVE)})


def load_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (80,) from a file; :class:`ConfigError` names it when it is of another kind."""
    values = read_json(path, STATISTICS, "make Fbank statistics with 'kdkit statistics'")
    mean, std = (torch.tensor(values[name], dtype=torch.float32) for name in ("mean", "std"))
    if (
        mean.shape != (BINS,)
        or std.shape != (BINS,)
        or not bool((std > 0).all() & mean.isfinite().all() & std.isfinite().all())
    ):
        raise ConfigError(f"{path}: Fbank statistics are {BINS} finite means and {BINS} deviations above 0")
    return mean, std
