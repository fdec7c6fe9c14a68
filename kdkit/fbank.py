"""Fbank: log-mel energies by Kaldi's conventions, their statistics, SpecAugment, and the front-end made of them.

Shapes: ``waves`` (batch, samples) float32 in [-1, 1], 16 kHz, zero-padded; ``lengths`` (batch,) true samples.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.common.errors import AudioError, ConfigError
from kdkit.common.files import write_text
from kdkit.common.progress import tqdm
from kdkit.common.validation import NOT_NEGATIVE, NUMBER, fields, list_of, read_json
from kdkit.speech.audio import read_audio
from kdkit.speech.augment import SpecAugment
from kdkit.speech.frames import HOP, RECEPTIVE_FIELD, SAMPLE_RATE, frame_mask, num_frames
from kdkit.speech.manifest import Utterance

BINS = 80  # mel bins
WINDOW, SHIFT, FFT = RECEPTIVE_FIELD, HOP // 2, 512  # samples: 25 ms, 10 ms, 32 ms
LOWEST, NYQUIST = 20.0, 8000.0  # Hz, the range of the filters
MOST_BINS = 120  # with more, low filters would contain no point of the spectrum
LOUDEST = 32_768.0  # Kaldi's waveforms are 16-bit integers
NORMALISATIONS = ("corpus", "utterance", "mean")


def mel_filterbank(bins: int = BINS, fft: int = FFT, rate: int = SAMPLE_RATE, low: float = LOWEST) -> Tensor:
    """Kaldi's triangular mel filters: (fft // 2 + 1, bins), triangles straight on the mel axis, low to rate / 2."""
    edges = np.linspace(_mel(low), _mel(rate / 2), bins + 2)
    filters = _triangles(_mel(np.arange(fft // 2 + 1) * rate / fft), edges)
    filters[-1] = 0.0  # Kaldi leaves the Nyquist bin out
    return torch.as_tensor(filters, dtype=torch.float32)


def _mel(hertz):
    return 1127.0 * (torch.log1p if isinstance(hertz, Tensor) else np.log1p)(hertz / 700.0)


def _triangles(place, edges):
    """Filters (..., frequencies, bins) of frequencies on the mel axis, of arrays or tensors alike."""
    rising = (place[..., None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - place[..., None]) / (edges[2:] - edges[1:-1])
    return rising.clip(max=falling).clip(min=0.0)


def fourier_matrix(window: int, size: int) -> Tensor:
    """(window, size + 2): cosines, then sines; a frame times it is the real and imaginary part of its spectrum."""
    angle = 2 * math.pi / size * torch.arange(window, dtype=torch.float64)[:, None]
    angle = angle * torch.arange(size // 2 + 1)
    return torch.cat([angle.cos(), -angle.sin()], 1).float()


class Fbank(nn.Module):
    """80 log-mel energies at 100 Hz by Kaldi's conventions, batched and differentiable.

    25 ms Povey window, 10 ms shift, snip_edges, DC offset removed, pre-emphasis 0.97, power spectrum of 512
    points, no dither, waveform scaled by 2^15, log floored at the float32 epsilon: the same as
    ``torchaudio.compliance.kaldi.fbank`` to 1e-3, whatever the padding. (Only where a bin is more than about 80 dB
    below the loudest of its frame, beside a pure tone or in very clean speech, float32 is less precise than that.)

    (batch, samples) -> (batch, frames at 100 Hz, bins); ``window`` (samples) is for looking at others than Kaldi's.
    Always float32, inside autocast too: 2^15 squared and the log of small energies need the range. Exported, the
    Fourier transform is a matrix product, which every runtime does fast.
    """

    def __init__(self, bins: int = BINS, window: int = WINDOW):
        super().__init__()
        self.points = 1 << (window - 1).bit_length()  # of the spectrum: the next power of two
        povey = torch.hann_window(window, periodic=False, dtype=torch.float64).pow(0.85).float()
        self.register_buffer("window", povey, persistent=False)
        self.register_buffer("filters", mel_filterbank(bins, self.points), persistent=False)
        self.register_buffer("fourier", fourier_matrix(window, self.points), persistent=False)

    def forward(self, waves: Tensor, filters: Tensor | None = None) -> Tensor:
        """``filters`` (B, 257, bins): other mel filters than Kaldi's, for each utterance."""
        chosen = self.filters if filters is None else filters
        with torch.autocast(waves.device.type, enabled=False):
            if torch.compiler.is_compiling() or waves.device.type != "cpu":
                return self.log_mel(waves.float(), chosen, torch.compiler.is_compiling())
            # one utterance at a time fits into the CPU's cache
            own = [self.filters] * len(waves) if filters is None else filters
            return torch.cat([self.log_mel(w, f, False) for w, f in zip(waves.float().split(1), own)])

    def log_mel(self, waves: Tensor, filters: Tensor, by_product: bool) -> Tensor:
        frames = (waves * LOUDEST).unfold(-1, len(self.window), SHIFT)  # (B, T, window)
        frames = frames - frames.mean(-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        frames = (frames - 0.97 * previous) * self.window
        if by_product:
            power = (frames @ self.fourier).square().unflatten(-1, (2, -1)).sum(-2)  # (B, T, 257)
        else:
            spectrum = torch.fft.rfft(frames, n=self.points)
            power = spectrum.real.square() + spectrum.imag.square()
        return (power @ filters).clamp_min(torch.finfo(torch.float32).eps).log()


def deltas(features: Tensor) -> Tensor:
    """Rates of change of features (bins, T) by regression over five frames; the first and last frame are repeated."""
    slopes = torch.arange(-2.0, 3.0, device=features.device, dtype=features.dtype).expand(len(features), 1, 5)
    padded = F.pad(features[None], (2, 2), mode="replicate")
    return F.conv1d(padded, slopes, groups=len(features))[0] / 10


class VocalTract(nn.Module):
    """Other lengths of the speaker's vocal tract, in training only (VTLP: Jaitly and Hinton, 2013).

    ``forward(waves (B, samples))`` gives mel filters (B, 257, bins) for :class:`Fbank`, warped by factors drawn evenly
    from 1 - ``span`` to 1 + ``span``: frequencies are multiplied by the factor up to about 4,800 Hz, then mapped
    linearly up to 8,000 Hz. None outside training, or with ``span`` 0. Few voices become many: formants move, their
    order stays.
    """

    def __init__(self, bins: int, span: float):
        super().__init__()
        self.span = span
        hertz = torch.arange(FFT // 2 + 1, dtype=torch.float32) * (2 * NYQUIST / FFT)
        edges = torch.as_tensor(np.linspace(_mel(LOWEST), _mel(NYQUIST), bins + 2), dtype=torch.float32)
        self.register_buffer("hertz", hertz, persistent=False)
        self.register_buffer("edges", edges, persistent=False)

    def forward(self, waves: Tensor) -> Tensor | None:
        if not self.training or not self.span:
            return None
        return self.filters(1 + self.span * (2 * torch.rand(waves.shape[0], device=waves.device) - 1))

    def filters(self, factors: Tensor) -> Tensor:
        """Filters (B, 257, bins) for factors (B,)."""
        hertz, factors = self.hertz.float(), factors[:, None]
        knee = 0.6 * NYQUIST / factors.clamp_min(1.0)  # then straight to the highest frequency, which stays
        slope = (NYQUIST - knee * factors) / (NYQUIST - knee)
        warped = torch.where(hertz <= knee, hertz * factors, NYQUIST - slope * (NYQUIST - hertz))
        filters = _triangles(_mel(warped), self.edges.float())
        filters[:, -1].zero_()  # the Nyquist bin
        return filters


class FbankFrontEnd(nn.Module):
    """Fbank, normalisation, a strided convolution with GLU, projection: 50 Hz (arXiv 2210.15631).

    Args:
        bins: mel bins. 80 resolve the harmonics of high voices, which depend on the speaker and not on the phone; 24 to
            40 do not.
        normalisation: "corpus": by ``mean`` and ``std`` (bins,), buffers of the checkpoint, set from a corpus with
            :func:`fit_statistics`. "utterance": by mean and deviation of the utterance's own frames, which removes
            what microphone, room and voice add, as the group norm of a waveform CNN does; it needs the whole
            utterance before the first frame. "mean": the utterance's mean is subtracted, the deviation is the corpus's.
        spec_augment: masks in training.
        warp: in training, each utterance's frequencies are stretched by up to this share (:class:`VocalTract`).
        floor: energies more than so many dB below the utterance's loudest one are raised to that limit; 0: no floor.
            Between words a clean recording falls by 100 dB and a noisy one by 10: without a floor, the deviation of
            "utterance" measures that.
        kernel: frames of 10 ms that the strided convolution sees; odd.
        channels: of a convolution over ``kernel`` frames with GELU before the strided one, as in recognisers; 0: there
            is none. One layer cannot form the products and thresholds of energies that the waveform CNN forms in seven.
        norm: LayerNorm between GLU and projection, as the waveform front-end has one between CNN and projection.

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
        warp: float = 0.0,
        floor: float = 0.0,
        kernel: int = 5,
        channels: int = 0,
        norm: bool = False,
    ):
        super().__init__()
        self.fbank, self.normalisation, self.floor = Fbank(bins), normalisation, floor
        self.register_buffer("mean", torch.zeros(bins))
        self.register_buffer("std", torch.ones(bins))
        self.vocal_tract = VocalTract(bins, warp)
        self.spec_augment = SpecAugment() if spec_augment else None
        self.first = nn.Conv1d(bins, channels, kernel, padding=kernel // 2) if channels else None
        self.conv = nn.Conv1d(channels or bins, 2 * dim, kernel, stride=2, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim) if norm else None
        self.projection = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Global statistics of the log-mel bins, each (bins,)."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def raise_floor(self, features: Tensor, frames: Tensor) -> Tensor:
        """Log-mel (B, T, bins) with no energy further below the utterance's loudest than ``floor`` dB."""
        if not self.floor:
            return features
        mask = frame_mask(frames, features.shape[1])[..., None]
        loudest = features.masked_fill(~mask, -torch.inf).amax((1, 2), keepdim=True)
        return torch.maximum(features, loudest - self.floor * math.log(10) / 10)

    def normalise(self, features: Tensor, frames: Tensor) -> Tensor:
        """Log-mel (B, T, bins) -> zero mean, unit variance over the corpus or utterance, zeros on padding."""
        mask = frame_mask(frames, features.shape[1])[..., None]
        features = self.raise_floor(features, frames)
        mean, std = self.mean, self.std
        if self.normalisation != "corpus":
            count = frames[:, None, None]
            mean = (features * mask).sum(1, keepdim=True) / count  # (B, 1, bins)
        if self.normalisation == "utterance":
            std = ((features - mean).square() * mask).sum(1, keepdim=True) / count
            std = (std + 1e-5).sqrt()  # a silent utterance stays finite
        return (features - mean) / std * mask

    def features(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """Normalised log-mel energies (B, T at 100 Hz, bins), warped and masked in training if that is on."""
        frames = (lengths - WINDOW) // SHIFT + 1
        x = self.normalise(self.fbank(waves, self.vocal_tract(waves)), frames)
        return x if self.spec_augment is None else self.spec_augment(x, frames)

    def forward(self, waves: Tensor, lengths: Tensor, padded: bool = True) -> Tensor:
        x = self.features(waves, lengths).to(self.conv.weight.dtype)
        total = num_frames(waves.shape[-1])  # a padded wave can hold half a hop more than the CNN would take
        if self.first is not None:
            mask = frame_mask((lengths - WINDOW) // SHIFT + 1, x.shape[1])[..., None]
            x = F.gelu(convolve(self.first, x)) * mask  # zeros after the end, as its own padding would be
        x = F.glu(convolve(self.conv, x)[:, :total])
        x = x.to(self.projection.weight.dtype)
        return self.dropout(self.projection(x if self.norm is None else self.norm(x)))


def convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """``conv`` of (B, T, channels) as one matrix product, (B, T / stride, out): on a CPU at least twice as fast."""
    (kernel,), (stride,), (padding,) = conv.kernel_size, conv.stride, conv.padding
    padded = F.pad(x, (0, 0, padding, padding))
    stretches = padded.unfold(1, kernel, stride)  # (B, T / stride, channels, kernel)
    return F.linear(stretches.flatten(2), conv.weight.flatten(1), conv.bias)


class Statistics:
    """Mean and deviation of features in one pass, in float64, without the cancellation of a sum of squares.

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
        """(bins,) float32, of the population; at least 1e-5, so that a constant bin causes no division by 0."""
        return (self.squares / max(1, self.count)).sqrt().clamp_min(1e-5).float()


def fbank_statistics(utterances: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the 80 log-mel bins over a corpus, (80,) each: for ``FbankFrontEnd.set_statistics``.

    One pass, one utterance at a time, so memory stays constant. Unreadable files are left out, with one warning.
    Raises :class:`ConfigError` when none can be read.
    """
    found = corpus_statistics(utterances, progress=False)
    return found.mean, found.std


def corpus_statistics(
    utterances: Sequence[Utterance],
    progress: bool = True,
    bins: int = BINS,
    front_end: FbankFrontEnd | None = None,
) -> Statistics:
    """:func:`fbank_statistics` with its counts; with ``front_end``, of the energies after its floor and, for
    normalisation "mean", after the utterance's mean is subtracted.
    """
    fbank, statistics, bad = Fbank(bins), Statistics(bins), []
    for utterance in tqdm(utterances, desc="Fbank statistics", unit="utt", disable=not progress):
        try:
            wave = read_audio(utterance.audio)
        except AudioError as error:
            bad.append(str(error))
            continue
        features = fbank(wave[None])
        if front_end is not None:
            features = front_end.raise_floor(features, torch.tensor([features.shape[1]]))
            if front_end.normalisation == "mean":
                features = features - features.mean(1, keepdim=True)
        statistics.update(features[0])
        statistics.seconds += len(wave) / SAMPLE_RATE
    if bad:
        warnings.warn(f"{len(bad)} of {len(utterances)} files left out, the first: {bad[0]}", stacklevel=2)
    if not statistics.count:
        raise ConfigError("no speech to take Fbank statistics of: no utterance, or none that can be read")
    return statistics


def fit_statistics(model: nn.Module, speech: Sequence[Utterance], some: int = 500) -> None:
    """Sets an Fbank model's statistics from the first ``some`` utterances; does nothing for a waveform CNN, or for
    normalisation "utterance".
    """
    if isinstance(model.front_end, FbankFrontEnd) and model.front_end.normalisation != "utterance":
        found = corpus_statistics(speech[:some], False, len(model.front_end.mean), model.front_end)
        model.front_end.set_statistics(found.mean, found.std)


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Writes what :func:`load_statistics` reads, as JSON."""
    values = {"mean": statistics.mean.tolist(), "std": statistics.std.tolist()}
    about = {"frames": statistics.count, "hours": round(statistics.seconds / 3600, 4)}
    write_text(Path(path), json.dumps(about | values, indent=1) + "\n")


STATISTICS = fields({"mean": list_of(NUMBER), "std": list_of(NOT_NEGATIVE)})


def load_statistics(path: Path, bins: int = BINS) -> tuple[Tensor, Tensor]:
    """Mean and deviation (bins,) from a file. Raises :class:`ConfigError` naming the file when they do not fit."""
    values = read_json(path, STATISTICS, "make Fbank statistics with 'kdkit statistics'")
    mean, std = (torch.tensor(values[name], dtype=torch.float32) for name in ("mean", "std"))
    finite = bool((std > 0).all() & mean.isfinite().all() & std.isfinite().all())
    if not mean.shape == std.shape == (bins,) or not finite:
        raise ConfigError(
            f"{path}: Fbank statistics for {bins} bins are {bins} finite means and {bins} deviations above 0, not "
            f"{mean.numel()} and {std.numel()}; make them with 'kdkit statistics --bins {bins}'"
        )
    return mean, std
