"""Pickles that would do harm, and archives that would write or read outside of their folder."""

from __future__ import annotations

import io
import pickle
import random
import tarfile
import zipfile
from pathlib import Path

import torch


class Call:
    """Pickled, it asks for a call."""

    def __init__(self, function: str, *arguments: object):
        self.function, self.arguments = function, arguments


def payloads(proof: Path) -> dict[str, bytes]:
    """Pickles (protocol 2) that make a file ``proof``, or alter torch, when they are really loaded, by name."""
    touch, code = f"touch {proof}", f"open({str(proof)!r}, 'w')"
    calls = {
        "os.system": ("os", "system", (touch,)),
        "posix.system": ("posix", "system", (touch,)),
        "popen": ("os", "popen", (touch,)),
        "subprocess": ("subprocess", "getoutput", (touch,)),
        "Popen": ("subprocess", "Popen", (["touch", str(proof)],)),
        "eval": ("builtins", "eval", (code,)),
        "exec": ("builtins", "exec", (code,)),
        "open": ("builtins", "open", (str(proof), "w")),
        "io.open": ("io", "open", (str(proof), "w")),
        "runpy": ("runpy", "run_path", (str(proof),)),
        "timeit": ("timeit", "timeit", ("1", code)),
        "code": ("code", "interact", ("",)),
        "pickle.loads": ("pickle", "loads", (pickle.dumps(1),)),
        "torch.save": ("torch", "save", (1, str(proof))),
        "torch.load": ("torch", "load", (str(proof),)),
        "jit.load": ("torch.jit", "load", (str(proof),)),
        "numpy.save": ("numpy", "save", (str(proof), [1])),
        "Path.touch": ("pathlib", "Path.touch", (str(proof),)),
        "shutil": ("shutil", "copyfile", ("/etc/hostname", str(proof))),
        "tempfile": ("tempfile", "mkdtemp", ("", "", str(proof.parent))),
        "getattr": ("builtins", "getattr", ("text", "upper")),
        "import": ("builtins", "__import__", ("antigravity",)),
        "exit": ("os", "_exit", (3,)),
        "sys.exit": ("sys", "exit", (3,)),
        "kill": ("os", "abort", ()),
    }
    found = {name: b"\x80\x02" + _called(*call) + b"." for name, call in calls.items()}
    for name in ("torch FloatStorage", "torch Tensor", "torch._utils _rebuild_tensor_v2", "torch Size"):
        for attribute in ("dtype", "__defaults__", "__init__"):
            module, _, thing = name.partition(" ")
            pairs = b"N}" + _text(attribute) + _text("altered") + b"s\x86b"
            found[f"alter {name} {attribute}"] = b"\x80\x02" + f"c{module}\n{thing}\n".encode() + pairs + b"."
    found["deep"] = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    return found


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _called(module: str, name: str, arguments: tuple) -> bytes:
    packed = pickle.dumps(arguments, protocol=2)[2:-1]  # without PROTO and STOP
    return f"c{module}\n{name}\n".encode() + packed + b"R"


def poisoned(path: Path, payload: bytes, rng: random.Random) -> None:
    """A file as torch.save writes it (zipped, or the form before), whose pickle is, or holds, the payload."""
    buffer = io.BytesIO()
    zipped = rng.random() < 0.7
    torch.save({"model": {"w": torch.zeros(2)}}, buffer, _use_new_zipfile_serialization=zipped)
    if not zipped:  # the payload instead of the magic number, or before it
        path.write_bytes(payload + (buffer.getvalue() if rng.random() < 0.5 else b""))
        return
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith("data.pkl"):
                data = payload if rng.random() < 0.5 else data[:2] + payload[2:-1] + b"0" + data[2:]
            new.writestr(entry, data)


def bad_archive(path: Path, rng: random.Random) -> str:
    """A tar archive with one member that would leave its folder; returns what it is."""
    kinds = {
        "link": tarfile.SYMTYPE,
        "hard link": tarfile.LNKTYPE,
        "pipe": tarfile.FIFOTYPE,
        "device": tarfile.CHRTYPE,
    }
    kind = rng.choice([*kinds, "file"])
    name = rng.choice(("../out.txt", "/tmp/kdkit-attack.txt", "a/../../out.txt", "a/c.txt", "a"))
    target = rng.choice(("../../secret.txt", "/etc/passwd", "b.txt", "..", "a"))
    if kind == "file" and not name.startswith(("/", "..", "a/..")):
        name = "../out.txt"
    with tarfile.open(path, "w") as tar:
        for member_name in ("a/b.txt", name):
            member = tarfile.TarInfo(member_name)
            if member_name == name and kind != "file":
                member.type, member.linkname = kinds[kind], target
            else:
                member.size = 5
            tar.addfile(member, io.BytesIO(b"hello") if member.size else None)
    return f"{kind} {name} to {target}"
