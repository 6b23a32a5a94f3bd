"""Leaf, main, listener and workers: the files that take what each worker, and what it starts, writes.

One pair of files for each name, ``<name>.out`` and ``<name>.err``, appended to: a worker that is tried again goes
on in its log. They are opened in the worker's own process, at descriptors 1 and 2, so that programs and compiled
code write there too.
"""

from __future__ import annotations

import errno
import os
import stat
import string

from taylorism._descriptors import above_stdio

__all__ = ["is_regular", "logged", "paths", "redirect", "sizes", "tail"]

#: what stays as it is in a file name; everything else is written as in a URL, so that no two names meet
_SAFE = frozenset(string.ascii_letters + string.digits + "-_.,=+@ ()[]")
#: bytes of a file name, the ending apart (the limit of most file systems is 255)
_LONGEST = 200
#: lines, and bytes, that a failure quotes from the end of a log
_LINES = 10
_BYTES = 4000

#: whether what this process writes goes to such files
_redirected = False


def paths(directory: str, name: str) -> tuple[str, str]:
    """Return the files for the standard output and the standard error of worker `name`."""
    base = os.path.join(directory, _file_name(name))
    return base + ".out", base + ".err"


def _file_name(name: str) -> str:
    safe = "".join(char if char in _SAFE else _escaped(char) for char in name)
    if not safe:
        return "%"  # like no other: elsewhere two digits follow it
    if safe.startswith("."):
        safe = _escaped(".") + safe[1:]  # else hidden, or another directory
    if len(safe) <= _LONGEST:
        return safe
    digest = f"{_fnv1a(name.encode('utf-8', 'surrogatepass')):016x}"
    return f"{safe[: _LONGEST - len(digest) - 1]}~{digest}"


def _fnv1a(data: bytes) -> int:
    """Return the FNV-1a hash of 64 bits; `hashlib` would load a library of some MiB into every worker."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def redirect(directory: str, name: str) -> None:
    """Have descriptors 1 and 2 of this process written to the files of worker `name`.

    Raises
    ------
    OSError
        A file cannot be opened, or nobody reads the pipe that is in its place.
    """
    global _redirected
    _redirected = True
    for descriptor, path in enumerate(paths(directory, name), start=1):
        # Not at 1 or 2 itself, should they be closed: it would be closed again right here.
        fd = above_stdio(_opened(path, name))
        os.dup2(fd, descriptor)
        os.close(fd)


def _opened(path: str, name: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    if is_regular(path):
        return os.open(path, flags, 0o666)
    try:
        fd = os.open(path, flags | os.O_NONBLOCK)  # else the open would wait for somebody who reads
    except OSError as trouble:
        if trouble.errno != errno.ENXIO:
            raise
        text = (
            f"worker {name!r} cannot write its log: there is a pipe (FIFO) or a socket in its place, and nobody "
            "reads it. Start its reader before, or remove it"
        )
        raise OSError(errno.ENXIO, text, path) from None
    os.set_blocking(fd, True)  # a task writes as usual: it waits until there is room
    return fd


def is_regular(path: str) -> bool:
    """Whether a path is, or will be, a file that can be read again: no terminal, no pipe."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


def logged() -> bool:
    """Whether descriptors 1 and 2 of this process are the files of a worker."""
    return _redirected


def sizes(directory: str, name: str) -> tuple[int, int]:
    """Return how many bytes are in the two files of worker `name` now."""
    out, err = paths(directory, name)
    return _size(out), _size(err)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def tail(directory: str, name: str, since: tuple[int, int] = (0, 0)) -> str:
    """Return the last lines of the two files of worker `name`, with their names; empty where they have none.

    Parameters
    ----------
    since : tuple of two int
        Bytes at the beginning of each that are not its own: an earlier trial wrote them.
    """
    files = zip(paths(directory, name), since, strict=True)
    return "\n".join(text for path, start in files if (text := _tail_of(path, start)))


def _tail_of(path: str, start: int) -> str:
    try:
        if not is_regular(path):
            return ""  # what it holds is for who reads it, and the listener would wait for who writes
        with open(path, "rb", opener=_without_waiting) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - _BYTES))
            lines = file.read(_BYTES).decode("utf-8", "replace").splitlines()[-_LINES:]
    except OSError:
        return ""
    return f"the last lines of {path}:\n" + "".join(f"    {line}\n" for line in lines) if lines else ""


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, also where it has just become a pipe; that cannot be sought in, which is an error of its own."""
    return os.open(path, flags | os.O_NONBLOCK)
