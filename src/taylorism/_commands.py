"""Worker process: one program, run to its end: what goes in, what comes out, and how it has ended in words.

What the program writes is read as it comes, and only the end of it is kept: 10 GB take no more memory than a line.
Its end is that of its process, never the end of its output: what it leaves running holds copies of the pipes.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any

from taylorism import _errors, _logs
from taylorism._compat import SignalInterruptError
from taylorism._descriptors import above_stdio
from taylorism._process import in_words, watch
from taylorism._signals import postponed

__all__ = ["KEPT", "Program", "told"]

#: characters that are kept of each output
KEPT = 10_000
#: as many bytes as they can be
_KEPT_BYTES = 4 * (KEPT + 1)
#: bytes of one read
_CHUNK = 65_536
#: bytes that a pipe can hold when its program has ended (Linux: /proc/sys/fs/pipe-max-size)
_FULL_PIPE = 1_048_576
#: milliseconds between two looks at the program where the system has no descriptor for its end (macOS)
_TICK = 20
#: what a shell adds to the number of the signal that has killed what it ran
_BY_SIGNAL = 128

_NAMES = {each.value: each.name for each in signal.Signals}
_HINTS = {126: "it must not be executed", 127: "a program was not found"}

#: what a program can be given in the place of a path, as in `subprocess`
_SPECIAL = (subprocess.DEVNULL, subprocess.STDOUT)

_REMEDIES = {
    errno.ENOENT: "there is no such program: give its whole path, or a str, which the shell runs",
    errno.EACCES: "it must not be executed: chmod +x, or name its interpreter first",
    errno.ENOEXEC: "it is no program: it may lack its first line, '#!/bin/sh'; or name its interpreter first",
    errno.E2BIG: "it is too long for the system: have it read a file",
    errno.ENOTDIR: "a part of its path is no directory",
}


class Tail:
    """The last characters of a stream of bytes, UTF-8 as far as they are that."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, data: bytes) -> None:
        """Take note of what comes next."""
        self._bytes += data
        if len(self._bytes) > 2 * _KEPT_BYTES:
            del self._bytes[:-_KEPT_BYTES]

    def text(self) -> str:
        """Return the last `KEPT` characters."""
        return self._bytes[-_KEPT_BYTES:].decode("utf-8", "replace")[-KEPT:]


class _Nothing:
    """An output that goes where nobody keeps it."""

    def __init__(self, target: int) -> None:
        self.target: int | IO[bytes] = target
        self.fd = -1

    def take(self, limit: int = _CHUNK) -> bool:
        """Return whether there may be more."""
        return False

    def text(self) -> str:
        """Return the end of it."""
        return ""

    def begun(self) -> None:
        """Let go of what the program has now."""

    def close(self) -> None:
        """Let go of it."""


class _Captured(_Nothing):
    """An output that comes through a pipe; with a log, it is written there too.

    Parameters
    ----------
    log : int or None
        The descriptor of the log.
    """

    def __init__(self, log: int | None) -> None:
        self.fd, writer = map(above_stdio, os.pipe())
        os.set_blocking(self.fd, False)
        self.target = open(writer, "wb", 0)  # noqa: SIM115 - closed by `begun` or `close`
        self._log = log
        self._tail = Tail()

    def take(self, limit: int = _CHUNK) -> bool:
        try:
            data = os.read(self.fd, limit)
        except BlockingIOError:
            return False
        self._tail.add(data)
        if self._log is not None:
            _write_all(self._log, data)
        return bool(data)

    def text(self) -> str:
        return self._tail.text()

    def begun(self) -> None:
        assert not isinstance(self.target, int)
        self.target.close()

    def close(self) -> None:
        self.begun()
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


class _Filed(_Nothing):
    """An output that goes to a file, as by ``>``; what is kept is read from there."""

    def __init__(self, path: str) -> None:
        self.target = open(path, "wb+" if _logs.is_regular(path) else "wb", 0)  # noqa: SIM115 - closed by `close`
        self.fd = -1

    def text(self) -> str:
        assert not isinstance(self.target, int)
        if not self.target.readable():
            return ""
        tail, fd = Tail(), self.target.fileno()
        # Not by `seek`: what the program has left running writes where we are.
        tail.add(os.pread(fd, _KEPT_BYTES, max(0, os.fstat(fd).st_size - _KEPT_BYTES)))
        return tail.text()

    def close(self) -> None:
        assert not isinstance(self.target, int)
        self.target.close()


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


class Program:
    """One program, from its start to its end.

    Parameters
    ----------
    command : str or sequence of str
        Through the shell, or executed.
    cwd : str or None
        Its directory; that of this process.
    env : mapping or None
        Variables that it has besides those of this process; None as a value takes one away.
    stdin : str, bytes or None
        The file that it reads, or what it reads; by default nothing.
    stdout, stderr : str, int or None
        The file that it writes; `subprocess.DEVNULL`; for `stderr` also `subprocess.STDOUT`.

    Attributes
    ----------
    returncode : int
        Its exit status; the negative number of the signal that killed it.
    stdout, stderr : str
        The last `KEPT` characters of what it has written.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        cwd: str | None = None,
        env: Mapping[str, str | None] | None = None,
        stdin: str | bytes | None = None,
        stdout: str | int | None = None,
        stderr: str | int | None = None,
    ) -> None:
        self.command = command
        self._cwd = cwd
        self._env = None if env is None else _added(env)
        self._files = (stdin, stdout, stderr)
        self.returncode = 0
        self.stdout = self.stderr = ""

    def run(self, led: bool) -> None:
        """Run it to its end.

        Parameters
        ----------
        led : bool
            Whether who interrupts this process does the same to the program, and sees to its end.

        Raises
        ------
        OSError
            It cannot be started; the message says what to do.
        """
        with ExitStack() as stack:
            stdin = stack.enter_context(_source(self._located(self._files[0])))
            outputs = self._outputs(stack)
            self._see_through(stack, stdin, outputs, led)
            self.stdout, self.stderr = (output.text() for output in outputs)

    def _see_through(self, stack: ExitStack, stdin: Any, outputs: list[Any], led: bool) -> None:
        """Start it, and take what it writes until it has ended, also where this process is interrupted.

        Who is reading its last words must not leave before they are said: it would wait for its reader, and be
        killed.
        """
        process: subprocess.Popen[bytes] | None = None
        knows = False
        try:
            with postponed():  # or it might run, and nobody would know
                process = self._start(stdin, outputs)
                stack.callback(_end, process)
            knows = led  # of what comes from now on; it may not have been there yet for what has come
            for output in outputs:
                output.begun()
            _attend(process, outputs)
        except (SignalInterruptError, KeyboardInterrupt):
            if process is not None:
                if not knows:
                    process.terminate()
                _attend(process, outputs)
            raise
        self.returncode = process.returncode

    def _located(self, path: Any) -> Any:
        """Return a path as the program would understand it."""
        return os.path.join(self._cwd or "", path) if isinstance(path, str) else path

    def _outputs(self, stack: ExitStack) -> list[Any]:
        out, err = map(self._located, self._files[1:])
        same = isinstance(out, str) and out == err  # opened twice, they would write over one another
        outputs = []
        for number, target in enumerate((out, subprocess.STDOUT if same else err), start=1):
            outputs.append(_output(target, number))
            stack.callback(outputs[-1].close)
        return outputs

    def _start(self, stdin: Any, outputs: list[Any]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                self.command,
                shell=isinstance(self.command, str),
                cwd=self._cwd,
                env=self._env,
                stdin=stdin,
                stdout=outputs[0].target,
                stderr=outputs[1].target,
            )
        except OSError as trouble:
            raise self._not_started(trouble) from None

    def _not_started(self, trouble: OSError) -> OSError:
        place = os.path.abspath(self._cwd or ".")
        if not os.path.isdir(place) or not os.access(place, os.X_OK):
            remedy = f"cwd={place!r} is no directory that can be entered: make it first"
        else:
            remedy = _REMEDIES.get(trouble.errno or 0, "see what the system says")
        command = _errors.quote(self.command)
        text = f"{trouble.strerror}: the command {command} cannot be started in {place!r}: {remedy}."
        return OSError(trouble.errno, text, trouble.filename)


def _added(env: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment of this process, which has the marks of the listener, with some changes."""
    return {name: value for name, value in {**os.environ, **env}.items() if value is not None}


def _source(stdin: str | bytes | None) -> IO[bytes]:
    if isinstance(stdin, bytes):
        file = tempfile.TemporaryFile()  # noqa: SIM115 - not a pipe: somebody would have to write into it meanwhile
        file.write(stdin)
        file.seek(0)
        return file
    return open(os.devnull if stdin is None else stdin, "rb")


def _output(target: str | int | None, log: int) -> _Nothing:
    if isinstance(target, str):
        return _Filed(target)
    if target in _SPECIAL:
        assert target is not None
        return _Nothing(target)
    return _Captured(log if _logs.logged() else None)


def _attend(process: subprocess.Popen[bytes], outputs: list[Any]) -> None:
    """Take what the program writes until it has ended, then what is left in the pipes."""
    opened: list[int] = []
    try:
        tick = _TICK if watch(process.pid, opened) is None else None
        poller = select.poll()
        by_fd = {output.fd: output for output in outputs if output.fd >= 0}
        for fd in [*by_fd, *opened]:
            poller.register(fd, select.POLLIN)
        while process.poll() is None:
            _take(by_fd, poller, tick)
        for output in by_fd.values():
            output.take(_FULL_PIPE)
    finally:
        for fd in opened:
            os.close(fd)


def _take(outputs: Mapping[int, Any], poller: select.poll, tick: int | None) -> None:
    """Wait, and take what has come; what has come to its end is not waited for any more."""
    for fd, _ in poller.poll(tick):
        if fd in outputs and not outputs[fd].take():
            poller.unregister(fd)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no program behind, whatever went wrong here."""
    if process.poll() is None:
        process.kill()
        process.wait()


def told(command: str | Sequence[str], returncode: int) -> tuple[str, str]:
    """Return how a command has ended, in words, and the name of the signal that killed it, if one did."""
    words = in_words(returncode)
    if returncode < 0:
        return words, _NAMES.get(-returncode, f"signal {-returncode}")
    if not isinstance(command, str):
        return words, ""
    killer = _NAMES.get(returncode - _BY_SIGNAL, "")
    hint = f"what it ran was {in_words(_BY_SIGNAL - returncode)}" if killer else _HINTS.get(returncode)
    return (f"{words} (the shell: {hint})" if hint else words), killer
