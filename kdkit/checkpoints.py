"""One checkpoint = one ``.safetensors`` file: tensors, and a JSON description in its header. Nothing is unpickled."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kdkit.checks import shown
from kdkit.errors import CheckpointError
from kdkit.files import is_file, stand_in, write_atomically

FORMAT = "kdkit-1"
_CHECKSUM = "crc"  # of tensors and description, in the description
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # what weights may be kept in


def save_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict) -> None:
    """Writes ``tensors`` and the JSON-able ``meta`` to one file, atomically; the same ones give the same bytes."""
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = json.dumps(meta | {_CHECKSUM: checksum(packed, meta)})
    header = {FORMAT: described}  # a single key: safetensors writes several in an order drawn by chance
    write_atomically(Path(path), lambda temporary: save_file(packed, temporary, header))


def checksum(tensors: dict[str, Tensor], meta: dict | None = None) -> int:
    """CRC-32 over a description and all tensors, in the order of their names."""
    value = zlib.crc32(json.dumps(meta).encode()) if meta else 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].contiguous().view(-1).view(torch.uint8).numpy(), value)
    return value


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and description of a file of :func:`save_checkpoint`.

    Raises :class:`CheckpointError` naming the file when it is missing, truncated, or of another format.
    """
    tensors, header = read_safetensors(Path(path))
    if header.get("format") == FORMAT:  # of the models that ship: two keys
        header = {FORMAT: header.get("meta", "")}
    if FORMAT not in header:
        raise CheckpointError(
            f"{path}: a safetensors file, but not written by kdkit (no '{FORMAT}' in its header)"
        )
    try:
        meta = json.loads(header[FORMAT])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the description in its header is not JSON ({error}); make or copy it again"
        ) from error
    if not isinstance(meta, dict):
        raise CheckpointError(
            f"{path}: the description in its header is {shown(meta)}; make or copy it again"
        )
    written = meta.pop(_CHECKSUM, None)  # older files have none
    if written is not None and written != checksum(tensors, meta):
        raise CheckpointError(
            f"{path}: tensors and description do not have the checksum they were saved with: it is damaged, make or "
            "copy it again"
        )
    return tensors, meta


def is_own(header: dict[str, str]) -> bool:
    """Is it the header of a file that kdkit wrote?"""
    return FORMAT in header or header.get("format") == FORMAT


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of any safetensors file.

    Raises :class:`CheckpointError` naming the file when it is missing, truncated, or something else.
    """
    if not is_file(path):
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: {stand_in(path) or f'not a whole safetensors file ({error}); it may be truncated'}, "
            "make, copy or download it again"
        ) from error


def filled(
    make: Callable[[], nn.Module], tensors: dict[str, Tensor], path: Path, prefix: str = ""
) -> nn.Module:
    """The module that ``make`` makes with ``tensors`` in it (see :func:`load_into`), in eval mode.

    Names and shapes are compared before the module gets any memory: settings that do not belong to the tensors cannot
    ask for more than there is.
    """
    with torch.device("meta"):
        check_fit(make(), tensors, path, prefix)
    module = make()
    load_into(module, tensors, path, prefix)
    return module.eval()


def load_into(
    module: nn.Module, tensors: dict[str, Tensor], path: Path, prefix: str = "", assign: bool = False
) -> None:
    """Copies ``tensors`` whose names start with ``prefix`` into ``module``, in the module's own dtype.

    ``assign``: the module is on the "meta" device, without memory, and takes copies as its parameters.

    Raises :class:`CheckpointError` that names what :func:`check_fit` or :func:`check_values` find.
    """
    given = check_fit(module, tensors, path, prefix)
    check_values(given, path)
    own = module.state_dict()
    state = {name: tensor.detach().to(own[name].dtype, copy=assign) for name, tensor in given.items()}
    module.load_state_dict(state, assign=assign)


def check_fit(
    module: nn.Module, tensors: dict[str, Tensor], path: Path, prefix: str = ""
) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, under the names that ``module`` has for them.

    Raises :class:`CheckpointError` that lists missing, unexpected and wrongly shaped ones.
    """
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise CheckpointError(f"{path}: holds no tensors by name; make or copy it again")
    own = module.state_dict()
    given = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    missing, unexpected = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    shapes = [
        f"{name}: {tuple(given[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in sorted(own.keys() & given.keys())
        if own[name].shape != given[name].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{label} {names[:4]}{' ...' if len(names) > 4 else ''}"
            for label, names in (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
            if names
        ]
        raise CheckpointError(f"{path}: does not fit the model: {'; '.join(parts)}")
    return given


def check_values(tensors: dict[str, Tensor], path: Path) -> None:
    """Are these weights? Raises :class:`CheckpointError` naming the first tensor that is not of finite floats."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS or tensor.layout != torch.strided:
            kind = str(tensor.dtype if tensor.dtype not in _FLOATS else tensor.layout).removeprefix("torch.")
            raise CheckpointError(
                f"{path}: {name} is {kind}, weights are float32, float16 or bfloat16: the file is damaged, or its "
                "weights are packed in a way that kdkit does not read"
            )
        if tensor.numel() and not all(math.isfinite(end) for end in tensor.detach().aminmax()):
            raise CheckpointError(
                f"{path}: {name} holds values that are not finite (NaN or infinity): the file is damaged, or its "
                "training went wrong; make or copy it again"
            )
    if {torch.float16, torch.bfloat16} <= {tensor.dtype for tensor in tensors.values()}:
        raise CheckpointError(
            f"{path}: some weights are float16, others bfloat16: the file is damaged, make or copy it again"
        )


def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float tensors as float16: what the shipped models are stored in."""
    return {n: t.to(torch.float16) if t.is_floating_point() else t for n, t in tensors.items()}
