"""CTC fine-tuning: a linear head over characters on a (distilled) model, and the recogniser that results."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.augment import AUGMENTED, AugmentConfig, augment
from kdkit.batches import Batches
from kdkit.checkpoints import load_checkpoint, load_into, save_checkpoint
from kdkit.decode import greedy
from kdkit.errors import TextError, TrainingError
from kdkit.frontends import num_frames
from kdkit.manifest import Utterance
from kdkit.models import ModelConfig, SpeechModel
from kdkit.pretrain import span_mask
from kdkit.score import COLLAPSED
from kdkit.text import BLANK, VOCABULARY, encode, frames_needed


@dataclass(frozen=True)
class MaskConfig:
    """Masking while fine-tuning, as in wav2vec 2.0: spans of frames and of channels of the front-end's output."""

    time: float = 0.2  # share of frames covered if no spans overlapped; 0 switches it off
    time_span: int = 5  # frames of 20 ms
    channel: float = 0.1
    channel_span: int = 16


class Recogniser(nn.Module):
    """A speech model and a linear CTC head.

    ``forward(waves (B, S), lengths (B,))`` gives logits (B, T, vocabulary) and true frame counts (B,).
    """

    def __init__(self, model: SpeechModel):
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.config.dim, len(VOCABULARY))
        self.mask_embedding = nn.Parameter(torch.zeros(model.config.dim))

    def forward(
        self, waves: Tensor, lengths: Tensor, mask: MaskConfig | None = None
    ) -> tuple[Tensor, Tensor]:
        frames = num_frames(lengths)
        features = self.model.front_end(waves, lengths)  # (B, T, D)
        if mask is not None:
            features = self._masked(features, mask)
        return self.head(self.model.encode(features, frames).last), frames

    def _masked(self, features: Tensor, mask: MaskConfig) -> Tensor:
        batch, total, dim = features.shape
        if mask.time:
            hidden = span_mask(batch, total, mask.time, mask.time_span).to(features.device)
            features = torch.where(hidden[..., None], self.mask_embedding.to(features.dtype), features)
        if mask.channel:
            hidden = span_mask(batch, dim, mask.channel, mask.channel_span).to(features.device)
            features = features.masked_fill(hidden[:, None], 0.0)
        return features

    @torch.inference_mode()
    def transcribe(self, utterances: list[Utterance], seconds_per_batch: float = 60) -> dict[str, str]:
        """Greedy transcripts by utterance id, in length-sorted batches."""
        self.eval()
        device = next(self.parameters()).device
        texts = {}
        for batch in Batches(utterances, seconds_per_batch).epoch():
            batch = batch.to(device)
            logits, frames = self(batch.waves, batch.lengths)
            for utterance, text in zip(batch.utterances, greedy(logits, frames), strict=True):
                texts[utterance.id] = text
        return texts


class CTCTask(nn.Module):
    """CTC loss of a batch for :func:`kdkit.training.train`, per character.

    In training mode the sound is augmented (:mod:`kdkit.augment`) and features are masked.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        mask: MaskConfig | None = MaskConfig(),
        augmenting: AugmentConfig | None = AUGMENTED,
    ):
        super().__init__()
        self.recogniser, self.mask, self.augmenting = recogniser, mask, augmenting
        self.settings = {
            "model": recogniser.model.config.to_dict(),
            "mask": mask and asdict(mask),
            "augmenting": augmenting and asdict(augmenting),
        }

    def size(self, batch) -> int:
        """Characters: what the loss is a mean over."""
        return sum(len(u.text) for u in batch.utterances)

    def complaints(self, rows: list[dict]) -> list[str]:
        """Says so when only blanks are left long after the warm-up."""
        blanks = [row["blanks"] for row in rows if "blanks" in row]
        if len(blanks) >= 20 and min(blanks[-10:]) > COLLAPSED:
            return [
                f"more than {100 * COLLAPSED:.0f} % of the frames are blank for the last ten logged steps: the "
                "recogniser says next to nothing yet. Usual at first; if it stays, train longer, raise lr, or start "
                "from a distilled student"
            ]
        return []

    def forward(self, batch) -> tuple[Tensor, dict[str, Tensor]]:
        waves = batch.waves
        if self.training and self.augmenting is not None:
            waves = augment(waves, batch.lengths, self.augmenting)
        logits, frames = self.recogniser(waves, batch.lengths, self.mask if self.training else None)
        labels = [torch.tensor(encode(u.text, u.id)) for u in batch.utterances]
        sizes = torch.tensor([len(label) for label in labels])
        log_probs = logits.float().log_softmax(-1).transpose(0, 1)  # (T, B, V)
        loss = F.ctc_loss(
            log_probs, torch.cat(labels).to(logits.device), frames, sizes, BLANK, reduction="sum"
        )
        best = logits.argmax(-1) == BLANK
        return loss / sizes.sum(), {"blanks": best.float().mean()}


def trainable(utterances: list[Utterance]) -> list[Utterance]:
    """Utterances that CTC can learn from; the others are counted and named in one warning.

    Left out: no text, characters outside the vocabulary, and labels that need more frames than there are (a letter
    needs a frame, a repeated letter one more for the blank between).
    """
    kept, dropped = [], []
    for utterance in utterances:
        try:
            label = encode(utterance.text, utterance.id)
        except TextError as error:
            dropped.append(str(error))
            continue
        needed = frames_needed(label)
        frames = num_frames(round(utterance.duration * 16_000))
        if not label:
            dropped.append(f"{utterance.id}: no text")
        elif needed > frames:
            dropped.append(f"{utterance.id}: text needs {needed} frames, the audio has {frames}")
        else:
            kept.append(utterance)
    if dropped:
        shown = "; ".join(dropped[:3]) + ("; ..." if len(dropped) > 3 else "")
        warnings.warn(f"left out {len(dropped)} of {len(utterances)} utterances: {shown}", stacklevel=2)
    if not kept:
        raise TrainingError(
            "no utterance is left to train on: every one has no text, or more text than audio"
        )
    return kept


def save_recogniser(path: Path, recogniser: Recogniser, meta: dict, pack=None) -> None:
    """Writes model and CTC head to one file; ``pack`` may shrink the tensors (``checkpoints.half``)."""
    tensors = recogniser.state_dict()
    meta = meta | {"model": recogniser.model.config.to_dict(), "vocabulary": list(VOCABULARY)}
    save_checkpoint(path, pack(tensors) if pack else tensors, meta)


def load_recogniser(path: Path) -> tuple[Recogniser, dict]:
    """What :func:`save_recogniser` wrote, in eval mode, and its description."""
    tensors, meta = load_checkpoint(path)
    recogniser = Recogniser(SpeechModel(ModelConfig.from_dict(meta["model"])))
    load_into(recogniser, tensors, path)
    return recogniser.eval(), meta
