"""The recogniser: a speech model with a linear CTC head, the task that trains it, and its file."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kdkit.common.errors import CheckpointError, ConfigError, NoRecogniserError, TextError, TrainingError
from kdkit.model.checkpoints import filled, load_checkpoint, save_checkpoint
from kdkit.model.masking import span_mask
from kdkit.model.speech_model import ModelConfig, SpeechModel
from kdkit.recognition.ctc_loss import ctc_loss, has_kernel
from kdkit.recognition.network import WINDOW, kept_window
from kdkit.speech.augment import AUGMENTED, AugmentConfig, augment, perturb_speed
from kdkit.speech.batches import to_device
from kdkit.speech.frames import num_frames
from kdkit.speech.manifest import Utterance
from kdkit.speech.text import VOCABULARY, Vocabulary, frames_needed
from kdkit.speech.transcripts import Cleaning, counts

LABELS = 16  # characters: labels are padded to multiples of it, so that few different shapes occur
ALL_BLANK = 0.97  # share of blank frames above which a recogniser writes next to nothing
_NAMED = 3  # utterances with too few frames for their text that are named one by one


@dataclass(frozen=True)
class MaskConfig:
    """Masking in fine-tuning, as in wav2vec 2.0: spans of frames and of channels of the front-end's output."""

    time: float = 0.2  # share of frames masked if no spans overlapped; 0: off
    time_span: int = 5  # frames of 20 ms
    channel: float = 0.1
    channel_span: int = 16


class CTCModel(nn.Module):
    """A speech model and a linear CTC head, one output for each symbol of ``vocabulary``.

    ``forward(waves (B, S), lengths (B,))`` gives logits (B, T, vocabulary) and true frame counts (B,). With
    ``head_only`` no gradient flows below the head. ``window``: seconds of audio that it transcribes at once
    (:func:`kdkit.recognition.network.window_of`).

    The bias of a new head makes blank as probable as all characters together, about its share in CTC's alignments
    before anything is learnt (a blank fits between any two characters). Without that bias some character is the most
    probable in every frame by chance, and training may get stuck there: the recogniser writes "e" everywhere.
    All-blank is a plateau, too, but training leaves it.
    """

    def __init__(self, model: SpeechModel, vocabulary: Vocabulary = VOCABULARY):
        super().__init__()
        self.model, self.vocabulary = model, vocabulary
        self.head = nn.Linear(model.config.dim, len(vocabulary))
        with torch.no_grad():
            self.head.bias[vocabulary.blank] = math.log(len(vocabulary) - 1)
        self.mask_embedding = nn.Parameter(torch.zeros(model.config.dim))
        self.window = WINDOW

    def forward(
        self,
        waves: Tensor,
        lengths: Tensor,
        hidden: tuple[Tensor | None, Tensor | None] = (None, None),
        head_only: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """``hidden`` (:func:`draw_masks`): frames (B, T) and channels (B, dim) to mask after the front-end."""
        frames = num_frames(lengths)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not head_only):
            features = self.hide(self.model.front_end(waves, lengths), *hidden)  # (B, T, D)
            last = self.model.encode(features, frames).last
        return self.head(last), frames

    def hide(self, features: Tensor, frames: Tensor | None, channels: Tensor | None) -> Tensor:
        """Features (B, T, dim) with ``frames`` (B, T) and ``channels`` (B, dim) masked."""
        if frames is not None:
            features = torch.where(frames[..., None], self.mask_embedding.to(features.dtype), features)
        if channels is not None:
            features = features.masked_fill(channels[:, None], 0.0)
        return features


def draw_masks(
    mask: MaskConfig, batch: int, frames: int, channels: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Random masks of frames (batch, frames) and channels (batch, channels); None for one that ``mask`` leaves out."""
    of_time = span_mask(batch, frames, mask.time, mask.time_span) if mask.time else None
    of_channels = span_mask(batch, channels, mask.channel, mask.channel_span) if mask.channel else None
    return tuple(some if some is None else to_device(some, device) for some in (of_time, of_channels))


class CTCTask(nn.Module):
    """CTC loss of a batch for :func:`kdkit.training.loop.train`, per character.

    In training mode the audio is augmented (:mod:`kdkit.speech.augment`), resampled to one of ``speeds`` if there are
    any, and features are masked. For the first ``freeze`` (a share) of the steps only the head is trained, so that the
    gradients of a random head do not change the model. ``front_end_rate``: see
    :class:`kdkit.recognition.finetune.FineTuneConfig`. An utterance with too few frames for its text is left out of the
    loss, and :meth:`complaints` names it.
    """

    drawn = ("recogniser.head", "recogniser.mask_embedding")

    def __init__(
        self,
        recogniser: CTCModel,
        mask: MaskConfig | None = MaskConfig(),
        augmenting: AugmentConfig | None = AUGMENTED,
        freeze: float = 0.0,
        speeds: tuple[float, ...] = (),
        front_end_rate: float = 1.0,
    ):
        super().__init__()
        if not all(0.5 <= speed <= 2 for speed in speeds):
            raise ConfigError(f"speeds are {speeds}: each must be between 0.5 and 2, 1 being as it is")
        if not 0 <= freeze < 1:
            raise ConfigError(
                f"freeze is {freeze}: the share of the steps is needed, 0 or more and less than 1"
            )
        if not front_end_rate >= 0:
            raise ConfigError(f"front_end_rate is {front_end_rate}: a share of the learning rate, 0 or more")
        self.recogniser, self.mask, self.augmenting, self.freeze = recogniser, mask, augmenting, freeze
        self.speeds, self.rates = tuple(speeds), {"recogniser.model.front_end.": front_end_rate}
        self.leaves_some_out = freeze > 0
        self.settings = {
            "model": recogniser.model.config.to_dict(),
            "mask": mask and asdict(mask),
            "augmenting": augmenting and asdict(augmenting),
        }
        if recogniser.vocabulary != VOCABULARY:
            self.settings |= recogniser.vocabulary.to_meta()
        if freeze:
            self.settings["freeze"] = freeze
        if front_end_rate != 1:
            self.settings["front_end_rate"] = front_end_rate
        if speeds:
            self.settings["speeds"] = list(speeds)
        self._head_only = False
        self._no_room: dict[str, str] = {}  # utterance id: why

    def schedule(self, step: int, steps: int) -> None:
        """Called before step ``step`` of ``steps``: decides whether the model is still frozen."""
        self._head_only = step < self.freeze * steps

    def size(self, batch) -> int:
        """Number of characters, over which the loss is a mean."""
        return max(1, sum(len(label) for label in self._labels(batch).values()))

    def complaints(self, rows: list[dict]) -> list[str]:
        """Warnings: utterances with too few frames for their text, a collapse to blanks. ``rows``: of the log."""
        said = list(self._no_room.values())[:_NAMED]
        if len(self._no_room) > _NAMED:
            said.append(
                "more utterances are like that: look at durations and transcripts (kdkit prepare check)"
            )
        return said + explain_blanks(rows)

    @property
    def stage(self) -> bool:
        """What :meth:`compute` depends on besides its inputs: whether only the head is trained."""
        return self.training and self._head_only

    @property
    def on_device(self) -> bool:
        """Is all of :meth:`compute` done on the GPU?"""
        return has_kernel()

    def forward(self, batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.compute(self.prepare(batch))

    def prepare(self, batch) -> dict[str, Tensor]:
        """The inputs of :meth:`compute`, including everything random: ``waves`` (B, S) and ``lengths`` (B,); ``labels``
        (B, L) and their lengths ``sizes`` (B,), -1 where there are too few frames; masks ``time`` and ``channels``.
        """
        waves, lengths, on_host = batch.waves, batch.lengths, batch.on_host
        if self.training and self.speeds:
            waves, lengths, on_host = perturb_speed(waves, lengths, self.speeds, on_host)
        if self.training and self.augmenting is not None:
            waves = augment(waves, lengths, self.augmenting)
        inputs = {"waves": waves, "lengths": lengths}
        if self.training and self.mask is not None:
            shape = len(waves), num_frames(waves.shape[1]), self.recogniser.model.config.dim
            masks = draw_masks(self.mask, *shape, waves.device)
            inputs |= {name: m for name, m in zip(("time", "channels"), masks) if m is not None}
        frames = num_frames(on_host).tolist()  # fewer when played faster
        labels = self._labels(batch)
        labels = [
            labels[r] if r in labels and frames_needed(labels[r]) <= frames[r] else None
            for r in range(len(waves))
        ]
        longest = max(1, *(len(label or ()) for label in labels))
        longest += -longest % LABELS
        padded = torch.tensor([[*(label or ()), *[0] * (longest - len(label or ()))] for label in labels])
        sizes = torch.tensor([-1 if label is None else len(label) for label in labels])
        device = waves.device
        return inputs | {"labels": to_device(padded, device), "sizes": to_device(sizes, device)}

    def compute(self, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and parts: a function of ``inputs`` and weights (and dropout) only."""
        hidden = inputs.get("time"), inputs.get("channels")
        logits, frames = self.recogniser(inputs["waves"], inputs["lengths"], hidden, self.stage)
        blank = self.recogniser.vocabulary.blank
        blanks = (logits.argmax(-1) == blank).float().mean()
        sizes = inputs["sizes"]
        loss = ctc_loss(logits.float().log_softmax(-1), inputs["labels"], frames, sizes, blank)
        return loss.sum() / sizes.clamp_min(0).sum().clamp_min(1), {"blanks": blanks}

    def _labels(self, batch) -> dict[int, list[int]]:
        """{row of the batch: character ids} for every utterance with enough frames for its text."""
        labels = {}
        for row, (utterance, frames) in enumerate(zip(batch.utterances, num_frames(batch.on_host).tolist())):
            label = self.recogniser.vocabulary.encode(utterance.text, utterance.id)
            needed = frames_needed(label)
            if needed <= frames:
                labels[row] = label
            else:
                self._no_room[utterance.id] = (
                    f"{utterance.id}: its text needs {needed} frames, its audio has {frames}, so no alignment exists "
                    "and it teaches nothing: is the transcript another one's, the audio cut off, or the manifest's "
                    f"duration ({utterance.duration:.2f} s) wrong?"
                )
        return labels


def explain_blanks(rows: list[dict]) -> list[str]:
    """A warning when a run has collapsed to blanks. ``rows`` of its log have ``blanks``, the share of blank frames."""
    blanks = [(row["step"], row["blanks"]) for row in rows if "blanks" in row]
    if len(blanks) < 20 or min(share for _, share in blanks[-10:]) <= ALL_BLANK:
        return []
    silent = next(i for i, (_, share) in enumerate(blanks) if share > ALL_BLANK)  # random output before
    lowest = min(blanks[silent:], key=lambda item: item[1])
    if lowest[1] < ALL_BLANK - 0.1:
        return [
            f"it has fallen back to blanks: at step {lowest[0]} {100 * lowest[1]:.0f} % of the frames were blank, and "
            f"for the last ten logged steps more than {100 * ALL_BLANK:.0f} %. The steps were too large: lower lr, or "
            "warm up for longer"
        ]
    return [
        f"more than {100 * ALL_BLANK:.0f} % of the frames are blank for the last ten logged steps: the recogniser says "
        "next to nothing yet. Usual at first, because blank is the safest guess while letters are not told apart; if "
        "it stays, train longer, raise lr, start from a distilled student, or see that the texts belong to the audio"
    ]


def trainable(utterances: list[Utterance], vocabulary: Vocabulary = VOCABULARY) -> list[Utterance]:
    """Utterances that CTC can learn from with ``vocabulary``, their texts cleaned.

    Left out, with one warning: utterances without text, with characters outside the vocabulary, and with fewer frames
    than their labels need (one for each letter, one more for the blank between equal letters). Raises TrainingError,
    with the count of each reason, when nothing is left.
    """
    kept, dropped, reasons, cleaning = [], [], Counter(), Cleaning(vocabulary)
    for utterance in utterances:
        utterance = replace(utterance, text=cleaning.add(utterance.text))
        try:
            label = vocabulary.encode(utterance.text, utterance.id)
        except TextError as error:
            dropped.append(str(error))
            reasons["have characters outside the alphabet"] += 1
            continue
        needed = frames_needed(label)
        frames = num_frames(utterance.samples)
        if not label:
            dropped.append(f"{utterance.id}: no text")
            reasons["have no text"] += 1
        elif needed > frames:
            dropped.append(f"{utterance.id}: text needs {needed} frames, the audio has {frames}")
            reasons["have more text than audio"] += 1
        else:
            kept.append(utterance)
    if dropped:
        shown = "; ".join(dropped[:3]) + ("; ..." if len(dropped) > 3 else "")
        warnings.warn(f"left out {len(dropped)} of {len(utterances)} utterances: {shown}", stacklevel=2)
    if cleaning.tags:
        warnings.warn(cleaning.tags, stacklevel=2)
    if not kept:
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        if cleaning.outside:
            why += (
                f" ({counts(cleaning.outside)}; kdkit prepare --spell-numbers spells numbers and signs out)"
            )
        raise TrainingError(
            f"no utterance is left to train on: of {len(utterances)}, {why or 'none was given'}"
        )
    return kept


def save_recogniser(path: Path, recogniser: CTCModel, meta: dict, pack=None) -> None:
    """Writes model, CTC head, vocabulary and ``meta`` to a file; ``pack`` may compress tensors, as ``half`` does."""
    tensors = recogniser.state_dict()
    meta = meta | {"model": recogniser.model.config.to_dict()} | recogniser.vocabulary.to_meta()
    meta |= {"window": recogniser.window}
    save_checkpoint(path, pack(tensors) if pack else tensors, meta)


def load_recogniser(path: Path) -> tuple[CTCModel, dict]:
    """The recogniser that :func:`save_recogniser` wrote, in eval mode, and its metadata.

    Raises :class:`NoRecogniserError` for a checkpoint without a vocabulary, :class:`CheckpointError` for a damaged one.
    """
    tensors, meta = load_checkpoint(path)
    config = ModelConfig.of_checkpoint(meta, path)
    if "vocabulary" not in meta:
        raise NoRecogniserError(
            f"{path}: no recogniser, as it has no vocabulary; kdkit finetune makes one of a student or teacher"
        )
    try:
        vocabulary = Vocabulary.from_meta(meta)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}; the file is damaged, make or copy it again") from error
    recogniser = filled(lambda: CTCModel(SpeechModel(config), vocabulary), tensors, path)
    recogniser.window = kept_window(meta, path)
    return recogniser, meta
