"""One checkpoint = one ``.safetensors`` file: tensors, and a JSON description in its header. Nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kdkit.errors import CheckpointError
from kdkit.files import write_atomically

FORMAT = "kdkit-1"


def save_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict) -> None:
    """Writes ``tensors`` and the JSON-able ``meta`` to one file, atomically; the same ones give the same bytes."""
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {
        FORMAT: json.dumps(meta)
    }  # a single key: safetensors writes several in an order drawn by chance
    write_atomically(Path(path), lambda temporary: save_file(packed, temporary, header))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and description of a file of :func:`save_checkpoint`.

    Raises :class:`CheckpointError` naming the file when it is missing, truncated, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}); it may be truncated, make or copy it again"
        ) from error
    if header.get("format") == FORMAT:  # of the models that ship: two keys
        header = {FORMAT: header["meta"]}
    if FORMAT not in header:
        raise CheckpointError(
            f"{path}: a safetensors file, but not written by kdkit (no '{FORMAT}' in its header)"
        )
    return tensors, json.loads(header[FORMAT])


def load_into(
    module: nn.Module, tensors: dict[str, Tensor], path: Path, prefix: str = "", assign: bool = False
) -> None:
    """Copies ``tensors`` whose names start with ``prefix`` into ``module``, in the module's own dtype.

    ``assign``: the module is on the "meta" device, without memory, and takes copies as its parameters.

    Raises :class:`CheckpointError` that lists missing, unexpected and wrongly shaped tensors.
    """
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
    state = {name: tensor.to(own[name].dtype, copy=assign) for name, tensor in given.items()}
    module.load_state_dict(state, assign=assign)


def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float tensors as float16: what the shipped models are stored in."""
    return {n: t.to(torch.float16) if t.is_floating_point() else t for n, t in tensors.items()}
