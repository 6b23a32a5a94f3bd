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
import functools
import itertools
import os
import pickle
import re
import select
import socket
import struct
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from taylorism import _compat

__all__ = [
    "Channel",
    "ChannelClosed",
    "Frame",
    "Inflow",
    "Outflow",
    "encode",
    "is_bare",
    "is_inert",
    "open_object",
    "pack_bare",
    "pack_head",
    "pack_object",
    "pack_record",
    "records",
    "write_all",
]

_LENGTHS = struct.Struct("!II")

#: bytes from which a buffer travels as a segment of its own; below, copying is cheaper than keeping track
LARGE = 64 * 1024
#: a pickle without the opcodes that find something by name, in a registry, or out of band (`pickletools`)
_INERT = re.compile(rb"\x80[^\x82-\x84\x93\x97]*\.")
#: what has no buffers; in a newborn worker, not to look for them saves the copies of some pages
_BARE = (type(None), bool, int, float, str)
_ALL_BARE = frozenset(_BARE).issuperset
#: bytes asked for from one system call
_CHUNK = 1 << 20
#: buffers handed to one `writev` (the system's limit is 1024)
_VECTOR = 256
#: segments of a frame from which they are made when they are asked for
_MANY = 1000
#: flag of a send that raises no SIGPIPE (on macOS an option of the socket does that)
_QUIET = getattr(socket, "MSG_NOSIGNAL", 0)
#: bytes of the pipe of a worker that has much to say (Linux; what an unprivileged user may ask for)
_WIDE_PIPE = 1 << 20


#: a record: a frame of one segment, whose head is no pickle (it begins with a zero): the number of a set, when its
#: worker began and ended; then its name
_RECORD = struct.Struct("!IIQBIdd")
_RECORD_HEAD = _RECORD.size - 16


class ChannelClosed(Exception):
    """The other side is gone."""


class Frame(NamedTuple):
    """A message: its head, and its segments as views on one private, writable buffer."""

    head: Any
    segments: Sequence[Any] = ()


# ---------------------------------------------------------------------------------------------------------
# objects <-> segments
# ---------------------------------------------------------------------------------------------------------


def is_bare(value: object) -> bool:
    """Whether it is, or is a dict of, what has no buffers."""
    return isinstance(value, _BARE) or (type(value) is dict and _ALL_BARE(map(type, value.values())))


def pack_bare(value: object) -> bytes:
    """Pickle what has no buffers."""
    return pickle.dumps(value, protocol=5)


def pack_object(value: object) -> list[Any]:
    """Pickle `value`; its large buffers (numpy arrays above all) follow as segments, uncopied.

    Raises
    ------
    Exception
        Whatever pickling it raises.
    """
    if isinstance(value, _BARE):
        return [pack_bare(value)]
    segments: list[Any] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        segments.append(raw)
        return False

    body = pickle.dumps(value, protocol=5, buffer_callback=keep_in_band)
    return [body, *segments]  # `raw()` gives flat views of bytes, so that `len` is what it seems


def open_object(segments: Sequence[Any]) -> Any:
    """Load what `pack_object` packed. Arrays are views on the segments: no copy, writable."""
    return pickle.loads(segments[0], buffers=segments[1:])


def is_inert(packed: bytes) -> bool:
    """Whether a pickle of this protocol holds plain values alone: to load it finds nothing by name.

    So it runs nobody's code, and cannot fail. A number may look like what finds something; then the answer is no.
    """
    return _INERT.fullmatch(packed) is not None


def pack_head(head: object) -> bytes:
    """Pickle the head of a frame."""
    return pickle.dumps(head, protocol=pickle.HIGHEST_PROTOCOL)


def encode(head: object, segments: Iterable[Any] = ()) -> list[Any]:
    """Return the buffers of a frame, the small ones joined; `head` may have been packed beforehand."""
    parts = list(segments)
    packed = head if isinstance(head, bytes) else pack_head(head)
    sizes = struct.pack(f"!{len(parts)}Q", *map(len, parts))
    start = _LENGTHS.pack(len(packed), len(parts)) + sizes + packed
    if sum(map(len, parts)) < LARGE:
        return [b"".join((start, *parts))]
    return list(_joined([start, *parts]))


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
# records: what very many short workers say, passed on unopened
# ---------------------------------------------------------------------------------------------------------


def pack_record(number: int, name: str, report: bytes, began: float, ended: float) -> bytes:
    """Return the frame of a record."""
    text = name.encode("utf-8", "surrogatepass")
    return _RECORD.pack(_RECORD_HEAD + len(text), 1, len(report), 0, number, began, ended) + text + report


def records(packed: Any) -> Iterator[tuple[int, str, float, float, bytes]]:
    """Yield of each record: number, name, when it began and ended, and the pickled report."""
    data, start = bytes(packed), 0
    while start < len(data):
        head, _, size, _, number, began, ended = _RECORD.unpack_from(data, start)
        body = start + 16 + head
        name = str(data[start + _RECORD.size : body], "utf-8", "surrogatepass")
        start = body + size
        yield number, name, began, ended, data[body:start]


class Numbers(list[int]):
    """The head of a frame of records: the numbers of the sets.

    Attributes
    ----------
    seconds : float
        From the beginning of the first worker to the end of the last.
    """

    seconds = 0.0


def _records_from(view: memoryview, start: int) -> tuple[int, Numbers]:
    """Return where the records that begin at `start` end, and their numbers."""
    numbers, first, last, size_of_all = Numbers(), 0.0, 0.0, len(view)
    while size_of_all - start >= _RECORD.size:
        head, count, size, mark, number, began, ended = _RECORD.unpack_from(view, start)
        end = start + 16 + head + size
        if count != 1 or mark or end > size_of_all:
            break
        first, last = first or began, ended
        numbers.append(number)
        start = end
    numbers.seconds = last - first
    return start, numbers


# ---------------------------------------------------------------------------------------------------------
# reading
# ---------------------------------------------------------------------------------------------------------


class _Reading:
    """Where the reader stands.

    Attributes
    ----------
    number : int
        Of the next frame.
    ahead : bytes-like
        What was read and is less than a frame; empty while `frame` is being filled.
    frame : bytearray or None
        A large frame, of which `done` bytes have come.
    noted : list of int or bytes
        What the last system call brought: the number of bytes put into `frame`, or bytes.
    """

    __slots__ = ("ahead", "done", "frame", "noted", "number")

    def __init__(self, number: int, ahead: Any, frame: bytearray | None = None, done: int = 0) -> None:
        self.number = number
        self.ahead = ahead
        self.frame = frame
        self.done = done
        self.noted: list[Any] = []


class Inflow:
    """Frames out of a non-blocking descriptor, as far as they have come.

    `ready` maps the number of each frame to the frame. Who has dealt with a frame removes it: dealing twice
    with the same number must do no harm (see the head of this module).
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ready: dict[int, Frame] = {}
        self.ended = False
        self._reading = _Reading(0, b"")

    def pull(self, to_the_end: bool = False) -> None:
        """Read what is there, and note the end of the stream.

        Parameters
        ----------
        to_the_end : bool
            Go on until there is nothing at all: for a writer that has ended. Otherwise a short answer of the
            system is taken for the last, which saves a call; if it was not, the loop will be woken again.
        """
        self._settle()
        more = self.fd >= 0
        while more and not self.ended:
            more = self._read_some() or (to_the_end and bool(self._reading.noted))
            self._settle()

    def _read_some(self) -> bool:
        """Make one system call; return whether there may be more."""
        reading, frame = self._reading, self._reading.frame
        try:
            # One call into C each: see the head of this module.
            if frame is None:
                reading.noted.extend(map(os.read, (self.fd,), (LARGE,)))
                size, asked = len(reading.noted[-1]), LARGE
            else:
                view = memoryview(frame)[reading.done : reading.done + _CHUNK]
                reading.noted.extend(map(os.readv, (self.fd,), ((view,),)))
                size, asked = reading.noted[-1], len(view)
        except BlockingIOError:
            return False
        except ConnectionError:
            # The other side died with unread data; what it had sent before has been read. Not `OSError`: a
            # handler of the user's may raise a TimeoutError right here.
            self.ended = True
            return False
        self.ended = size == 0
        return bool(size == asked)

    def _settle(self) -> None:
        """Count in what was noted, and cut all the frames that are whole."""
        reading = self._reading
        if not reading.noted:
            return
        came = reading.noted[0]
        if reading.frame is None:
            self._cut(reading.number, reading.ahead + came if reading.ahead else came)
        elif reading.done + came < len(reading.frame):
            self._reading = _Reading(reading.number, b"", reading.frame, reading.done + came)
        else:
            self._cut(reading.number, reading.frame)

    def _cut(self, number: int, data: Any) -> None:
        """Make the frames that `data` begins with ready, then stand behind them: one assignment."""
        view, start, size = memoryview(data), 0, len(data)
        while (end := start + _size_of_frame(view, start)) <= size:
            after, numbers = _records_from(view, start)
            if numbers:
                self.ready[number] = Frame(numbers, (bytes(view[start:after]),))
                end = after
            else:
                self.ready[number] = _opened(view, start, data)
            number, start = number + 1, end
        missing, rest = end - start, view[start:]
        if missing < LARGE or start == size:
            self._reading = _Reading(number, bytes(rest))
            return
        frame = bytearray(missing)
        frame[: len(rest)] = rest
        self._reading = _Reading(number, b"", frame, len(rest))


def _size_of_frame(view: memoryview, start: int) -> int:
    """Return the bytes of the frame at `start`, or more than there are where that cannot be told yet."""
    left = len(view) - start
    if left < _LENGTHS.size:
        return left + 1
    head, count = _LENGTHS.unpack_from(view, start)
    known = _LENGTHS.size + 8 * count
    if left < known:
        return int(known + head)
    return int(known + head + sum(struct.unpack_from(f"!{count}Q", view, start + _LENGTHS.size)))


def _opened(view: memoryview, start: int, data: Any) -> Frame:
    """Return the frame at `start`; its segments are writable views, on a buffer that no other frame is on."""
    length, count = _LENGTHS.unpack_from(view, start)
    sizes = struct.unpack_from(f"!{count}Q", view, start + _LENGTHS.size)
    start += _LENGTHS.size + 8 * count
    head = _head(bytes(view[start : start + length]))
    body = view[start + length : start + length + sum(sizes)]
    if not isinstance(data, bytearray):
        body = memoryview(bytearray(body))
    return Frame(head, _Segments(body, sizes) if len(sizes) > _MANY else tuple(_slices(body, sizes)))


@functools.lru_cache(maxsize=16)
def _head(packed: bytes) -> Any:
    """Load a head. Most are alike, and frozen: the notice of a plain report is loaded once."""
    return pickle.loads(packed)


class _Segments(Sequence[memoryview]):
    """Very many segments, as views that are made when they are asked for: 100 000 at once take 20 MiB."""

    def __init__(self, view: memoryview, sizes: Sequence[int]) -> None:
        self._view = view
        self._ends = array("Q", itertools.accumulate(sizes))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            return [self[place] for place in range(*which.indices(len(self)))]
        end = self._ends[which]
        start = self._ends[which - 1] if which % len(self) else 0
        return self._view[start:end]

    def __iter__(self) -> Iterator[memoryview]:
        start = 0
        for end in self._ends:
            yield self._view[start:end]
            start = end


def _slices(view: memoryview, sizes: Sequence[int]) -> Iterable[memoryview]:
    start = 0
    for size in sizes:
        yield view[start : start + size]
        start += size


# ---------------------------------------------------------------------------------------------------------
# writing
# ---------------------------------------------------------------------------------------------------------


class _Packet:
    """The buffers of one frame that are left to write, and how many bytes of the first have been written."""

    __slots__ = ("buffers", "done", "noted", "source")

    def __init__(self, source: list[Any], buffers: list[Any], done: int = 0) -> None:
        self.source = source
        self.buffers = buffers
        self.done = done
        self.noted: list[int] = []

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
    """Frames into a non-blocking descriptor, as far as it takes them.

    Parameters
    ----------
    fd : int
        The descriptor.
    sock : socket, optional
        The socket that it belongs to. It is then written to without SIGPIPE, which scripts give back its
        default, to end with the reader of their output.
    """

    def __init__(self, fd: int, sock: socket.SocketType | None = None) -> None:
        self.fd = fd
        self._sock = sock
        self._waiting: deque[list[Any]] = deque()
        self._packet = _Packet([], [])

    def push(self, buffers: list[Any]) -> None:
        """Add the buffers of a frame to what is to be written; safe from any thread or signal handler."""
        self._waiting.append(buffers)

    @property
    def empty(self) -> bool:
        """Whether everything has been written. Changes nothing: other threads ask while one writes."""
        packet = self._packet
        return not (self._waiting or packet.counted().buffers)

    def flush(self) -> bool:
        """Write what the descriptor takes now; return `empty`.

        Raises
        ------
        ChannelClosed
            The other side is gone.
        """
        try:
            while packet := self._next():
                # One call into C: see the head of this module.
                if self._sock is None:
                    packet.noted.extend(map(os.writev, (self.fd,), (packet.rest(),)))
                else:
                    packet.noted.extend(map(self._sock.sendmsg, (packet.rest(),), ((),), (_QUIET,)))
        except BlockingIOError:
            return False
        except ConnectionError as error:
            raise ChannelClosed(str(error)) from None
        return True

    def _next(self) -> _Packet | None:
        """Return what is to be written next, or None."""
        packet = self._settled()
        if packet.buffers or not self._waiting:
            return packet if packet.buffers else None
        # The frame stays at the head of the queue until the packet that replaces it is in place. If a
        # signal comes between the two, the packet's source tells that this frame was taken already.
        frame = self._waiting[0]
        if packet.source is not frame:
            self._packet = _Packet(frame, frame)
        self._waiting.popleft()
        return self._next()

    def _settled(self) -> _Packet:
        if self._packet.noted:
            self._packet = self._packet.counted()
        return self._packet


def write_all(fd: int, buffers: list[Any]) -> None:
    """Write a frame to a blocking descriptor; the pipe is widened first where there is much to write."""
    if len(buffers) == 1 and len(buffers[0]) <= select.PIPE_BUF:
        os.write(fd, buffers[0])  # all of it, or it waits
        return
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


class Channel:
    """One end of a two-way stream of frames; never blocks.

    Parameters
    ----------
    sock : socket, optional
        A socket that is handed over; without one, this end is closed.
    """

    def __init__(self, sock: socket.SocketType | None = None) -> None:
        self._sock = sock if sock is None else _above_stdio([sock], 0)
        self.fd = -1 if self._sock is None else self._sock.fileno()
        self.inflow = Inflow(self.fd)
        self.outflow = Outflow(self.fd, self._sock)
        if self._sock is not None:
            self._sock.setblocking(False)
            if hasattr(socket, "SO_NOSIGPIPE"):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_NOSIGPIPE, 1)

    @classmethod
    def pair(cls, noted: list[socket.SocketType] | None = None) -> tuple[Channel, Channel]:
        """Return the two ends of a new channel.

        Parameters
        ----------
        noted : list, optional
            All sockets are added here in the instant in which they are made: a signal handler may raise before the
            ends are returned. To close one twice does no harm.
        """
        socks: list[socket.SocketType] = [] if noted is None else noted
        pairs = itertools.starmap(_compat.socketpair, ((socket.AF_UNIX, socket.SOCK_STREAM),))
        socks.extend(itertools.chain.from_iterable(pairs))  # one call into C: see the head of this module
        return cls(_above_stdio(socks, 0)), cls(_above_stdio(socks, 1))

    def wait(self, timeout: float | None, *others: int) -> None:
        """Return when there is something to read, room for what is to be written, or `others` can be read."""
        fd, poller = self.fd, select.poll()
        if fd < 0:
            return
        wanted = 0 if self.inflow.ended else select.POLLIN
        wanted |= 0 if self.outflow.empty else select.POLLOUT
        if wanted:
            poller.register(fd, wanted)
        for other in others:
            poller.register(other, select.POLLIN)
        poller.poll(None if timeout is None else max(0.0, timeout * 1000))

    def close(self) -> None:
        """Close this end; harmless when repeated."""
        self.fd = self.inflow.fd = self.outflow.fd = -1  # the number will soon belong to another file
        if self._sock is not None:
            self._sock.close()


def _above_stdio(socks: list[socket.SocketType], which: int) -> socket.SocketType:
    """Return one of the sockets, or one like it that is clear of the standard streams and is added to them."""
    sock = socks[which]
    if sock.fileno() > 2:
        return sock
    socks.extend(map(_on_descriptor, map(fcntl.fcntl, (sock.fileno(),), (fcntl.F_DUPFD_CLOEXEC,), (3,))))
    sock.close()
    return socks[-1]


_on_descriptor = functools.partial(socket.SocketType, socket.AF_UNIX, socket.SOCK_STREAM, 0)
