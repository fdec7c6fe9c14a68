"""A recogniser's network from its file, whatever the file: called with waves and lengths, it returns emissions.

network = load_network("recogniser.safetensors")      # kdkit finetune; or .pt, .onnx, or a shipped one's name
logits, frames = network(waves, lengths)              # (B, S), (B,) -> (B, T, V), (B,)
network = ready_network("recogniser.safetensors", "bf16")   # on the GPU, if there is one, and made fast
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from kdkit.checkpoints import load_into
from kdkit.ctc import CTCModel, load_recogniser
from kdkit.emissions import Network, kept_window
from kdkit.errors import CheckpointError, ConfigError, KdkitError
from kdkit.inference import optimised
from kdkit.models import ModelConfig, SpeechModel
from kdkit.teachers import ASSETS
from kdkit.text import VOCABULARY
from kdkit.training import best_device

INPUTS, OUTPUTS = {"waves", "lengths"}, {"logits", "frames"}


def load_network(source: str | Path) -> Network:
    """The network in a file: ``.safetensors`` (kdkit's own), ``.onnx`` (:class:`OnnxNetwork`), ``.pt`` or ``.pth``
    (:func:`load_pt`); or of the shipped recogniser with that name, such as "tiny_sw_fbank_distilled_60".

    Raises :class:`CheckpointError` for a file that is missing, damaged or no recogniser.
    """
    path = Path(source)
    if not path.is_file():
        shipped = {
            p.stem.removeprefix("recogniser_"): p for p in sorted(ASSETS.glob("recogniser_*.safetensors"))
        }
        if str(source) not in shipped:
            raise CheckpointError(
                f"{source}: no such file, and no recogniser that ships with the kit; those are {', '.join(shipped)}"
            )
        path = shipped[str(source)]
    readers = {".onnx": OnnxNetwork, ".pt": load_pt, ".pth": load_pt}
    return readers.get(path.suffix.lower(), _load_own)(path)


def ready_network(source: str | Path, precision: str = "fp32") -> Network:
    """:func:`load_network`, on the GPU if there is one, and prepared for use in "fp32", "bf16" or "int8"
    (:mod:`kdkit.inference`).

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


def _load_own(path: Path) -> CTCModel:
    try:
        return load_recogniser(path)[0]
    except KeyError as error:
        raise CheckpointError(
            f"{path}: a checkpoint without {error}, so no recogniser; kdkit finetune makes one of a student or teacher"
        ) from None


def load_pt(path: Path) -> CTCModel:
    """A recogniser kept by ``torch.save({"tensors": recogniser.state_dict(), "meta": {"model": config.to_dict()}})``.

    Only tensors and plain values are unpickled, so the file cannot run code.
    """
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a PyTorch file of tensors ({str(error).splitlines()[0]})"
        ) from error
    try:
        tensors, config = kept["tensors"], ModelConfig.from_dict(kept["meta"]["model"])
    except (KeyError, TypeError, KdkitError) as error:
        raise CheckpointError(
            f"{path}: no recogniser ({error}): 'tensors' and 'meta' with the model's settings are needed"
        ) from error
    recogniser = CTCModel(SpeechModel(config))
    recogniser.window = kept_window(kept["meta"], path)
    load_into(recogniser, tensors, path)
    return recogniser.eval()


class OnnxNetwork:
    """A recogniser written by ``kdkit export --to onnx``, run by onnxruntime on the CPU.

    Inputs ``waves`` (batch, samples) float32 and ``lengths`` (batch,) int64; outputs ``logits`` (batch, frames,
    vocabulary) float32 and ``frames`` (batch,) int64; the vocabulary is a JSON list in the metadata. Raises
    :class:`ConfigError` when onnxruntime is not installed and :class:`CheckpointError` for another kind of model.
    """

    def __init__(self, path: Path):
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
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a dozen classes of its own
            raise CheckpointError(
                f"{path}: onnxruntime cannot load it: {str(error).splitlines()[0]}"
            ) from error
        inputs = {node.name for node in self.session.get_inputs()}
        outputs = {node.name for node in self.session.get_outputs()}
        if inputs != INPUTS or not outputs >= OUTPUTS:
            raise CheckpointError(
                f"{path}: inputs {sorted(inputs)} and outputs {sorted(outputs)} are not those of a recogniser "
                f"({sorted(INPUTS)}, {sorted(OUTPUTS)}); write it with kdkit export --to onnx"
            )
        told = self.session.get_modelmeta().custom_metadata_map
        self.window = kept_window({"window": json.loads(told["window"])} if "window" in told else {}, path)
        vocabulary = json.loads(told.get("vocabulary", "null"))
        if vocabulary != list(VOCABULARY):
            raise CheckpointError(
                f"{path}: its vocabulary is {vocabulary}, not kdkit.text.VOCABULARY; write it with kdkit export"
            )

    def __call__(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        given = {"waves": waves.cpu().float().numpy(), "lengths": lengths.cpu().long().numpy()}
        logits, frames = self.session.run(["logits", "frames"], given)
        return torch.from_numpy(logits), torch.from_numpy(frames)
