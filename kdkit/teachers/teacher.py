"""A teacher: a frozen model, its codebook, and where it came from; and kdkit's own files of models."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from kdkit.common.errors import AudioError, CheckpointError, ConfigError
from kdkit.common.validation import number
from kdkit.model.checkpoints import filled, load_checkpoint, save_checkpoint
from kdkit.model.codebook import TAU, Codebook
from kdkit.model.speech_model import ModelConfig, Output, SpeechModel, parameter_count
from kdkit.speech.frames import RECEPTIVE_FIELD

ASSETS = Path(os.environ.get("KDKIT_ASSETS") or str(files("kdkit") / "assets"))


@dataclass
class Teacher:
    """``model`` is in eval mode and needs no gradient; ``codebook`` may be None; ``meta`` is what its file says of it.

    ``source`` is the name or path that was asked for.
    """

    model: SpeechModel
    codebook: Codebook | None
    source: str
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        self.model.requires_grad_(False).eval()

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def to(self, device: torch.device | str) -> Teacher:
        """Moves model and codebook; gives itself back."""
        self.model.to(device)
        if self.codebook is not None:
            self.codebook.to(device)
        return self

    @torch.no_grad()
    def hidden(self, waves: Tensor, lengths: Tensor) -> Output:
        """Hidden states H^0 .. H^L of a padded batch, without gradient.

        ``waves`` (B, S) at 16 kHz in [-1, 1], ``lengths`` (B,) samples. The model normalises the waves itself where it
        wants that. An utterance's states are those that it has alone, however the batch is padded.

        Raises :class:`AudioError` for an utterance of less than 400 samples, which do not make a frame, for lengths
        that the batch does not have, and for waves of another shape or kind.
        """
        waves, lengths = torch.as_tensor(waves), torch.as_tensor(lengths)
        check_waves(waves, lengths)
        return self.model(waves, lengths)

    def _no_codebook(self) -> str:
        reason = str(self.meta.get("codebook", "")).partition("none: ")[2]
        return f"no codebook ({reason})" if reason else "no codebook"

    def __str__(self) -> str:
        c = self.config
        parts = [
            f"{self.source}: {parameter_count(self.model) / 1e6:.1f} M parameters, {c.layers} layers of width {c.dim}",
            f"{c.conv_norm} norm in the CNN" if c.front_end == "waveform" else "Fbank front-end",
            "pre-norm" if c.pre_norm else "post-norm",
            *(["input normalised"] if c.normalise_input else []),
            *(["gated relative positions"] if c.relative_buckets else []),
            f"codebook of {len(self.codebook.label_embeddings)} clusters"
            if self.codebook
            else self._no_codebook(),
            *([f"assumed: {self.meta['assumed']}"] if "assumed" in self.meta else []),
        ]
        return ", ".join(parts)


def check_waves(waves: Tensor, lengths: Tensor) -> None:
    """Raises :class:`AudioError` for what is no batch of utterances. Lengths on a GPU are taken as they are: reading
    them would make the CPU wait for it.
    """
    if waves.ndim != 2 or lengths.shape != waves.shape[:1]:
        raise AudioError(
            f"waves have shape {tuple(waves.shape)}, lengths {tuple(lengths.shape)}: (batch, samples) and (batch,) are "
            "needed; wave[None] makes a batch of one wave"
        )
    if not waves.is_floating_point() or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise AudioError(
            f"waves are {str(waves.dtype)[6:]}, lengths {str(lengths.dtype)[6:]}: floats from -1 to 1, and whole "
            "numbers of samples are needed"
        )
    shortest, longest = waves.shape[1], waves.shape[1]
    if lengths.device.type == "cpu" and len(lengths):
        shortest, longest = int(lengths.min()), int(lengths.max())
    if min(shortest, waves.shape[1]) < RECEPTIVE_FIELD:
        raise AudioError(
            f"an utterance of {min(shortest, waves.shape[1])} samples: {RECEPTIVE_FIELD} make the first frame"
        )
    if longest > waves.shape[1]:
        raise AudioError(
            f"an utterance of {longest} samples in a batch of {waves.shape[1]}: lengths do not fit"
        )


def fingerprint(model: SpeechModel) -> str:
    """Twelve characters that stand for a model's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def origin(source: str) -> str:
    """How a file names the model that it came from: without folders, which differ from machine to machine."""
    return Path(source).name if Path(source).exists() else source


def save_model(
    path: Path, model: SpeechModel, meta: dict, codebook: Codebook | None = None, pack=None
) -> None:
    """Writes a model (and codebook) to one file; ``pack`` may shrink the tensors (``checkpoints.half``)."""
    tensors = {f"model.{n}": t for n, t in model.state_dict().items()}
    if codebook is not None:
        tensors |= {f"codebook.{n}": t for n, t in codebook.state_dict().items()}
        meta = meta | {"tau": codebook.tau}
    save_checkpoint(path, pack(tensors) if pack else tensors, meta | {"model": model.config.to_dict()})


def load_model(path: Path) -> tuple[SpeechModel, Codebook | None, dict]:
    """What :func:`save_model` wrote: model, codebook or None, description. In eval mode, float32."""
    tensors, meta = load_checkpoint(path)
    config = ModelConfig.of_checkpoint(meta, path)
    model = filled(lambda: SpeechModel(config), tensors, path, "model.")
    codebook = None
    if "codebook.label_embeddings" in tensors:
        try:
            tau = number(meta.get("tau"), "tau", *TAU)
            clusters, proj = tensors["codebook.label_embeddings"].shape
        except (ConfigError, ValueError) as error:
            raise CheckpointError(
                f"{path}: its codebook is damaged ({error}); make or copy it again"
            ) from error
        codebook = filled(lambda: Codebook(config.dim, clusters, proj, tau), tensors, path, "codebook.")
        codebook.requires_grad_(False)
    return model, codebook, meta
