"""Transport, any process: what is big goes through the hold, and only its *bill* goes through the pipe.

A bill says where the pickle and its buffers are, and travels where the pickle would: it begins with a byte that no
pickle begins with, so that nobody on the way has to be told::

    | "B" | u32 lane | u32 n | n x (u64 offset, u64 length) | pickle, unless it is the first of the extents |

The listener hands on the bill of a report as it came. Main maps what it says, and unpickles on top of that: the one
copy was made by the worker. A big pickle without buffers, such as one of a long string, takes the same way.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from taylorism import _channel
from taylorism._hold import ALONE, Berth, Extent, Hold, NoRoom, Original, Use
from taylorism._lease import Graves

__all__ = [
    "REMARK",
    "Again",
    "Loaded",
    "discard",
    "dump",
    "hand_on",
    "is_bill",
    "load",
    "load_copy",
    "loaded",
    "pack",
]

#: bytes from which the way through the hold is the faster one
WORTH = 256 * 1024

#: what is logged, once, where big buffers cannot take this way: which, and why
REMARK = "big %s the slower way, through the pipe: the system has no room in shared memory for them: %s"

_MARK = b"B"
_HEAD = struct.Struct("!cII")


def pack(value: object, berth: Berth | None) -> tuple[list[Any], str]:
    """Pickle a report; return the segments for the pipe, and why they are big if they could not be stowed.

    Raises
    ------
    Exception
        Whatever pickling it raises.
    """
    segments = _channel.pack_object(value)
    if berth is None or not _worth_it(segments):
        return segments, ""
    try:
        return [_stowed(segments, berth)], ""
    except NoRoom as trouble:
        return segments, str(trouble)


def dump(value: object, berth: Berth | None) -> tuple[bytes, str]:
    """Pickle instructions, all in one piece; return it, and why it is big if it could not be stowed.

    Raises
    ------
    Exception
        Whatever pickling it raises.
    """
    if _channel.is_bare(value) and len(body := _channel.pack_bare(value)) < WORTH:
        return body, ""
    segments, trouble = pack(value, berth)
    body = segments[0] if len(segments) == 1 else pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return body, trouble


def _worth_it(segments: Sequence[Any]) -> bool:
    return sum(len(each) for each in segments if len(each) >= _channel.LARGE) >= WORTH


def _stowed(segments: Sequence[Any], berth: Berth) -> bytes:
    """Put segments into the hold; return the bill."""
    body = segments[0] if len(segments[0]) < _channel.LARGE else b""
    extents = berth.stow(segments[1:] if body else segments)
    flat = [number for extent in extents for number in extent]
    return _HEAD.pack(_MARK, berth.lane, len(extents)) + struct.pack(f"!{len(flat)}Q", *flat) + body


# ---------------------------------------------------------------------------------------------------------
# opening
# ---------------------------------------------------------------------------------------------------------


class Loaded:
    """What was loaded, and what it uses of the memory.

    Call `settle` once it is safe: what was read will not be read again.
    """

    def __init__(self, value: Any, uses: Sequence[Use] = ()) -> None:
        self.value = value
        self.uses = uses

    def settle(self) -> None:
        """Have the memory given back when nobody looks at it any more."""
        for use in self.uses:
            use.settle()


def loaded(segments: Sequence[Any], hold: Hold | None) -> Loaded:
    """Load what `pack` made; arrays lie on the memory of the hold, mapped privately, and may be written."""
    if hold is None or not is_bill(segments[0]):
        return Loaded(_channel.open_object(segments))
    bill = _read_bill(segments[0])
    uses: list[Use] = []
    return Loaded(bill.load(_buffers(bill, partial(hold.lease, bill.lane), uses)), uses)


def load(packed: Any, hold: Hold | None, graves: Graves, views: list[memoryview] | None = None) -> Any:
    """Load what `dump` made, in the listener; what does not load is given back too.

    Parameters
    ----------
    views : list of memoryview, optional
        What is mapped is added here: as long as it lives, the bill may be opened by others.
    """
    if hold is None or not is_bill(packed):
        return _channel.open_object([packed])
    bill = _read_bill(packed)
    uses: list[Use] = []
    try:
        buffers = _buffers(bill, partial(hold.track, graves, bill.lane), uses)
        if views is not None:
            views.extend(buffers)
        return bill.load(buffers)
    finally:
        for use in uses:
            use.settle()


def load_copy(segments: Sequence[Any], hold: Hold | None) -> Any:
    """Load what somebody else owns, and will give back when he likes: the bytes are copied."""
    if hold is None or not is_bill(segments[0]):
        return _channel.open_object(segments)
    bill = _read_bill(segments[0])
    return bill.load([hold.read(bill.lane, *extent) for extent in bill.extents])


class Again:
    """Loads one piece of instructions again and again, each time as it came: what is big in it is copied once.

    Parameters
    ----------
    hold : Hold
        Where it is.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._bill: _Bill | None = None
        self._original: Original | None = None

    def __call__(self, packed: Any) -> Any:
        """Load it."""
        if self._bill is None or self._original is None:
            self._bill = _read_bill(packed)
            self._original = Original(self._hold, self._bill.lane, self._bill.extents)
        return self._bill.load(self._original.views())

    def close(self) -> None:
        """Let go of the copy; what was loaded stays."""
        if self._original is not None:
            self._original.close()


def hand_on(segments: Sequence[Any], berth: Berth) -> None:
    """Note, where the berth may have to be emptied, that what is on the bill is the receiver's."""
    if is_bill(segments[0]):
        berth.hand_on(_read_bill(segments[0]).extents)


def discard(segments: Sequence[Any], hold: Hold) -> None:
    """Give back what is on the bill: nobody will open it."""
    if is_bill(segments[0]):
        bill = _read_bill(segments[0])
        for extent in bill.extents:
            hold.punch(bill.lane, *extent)


def is_bill(segment: Any) -> bool:
    """Whether this is where things are, rather than a pickle."""
    return bool(segment[:1] == _MARK)


class _Bill(NamedTuple):
    lane: int
    extents: list[Extent]
    body: Any

    def load(self, buffers: list[memoryview]) -> Any:
        """Load the pickle, which is the first of the buffers if it is not in the bill."""
        return _channel.open_object([self.body, *buffers] if len(self.body) else buffers)


def _read_bill(bill: Any) -> _Bill:
    _, lane, count = _HEAD.unpack_from(bill)
    flat = struct.unpack_from(f"!{2 * count}Q", bill, _HEAD.size)
    extents = list(zip(flat[::2], flat[1::2], strict=True))
    return _Bill(lane, extents, bill[_HEAD.size + 16 * count :])


def _buffers(bill: _Bill, use: Callable[[int, int], Use], uses: list[Use]) -> list[memoryview]:
    """Return the buffers, in order; those that are large are used by themselves, the others together."""

    def taken(offset: int, size: int) -> memoryview:
        uses.append(use(offset, size))
        view, uses[-1].view = uses[-1].view, None
        assert view is not None
        return view

    small = [extent for extent in bill.extents if extent[1] < ALONE]
    start = min((offset for offset, _ in small), default=0)
    end = max((offset + size for offset, size in small), default=0)
    together = taken(start, end - start) if small else memoryview(b"")
    return [
        together[offset - start : offset - start + size] if size < ALONE else taken(offset, size)
        for offset, size in bill.extents
    ]
