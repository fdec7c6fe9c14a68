"""Reads tensors and plain data from a pickle file without executing code from it.

A pickle is a program: "call this function with these arguments". fairseq's checkpoints name classes of fairseq,
argparse and omegaconf beside their tensors, so ``torch.load(weights_only=True)`` rejects them. Here only the few names
that rebuild tensors and containers are resolved; *every* other name, ``os.system`` as well as ``fairseq.Dictionary``,
becomes an :class:`Inert` object, which stores its arguments and does nothing.
"""

from __future__ import annotations

import collections
import pickle
import tarfile
import types
import zipfile
from pathlib import Path

import torch

from kdkit.common.errors import CheckpointError
from kdkit.common.files import is_file, stand_in


class _Function:
    """A function that a pickle may call but not modify.

    Pickle's BUILD sets attributes of whatever object was named, classes and functions included: a file that names
    ``torch.FloatStorage`` could change it for the whole process. So a pickle gets these wrappers only.
    """

    __slots__ = ("_function",)

    def __init__(self, function):
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments):
        return self._function(*arguments)

    def __setattr__(self, name, value):
        raise pickle.UnpicklingError("it tries to alter a function of torch")

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it tries to alter a function of torch")


class _StorageType(_Function):
    """Represents ``torch.FloatStorage`` and the like: torch.load reads its ``dtype`` and nothing else."""

    __slots__ = ()

    @property
    def dtype(self) -> torch.dtype:
        return self._function()


_REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
_CALLABLE = {("torch._utils", name): getattr(torch._utils, name) for name in _REBUILD} | {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): lambda *_: {},
    ("torch", "Size"): torch.Size,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
_ALLOWED = {name: _Function(function) for name, function in _CALLABLE.items()}


_LEVELS = 8  # nested wrappers around a value that are opened at most


class Inert:
    """An object whose class is not loaded: the class's ``name``, and its data in ``content``."""

    name = ""

    def __new__(cls, *arguments, **_):
        inert = super().__new__(cls)
        inert.content = {"arguments": arguments} if arguments else {}
        return inert

    def __init__(self, *_, **__):
        pass

    def __call__(self, *arguments):  # calls in the pickle do nothing
        return self

    def __setstate__(self, state):
        for part in state if isinstance(state, tuple) else (state,):
            self.content |= part if isinstance(part, dict) else {"state": part}

    def __setitem__(self, key, value):
        self.content.setdefault("items", {})[key] = value

    def append(self, value):
        self.content.setdefault("values", []).append(value)

    def extend(self, values):
        self.content.setdefault("values", []).extend(values)


class _Unpickler(pickle.Unpickler):
    """Resolves tensors and containers; makes everything else inert."""

    def find_class(self, module: str, name: str):
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        storage = getattr(torch, name, None) if module == "torch" and name.endswith("Storage") else None
        if isinstance(storage, type):
            return _StorageType(lambda: torch.uint8 if storage is torch.UntypedStorage else storage.dtype)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return type("Inert", (Inert,), {"name": f"{module}.{name}"})


def _load(file, **options):
    return _Unpickler(file, **options).load()


# The part of the pickle module that torch.load uses.
_pickle_module = types.SimpleNamespace(
    Unpickler=_Unpickler, load=_load, __name__="kdkit.teachers.safe_pickle"
)


def read_pickle(path: Path) -> object:
    """The content of a ``torch.save`` file: tensors on the CPU, plain data, :class:`Inert` for the rest.

    Raises :class:`CheckpointError` for a file that is missing, truncated, damaged or not made by ``torch.save``.
    """
    path = Path(path)
    if not is_file(path):
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_archive(path)
        elif tarfile.is_tarfile(path):
            raise CheckpointError(f"{path}: a tar archive; unpack it and give the checkpoint in it")
        elif instead := stand_in(path):
            raise CheckpointError(f"{path}: {instead}; download or copy it again")
        return torch.load(
            str(path), map_location="cpu", pickle_module=_pickle_module, weights_only=False, mmap=zipped
        )
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        reason = str(error).split("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path}: not a whole file of torch.save ({reason}); it may be truncated or of another format, "
            "download or copy it again"
        ) from error


def _check_archive(path: Path) -> None:
    """Raises :class:`CheckpointError` unless it is an undamaged checkpoint: torch.load ignores the file's checksums."""
    with zipfile.ZipFile(path) as archive:
        if "constants.pkl" in {Path(name).name for name in archive.namelist()}:
            raise CheckpointError(f"{path}: a TorchScript program, not a checkpoint; weights are needed")
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(
                    f"{path}: a compressed archive; unpack it and give the checkpoint in it"
                )
            if record.CRC:  # 0: written without
                with archive.open(record) as file:
                    while file.read(1 << 20):
                        pass


def opened(value: object) -> object:
    """The content of an argparse or omegaconf object, the value of an enum, or ``value`` itself: one level only.

    Settings refer to each other, endlessly in a damaged or malicious file: callers open the next level as needed.
    """
    for _ in range(_LEVELS):
        if not isinstance(value, Inert):
            return value
        content = value.content
        inner = next((key for key in ("_content", "_val") if key in content), None)  # omegaconf's
        if inner is None and set(content) == {"arguments"} and len(content["arguments"]) == 1:  # an enum's
            value = content["arguments"][0]
        elif inner is None:
            return content
        else:
            value = content[inner]
    return None
