"""Transport, any process: frames over sockets and pipes, without ever blocking a loop or losing a byte.

A frame is a small picklable *head* (a type of `_messages`) and any number of *segments*, raw bytes
that the channel does not look at::

    | u32 length of the head | u32 n | n x u64 lengths of the segments | head | segment | segment ...

Only a whole frame is a message: a process may die at any byte of it.

Signals are the hard part. In main, a Ctrl-C may raise KeyboardInterrupt between any two calls,
hence also between a read and the counting of what was read, and one lost byte spoils all that
follows. So the system call and the note of its result are made in *one* call into C,
``noted.extend(map(os.readv, ...))``, where no handler can run; every other step is a single assignment
of a new state that is worth the same if it is made twice. (Blocking the signals around the read was tried:
it does not help, a thread of a BLAS library takes the signal, and Python's handler runs all the same.)
"""

from __future__ import annotations

import fcntl
import os
import pickle
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Channel",
    "ChannelClosed",
    "Frame",
    "Inflow",
    "Outflow",
    "above_stdio",
    "encode",
    "pack_object",
    "open_object",
    "write_all",
]

_LENGTHS = struct.Struct("!II")

#: bytes from which a buffer travels as a segment of its own; below, copying is cheaper than keeping track
LARGE = 64 * 1024
#: bytes asked for from one system call
_CHUNK = 1 << 20
#: buffers handed to one `writev` (the system's limit is 1024)
_VECTOR = 256
#: bytes of the pipe of a worker that has much to say (Linux; what an unprivileged user may ask for)
_WIDE_PIPE = 1 << 20


class ChannelClosed(Exception):
    """The other side is gone."""


@dataclass(frozen=True)
class Frame:
    """A message: its head, and its segments as views on one private, writable buffer."""

    head: Any
    segments: tuple[Any, ...] = ()


# ---------------------------------------------------------------------------------------------------------
# objects <-> segments
# ---------------------------------------------------------------------------------------------------------


def pack_object(value: object) -> list[Any]:
    """Pickle `value`; its large buffers (numpy arrays above all) follow as segments, uncopied.

    Raises
    ------
    Exception
        Whatever pickling it raises.
    """
    segments: list[Any] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        segments.append(raw)
        return False

    body = pickle.dumps(value, protocol=5, buffer_callback=keep_in_band)
    return [body, *segments]


def open_object(segments: Sequence[Any]) -> Any:
    """Load what `pack_object` packed. Arrays are views on the segments: no copy, writable."""
    return pickle.loads(segments[0], buffers=segments[1:])


def encode(head: object, segments: Iterable[Any] = ()) -> list[Any]:
    """Return the buffers of a frame, the small ones joined."""
    parts = [memoryview(part).cast("B") if len(part) else memoryview(b"") for part in segments]
    packed = pickle.dumps(head, protocol=pickle.HIGHEST_PROTOCOL)
    sizes = struct.pack(f"!{len(parts)}Q", *(len(part) for part in parts))
    return list(_joined([_LENGTHS.pack(len(packed), len(parts)) + sizes + packed, *parts]))


def _joined(parts: Iterable[Any]) -> Iterable[Any]:
    small: list[Any] = []
    for part in parts:
        if len(part) < LARGE:
            small.append(part)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield part
    if small:
        yield b"".join(small)


# ---------------------------------------------------------------------------------------------------------
# reading
# ---------------------------------------------------------------------------------------------------------


@dataclass
class _Reading:
    """Where the reader stands: the stretch of the stream it is in, and what was read beyond.

    Attributes
    ----------
    buffer : bytearray
        The stretch, whose length is known: lengths, head, or body of a frame.
    complete : callable
        Takes the full `buffer`, returns the buffer and the `complete` of what follows.
    done : int
        Bytes of `buffer` that have come.
    ahead : memoryview
        What was read beyond it.
    noted : list of int or bytes
        What the last system call brought: the number of bytes put into `buffer`, or bytes.
    """

    buffer: bytearray
    complete: Callable[[bytearray], tuple[bytearray, Any]]
    done: int = 0
    ahead: memoryview = memoryview(b"")
    noted: list[Any] = field(default_factory=list)

    @property
    def missing(self) -> int:
        return len(self.buffer) - self.done

    def counted(self) -> _Reading:
        """Count in what was noted."""
        came = self.noted[0]
        if isinstance(came, int):
            return _Reading(self.buffer, self.complete, self.done + came, self.ahead)
        return _Reading(self.buffer, self.complete, self.done, memoryview(came))

    def moved(self) -> _Reading:
        """Go one step towards the end of `ahead`: fill the buffer from it, or begin the next stretch."""
        if not self.missing:
            return _Reading(*self.complete(self.buffer), 0, self.ahead)
        step = min(self.missing, len(self.ahead))
        self.buffer[self.done : self.done + step] = self.ahead[:step]
        return _Reading(self.buffer, self.complete, self.done + step, self.ahead[step:])


class Inflow:
    """Frames out of a non-blocking descriptor, as far as they have come.

    `ready` maps the number of each frame to the frame. Who has dealt with a frame removes it: dealing twice
    with the same number must do no harm (see the head of this module).
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ready: dict[int, Frame] = {}
        self.ended = False
        self._reading = _Reading(*self._lengths(0))

    def pull(self, to_the_end: bool = False) -> None:
        """Read what is there, and note the end of the stream.

        Parameters
        ----------
        to_the_end : bool
            Go on until there is nothing at all: for a writer that has ended. Otherwise a short answer of the
            system is taken for the last, which saves a call; if it was not, the loop will be woken again.
        """
        more = True
        while more and not self.ended:
            more = self._read_some(to_the_end)

    def _read_some(self, to_the_end: bool) -> bool:
        reading = self._settled()
        asked = min(reading.missing, _CHUNK)
        try:
            # One call into C: see the head of this module.
            if reading.missing < LARGE:
                asked = LARGE
                reading.noted.extend(map(os.read, (self.fd,), (asked,)))
            else:
                view = memoryview(reading.buffer)[reading.done : reading.done + asked]
                reading.noted.extend(map(os.readv, (self.fd,), ((view,),)))
        except BlockingIOError:
            return False
        except OSError:
            # ECONNRESET: the other side died with unread data. What it had sent before has been read.
            self.ended = True
            return False
        came = reading.noted[-1]
        size = came if isinstance(came, int) else len(came)
        self.ended = size == 0
        self._settled()
        return to_the_end or size == asked

    def _settled(self) -> _Reading:
        """Count what was noted, deal with all of it, and return where the reader stands then."""
        reading = self._reading
        if reading.noted:
            self._reading = reading = reading.counted()
        while reading.ahead or not reading.missing:
            self._reading = reading = reading.moved()
        return reading

    def _lengths(self, number: int) -> tuple[bytearray, Any]:
        def complete(buffer: bytearray) -> tuple[bytearray, Any]:
            head, count = _LENGTHS.unpack(buffer)
            return self._head(number, head, count)

        return bytearray(_LENGTHS.size), complete

    def _head(self, number: int, length: int, count: int) -> tuple[bytearray, Any]:
        def complete(buffer: bytearray) -> tuple[bytearray, Any]:
            sizes = struct.unpack_from(f"!{count}Q", buffer)
            head = pickle.loads(memoryview(buffer)[8 * count :])
            return self._body(number, head, sizes)

        return bytearray(8 * count + length), complete

    def _body(self, number: int, head: Any, sizes: Sequence[int]) -> tuple[bytearray, Any]:
        def complete(buffer: bytearray) -> tuple[bytearray, Any]:
            self.ready[number] = Frame(head, tuple(_slices(buffer, sizes)))
            return self._lengths(number + 1)

        return bytearray(sum(sizes)), complete


def _slices(buffer: bytearray, sizes: Sequence[int]) -> Iterable[memoryview]:
    view, start = memoryview(buffer), 0
    for size in sizes:
        yield view[start : start + size]
        start += size


# ---------------------------------------------------------------------------------------------------------
# writing
# ---------------------------------------------------------------------------------------------------------


@dataclass
class _Packet:
    """The buffers of one frame that are left to write, and how many bytes of the first have been written."""

    source: list[Any]
    buffers: list[Any]
    done: int = 0
    noted: list[int] = field(default_factory=list)

    def counted(self) -> _Packet:
        """Return what is left of this packet."""
        done = self.done + sum(self.noted)
        buffers = self.buffers
        while buffers and done >= len(buffers[0]):
            done -= len(buffers[0])
            buffers = buffers[1:]
        return _Packet(self.source, buffers, done)

    def rest(self) -> list[Any]:
        first = memoryview(self.buffers[0])[self.done :]
        return [first, *self.buffers[1:_VECTOR]]


class Outflow:
    """Frames into a non-blocking descriptor, as far as it takes them."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._waiting: deque[list[Any]] = deque()
        self._packet = _Packet([], [])

    def push(self, buffers: list[Any]) -> None:
        """Add the buffers of a frame to what is to be written; safe from any thread or signal handler."""
        self._waiting.append(buffers)

    @property
    def empty(self) -> bool:
        """Whether everything has been written."""
        return not (self._waiting or self._settled().buffers)

    def flush(self) -> bool:
        """Write what the descriptor takes now; return `empty`.

        Raises
        ------
        ChannelClosed
            The other side is gone.
        """
        while not self.empty:
            packet = self._settled()
            if not packet.buffers:
                self._take_next()
            elif not self._write_some(packet):
                return False
        return True

    def _take_next(self) -> None:
        # The frame stays at the head of the queue until the packet that replaces it is in place. If a
        # signal comes between the two, the packet's source tells that this frame was taken already.
        frame = self._waiting[0]
        if self._packet.source is not frame:
            self._packet = _Packet(frame, frame)
        self._waiting.popleft()

    def _write_some(self, packet: _Packet) -> bool:
        try:
            # One call into C: see the head of this module.
            packet.noted.extend(map(os.writev, (self.fd,), (packet.rest(),)))
        except BlockingIOError:
            return False
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        return True

    def _settled(self) -> _Packet:
        if self._packet.noted:
            self._packet = self._packet.counted()
        return self._packet


def write_all(fd: int, buffers: list[Any]) -> None:
    """Write a frame to a blocking descriptor; the pipe is widened first where there is much to write."""
    if sum(map(len, buffers)) > _WIDE_PIPE:
        _widen(fd)
    packet = _Packet(buffers, buffers)
    while packet.buffers:
        packet.noted.append(os.writev(fd, packet.rest()))
        packet = packet.counted()


def _widen(fd: int) -> None:
    """Ask for a pipe of 1 MiB: fewer turns for a large report. Where there is no such call, it stays as is."""
    set_size = getattr(fcntl, "F_SETPIPE_SZ", None)
    if set_size is not None:
        try:
            fcntl.fcntl(fd, set_size, _WIDE_PIPE)
        except OSError:
            pass  # the user's share of pipe pages is used up: slower, not wrong


# ---------------------------------------------------------------------------------------------------------
# both ways
# ---------------------------------------------------------------------------------------------------------


def above_stdio(fd: int) -> int:
    """Return a descriptor for the same file that is not 0, 1 or 2, and not inherited over an exec.

    With a standard stream closed, the system would give its number to the next descriptor, and the first
    `print` of a task would land in the middle of our frames.
    """
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


class Channel:
    """One end of a two-way stream of frames; never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        fd = above_stdio(sock.detach())
        os.set_blocking(fd, False)
        self.fd = fd
        self.inflow = Inflow(fd)
        self.outflow = Outflow(fd)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return the two ends of a new channel."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(one), cls(other)

    def wait(self, timeout: float | None, *others: int) -> None:
        """Return when there is something to read, room for what is to be written, or `others` can be read."""
        poller = select.poll()
        wanted = 0 if self.inflow.ended else select.POLLIN
        wanted |= 0 if self.outflow.empty else select.POLLOUT
        if wanted:
            poller.register(self.fd, wanted)
        for fd in others:
            poller.register(fd, select.POLLIN)
        poller.poll(None if timeout is None else max(0.0, timeout * 1000))

    def close(self) -> None:
        """Close this end; harmless when repeated."""
        fd, self.fd = self.fd, -1
        self.inflow.fd = self.outflow.fd = -1  # the number will soon belong to another file
        if fd >= 0:
            os.close(fd)
