"""Loads the network of a recogniser from a file, folder or name; called with waves and lengths, it returns emissions.

network = load_network("recogniser.safetensors")      # or what :func:`load_network` lists
logits, frames = network(waves, lengths)              # (B, S), (B,) -> (B, T, V), (B,)
network = ready_network("recogniser.safetensors", "bf16")   # on the GPU, if there is one, and optimised
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from kdkit.common.errors import CheckpointError, ConfigError, NoRecogniserError
from kdkit.common.files import is_file
from kdkit.common.machine import best_device
from kdkit.model.checkpoints import is_own, read_safetensors
from kdkit.model.inference import optimised
from kdkit.model.speech_model import SpeechModel
from kdkit.recognition.ctc import CTCModel, load_recogniser
from kdkit.recognition.foreign import asr_bundles, recogniser_of_file, recogniser_of_folder
from kdkit.recognition.network import Network, kept_window
from kdkit.speech.text import Vocabulary
from kdkit.teachers import ASSETS, load_teacher
from kdkit.teachers.bare import tensors_of
from kdkit.teachers.fairseq import is_fairseq
from kdkit.teachers.huggingface import is_weights
from kdkit.teachers.load import locate
from kdkit.teachers.safe_pickle import read_pickle

INPUTS, OUTPUTS = {"waves", "lengths"}, {"logits", "frames"}
KEPT = ("vocabulary", "vocabulary_roles", "window")  # in an ONNX file's metadata, as JSON


def load_network(source: str | Path) -> Network:
    """The network of a recogniser:

    * kdkit's own: a ``.safetensors`` file, an ``.onnx`` file (:class:`OnnxNetwork`), or the name of a shipped one, such
      as "tiny_sw_fbank_distilled_60";
    * transformers' ``HubertForCTC``, ``Wav2Vec2ForCTC`` or ``WavLMForCTC``: a folder (``kdkit export --to huggingface``
      writes one), or "owner/name" on the hub;
    * torchaudio's "HUBERT_ASR_LARGE", "WAV2VEC2_ASR_BASE_960H", ... (:mod:`kdkit.recognition.foreign`).

    It has a ``vocabulary``. Raises :class:`CheckpointError` for a missing or damaged file, and its subclass
    :class:`NoRecogniserError` for a model that is no recogniser.
    """
    shipped = {p.stem.removeprefix("recogniser_"): p for p in sorted(ASSETS.glob("recogniser_*.safetensors"))}
    path = Path(os.path.expanduser(source))
    path = path if os.path.exists(path) else shipped.get(str(source)) or locate(source)
    if os.path.isdir(path):
        return recogniser_of_folder(path)
    if not is_file(path):
        raise NoRecogniserError(
            f"{source}: no such file or folder, no recogniser of torchaudio ({', '.join(asr_bundles()[:2])}, ...), and "
            f"none that ships with the kit; those are {', '.join(shipped)}"
        )
    if is_weights(path):
        return recogniser_of_folder(path.parent)
    readers = {".onnx": OnnxNetwork, ".safetensors": load_own}
    return readers.get(path.suffix.lower(), load_pickled)(path)


def load_ctc(source: str | Path) -> CTCModel:
    """:func:`load_network` for callers that need the weights: raises :class:`CheckpointError` for an ONNX file, too."""
    network = load_network(source)
    if not isinstance(network, CTCModel):
        raise CheckpointError(f"{source} is exported already: give the model that it was made of")
    return network


def load_start(source: str | Path, new_head: bool = False) -> SpeechModel | CTCModel:
    """The model that fine-tuning starts from, with gradients on.

    If ``source`` is a recogniser (:func:`load_network`), it keeps its head, unless ``new_head``; any other model
    (:func:`kdkit.teachers.load_teacher`) is returned without one.
    """
    try:
        found = load_ctc(source)
    except CheckpointError as error:
        if not new_head and not isinstance(error, NoRecogniserError):
            raise
        found = load_teacher(source)
    keeps_head = isinstance(found, CTCModel) and not new_head
    return (found if keeps_head else found.model).requires_grad_(True)


def ready_network(source: str | Path, precision: str = "fp32") -> Network:
    """:func:`load_network`, on the GPU if there is one, and prepared for use in "fp32", "bf16" or "int8"
    (:mod:`kdkit.model.inference`).

    Raises :class:`ConfigError` for a precision that is unknown or, such as int8 on a GPU, not to be had.
    """
    network = load_network(source)
    if isinstance(network, nn.Module):
        return optimised(network.to(best_device()), precision)
    if precision != "fp32":
        raise ConfigError(
            f"{source}: an ONNX file keeps the precision that it was written in, so --precision {precision} is not for "
            "it; kdkit export --to onnx --int8 writes one in int8"
        )
    return network


def load_own(path: Path) -> CTCModel:
    """The recogniser of a ``.safetensors`` file that :func:`kdkit.recognition.ctc.save_recogniser` wrote."""
    tensors, header = read_safetensors(path)
    if tensors_of(tensors) is not None and not is_own(header):
        raise NoRecogniserError(
            f"{path}: tensors of another library alone, which do not say what letters they stand for; give the folder "
            "with config.json and vocab.json"
        )
    return load_recogniser(path)[0]


def load_pickled(path: Path) -> CTCModel:
    """The recogniser of a file of torchaudio's, under its own name (:mod:`kdkit.recognition.foreign`).

    Unpickling cannot run code (:mod:`kdkit.teachers.safe_pickle`).
    """
    kept = read_pickle(path)
    if is_fairseq(kept):
        raise NoRecogniserError(
            f"{path}: a checkpoint of fairseq, which does not say what letters its outputs are; take the same model "
            f"from torchaudio ({', '.join(asr_bundles()[:2])}, ...) or from the Hugging Face hub"
        )
    if isinstance(kept, dict) and "aux.weight" in kept:
        return recogniser_of_file(path, kept)
    raise NoRecogniserError(
        f"{path}: no recogniser: no CTC head of torchaudio's; kdkit's recognisers are .safetensors or .onnx files"
    )


class OnnxNetwork:
    """A recogniser written by ``kdkit export --to onnx``, run by onnxruntime on the CPU.

    Inputs ``waves`` (batch, samples) float32 and ``lengths`` (batch,) int64; outputs ``logits`` (batch, frames,
    vocabulary) float32 and ``frames`` (batch,) int64; ``vocabulary`` is kept in the metadata, as JSON. Raises
    :class:`ConfigError` when onnxruntime is not installed and :class:`CheckpointError` for another kind of model.
    """

    def __init__(self, path: Path):
        self.session = _session(path)
        inputs = {node.name for node in self.session.get_inputs()}
        outputs = {node.name for node in self.session.get_outputs()}
        if inputs != INPUTS or not outputs >= OUTPUTS:
            raise CheckpointError(
                f"{path}: inputs {sorted(inputs)} and outputs {sorted(outputs)} are not those of a recogniser "
                f"({sorted(INPUTS)}, {sorted(OUTPUTS)}); write it with kdkit export --to onnx"
            )
        kept = self.session.get_modelmeta().custom_metadata_map
        try:
            meta = {name: json.loads(kept[name]) for name in KEPT if name in kept}
            self.vocabulary = Vocabulary.from_meta(meta)
        except (ValueError, ConfigError) as error:
            raise CheckpointError(f"{path}: {error}; write it with kdkit export --to onnx") from error
        size = next(node.shape[-1] for node in self.session.get_outputs() if node.name == "logits")
        if isinstance(size, int) and size != len(self.vocabulary):
            raise CheckpointError(
                f"{path}: {size} outputs for a vocabulary of {len(self.vocabulary)} symbols; write it with kdkit export"
            )
        self.window = kept_window(meta, path)
        # int8 scales are computed over a whole batch (kdkit.model.inference); operators are named in the file
        self.alone = b"DynamicQuantizeLinear" in Path(path).read_bytes()

    def __call__(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        given = {"waves": waves.cpu().float().numpy(), "lengths": lengths.cpu().long().numpy()}
        logits, frames = self.session.run(["logits", "frames"], given)
        return torch.from_numpy(logits), torch.from_numpy(frames)


def _session(path: Path):
    """An onnxruntime session on the CPU, with as many threads as torch has.

    Raises :class:`ConfigError` when onnxruntime is not installed and :class:`CheckpointError` for another kind of file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"{path}: an ONNX file needs onnxruntime: pip install 'kdkit[onnx]', or pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen classes of its own
        raise CheckpointError(f"{path}: onnxruntime cannot load it: {str(error).splitlines()[0]}") from error
