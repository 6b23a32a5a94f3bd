"""Listener, pure: what is pending, in the order in which a scheduler wants it: the fast way to schedule.

`launchable` is given lists, and a turn looks at all that is pending: with 100 000 sets, that is what a launch
costs. A scheduler that has a `queue` is not asked for lists. The queue is told what comes, what starts and what
ends, and is asked what may start now; each of that takes O(log n). `Fifo` here is for where nothing but slots is
limited, `_ranked` for everything else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Fifo", "Listed", "PendingQueue"]

if TYPE_CHECKING:
    Instructions = dict[str, Any]
    Workers = Mapping[str, Any]
else:
    Instructions, Workers = dict, Mapping


class PendingQueue:
    """What is pending; to be subclassed for a fast scheduler of one's own (see `BaseScheduler.queue`).

    Sets of instructions are told apart by identity: they are the same dicts throughout.

    Attributes
    ----------
    clockless : bool
        Whether what it gives depends on nothing but what it is told, so that it need not be asked again as time
        goes by. To be said by each class for itself.
    """

    clockless = False

    def add(self, sets: Iterable[Instructions]) -> None:
        """Take new sets, behind those that are there."""
        raise NotImplementedError

    def put_back(self, sets: Sequence[Instructions]) -> None:
        """Take sets again that were taken out, ahead of those that are there, in order."""
        raise NotImplementedError

    def remove(self, instructions: Instructions) -> None:
        """Forget a set that is there."""
        raise NotImplementedError

    def remove_all(self, sets: Sequence[Instructions]) -> None:
        """Forget some sets that are there."""
        for each in sets:
            self.remove(each)

    def take(self, workers: Workers, now: float) -> list[Instructions]:
        """Take out what may start now, in order, each with its ``scheduler_ticket`` and ``scheduler_hooks``.

        Parameters
        ----------
        workers : dict
            The `Worker` objects that are running, by name.
        now : float
            Seconds, on a clock that never goes back.
        """
        raise NotImplementedError

    def more(self, most: int) -> list[Instructions]:
        """Take out sets that may run one after the other in the place of one that runs, without being asked again.

        They are for a process that runs several workers, and have no ticket of their own. A queue in which what may
        start depends on more than a free slot gives none: that is the default.
        """
        return []

    def started(self, name: str, instructions: Instructions, now: float) -> None:
        """Note that a worker of that name has been hired for a set that was taken."""

    def ended(self, name: str) -> None:
        """Note that a worker that was running is gone."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Instructions]:
        """Return the sets in the order in which they would start."""
        raise NotImplementedError


class Listed(PendingQueue):
    """A plain list, for a scheduler that is asked for `launchable`."""

    clockless = True

    def __init__(self) -> None:
        self._sets: list[Instructions] = []

    def add(self, sets: Iterable[Instructions]) -> None:
        """See `PendingQueue.add`."""
        self._sets.extend(sets)

    def put_back(self, sets: Sequence[Instructions]) -> None:
        """See `PendingQueue.put_back`."""
        self._sets[:0] = sets

    def remove(self, instructions: Instructions) -> None:
        """See `PendingQueue.remove`."""
        self.remove_all([instructions])

    def remove_all(self, sets: Sequence[Instructions]) -> None:
        """See `PendingQueue.remove_all`."""
        gone = set(map(id, sets))
        self._sets = [each for each in self._sets if id(each) not in gone]

    def keep(self, sets: list[Instructions]) -> None:
        """Have these instead: what the scheduler kept, in its order."""
        self._sets = sets

    def __len__(self) -> int:
        return len(self._sets)

    def __iter__(self) -> Iterator[Instructions]:
        return iter(list(self._sets))


class Fifo(PendingQueue):
    """First come, first served.

    Parameters
    ----------
    room : callable
        Returns how many may start beside the running workers.
    mark : callable
        Gives the sets that start their tickets and hooks.
    """

    clockless = True

    def __init__(
        self, room: Callable[[Workers], float], mark: Callable[[Workers, list[Instructions]], object]
    ) -> None:
        self._room = room
        self._mark = mark
        self._sets: OrderedDict[int, Instructions] = OrderedDict()

    def add(self, sets: Iterable[Instructions]) -> None:
        """See `PendingQueue.add`."""
        self._sets.update((id(each), each) for each in sets)

    def put_back(self, sets: Sequence[Instructions]) -> None:
        """See `PendingQueue.put_back`."""
        for each in reversed(sets):
            self._sets[id(each)] = each
            self._sets.move_to_end(id(each), last=False)

    def remove(self, instructions: Instructions) -> None:
        """See `PendingQueue.remove`."""
        del self._sets[id(instructions)]

    def take(self, workers: Workers, now: float) -> list[Instructions]:
        """See `PendingQueue.take`."""
        room = self._room(workers)
        if room >= len(self._sets):
            taken = list(self._sets.values())
            self._sets.clear()
        else:
            taken = [self._sets.popitem(last=False)[1] for _ in range(int(room))]
        self._mark(workers, taken)
        return taken

    def more(self, most: int) -> list[Instructions]:
        """See `PendingQueue.more`."""
        return [self._sets.popitem(last=False)[1] for _ in range(min(most, len(self._sets)))]

    def __len__(self) -> int:
        return len(self._sets)

    def __iter__(self) -> Iterator[Instructions]:
        return iter(list(self._sets.values()))


class OneByOne(Fifo):
    """The same, for a scheduler that marks each set in a way of its own: none runs with the marks of another."""

    clockless = True
    more = PendingQueue.more
