"""Export of a recogniser, Fbank included, to one ONNX file, checked against PyTorch; and quantisation to int8.

The file has inputs ``waves`` (batch, samples) float32 and ``lengths`` (batch,) int64, outputs ``logits`` (batch,
frames, vocabulary) float32 and ``frames`` (batch,) int64, for any batch size and length. Its metadata, in JSON, are the
vocabulary, the window, the model's settings, and "vocabulary_roles" (the numbers of blank, boundary and silent symbols)
unless these are 0, 1 and none.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kdkit.common.errors import ConfigError
from kdkit.common.files import write_atomically
from kdkit.model.inference import optimised
from kdkit.recognition.ctc import CTCModel
from kdkit.recognition.export.samples import noise, speech
from kdkit.recognition.loading import OnnxNetwork
from kdkit.speech.frames import RECEPTIVE_FIELD, SAMPLE_RATE

OPSET = 18
# samples: one frame, the borders of two, and longer
LENGTHS = (400, 719, 720, 4000, SAMPLE_RATE, 27_777, 80_000, 163_333)


# torch's exporter of today takes the shapes that vary; that of torch 2.4 does not
EXPORTS = "dynamic_shapes" in signature(torch.onnx.export).parameters


class _Network(nn.Module):
    def __init__(self, recogniser: CTCModel):
        super().__init__()
        self.recogniser = recogniser

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.recogniser(waves, lengths)


def export_onnx(recogniser: CTCModel, path: Path) -> Path:
    """Writes ``recogniser`` to ``path`` as ONNX, in float32.

    Raises :class:`ConfigError` when onnx or onnxscript is not installed, or torch is too old.
    """
    _need("onnx", "onnxscript")
    if not EXPORTS:
        raise ConfigError(
            f"torch {torch.__version__} writes ONNX files for one length of input only; export to ONNX needs a newer "
            "torch (2.14 was tried), everything else goes with this one"
        )
    network = _Network(optimised(recogniser).cpu()).eval()
    example = torch.randn(2, SAMPLE_RATE) * 0.1, torch.tensor([SAMPLE_RATE, 9000])
    batch, samples = torch.export.Dim("batch", min=1), torch.export.Dim("samples", min=2 * RECEPTIVE_FIELD)
    # the exporter cannot decompose fused attention with WavLM's position bias
    attention = (
        sdpa_kernel(SDPBackend.MATH) if recogniser.model.config.relative_buckets else contextlib.nullcontext()
    )
    with _quiet(), attention:
        program = torch.onnx.export(
            network,
            example,
            input_names=["waves", "lengths"],
            output_names=["logits", "frames"],
            dynamic_shapes=({0: batch, 1: samples}, {0: batch}),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    for name, kept in (recogniser.vocabulary.to_meta() | {"window": recogniser.window}).items():
        program.model.metadata_props[name] = json.dumps(kept)
    program.model.metadata_props["config"] = json.dumps(recogniser.model.config.to_dict())
    write_atomically(Path(path), lambda temporary: program.save(str(temporary)))
    return Path(path)


def check_onnx(path: Path, recogniser: CTCModel, lengths: Sequence[int] = LENGTHS) -> dict[str, float]:
    """{input: largest absolute difference of the logits from PyTorch's}.

    Inputs are noise of each length in ``lengths`` (samples) and synthetic utterances, one by one and as a batch. Raises
    :class:`ConfigError` when onnxruntime is not installed, or frame counts differ.
    """
    exported = OnnxNetwork(path)
    recogniser = copy.deepcopy(recogniser).cpu().eval()
    batches = {f"{len(wave)} samples of noise": [wave] for wave in noise(lengths)}
    batches["noise in one batch"] = noise(lengths)
    spoken = speech()
    batches |= {f"utterance {number}": [wave] for number, wave in enumerate(spoken, 1)}
    batches["utterances in one batch"] = spoken
    found = {}
    for name, waves in batches.items():
        true = torch.tensor([len(wave) for wave in waves])
        some = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        logits, frames = exported(some, true)
        with torch.inference_mode():
            expected, counts = recogniser(some, true)
        if not torch.equal(frames, counts):
            raise ConfigError(
                f"{path}: {frames.tolist()} frames of {true.tolist()} samples, PyTorch makes {counts.tolist()}"
            )
        real = torch.arange(expected.shape[1]) < counts[:, None]
        found[name] = (logits - expected)[real].abs().max().item()
    return found


def quantise_onnx(path: Path, out: Path) -> Path:
    """Writes an int8 variant of an ONNX recogniser by onnxruntime's dynamic quantisation: matrix products with weights
    quantised per channel, activations by their range. Fbank stays in float32.
    """
    _need("onnx", "onnxruntime")
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(str(path)).graph
    weights = {tensor.name for tensor in graph.initializer}
    fixed = [n.name for n in graph.node if n.op_type == "MatMul" and _is_fbank(n, weights)]
    with _quiet():
        write_atomically(
            Path(out),
            lambda temporary: quantize_dynamic(
                str(path),
                str(temporary),
                per_channel=True,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul", "Gemm"],
                nodes_to_exclude=fixed,
            ),
        )
    return Path(out)


def _is_fbank(node, weights: set[str]) -> bool:
    """Fourier transform and mel filters are matrix products too, and too inaccurate in int8."""
    return any("fbank" in name for name in node.input if name in weights)


def _need(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"ONNX needs {' and '.join(missing)}: pip install 'kdkit[onnx]'")


@contextlib.contextmanager
def _quiet():
    """Hides the exporters' messages about optional packages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
