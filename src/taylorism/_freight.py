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
from collections.abc import Sequence
from typing import Any

from taylorism import _channel
from taylorism._hold import ALONE, Berth, Extent, Hold, NoRoom
from taylorism._lease import Graves, Lease

__all__ = ["REMARK", "Loaded", "dump", "load", "load_copy", "loaded", "pack"]

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
    """What was loaded, and what it holds of the memory.

    Call `settle` once it is safe: what was read will not be read again.
    """

    def __init__(self, value: Any, leases: Sequence[Lease] = ()) -> None:
        self.value = value
        self._leases = leases

    def settle(self) -> None:
        """Have the memory given back when nobody looks at it any more."""
        for lease in self._leases:
            lease.settle()


def loaded(segments: Sequence[Any], hold: Hold | None) -> Loaded:
    """Load what `pack` made; arrays lie on the memory of the hold, mapped privately, and may be written."""
    leases: list[Lease] = []
    return Loaded(_load(segments, hold, leases), leases)


def load(packed: Any, hold: Hold | None, graves: Graves | None = None) -> Any:
    """Load what `dump` made, for somebody who reads it once; what does not load is given back too."""
    leases: list[Lease] = []
    try:
        return _load([packed], hold, leases, graves)
    finally:
        for lease in leases:
            lease.settle()


def _load(segments: Sequence[Any], hold: Hold | None, leases: list[Lease], graves: Graves | None = None) -> Any:
    if hold is None or not _is_bill(segments[0]):
        return _channel.open_object(segments)
    lane, extents, body = _read_bill(segments[0])
    buffers = _mapped(hold, lane, extents, leases, graves)
    return _channel.open_object(buffers if body is None else [body, *buffers])


def load_copy(segments: Sequence[Any], hold: Hold | None) -> Any:
    """Load a report beside its owner: the bytes are copied, for main will give them back when it likes."""
    if hold is None or not _is_bill(segments[0]):
        return _channel.open_object(segments)
    lane, extents, body = _read_bill(segments[0])
    buffers = [hold.read(lane, *extent) for extent in extents]
    return _channel.open_object(buffers if body is None else [body, *buffers])


def _is_bill(segment: Any) -> bool:
    return bytes(segment[:1]) == _MARK


def _read_bill(bill: Any) -> tuple[int, list[Extent], Any]:
    """Return the lane, the extents, and the pickle, None if that is the first of the extents."""
    _, lane, count = _HEAD.unpack_from(bill)
    flat = struct.unpack_from(f"!{2 * count}Q", bill, _HEAD.size)
    body = bill[_HEAD.size + 16 * count :]
    return lane, list(zip(flat[::2], flat[1::2], strict=True)), body if len(body) else None


def _mapped(
    hold: Hold, lane: int, extents: Sequence[Extent], leases: list[Lease], graves: Graves | None
) -> list[memoryview]:
    """Return the buffers, in order; those that are large have a lease each, the others one together."""
    small = [extent for extent in extents if extent[1] < ALONE]
    start = min((offset for offset, _ in small), default=0)
    end = max((offset + size for offset, size in small), default=0)
    together = hold.lease(lane, start, end - start, leases, graves) if small else memoryview(b"")
    return [
        together[offset - start : offset - start + size]
        if size < ALONE
        else hold.lease(lane, offset, size, leases, graves)
        for offset, size in extents
    ]
