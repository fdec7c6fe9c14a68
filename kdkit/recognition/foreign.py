"""Recognisers of other libraries: CTC models of transformers, and the ASR bundles of torchaudio.

They are loaded as :class:`kdkit.recognition.ctc.CTCModel`, with their own vocabularies, and can be fine-tuned.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kdkit.common.errors import CheckpointError, NoRecogniserError
from kdkit.model.checkpoints import load_into
from kdkit.model.speech_model import SpeechModel
from kdkit.recognition.ctc import CTCModel
from kdkit.recognition.network import kept_window
from kdkit.recognition.vocabularies import read_vocabulary
from kdkit.speech.text import Vocabulary
from kdkit.teachers.bundles import BUNDLES, Bundle, bundle_of_file, load_bundle
from kdkit.teachers.huggingface import KEPT_WINDOW, load_with_head, read_json

BOUNDARY = "|"
WINDOW = 20.0  # seconds: they were trained on utterances of some 10 to 20 s


def asr_bundles() -> list[str]:
    """Names of torchaudio's bundles with a CTC head."""
    return [name for name, bundle in BUNDLES.items() if bundle.letters]


def recogniser_of_folder(folder: Path) -> CTCModel:
    """The recogniser of a folder of transformers' ``HubertForCTC``, ``Wav2Vec2ForCTC`` or ``WavLMForCTC``.

    The vocabulary is that of vocab.json; the waveform is normalised if the folder's settings say so. Raises
    :class:`NoRecogniserError` for a model without CTC head, and :class:`CheckpointError` where no vocabulary fits it.
    """
    model, _, tensors = load_with_head(folder)
    weight = tensors.get("lm_head.weight")
    if weight is None or weight.ndim != 2:
        raise NoRecogniserError(
            f"{folder}: a model without CTC head (it has no lm_head), so no recogniser; kdkit finetune makes one of it"
        )
    inner = (name for name in tensors if name.endswith(".masked_spec_embed"))
    masked = next((tensors[name] for name in inner), None)
    vocabulary = read_vocabulary(folder, len(weight))
    recogniser = with_head(model, weight, tensors.get("lm_head.bias"), vocabulary, folder, masked)
    config = read_json(folder / "config.json")
    recogniser.window = kept_window({"window": config.get(KEPT_WINDOW, WINDOW)}, folder / "config.json")
    return recogniser


def recogniser_of_file(path: Path, content: dict) -> CTCModel:
    """The recogniser in ``content`` of a bundle's file; ``path`` has the name that torchaudio gave it.

    Raises :class:`NoRecogniserError` for a file of another name and :class:`CheckpointError` for one without CTC head.
    """
    name = bundle_of_file(path)
    if name not in asr_bundles():
        why = "no bundle of torchaudio has a file of this name" if name is None else f"{name} has no CTC head"
        raise NoRecogniserError(
            f"{path}: {why}, so it is no recogniser; those of torchaudio are {', '.join(asr_bundles())}"
        )
    return recogniser_of_bundle(BUNDLES[name], content, path)


def recogniser_of_bundle(bundle: Bundle, content: dict, path: Path) -> CTCModel:
    """The recogniser in ``content`` of the file ``path``. As in torchaudio, the head's outputs for fairseq's special
    symbols are left out. Raises :class:`CheckpointError` for a file without CTC head.
    """
    model, _ = load_bundle(bundle, content, path)
    if "aux.weight" not in content or "aux.bias" not in content:
        raise CheckpointError(f"{path}: the CTC head (aux.weight, aux.bias) is missing: damaged?")
    kept = [n for n in range(len(content["aux.weight"])) if n not in bundle.unused]
    symbols = ("-", *bundle.letters)
    vocabulary = Vocabulary(symbols, 0, symbols.index(BOUNDARY) if BOUNDARY in symbols else None)
    return with_head(model, content["aux.weight"][kept], content["aux.bias"][kept], vocabulary, path)


def with_head(
    model: SpeechModel,
    weight: Tensor,
    bias: Tensor | None,
    vocabulary: Vocabulary,
    where: Path,
    mask_embedding: Tensor | None = None,
) -> CTCModel:
    """``model`` with a trained head: ``weight`` (symbols, dim), ``bias`` (symbols,) or None. In eval mode."""
    recogniser = CTCModel(model, vocabulary)
    bias = torch.zeros(len(vocabulary)) if bias is None else bias
    load_into(recogniser.head, {"weight": weight, "bias": bias}, where)
    if mask_embedding is not None and mask_embedding.shape == recogniser.mask_embedding.shape:
        with torch.no_grad():
            recogniser.mask_embedding.copy_(mask_embedding)
    recogniser.window = WINDOW
    return recogniser.eval()
