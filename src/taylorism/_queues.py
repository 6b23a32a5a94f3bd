"""Listener, pure: what is pending, in the order in which a scheduler wants it: the fast way to schedule.

`launchable` is given lists, and a turn looks at all that is pending: with 100 000 sets, that is what a launch
costs. A scheduler that has a `queue` is not asked for lists. The queue is told what comes, what starts and what
ends, and is asked what may start now; each of that takes O(log n).

Nobody starves in a queue that is limited by something. When the first set does not fit, or somebody holds what it
wants, what comes behind may pass it (back-filling), but only in so far as there will be a slot, room and the
values that it wants for the first when all those have ended who were running when it became the first: whoever has
passed it may still be running then. So it waits for them, and for nobody else. That is the rule of EASY
back-filling (Lifka, 1995) without a clock; where `expected_time` is declared, whoever is expected to end before
the first can start may pass, too, as in EASY itself (of those that fit, the one that comes first is looked at).

What waits for a value that somebody holds stands aside, by that value. Where sets want several values at once, or
values and memory, a launch may look at many of those that stand aside; everywhere else it takes O(log n).
"""

from __future__ import annotations

import heapq
import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from taylorism._forest import Forest, Leaf
from taylorism._gates import Claim, Gate, Holdings

__all__ = ["Fifo", "Limits", "Listed", "PendingQueue", "Ranked"]

Instructions = dict[str, Any]
Workers = Mapping[str, Any]
#: what a set or a worker takes of each thing that is limited
Demand = tuple[float, ...]


class PendingQueue:
    """What is pending; to be subclassed for a fast scheduler of one's own (see `BaseScheduler.queue`).

    Sets of instructions are told apart by identity: they are the same dicts throughout.
    """

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
        taken: list[Instructions] = []
        room = self._room(workers)
        if room >= len(self._sets):
            taken.extend(self._sets.values())
            self._sets.clear()
        while self._sets and len(taken) < room:
            taken.append(self._sets.popitem(last=False)[1])
        self._mark(workers, taken)
        return taken

    def more(self, most: int) -> list[Instructions]:
        """See `PendingQueue.more`."""
        return [self._sets.popitem(last=False)[1] for _ in range(min(most, len(self._sets)))]

    def __len__(self) -> int:
        return len(self._sets)

    def __iter__(self) -> Iterator[Instructions]:
        return iter(list(self._sets.values()))


@dataclass(frozen=True)
class Limits:
    """What a scheduler says of its limits to a `Ranked` queue.

    Attributes
    ----------
    rank : callable
        What a set is ordered by, before the order in which it came; the lowest first.
    demand : callable
        What a set takes of each thing that is limited.
    used : callable
        What a running worker takes.
    capacity : callable
        What there is, beside the running workers and for them.
    room : callable
        How many may start beside the running workers, however little they take.
    mark : callable
        Gives the sets that start their tickets and hooks; the third argument is what else they may have.
    gate : Gate
        What may be held by one at a time.
    strict : bool
        Whether what is used has to stay below the capacity.
    patient : bool
        Whether what the first set waits for is kept for it. Else whoever fits may pass it, for ever.
    dimensions : 1 or 2
        How many things are limited.
    """

    rank: Callable[[Instructions], Any]
    demand: Callable[[Instructions], Demand]
    used: Callable[[Any], Demand]
    capacity: Callable[[Workers], Demand]
    room: Callable[[Workers], float]
    mark: Callable[[Workers, list[Instructions], Demand], object]
    gate: Gate
    strict: bool = False
    patient: bool = True
    dimensions: int = 1


class _Entry:
    """A set in a `Ranked` queue."""

    __slots__ = ("claim", "demand", "gone", "instructions", "key", "leaf")

    def __init__(self, instructions: Instructions, key: Any, limits: Limits) -> None:
        self.instructions = instructions
        self.key = key
        self.demand = limits.demand(instructions)
        self.claim = limits.gate.claim(instructions.get) if limits.gate else Claim()
        self.leaf: Leaf | None = None
        self.gone = False

    @property
    def seconds(self) -> float:
        """How long it is expected to take; for ever where that is not declared."""
        return _seconds(self.instructions)


def _seconds(instructions: Instructions) -> float:
    try:
        seconds = float(instructions.get("expected_time") or math.inf)
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return seconds if seconds > 0 else math.inf  # not a number is not above 0 either


class Ranked(PendingQueue):
    """By rank, each that fits into the limits, and nobody starves.

    Parameters
    ----------
    limits : Limits
        What the scheduler says of them.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._forest = Forest(limits.dimensions, strict=limits.strict)
        self._entries: dict[int, _Entry] = {}
        self._back = self._front = 0
        self._parking = _Parking()
        self._reservation = _Reservation()
        self._claims: dict[str, Claim] = {}

    def add(self, sets: Iterable[Instructions]) -> None:
        """See `PendingQueue.add`."""
        self._enter([(self._behind(), each) for each in sets])

    def put_back(self, sets: Sequence[Instructions]) -> None:
        """See `PendingQueue.put_back`."""
        self._front -= len(sets)
        self._enter([((_FIRST, self._front + place), each) for place, each in enumerate(sets)])

    def _behind(self) -> tuple[int, int]:
        self._back += 1
        return _LATER, self._back

    def _enter(self, sets: list[tuple[tuple[int, int], Instructions]]) -> None:
        entries = []
        for (group, place), instructions in sets:
            rank = self._limits.rank(instructions) if group == _LATER else 0
            entries.append(_Entry(instructions, (group, rank, place), self._limits))
        self._entries.update((id(entry.instructions), entry) for entry in entries)
        leaves = self._forest.extend((entry.key, entry.demand, entry) for entry in entries)
        for leaf in leaves:
            leaf.item.leaf = leaf

    def remove(self, instructions: Instructions) -> None:
        """See `PendingQueue.remove`."""
        self._drop(self._entries[id(instructions)])

    def _drop(self, entry: _Entry) -> None:
        del self._entries[id(entry.instructions)]
        entry.gone = True  # where it is parked, it is passed over
        if entry.leaf is not None:
            self._cut(entry)

    def _cut(self, entry: _Entry) -> None:
        assert entry.leaf is not None
        self._forest.remove(entry.leaf)
        entry.leaf = None

    def started(self, name: str, instructions: Instructions, now: float) -> None:
        """See `PendingQueue.started`."""
        self._reservation.started(name, instructions, now)
        if self._limits.gate:
            # Kept, as the worker need not have these attributes, or has them as another type.
            self._claims[name] = self._limits.gate.claim(instructions.get)

    def ended(self, name: str) -> None:
        """See `PendingQueue.ended`."""
        self._reservation.ended(name)
        self._claims.pop(name, None)

    # -- deciding -------------------------------------------------------------------------------------

    def take(self, workers: Workers, now: float) -> list[Instructions]:
        """See `PendingQueue.take`."""
        turn = _Turn(self._limits, workers, self._claims, now)
        self._unpark(turn)
        while len(turn.taken) < turn.room:
            entry = self._choose(turn)
            if entry is not None:
                self._take(entry, turn)
                self._unpark(turn)
            elif not self._unpark(turn):
                break
        taken = [entry.instructions for entry in turn.taken]
        spare = self._reservation.spare(turn) if self._reservation.made else turn.free
        self._limits.mark(workers, taken, spare)
        return taken

    def _take(self, entry: _Entry, turn: _Turn) -> None:
        """Have an entry start, or wait for a value that somebody holds."""
        obstacle = turn.obstacle(entry, self._first())
        if obstacle is None:
            self._drop(entry)
            turn.take(entry)
            self._reservation.taken(entry)
        else:
            self._cut(entry)
            self._parking.park(entry, obstacle)

    def _unpark(self, turn: _Turn) -> bool:
        """Consider those again who wait for a value that is free; return whether there are any."""
        leaving = self._parking.leave(partial(turn.obstacle, first=self._first()))
        for entry in leaving:
            entry.leaf = self._forest.add(entry.key, entry.demand, entry)
        return bool(leaving)

    def _first(self) -> _Entry | None:
        """Return who comes first of all that are pending."""
        there = [each for each in (_entry(self._forest.first()), self._parking.first()) if each is not None]
        return min(there, key=_KEY) if there else None

    def _choose(self, turn: _Turn) -> _Entry | None:
        """Return the entry that comes next, held up by nothing but the gate."""
        first = self._first()
        if first is None:
            self._reservation.lift()
            return None
        if first.leaf is not None and turn.fits(first.demand, turn.free):
            self._reservation.lift()
            return first
        if not self._limits.patient:
            return _entry(self._forest.first_that_fits(turn.free))
        self._reservation.make(first, turn)
        if self._reservation.slots(turn) < 1:
            return self._brief(turn)
        passing = _entry(self._forest.first_that_fits(self._reservation.spare(turn)))
        return passing if passing is not None else self._brief(turn)

    def _brief(self, turn: _Turn) -> _Entry | None:
        """Return an entry that fits now, and will have ended before the first can start."""
        entry = _entry(self._forest.first_that_fits(turn.free))
        if entry is None or not self._reservation.allows(entry, turn):
            return None
        return entry

    # -- looking --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Instructions]:
        ordered = sorted(self._entries.values(), key=_KEY)
        return iter([entry.instructions for entry in ordered])


def _entry(leaf: Leaf | None) -> _Entry | None:
    return None if leaf is None else leaf.item


#: what was put back comes before what was added
_FIRST, _LATER = 0, 1
_KEY = operator.attrgetter("key")


class _Turn:
    """What is free and held while one turn decides."""

    def __init__(self, limits: Limits, workers: Workers, known: Mapping[str, Claim], now: float) -> None:
        self.workers = workers
        self.now = now
        self.room = limits.room(workers)
        self.taken: list[_Entry] = []
        self.capacity = limits.capacity(workers)
        self._strict = limits.strict
        self.used = {name: limits.used(worker) for name, worker in workers.items()}
        self.free = self.left(self.used.values())
        read = limits.gate.claim
        claims = (known.get(name) or read(partial(getattr, worker)) for name, worker in workers.items())
        self.holdings = Holdings(claims if limits.gate else ())

    def left(self, demands: Iterable[Demand]) -> Demand:
        """Return what those demands leave of the capacity."""
        sums = map(sum, zip(*demands)) if (demands := list(demands)) else (0.0 for _ in self.capacity)  # noqa: B905
        return tuple(there - used for there, used in zip(self.capacity, sums, strict=True))

    def fits(self, demand: Demand, free: Demand) -> bool:
        """Whether so much is free."""
        pairs = zip(demand, free, strict=True)
        return all(one < left if self._strict else one <= left for one, left in pairs)

    def obstacle(self, entry: _Entry, first: _Entry | None) -> tuple[Any] | None:
        """Return a value that an entry cannot have now: somebody has it, or the first who waits is to have it."""
        held = self.holdings.obstacle(entry.claim)
        if held is not None or first is None or entry.key <= first.key:
            return held
        return Holdings([first.claim]).obstacle(entry.claim)

    def take(self, entry: _Entry) -> None:
        """Note that an entry starts."""
        self.taken.append(entry)
        self.free = tuple(map(operator.sub, self.free, entry.demand))
        self.holdings.hold(entry.claim)


class _Reservation:
    """What the first set waits for when it does not fit, or somebody has what it wants."""

    def __init__(self) -> None:
        self._first: _Entry | None = None
        self._elders: set[str] = set()
        # The sets themselves are kept with their numbers: else another one might get the same.
        self._elders_to_be: dict[int, Instructions] = {}
        self._allowed: _Entry | None = None
        self._brief: dict[int, Instructions] = {}
        self._brief_names: set[str] = set()
        self._ends: dict[str, float] = {}

    @property
    def made(self) -> bool:
        """Whether the first set is waiting."""
        return self._first is not None

    def lift(self) -> None:
        """Forget the reservation: the first set starts, or there is none."""
        self._first = None

    def make(self, first: _Entry, turn: _Turn) -> None:
        """Note who runs before the first set, unless that was noted already."""
        self._allowed = None
        if self._first is not first:
            self._first = first
            self._elders = set(turn.workers)
            self._elders_to_be = {id(entry.instructions): entry.instructions for entry in turn.taken}
            self._brief.clear()
            self._brief_names.clear()

    def _passing(self, turn: _Turn) -> list[Demand]:
        """Return what those take who have passed the first set, and may still run when its elders have ended."""
        running = (turn.used[name] for name in turn.used if name not in self._elders | self._brief_names)
        mine = {**self._elders_to_be, **self._brief}
        return [*running, *(each.demand for each in turn.taken if id(each.instructions) not in mine)]

    def spare(self, turn: _Turn) -> Demand:
        """Return what may be taken now such that the first set fits when its elders have ended."""
        assert self._first is not None
        without = turn.left([*self._passing(turn), self._first.demand])
        return tuple(map(min, without, turn.free))

    def slots(self, turn: _Turn) -> float:
        """Return how many may pass such that there is a slot for the first set when its elders have ended."""
        return turn.room + len(turn.workers) - len(self._passing(turn)) - 1

    def allows(self, entry: _Entry, turn: _Turn) -> bool:
        """Whether an entry is expected to end before the elders make room for the first set."""
        shadow = self._shadow(turn)
        if math.isinf(shadow) or turn.now + entry.seconds > shadow:
            return False  # or nobody knows when the elders end: it may be before
        self._allowed = entry
        return True

    def taken(self, entry: _Entry) -> None:
        """Note that an entry starts; one that passes because it is brief is none that the first set waits for."""
        if entry is self._allowed:
            self._brief[id(entry.instructions)] = entry.instructions
        self._allowed = None

    def _shadow(self, turn: _Turn) -> float:
        """Return when the first set is expected to fit; for ever where that is not known."""
        assert self._first is not None
        taken = {id(entry.instructions): entry for entry in turn.taken}
        staying: dict[str | int, Demand] = {key: entry.demand for key, entry in taken.items()}
        staying.update(turn.used)
        ends: list[tuple[float, str | int]] = [(self._ends.get(name, math.inf), name) for name in self._elders]
        ends += [(turn.now + taken[key].seconds, key) for key in self._elders_to_be if key in taken]
        for end, who in sorted(ends, key=operator.itemgetter(0)):
            staying.pop(who, None)
            if turn.fits(self._first.demand, turn.left(staying.values())):
                return end
        return math.inf

    def started(self, name: str, instructions: Instructions, now: float) -> None:
        """Note when a worker is expected to end."""
        self._ends[name] = now + _seconds(instructions)
        if id(instructions) in self._elders_to_be:
            self._elders.add(name)
        if id(instructions) in self._brief:
            self._brief_names.add(name)

    def ended(self, name: str) -> None:
        """Forget a worker."""
        self._ends.pop(name, None)
        self._elders.discard(name)
        self._brief_names.discard(name)


class _Parking:
    """Entries that wait for a value that somebody holds, by value, in order."""

    def __init__(self) -> None:
        self._waiting: dict[Any, list[tuple[Any, int, _Entry]]] = {}

    def park(self, entry: _Entry, obstacle: tuple[Any]) -> None:
        """Have an entry wait for a value."""
        heapq.heappush(self._waiting.setdefault(_place(obstacle), []), (entry.key, id(entry), entry))

    def first(self) -> _Entry | None:
        """Return who comes first of all that wait: nobody passes him on what he waits for."""
        for heap in self._waiting.values():
            _skip(heap)
        tops = [heap[0] for heap in self._waiting.values() if heap]
        return min(tops)[2] if tops else None

    def leave(self, obstacle: Callable[[_Entry], tuple[Any] | None]) -> list[_Entry]:
        """Return, for each value that is free now, the first who waits for it."""
        leaving: list[_Entry] = []
        moving: list[tuple[_Entry, tuple[Any]]] = []
        for place, heap in list(self._waiting.items()):
            self._look(place, heap, obstacle, leaving, moving)
            if not heap:
                del self._waiting[place]
        for entry, value in moving:
            self.park(entry, value)
        return leaving

    def _look(
        self,
        place: Any,
        heap: list[Any],
        obstacle: Callable[[_Entry], tuple[Any] | None],
        leaving: list[_Entry],
        moving: list[tuple[_Entry, tuple[Any]]],
    ) -> None:
        """Take out of one place who may leave, and who waits for something else by now."""
        while _skip(heap):
            entry: _Entry = heap[0][2]
            value = obstacle(entry)
            if value is not None and place is not None and _place(value) == place:
                return
            heapq.heappop(heap)
            if value is not None:
                moving.append((entry, value))
            else:
                leaving.append(entry)  # one at a time: if it starts, who comes next is looked at again
                return


def _skip(heap: list[Any]) -> bool:
    """Drop from the top of a heap who was taken out of the queue; return whether anybody is left."""
    while heap and heap[0][2].gone:
        heapq.heappop(heap)
    return bool(heap)


def _place(obstacle: tuple[Any]) -> Any:
    """Return a key for a value; all that cannot be one wait at the same place."""
    try:
        hash(obstacle)
    except TypeError:
        return None
    return obstacle
