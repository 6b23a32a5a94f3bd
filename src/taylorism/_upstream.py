"""Listener: its end of the way to main: orders in, events out, and whether main is still there.

Main's death is seen by a descriptor of its process. End of file is not enough, because main's other children
hold copies of its end; and the death signal of the system follows the *thread* that made the Boss. Where
processes have no descriptor, our parent is looked at now and then.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Collection, Iterable

from taylorism import _channel, _process, _tree
from taylorism._channel import Channel, ChannelClosed, Frame
from taylorism._messages import End, Event, Movements, Start, WorkerDone, from_wire, to_wire

__all__ = ["Upstream"]

#: seconds between two writes to main: what comes in a burst wakes it once. Writing each event by itself was a
#: seventh slower with empty workers on 2 cores, where main, woken each time, is in the workers' way.
PAUSE = 0.01
#: seconds between two looks at our parent where its death cannot be waited for
_LOOK = 0.5


class Upstream:
    """The way to main.

    Parameters
    ----------
    channel : Channel
        The listener's end.
    main_pid : int
        Whom to watch.
    parent : bool
        Whether main is our parent.
    poller : select.poll
        Where the loop waits.
    """

    def __init__(
        self, channel: Channel, main_pid: int, parent: bool, poller: select.poll
    ) -> None:
        self._channel = channel
        self._poller = poller
        self._main_pid = main_pid
        self._parent = main_pid if parent else None
        self._watch = _process.watch(main_pid)
        self._events = select.POLLIN
        self._next_flush = 0.0
        self._moves: list[End | Callable[[], Start | None]] = []
        self.open = True
        self.deaf = False
        poller.register(channel.fd, self._events)
        if self._watch is not None:
            poller.register(self._watch, select.POLLIN)

    def orders(self, ready: Collection[int]) -> Iterable[Frame]:
        """Return what main has sent since the last time; `ready` are the descriptors that can be read."""
        inflow = self._channel.inflow
        if self.open and self._channel.fd in ready:
            inflow.pull()
        frames = [inflow.ready.pop(number) for number in sorted(inflow.ready)]
        return [Frame(from_wire(head), segments) for head, segments in frames]

    def tell(self, event: Event, segments: Iterable[object] = ()) -> None:
        """Send `event`, as soon as main takes it."""
        if not self.open or self.deaf:
            return
        if not isinstance(event, WorkerDone):
            self._tell_movements()  # they come before what may be the last word on them
        self._channel.outflow.push(_channel.encode(to_wire(event), segments))

    @property
    def takes(self) -> bool:
        """Whether main is told of anything."""
        return self.open and not self.deaf

    def note(self, move: End | Callable[[], Start | None]) -> None:
        """Have main know of a start or an end, with others that come close upon it, or with a report.

        Parameters
        ----------
        move : End or callable
            What returns the start, if that has still to be told when there is an occasion.
        """
        if self.open and not self.deaf:
            if not self._moves and self._channel.outflow.empty:
                self._next_flush = time.monotonic() + PAUSE  # not right after the fork, in the way of the child
            self._moves.append(move)

    def _tell_movements(self) -> None:
        noted, self._moves = self._moves, []
        told = [each if isinstance(each, End) else each() for each in noted]
        moves = tuple(each for each in told if each is not None)
        if moves:
            self._channel.outflow.push(_channel.encode(to_wire(Movements(moves))))

    def flush(self, at_once: bool) -> None:
        """Write what main takes now, and have the loop wait for room for the rest.

        Parameters
        ----------
        at_once : bool
            Whether what follows close upon another thing has to be written too, rather than with the next.
        """
        now = time.monotonic()
        if not self.open or (now < self._next_flush and not at_once):
            return
        self._next_flush = now + PAUSE
        self._tell_movements()
        try:
            empty = self._channel.outflow.flush()
        except ChannelClosed:
            self._channel.inflow.pull(to_the_end=True)  # its last orders
            self._channel.inflow.ended = True
            return
        events = select.POLLIN if empty else select.POLLIN | select.POLLOUT
        if events != self._events:
            self._events = events
            self._poller.register(self._channel.fd, events)

    @property
    def all_said(self) -> bool:
        """Whether main has taken everything, or will take nothing."""
        return not self.open or self._channel.outflow.empty

    @property
    def hung_up(self) -> bool:
        """Whether main has closed its end, which we have not noted yet."""
        return self.open and self._channel.inflow.ended

    def main_is_gone(self, ready: Collection[int]) -> bool:
        """Whether main has died; `ready` are the descriptors that can be read."""
        if self._watch is not None:
            return self._watch in ready
        if self._parent is not None:
            return os.getppid() != self._parent
        return not _exists(self._main_pid)

    def main_is_busy(self) -> bool:
        """Whether main has something to do; False where the system does not tell (macOS)."""
        return _tree.is_busy(self._main_pid)

    def next_due(self) -> float:
        """When to look again whether main is there, or to write, on the monotonic clock."""
        look = float("inf") if self._watch is not None else time.monotonic() + _LOOK
        waiting = self._moves or not self._channel.outflow.empty
        held_back = self.open and self._events == select.POLLIN and waiting
        return min(look, self._next_flush) if held_back else look

    def hang_up(self) -> None:
        """Say and hear no more; harmless when repeated."""
        if self.open:
            self.open = False
            self._poller.unregister(self._channel.fd)
            self._channel.close()

    def stop_watching(self) -> None:
        """Forget main, who is dead."""
        if self._watch is not None:
            self._poller.unregister(self._watch)
            os.close(self._watch)
            self._watch = None

    def forget(self) -> None:
        """Close our descriptors in a child."""
        for fd in (self._channel.fd, self._watch):
            if fd is not None and fd >= 0:
                os.close(fd)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user: it has been replaced, or has changed its user
        pass
    return True
