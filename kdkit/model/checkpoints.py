"""One checkpoint = one ``.safetensors`` file: tensors, and a JSON description in its header. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kdkit.common.errors import CheckpointError
from kdkit.common.files import is_file, sha256_of, stand_in, write_atomically
from kdkit.common.validation import shown

FORMAT = "kdkit-2"
_EARLIER = "kdkit-1"  # without a checksum
SUMS = "SHA256SUMS"  # of the models that ship with the kit
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # dtypes of weights


def save_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict) -> None:
    """Writes ``tensors`` and ``meta`` (JSON) to one file, atomically, with a checksum over both. Equal content gives
    equal bytes.
    """
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {"checksum": checksum(packed, meta), "meta": meta}
    header = {FORMAT: json.dumps(facts)}  # one key: safetensors writes several in random order
    write_atomically(Path(path), lambda temporary: save_file(packed, temporary, header))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and description of a file of :func:`save_checkpoint`.

    Raises :class:`CheckpointError` naming the file when it is missing, truncated or of another format, or when tensors
    or description do not match the checksum.
    """
    path = Path(path)
    tensors, header = read_safetensors(path)
    if FORMAT not in header:
        return tensors, _earlier(path, header)
    try:
        facts = json.loads(header[FORMAT])
        whole = facts["checksum"] == checksum(tensors, facts["meta"])
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"{path}: damaged: its content does not match its checksum; make or copy it again"
        )
    return tensors, facts["meta"]


def checksum(tensors: dict[str, Tensor], meta: object) -> str:
    """SHA-256 over names, types, shapes and values of ``tensors``, and over the JSON of ``meta``."""
    found = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _earlier(path: Path, header: dict) -> dict:
    """The description in a file without a checksum: a shipped model, whose SHA-256 is known, or an older file."""
    if not is_own(header):
        raise CheckpointError(
            f"{path}: a safetensors file, but not written by kdkit (no '{FORMAT}' in its header)"
        )
    try:
        meta = json.loads(header["meta"] if "format" in header else header[_EARLIER])
    except (ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the description in its header is not JSON ({error}); make or copy it again"
        ) from error
    if not isinstance(meta, dict):
        raise CheckpointError(
            f"{path}: the description in its header is {shown(meta)}; make or copy it again"
        )
    if sha256_of(path) in shipped_sums().values():
        return meta
    if "format" in header:  # only shipped models were written like this
        raise CheckpointError(
            f"{path}: not the model that ships with this version of kdkit: damaged or changed; install the kit again"
        )
    warnings.warn(
        f"{path}: written by an earlier kdkit, without a checksum: damage cannot be seen", stacklevel=4
    )
    return meta


@cache
def shipped_sums() -> dict[str, str]:
    """{name: SHA-256} of the shipped models, from a file of ``sha256sum``."""
    lines = (files("kdkit") / "assets" / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def is_own(header: dict[str, str]) -> bool:
    """Whether kdkit wrote the file with this header."""
    return FORMAT in header or _EARLIER in header or header.get("format") == _EARLIER


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
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: {stand_in(path) or f'not a whole safetensors file ({error}); it may be truncated'}, "
            "make, copy or download it again"
        ) from error


def filled(
    make: Callable[[], nn.Module], tensors: dict[str, Tensor], path: Path, prefix: str = ""
) -> nn.Module:
    """The module that ``make`` returns, with ``tensors`` loaded (:func:`load_into`), in eval mode.

    Names and shapes are compared before the module gets memory, so damaged settings cannot ask for more than there is.
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

    Raises :class:`CheckpointError` as :func:`check_fit` and :func:`check_values` do.
    """
    given = check_fit(module, tensors, path, prefix)
    check_values(given, path)
    own = module.state_dict()
    state = {name: tensor.detach().to(own[name].dtype, copy=assign) for name, tensor in given.items()}
    module.load_state_dict(state, assign=assign)


def check_fit(
    module: nn.Module, tensors: dict[str, Tensor], path: Path, prefix: str = ""
) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, by their names in ``module``.

    Raises :class:`CheckpointError` that lists tensors that are missing, unexpected or of another shape.
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
    """Raises :class:`CheckpointError` naming the first tensor that does not hold finite floats."""
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
    """Float tensors as float16, as in the shipped models."""
    return {n: t.to(torch.float16) if t.is_floating_point() else t for n, t in tensors.items()}
