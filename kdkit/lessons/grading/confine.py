"""Takes a process its rights, before a learner's code runs in it. Imported without the rest of the kit, by the worker.

On Linux the kernel does it, without special rights and not to be undone by any code of the process: a seccomp filter
ends network, new processes and looking into other processes; Landlock leaves the throw-away folder to write in, and
hides the kit and the submissions; limits bound memory and files. On every system an audit hook of Python forbids the
same: that stops ordinary code, and not code that is written to break out of Python.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# --- Linux: seccomp ----------------------------------------------------------------------------------------------

_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # their numbers in a filter
_DENIED = {  # system calls that end in "operation not permitted": numbers on those machines
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "io_uring_setup": (425, 425),
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "unshare": (272, 97), "setns": (308, 268), "reboot": (169, 142), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
}  # fmt: skip
# allowed for threads; for this process; called here
_CLONE, _TGKILL, _CAPSET = (56, 220), (234, 131), (126, 91)
_CLONE3, _THREAD = 435, 0x10000
# errors: EPERM; ENOSYS, after which clone is tried
_ALLOW, _DENY, _UNKNOWN = 0x7FFF0000, 0x00050001, 0x00050026
_LOAD, _EQUAL, _ABOVE, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16  # where they stand in what the filter sees


def _filter(pid: int) -> bytes:
    """The program of the seccomp filter: each line is an operation, its jumps and its number."""
    machine = list(_MACHINES).index(platform.machine())
    deny, allow = (_RETURN, 0, 0, _DENY), (_RETURN, 0, 0, _ALLOW)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _MACHINES[platform.machine()]),
        deny,
        (_LOAD, 0, 0, _NUMBER),
    ]
    program += [(_ABOVE, 0, 1, 0x40000000), deny]  # x32
    for numbers in _DENIED.values():
        if numbers[machine] is not None:
            program += [(_EQUAL, 0, 1, numbers[machine]), deny]
    program += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _UNKNOWN)]
    program += [(_EQUAL, 0, 4, _CLONE[machine]), (_LOAD, 0, 0, _FIRST), (_BITS, 0, 1, _THREAD), allow, deny]
    program += [(_EQUAL, 0, 4, _TGKILL[machine]), (_LOAD, 0, 0, _FIRST), (_EQUAL, 0, 1, pid), allow, deny]
    return b"".join(struct.pack("=HBBI", *line) for line in [*program, allow])


def _end_calls(libc: ctypes.CDLL) -> bool:
    if platform.machine() not in _MACHINES or sys.maxsize < 1 << 32:
        return False
    program = ctypes.create_string_buffer(_filter(os.getpid()))
    size = len(program.raw) // 8
    wanted = ctypes.create_string_buffer(struct.pack("@HP", size, ctypes.addressof(program)))
    return libc.prctl(22, 2, wanted, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


# --- Linux: Landlock ---------------------------------------------------------------------------------------------

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # of the system calls, on every architecture
_READ_FILE, _READ_FOLDER, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1


def _landlock(libc: ctypes.CDLL, work: Path, hidden: list[Path], needed: list[Path]) -> bool:
    version = libc.syscall(_CREATE, None, 0, 1)
    if version < 1:
        return False
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1  # every right that this kernel knows
    wanted = struct.pack("=QQQ", files, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = libc.syscall(_CREATE, wanted, len(wanted), 0)
    if rules < 0:
        return False

    def allow(path: Path, rights: int) -> None:
        try:
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        rights &= files if path.is_dir() else _READ_FILE | _WRITE_FILE
        libc.syscall(_ADD, rules, 1, struct.pack("=Qi", rights, file), 0)
        os.close(file)

    for path in around(Path("/"), hidden):
        allow(path, _READ_FILE | _READ_FOLDER)
    for place in needed:
        for path in around(place, hidden):
            allow(path, _READ_FILE | _READ_FOLDER)
    allow(work, files & ~1)  # all but to execute
    allow(Path("/dev/null"), _READ_FILE | _WRITE_FILE)
    done = libc.syscall(_RESTRICT, rules, 0) == 0
    os.close(rules)
    return done


def around(folder: Path, hidden: Iterable[Path]) -> Iterator[Path]:
    """``folder``, or, where something in it is hidden, everything in it but that. Links count as what they are."""
    inside = [path for path in hidden if path != folder and path.is_relative_to(folder)]
    if not inside:
        yield folder
        return
    try:
        children = list(folder.iterdir())
    except OSError:
        return
    for child in children:
        if child not in inside and not child.is_symlink():
            yield from around(child, inside)


def by_kernel(work: Path, hidden: list[Path], needed: list[Path]) -> dict[str, bool]:
    """Confines this process, for good, as far as the kernel can: {"calls": ..., "files": ...}, what it did."""
    if sys.platform != "linux":
        return {"calls": False, "files": False}
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    files = _landlock(libc, work, hidden, needed)
    if platform.machine() in _MACHINES:  # who is root is so without powers
        number = _CAPSET[list(_MACHINES).index(platform.machine())]
        libc.syscall(number, struct.pack("=Ii", 0x20080522, 0), bytes(24))
    return {"files": files, "calls": _end_calls(libc)}


def limit(memory: int) -> None:
    """Bounds what this process may take on top of what it has: ``memory`` bytes, small files, no core dumps."""
    try:
        import resource
    except ImportError:  # Windows
        return
    held = 0
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii") as file:
            held = next(1024 * int(line.split()[1]) for line in file if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (held + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# --- every system: Python's audit hook ---------------------------------------------------------------------------

_FORBIDDEN = (
    "socket.",
    "subprocess.",
    "ctypes.",
    "winreg.",
    "ftplib.",
    "smtplib.",
    "urllib.",
    "http.",
    "webbrowser.",
)
_FORBIDDEN_CALLS = {
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.kill", "os.killpg",
    "os.startfile", "pty.spawn", "signal.pthread_kill", "os.chroot", "os.setxattr", "sys.remote_exec",
    "_winapi.CreateProcess", "_winapi.OpenProcess", "_winapi.TerminateProcess",
}  # fmt: skip
_WRITING = {
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile",
}  # fmt: skip
_READING = {"open", "os.listdir", "os.scandir", "glob.glob"}


def by_python(work: Path, hidden: list[Path], needed: list[Path]) -> None:
    """Forbids, for good, what :func:`by_kernel` does, to code that goes through Python."""
    real, within, decode, spec = os.path.realpath, os.path.commonpath, os.fsdecode, os.PathLike
    work, devnull, writes = real(work), real(os.devnull), os.O_WRONLY | os.O_RDWR | os.O_CREAT
    places = [(real(path), True) for path in hidden] + [(real(path), False) for path in needed]
    places.sort(key=lambda place: -len(place[0]))  # what stands deepest decides

    def inside(path: str, folder: str) -> bool:
        try:
            return within([path, folder]) == folder
        except ValueError:  # another drive
            return False

    def guard(event: str, given: tuple) -> None:
        if event.startswith(_FORBIDDEN) or event in _FORBIDDEN_CALLS:
            raise PermissionError(f"{event} is not allowed while grading")
        if event not in _READING and event not in _WRITING:
            return
        opens = event == "open" and isinstance(given[2], int) and given[2] & writes
        for name in given[:2] if event in _WRITING else given[:1]:
            if not isinstance(name, (str, bytes, spec)):
                continue
            path = real(decode(name))
            if next((secret for place, secret in places if inside(path, place)), False):
                raise PermissionError(f"{path} is not to be read while grading")
            if (opens or event in _WRITING) and path != devnull and not inside(path, work):
                raise PermissionError(f"{path} is not to be written while grading")

    sys.addaudithook(guard)
