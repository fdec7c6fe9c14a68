"""A teacher: a frozen model, its codebook and origin; and kdkit's own model files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from kdkit.common.errors import AudioError, CheckpointError, ConfigError
from kdkit.common.machine import training_precision
from kdkit.common.validation import number
from kdkit.model.checkpoints import filled, load_checkpoint, save_checkpoint
from kdkit.model.codebook import TAU, Codebook
from kdkit.model.speech_model import ModelConfig, Output, SpeechModel, parameter_count
from kdkit.speech.batches import Batches
from kdkit.speech.frames import RECEPTIVE_FIELD
from kdkit.speech.manifest import Utterance

ASSETS = Path(os.environ.get("KDKIT_ASSETS") or str(files("kdkit") / "assets"))


@dataclass
class Teacher:
    """A frozen model in eval mode, its codebook (or None), the name or path it was loaded from (``source``), and what
    its file says about it (``meta``).
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
        """Moves model and codebook to ``device``; returns the teacher itself."""
        self.model.to(device)
        if self.codebook is not None:
            self.codebook.to(device)
        return self

    @torch.no_grad()
    def hidden(self, waves: Tensor, lengths: Tensor) -> Output:
        """Hidden states H^0 .. H^L of a padded batch, without gradient.

        ``waves`` (B, S) at 16 kHz in [-1, 1], ``lengths`` (B,) samples. Models that expect normalised waves normalise
        them here. An utterance's states do not depend on the padding of the batch.

        Raises :class:`AudioError` for an utterance of fewer than 400 samples (one frame), for lengths beyond the
        batch, and for waves of another shape or type.
        """
        waves, lengths = torch.as_tensor(waves), torch.as_tensor(lengths)
        check_waves(waves, lengths)
        return self.model(waves, lengths)

    def needed_codebook(self) -> Codebook:
        """The codebook. Raises :class:`ConfigError` where there is none, or one for another width."""
        book = self.codebook
        if book is None:
            raise ConfigError(
                f"teacher {self.source!r} has no codebook: make one of k-means centroids (Codebook.from_centroids), "
                "give a second teacher that has one, or set discriminative_weight to 0"
            )
        if book.final_proj.in_features != self.config.dim:
            raise ConfigError(
                f"the codebook is for width {book.final_proj.in_features}, its teacher is {self.config.dim} wide"
            )
        return book

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
    """Raises :class:`AudioError` unless waves (B, S) and lengths (B,) are a batch of utterances. The values of lengths
    on a GPU are not checked: reading them would force a GPU sync.
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


@torch.no_grad()
def hidden_states(
    model: SpeechModel,
    utterances: Sequence[Utterance],
    layers: Sequence[int],
    seconds_per_batch: float = 64,
    precision: str = "auto",
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[Utterance, Tensor]]:
    """Hidden states of each utterance that can be read: (layers, frames, dim) of ``dtype``, on the CPU.

    The model computes on its own device, in ``precision`` (:func:`kdkit.common.machine.training_precision`), one batch
    at a time; utterances come in the order of the batches.
    """
    device = next(model.parameters()).device
    precision = training_precision(precision, device)
    low = torch.float16 if precision == "fp16" else torch.bfloat16
    batches = Batches(utterances, seconds_per_batch)
    try:
        for batch in batches.epoch():
            with torch.autocast(device.type, low, enabled=precision != "fp32"):
                output = model(batch.waves.to(device), batch.lengths.to(device))
            states = torch.stack([output.hidden[layer] for layer in layers]).to("cpu", dtype)
            for row, (utterance, frames) in enumerate(
                zip(batch.utterances, output.frames.tolist(), strict=True)
            ):
                yield utterance, states[:, row, :frames]
    finally:
        batches.close()


def fingerprint(model: SpeechModel) -> str:
    """A hash of a model's weights, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def origin(source: str) -> str:
    """A model's source as metadata name it: of a path only the file name, because folders differ by machine."""
    return Path(source).name if Path(source).exists() else source


def save_model(
    path: Path, model: SpeechModel, meta: dict, codebook: Codebook | None = None, pack=None
) -> None:
    """Writes a model (and codebook) to one file; ``pack`` may compress the tensors (``checkpoints.half``)."""
    tensors = {f"model.{n}": t for n, t in model.state_dict().items()}
    if codebook is not None:
        tensors |= {f"codebook.{n}": t for n, t in codebook.state_dict().items()}
        meta = meta | {"tau": codebook.tau}
    save_checkpoint(path, pack(tensors) if pack else tensors, meta | {"model": model.config.to_dict()})


def load_model(path: Path) -> tuple[SpeechModel, Codebook | None, dict]:
    """Reads a file of :func:`save_model`: model (eval mode, float32), codebook or None, metadata."""
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
