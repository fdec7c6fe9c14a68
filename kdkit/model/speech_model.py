"""A speech model is a front-end and an encoder, described by one frozen config; presets, full-size and tiny."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from joblib.externals.loky.backend.reduction import register
from torch import Tensor, nn

from kdkit.common.errors import CheckpointError, ConfigError
from kdkit.common.validation import choice, flag, number, shown, whole
from kdkit.fbank import MOST_BINS, NORMALISATIONS, FbankFrontEnd
from kdkit.model.encoder import Encoder
from kdkit.model.waveform import KERNELS, WaveformFrontEnd
from kdkit.speech.frames import frame_mask, num_frames

TINY_CNN = (16, 32, 64, 96, 128, 160, 160)  # narrow where a channel costs most: at the 16 kHz end
DEEPNORM = (2 * 12) ** 0.25  # residual scale that lets a 12-layer post-norm network learn in minutes


# The upper bounds are far above every published model: beyond them a file is damaged or a number mistyped, and the
# model would not fit into memory.
LIMITS = {
    "layers": (1, 128),
    "dim": (1, 16_384),
    "ffn": (1, 1_048_576),
    "heads": (1, 1024),
    "conv_channels": (1, 16_384),
    "pos_kernel": (1, 8192),
    "pos_groups": (1, 16_384),
    "relative_buckets": (0, 16_384),
    "relative_distance": (1, 1_000_000),
    "bins": (1, MOST_BINS),
    "fbank_kernel": (1, 99),
    "fbank_channels": (0, 16_384),
}
_NUMBERS = {
    "residual_scale": (1e-3, 1e3),
    "dropout": (0, 0.999),
    "normalise_epsilon": (1e-12, 0.1),
    "fbank_warp": (0, 0.5),
    "fbank_floor": (0, 300),
}
_CHOICES = {
    "front_end": ("waveform", "fbank"),
    "normalisation": NORMALISATIONS,
    "conv_norm": ("group", "layer"),
}
FBANK_SETTINGS = (
    "normalisation",
    "spec_augment",
    "bins",
    "fbank_warp",
    "fbank_floor",
    "fbank_kernel",
    "fbank_channels",
    "fbank_norm",
)


@dataclass(frozen=True)
class ModelConfig:
    """All settings of a model.

    The ``conv_`` settings and ``normalise_input`` belong to the waveform front-end, ``normalisation`` to ``fbank_norm``
    to the Fbank front-end (:class:`kdkit.fbank.FbankFrontEnd` explains each). The last ones exist for teachers: Large
    models have ``conv_norm`` "layer", ``pre_norm`` and mostly ``normalise_input``; WavLM has ``relative_buckets``;
    DistilHuBERT has no ``feature_norm``.
    """

    front_end: str = "waveform"  # "waveform" | "fbank"
    layers: int = 12
    dim: int = 768
    ffn: int = 3072
    heads: int = 12
    conv_channels: tuple[int, ...] = (512,) * 7
    pre_norm: bool = False
    pos_kernel: int = 128
    pos_groups: int = 16
    residual_scale: float = 1.0
    dropout: float = 0.1
    normalisation: str = "corpus"  # of Fbank: "corpus" | "utterance" | "mean"
    spec_augment: bool = False  # of Fbank, in training
    bins: int = 80  # of Fbank
    fbank_warp: float = 0.0  # of Fbank, in training: VTLP
    fbank_floor: float = 0.0  # dB below the loudest energy of the utterance; 0: none
    fbank_kernel: int = 5
    fbank_channels: int = 0  # of a first convolution of Fbank; 0: there is none
    fbank_norm: bool = False  # LayerNorm before the projection
    conv_norm: str = "group"  # "group": after the first convolution | "layer": after each
    conv_bias: bool = False
    normalise_input: bool = False  # each utterance to mean 0, variance 1
    relative_buckets: int = 0  # of gated relative positions; 0: none
    relative_distance: int = 800  # frames from which on all distances share the last bucket
    feature_norm: bool = True  # LayerNorm between waveform CNN and projection
    # added to that variance: 1e-5 in fairseq and torchaudio, 1e-7 in transformers
    normalise_epsilon: float = 1e-5

    def __post_init__(self):
        channels = self.conv_channels
        if not isinstance(channels, (list, tuple)) or len(channels) != len(KERNELS):
            raise ConfigError(
                f"conv_channels is {shown(channels)}: {len(KERNELS)} numbers are needed, one per convolution"
            )
        object.__setattr__(self, "conv_channels", tuple(channels))  # JSON gives lists
        for name, (low, high) in LIMITS.items():
            for value in self.conv_channels if name == "conv_channels" else (getattr(self, name),):
                whole(value, name, low, high)
        for name, (low, high) in _NUMBERS.items():
            number(getattr(self, name), name, low, high)
        for name, options in _CHOICES.items():
            choice(getattr(self, name), name, options)
        for name in (f.name for f in fields(self) if f.type == "bool"):
            flag(getattr(self, name), name)
        if self.fbank_kernel % 2 == 0:
            raise ConfigError(
                f"fbank_kernel is {self.fbank_kernel}: an odd number of frames is needed, like 5"
            )
        for divisor in ("heads", "pos_groups"):
            if self.dim % getattr(self, divisor):
                raise ConfigError(f"dim {self.dim} is not a multiple of {divisor} {getattr(self, divisor)}")
        if self.relative_buckets and not 4 <= self.relative_buckets < 4 * self.relative_distance:
            raise ConfigError(
                f"relative_buckets {self.relative_buckets} and relative_distance {self.relative_distance} do not fit: "
                "4 or more buckets are needed, and less than four times as many as the distance"
            )

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> ModelConfig:
        """The config of a :meth:`to_dict`. Raises :class:`ConfigError` for unknown settings and impossible values."""
        if not isinstance(values, dict):
            raise ConfigError(f"the model's settings are {shown(values)}: names and values are needed")
        if "fbank_deep" in values:  # earlier files: a first convolution of the model's width, or none
            deep = flag(values["fbank_deep"], "fbank_deep")
            values = {name: value for name, value in values.items() if name != "fbank_deep"}
            values["fbank_channels"] = values.get("dim", cls.dim) if deep else 0
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ConfigError(
                f"unknown model settings {sorted(unknown, key=str)}; known: {[f.name for f in fields(cls)]}"
            )
        return cls(**values)

    @classmethod
    def of_checkpoint(cls, meta: dict, path: Path) -> ModelConfig:
        """The config in a checkpoint's description. Raises :class:`CheckpointError` that names the file."""
        if "model" not in meta:
            raise CheckpointError(f"{path}: holds no model description; a model's own checkpoint is needed")
        try:
            return cls.from_dict(meta["model"])
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}; the file is damaged, make or copy it again") from error


# no dropout: it costs a third of the time on a CPU, and networks this small do not over-fit
_TINY = ModelConfig(
    layers=12,
    dim=160,
    ffn=640,
    heads=5,
    conv_channels=TINY_CNN,
    pos_kernel=64,
    residual_scale=DEEPNORM,
    dropout=0.0,
)
_TINY_DT = replace(_TINY, dim=96, ffn=96, heads=6)
_TINY_SW = replace(_TINY, layers=2)


def tiny_fbank(twin: ModelConfig) -> ModelConfig:
    """The Fbank twin of a tiny waveform structure: the front-end that the study of levers found best, with half the
    channels, so that it has fewer parameters than the CNN.
    """
    return replace(
        twin,
        front_end="fbank",
        normalisation="utterance",
        bins=40,
        fbank_floor=50.0,
        fbank_channels=twin.dim // 2,
    )


_BASE = ModelConfig()
_DT = ModelConfig(layers=12, dim=480, ffn=480, heads=12)
_SW = ModelConfig(layers=2, dim=768, ffn=3072, heads=12)

PRESETS: dict[str, ModelConfig] = {
    "hubert-base": _BASE,
    "dt-waveform": _DT,
    "dt-fbank": replace(_DT, front_end="fbank", normalisation="utterance"),
    "sw-waveform": _SW,
    "sw-fbank": replace(_SW, front_end="fbank", normalisation="utterance"),
    "tiny-teacher": _TINY,
    "tiny-dt-waveform": _TINY_DT,
    "tiny-dt-fbank": tiny_fbank(_TINY_DT),
    "tiny-sw-waveform": _TINY_SW,
    "tiny-sw-fbank": tiny_fbank(_TINY_SW),
}


def preset(name: str) -> ModelConfig:
    """The named structure; :class:`ConfigError` lists the names when there is none."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass
class Output:
    """``hidden``: layers + 1 tensors (B, T, D), from H^0, the input of layer 1. ``frames`` (B,): real frames."""

    hidden: list[Tensor]
    frames: Tensor

    @property
    def last(self) -> Tensor:
        return self.hidden[-1]

    @property
    def mask(self) -> Tensor:
        """(B, T) True on real frames."""
        return frame_mask(self.frames, self.last.shape[1])


class SpeechModel(nn.Module):
    """Waveforms in, hidden states of every layer out. An utterance's output does not depend on its padding."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        if config.front_end == "waveform":
            self.front_end = WaveformFrontEnd(
                config.dim,
                config.conv_channels,
                config.dropout,
                config.conv_norm,
                config.conv_bias,
                config.normalise_input,
                config.feature_norm,
                config.normalise_epsilon,
            )
        else:
            self.front_end = FbankFrontEnd(
                config.dim,
                dropout=config.dropout,
                normalisation=config.normalisation,
                spec_augment=config.spec_augment,
                bins=config.bins,
                warp=config.fbank_warp,
                floor=config.fbank_floor,
                kernel=config.fbank_kernel,
                channels=config.fbank_channels,
                norm=config.fbank_norm,
            )
        self.encoder = Encoder(
            config.dim,
            config.layers,
            config.ffn,
            config.heads,
            config.dropout,
            config.pre_norm,
            config.pos_kernel,
            config.pos_groups,
            config.residual_scale,
            config.relative_buckets,
            config.relative_distance,
        )

    def forward(
        self, waves: Tensor, lengths: Tensor, padded: bool = True, depth: int | None = None
    ) -> Output:
        """``waves`` (B, S), ``lengths`` (B,) in samples. ``padded=False``: the caller guarantees that all lengths are
        S, which is faster. ``depth``: the last layer to compute (default: all).
        """
        return self.encode(self.front_end(waves, lengths, padded), num_frames(lengths), padded, depth)

    def encode(
        self, features: Tensor, frames: Tensor, padded: bool = True, depth: int | None = None
    ) -> Output:
        """The encoder alone, on front-end features (B, T, dim): training masks them in between."""
        mask = frame_mask(frames, features.shape[1]) if padded else None
        return Output(self.encoder(features, mask, depth), frames)


def _to_another_process(model: SpeechModel) -> tuple:
    """Pickling for joblib: torch cannot pickle the weight norm of the positional convolution."""
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return _in_another_process, (model.config, model.state_dict(), trained, model.training)


def _in_another_process(config: ModelConfig, state: dict[str, Tensor], trained: list[str], training: bool):
    model = SpeechModel(config).train(training)
    model.load_state_dict(state, assign=True)  # keeps their dtype
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return model


register(SpeechModel, _to_another_process)


def parameter_count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
