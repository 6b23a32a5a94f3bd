"""Leaf, any process: standard streams for the listener and the workers, that the past cannot block.

The fork of a process with threads copies the locks of `sys.stdout` and `sys.stderr` as they are; one that
another thread held then stays held for ever. So the children get new stream objects on the same
descriptors, and the handlers of `logging` that wrote to the old ones get the new ones. The old objects
are neither flushed (what they hold is main's) nor closed: they are kept, and the children leave by
`os._exit`. Main makes the new ones before it forks, and keeps them for its next Boss: to make them
in the fork has that copy some ninety pages.

The listener must not wait for whoever reads its standard error either: its streams have patience for a
second, then drop what nobody takes. A worker's streams wait like any other.
"""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from taylorism import _compat

__all__ = [
    "close_stderr",
    "empty_stdin",
    "flush_quietly",
    "lay_out",
    "renew",
    "stand_on_descriptors",
    "wait_like_any_other",
]

#: seconds for which the listener waits for room in its standard output or error
PATIENCE = 1.0
#: what a pipe that polls as writable surely takes
_ATOMIC = select.PIPE_BUF

_kept: list[Any] = []
#: what stands on the descriptors of a worker with log files, and on those of the next one in its process
_standing: dict[int, Any] = {}
_patient: list[Any] = []
#: what main has made for its forks: streams (weakly, they may be the user's), and what takes the place of each
_laid_out: list[tuple[Callable[[], Any], Any]] = []
#: the same for the standard input
_empty: list[Any] = []
#: where the standard streams are in `sys`
_PLACES = ("stdout", "__stdout__", "stderr", "__stderr__")


class _PatientFile(io.FileIO):
    """A descriptor of standard output or error that gives up on a reader who takes nothing."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)
        self.patience: float | None = PATIENCE

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        """Write `data`; what finds no room within the patience is dropped."""
        if self.patience is None:
            return super().write(data)
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _ATOMIC):
            if not self._room():
                break
            super().write(view[start : start + _ATOMIC])
        return len(view)

    def _room(self) -> bool:
        poller = select.poll()
        poller.register(self.fileno(), select.POLLOUT)
        ready = bool(poller.poll((self.patience or 0.0) * 1000))
        # Once given up, each further message is dropped at once until there is room again.
        self.patience = PATIENCE if ready else 0.0
        return ready


def lay_out() -> None:
    """In main, before a fork: make ready what the fork will need."""
    streams = {id(stream): stream for name in _PLACES if (stream := getattr(sys, name, None)) is not None}
    _laid_out[:] = [(old, twin) for old, twin in _laid_out if _is_like(twin, streams.get(id(old())))]
    for old, _ in _laid_out:
        streams.pop(id(old()), None)  # None where another thread was at it, too
    twins = [(stream, _twin(stream)) for stream in streams.values()]
    _laid_out.extend((weakref.ref(stream), twin) for stream, twin in twins if twin is not stream)
    if not _empty:
        with suppress(OSError):  # main has none
            _empty.append(_reading(0))


def renew() -> None:
    """Put new objects in the place of the standard streams, for `sys` and for `logging`."""
    renewed = {}
    for name in _PLACES:
        old = getattr(sys, name, None)
        if id(old) not in renewed:
            renewed[id(old)] = (old, _new_for(old))
        setattr(sys, name, renewed[id(old)][1])
    _kept.append(renewed)
    for handler in _compat.log_handlers():
        if isinstance(handler, logging.StreamHandler):
            _renew_handler(handler, renewed)


def _new_for(old: Any) -> Any:
    """Return what takes the place of a stream."""
    twin = next((twin for stream, twin in _laid_out if stream() is old), None) or _twin(old)
    if twin is not old:
        _patient.append(getattr(twin.buffer, "raw", twin.buffer))
    return twin


def _twin(stream: Any) -> Any:
    """Return a new text stream on the descriptor of `stream`; anything unusual is returned as it is."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        raw = _PatientFile(stream.fileno())
    except (OSError, ValueError):
        return stream  # closed, or without a descriptor
    return io.TextIOWrapper(raw if _is_unbuffered(stream) else io.BufferedWriter(raw, 8192), **_manner(stream))


def _is_like(twin: io.TextIOWrapper, stream: io.TextIOWrapper | None) -> bool:
    """Whether what was made for a stream would still be made so."""
    if stream is None:
        return False
    try:
        same = twin.fileno() == stream.fileno() and _is_unbuffered(twin) == _is_unbuffered(stream)
        return same and _manner(twin) == _manner(stream)
    except (OSError, ValueError):
        return False


def _is_unbuffered(stream: io.TextIOWrapper) -> bool:
    return isinstance(stream.buffer, io.RawIOBase)  # python -u


def _manner(stream: io.TextIOWrapper) -> dict[str, Any]:
    names = ("encoding", "errors", "line_buffering", "write_through")
    return {name: getattr(stream, name) for name in names}


def _renew_handler(
    handler: logging.StreamHandler[Any], renewed: dict[int, tuple[Any, Any]]
) -> None:
    # Not `setStream`: it flushes the old stream, whose lock may be the one that is held.
    old = handler.__dict__.get("stream")
    if old is None:
        return  # `logging.lastResort` looks up `sys.stderr` by itself; a closed file opens again by itself
    if id(old) not in renewed:
        renewed[id(old)] = (old, _new_for(old))
    handler.stream = renewed[id(old)][1]


def wait_like_any_other() -> None:
    """In a worker: write as any program does, however long the reader takes."""
    for raw in _patient:
        raw.patience = None


def stand_on_descriptors() -> None:
    """In a worker whose descriptors 1 and 2 were redirected: have Python write there, in a notebook too.

    Line by line, so that the last words of who is killed are there.
    """
    _stand_on(stdout=1, stderr=2)


def _stand_on(**descriptors: int) -> None:
    renewed, made = {}, False
    for name, fd in descriptors.items():
        old = getattr(sys, name, None)
        new = _standing.get(fd)
        if new is None or new.closed:
            encoding, errors = getattr(old, "encoding", None) or "utf-8", getattr(old, "errors", None)
            new = open(fd, "w", 1, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115 - see `_standing`
            made, _standing[fd] = True, new
        renewed[id(old)] = (old, new)
        setattr(sys, name, new)
    if made:
        _kept.append(renewed)
    for handler in _compat.log_handlers():
        if isinstance(handler, logging.StreamHandler) and id(handler.__dict__.get("stream")) in renewed:
            _renew_handler(handler, renewed)


def close_stderr() -> None:
    """Let nothing more be written to the standard error of this process, by compiled code and programs neither.

    Not closed in truth: the next file that is opened would take its place.
    """
    fd = os.open(os.devnull, os.O_WRONLY)
    if fd != 2:
        os.dup2(fd, 2)
        os.close(fd)
    os.set_inheritable(2, True)
    _stand_on(stderr=2)  # what Python has under that name may be elsewhere, as in a notebook


def empty_stdin() -> None:
    """Give this process an empty standard input: what main reads is not for its workers."""
    _kept.append(sys.stdin)
    fd = os.open(os.devnull, os.O_RDONLY)
    if fd != 0:
        os.dup2(fd, 0)
        os.close(fd)
    os.set_inheritable(0, True)
    sys.stdin = _empty[0] if _empty else _reading(0)


def _reading(fd: int) -> Any:
    return open(fd, encoding="utf-8", closefd=False)


def flush_quietly() -> None:
    """Flush the standard streams, whatever has become of them."""
    for stream in (sys.stdout, sys.stderr, *_standing.values()):
        try:
            stream.flush()
        except Exception:  # closed by the task, or nobody reads any more: there is nobody to tell
            pass
