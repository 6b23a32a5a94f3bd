"""Listener: what it does about the hold: berths for launches, what is handed on to main, what is given back.

A worker's report is main's from the moment its bill is sent to main. What nobody will open is given back here: the
reports that are not handed on, and what a worker has left in its berth that died without a report.

Instructions are opened here, because Workers are built here, and stay mapped: each worker inherits them by its
fork, but for those whose process runs several, which copy them. They are given back when nobody can see them any
more (`_lease.Graves`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from taylorism import _freight
from taylorism._channel import Frame
from taylorism._hold import Berth, Hold
from taylorism._lease import Graves

__all__ = ["Stowage"]


class Stowage:
    """The hold, as the listener uses it.

    Parameters
    ----------
    hold : Hold
        That of the Boss.
    say : callable, optional
        Told, once, why big reports come through the pipe.
    """

    def __init__(self, hold: Hold, say: Callable[[str], object] = str) -> None:
        self.hold = hold
        self._say = say
        self._launches = itertools.count()
        self._graves = Graves()
        self._remarked = False

    def berth(self) -> Berth | None:
        """Return a berth for a process that is about to be started."""
        return self.hold.berth(next(self._launches))

    # -- reports --------------------------------------------------------------------------------------

    def hand_on(self, notice: Frame, remark: str, berth: Berth | None, taken: bool) -> None:
        """Note what becomes of a report.

        Parameters
        ----------
        remark : str
            Why a big one came through the pipe.
        berth : Berth or None
            Of its process.
        taken : bool
            Whether main takes it.
        """
        if remark and not self._remarked:
            self._remarked = True
            self._say(remark)
        if berth is None or not _freight.is_bill(notice.segments[0]):
            return
        if taken:
            _freight.hand_on(notice.segments, berth)
        else:
            _freight.discard(notice.segments, self.hold)

    def copied(self, segments: Sequence[Any]) -> Any:
        """Load a report for a scheduler of the user's; main will say what is wrong with one that does not load."""
        try:
            return _freight.load_copy(segments, self.hold)
        except Exception:
            return None

    # -- instructions ---------------------------------------------------------------------------------

    def load(self, packed: Any, views: list[memoryview] | None = None) -> Any:
        """Load instructions; `views` as of `_freight.load`."""
        return _freight.load(packed, self.hold, self._graves, views)

    def give_back(self, living: Callable[[], list[int] | None]) -> None:
        """Give back what nobody can see any more.

        Parameters
        ----------
        living : callable
            Returns by which the living children are known (`_lease.forks`); None where some are not known.
        """
        if self._graves and (children := living()) is not None:
            self._graves.dig(children)
