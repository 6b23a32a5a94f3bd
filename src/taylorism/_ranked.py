"""Listener, pure: the queue where more than slots is limited: by rank, each that fits, and nobody starves.

When the first set does not fit, or somebody holds what it wants, what comes behind may pass it (back-filling), but
only in so far as it does not have to wait for who has passed. When it starts is known if those who run, and make
room for it, have declared their `expected_time`. Then whoever is expected to end before that may pass, and whoever
leaves room and the values that it wants at that time. That is EASY back-filling (Lifka, 1995). Where it is
not known, the first is taken to start when all its elders have ended, who were running when it became the first:
whoever has passed it may still be running then. So it waits for its elders, and for nobody else.

Each step takes O(log n), on average, where n sets are pending: `_forest` finds the first that fits, `_lanes` the
first that can have what it claims. What runs is gone through at every turn.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from taylorism._gates import NOTHING, Claim, Gate, Holdings
from taylorism._lanes import Entry, Lane, Lanes, seconds_of
from taylorism._queues import Instructions, PendingQueue, Workers

__all__ = ["Limits", "Ranked"]


@dataclass(frozen=True)
class Limits:
    """What a scheduler says of its limits to a `Ranked` queue.

    Attributes
    ----------
    rank : callable
        What a set is ordered by, before the order in which it came; the lowest first.
    demand : callable
        What a set takes of the thing that is limited.
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
    """

    rank: Callable[[Instructions], Any]
    demand: Callable[[Instructions], float]
    used: Callable[[Any], float]
    capacity: Callable[[Workers], float]
    room: Callable[[Workers], float]
    mark: Callable[[Workers, list[Instructions], float], object]
    gate: Gate
    strict: bool = False
    patient: bool = True


#: what was put back comes before what was added
_FIRST, _LATER = 0, 1
_KEY = operator.attrgetter("key")
_END = operator.itemgetter(0)
_FREE = Holdings()


class Ranked(PendingQueue):
    """By rank, each that fits into the limits, and nobody starves.

    Parameters
    ----------
    limits : Limits
        What the scheduler says of them.
    """

    clockless = True

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lanes = Lanes(limits.strict)
        self._entries: dict[int, Entry] = {}
        self._back = self._front = 0
        self._taken: dict[int, Entry] = {}
        self._reservation = _Reservation()
        self._claims: dict[str, Claim] = {}

    def add(self, sets: Iterable[Instructions]) -> None:
        """See `PendingQueue.add`."""
        rank = self._limits.rank
        self._enter([self._entry(each, (_LATER, rank(each), self._behind())) for each in sets])

    def put_back(self, sets: Sequence[Instructions]) -> None:
        """See `PendingQueue.put_back`."""
        self._front -= len(sets)
        self._enter([self._entry(each, (_FIRST, 0, self._front + at)) for at, each in enumerate(sets)])

    def _behind(self) -> int:
        self._back += 1
        return self._back

    def _entry(self, instructions: Instructions, key: Any) -> Entry:
        return Entry(instructions, key, self._limits.demand(instructions), self._claim(instructions))

    def _claim(self, instructions: Instructions) -> Claim:
        gate = self._limits.gate
        return gate.claim(instructions.get) if gate else NOTHING

    def _enter(self, entries: Sequence[Entry]) -> None:
        self._entries.update((id(entry.instructions), entry) for entry in entries)
        self._lanes.add(entries)

    def remove(self, instructions: Instructions) -> None:
        """See `PendingQueue.remove`."""
        self._lanes.remove(self._entries.pop(id(instructions)))

    def started(self, name: str, instructions: Instructions, now: float) -> None:
        """See `PendingQueue.started`."""
        self._reservation.started(name, instructions, now)
        if self._limits.gate:
            # Kept, as the worker need not have these attributes, or has them as another type.
            entry = self._taken.get(id(instructions))
            self._claims[name] = self._claim(instructions) if entry is None else entry.claim

    def ended(self, name: str) -> None:
        """See `PendingQueue.ended`."""
        self._reservation.ended(name)
        self._claims.pop(name, None)

    # -- deciding -------------------------------------------------------------------------------------

    def take(self, workers: Workers, now: float) -> list[Instructions]:
        """See `PendingQueue.take`."""
        turn = _Turn(self._limits, workers, self._claims, now)
        self._lanes.wake(turn.held)
        while len(turn.taken) < turn.room and (entry := self._choose(turn)):
            del self._entries[id(entry.instructions)]
            self._lanes.remove(entry)
            turn.take(entry)
        self._taken = {id(entry.instructions): entry for entry in turn.taken}
        taken = [entry.instructions for entry in turn.taken]
        spare = self._reservation.left(turn).spare if self._reservation.made else turn.free
        self._limits.mark(workers, taken, spare)
        return taken

    def _choose(self, turn: _Turn) -> Entry | None:
        """Return the entry that starts next."""
        first = self._lanes.first()
        if first is None or (turn.fits(first.demand) and not turn.held.obstacle(first.claim)):
            self._reservation.lift()
            return first
        if not self._limits.patient:
            return self._lanes.search(partial(Lane.first_that_fits, limit=turn.free), turn.held, _FREE)
        self._reservation.make(first, turn)
        left = self._reservation.left(turn)
        fitting = partial(Lane.first_that_fits, limit=left.spare)
        passing = self._lanes.search(fitting, turn.held, self._reservation.wanted)
        if passing is None and 0 < left.seconds < math.inf:
            brief = partial(Lane.first_brief, limit=turn.free, seconds=left.seconds)
            passing = self._lanes.search(brief, turn.held, _FREE)
        if passing is not None and passing.seconds <= left.seconds < math.inf:
            self._reservation.let_pass(passing)
        return passing

    # -- looking --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Instructions]:
        ordered = sorted(self._entries.values(), key=_KEY)
        return iter([entry.instructions for entry in ordered])


class _Turn:
    """What is free and held while one turn decides.

    Attributes
    ----------
    taken : list of Entry
        What starts in this turn.
    free : float
        What is left of the thing that is limited.
    held : Holdings
        What those have who run, or start in this turn.
    """

    def __init__(self, limits: Limits, workers: Workers, known: Mapping[str, Claim], now: float) -> None:
        self.workers = workers
        self.now = now
        self.room = limits.room(workers)
        self.taken: list[Entry] = []
        self.capacity = limits.capacity(workers)
        self.used = {name: limits.used(worker) for name, worker in workers.items()}
        self.free = self.capacity - sum(self.used.values())
        self._below = operator.lt if limits.strict else operator.le
        self.claims: dict[str, Claim] = {}
        if limits.gate:
            read = limits.gate.claim
            self.claims = {
                name: known[name] if name in known else read(partial(getattr, worker))
                for name, worker in workers.items()
            }
        self.held = Holdings(self.claims.values())

    def fits(self, demand: float, more: float = 0.0) -> bool:
        """Whether so much is free, where so much more were."""
        return bool(self._below(demand, self.free + more))

    def take(self, entry: Entry) -> None:
        """Note that an entry starts."""
        self.taken.append(entry)
        self.free -= entry.demand
        self.held.hold(entry.claim)


class _Left(NamedTuple):
    """What those may have who pass the first set: slots too, as it will have that of who is waited for.

    Attributes
    ----------
    spare : float
        So much of the thing that is limited.
    seconds : float
        Or as much as there is, but no longer than that; infinite where it is not known.
    """

    spare: float
    seconds: float


class _Reservation:
    """What the first set waits for when it does not fit, or somebody has what it wants.

    It waits for those who ran when it became the first, its elders, and for those who have passed it because they
    are expected to have ended before the elders have.
    """

    def __init__(self) -> None:
        self._first: Entry | None = None
        self.wanted = _FREE
        # The elders and the brief ones, by name; by the identity of the set as long as they have none. The sets
        # are kept, too: else another one might get the same number.
        self._waited_for: set[str | int] = set()
        self._nameless: dict[int, Instructions] = {}
        self._ends: dict[str, float] = {}

    @property
    def made(self) -> bool:
        """Whether the first set is waiting."""
        return self._first is not None

    def lift(self) -> None:
        """Forget the reservation: the first set starts, or there is none."""
        self._first = None

    def make(self, first: Entry, turn: _Turn) -> None:
        """Note who runs before the first set, unless that was noted already."""
        if self._first is not first:
            self._first = first
            self.wanted = Holdings([first.claim]) if first.claim else _FREE
            self._nameless = {id(entry.instructions): entry.instructions for entry in turn.taken}
            self._waited_for = {*turn.workers, *self._nameless}

    def let_pass(self, entry: Entry) -> None:
        """Note that an entry that starts will have ended before the first set can start."""
        self._nameless[id(entry.instructions)] = entry.instructions
        self._waited_for.add(id(entry.instructions))

    def left(self, turn: _Turn) -> _Left:
        """Return what may be taken such that the first set starts when it is to start."""
        assert self._first is not None
        bars = self.wanted.obstacle if self._first.claim else None
        claims = [*turn.claims.values(), *(each.claim for each in turn.taken)] if bars else []
        free, start, holders = 0.0, math.inf, sum(1 for claim in claims if bars and bars(claim))
        for end, demand, claim in sorted(self._leaving(turn), key=_END):
            if end > start:
                break
            free += demand
            holders -= bool(bars and bars(claim))
            if not holders and turn.fits(self._first.demand, free):
                start = end
        if start < math.inf:
            return self._left(turn, free, start - turn.now)
        return self._left_by_elders(turn)

    def _left(self, turn: _Turn, freed: float, seconds: float) -> _Left:
        assert self._first is not None
        return _Left(min(turn.free, turn.free + freed - self._first.demand), seconds)

    def _left_by_elders(self, turn: _Turn) -> _Left:
        """Return the same where nobody knows when the elders end: the first starts when all of them have."""
        waiting = [used for name, used in turn.used.items() if name in self._waited_for]
        waiting += [each.demand for each in turn.taken if id(each.instructions) in self._waited_for]
        return self._left(turn, sum(waiting), math.inf)

    def _leaving(self, turn: _Turn) -> Iterator[tuple[float, float, Claim]]:
        """Return of those who are waited for when they are expected to end, what they take and what they hold."""
        for name, used in turn.used.items():
            if name in self._waited_for and self._ends.get(name, math.inf) < math.inf:
                yield self._ends[name], used, turn.claims.get(name, NOTHING)
        for each in turn.taken:
            if id(each.instructions) in self._waited_for and each.seconds < math.inf:
                yield turn.now + each.seconds, each.demand, each.claim

    def started(self, name: str, instructions: Instructions, now: float) -> None:
        """Note when a worker is expected to end."""
        self._ends[name] = now + seconds_of(instructions)
        if id(instructions) in self._waited_for:
            self._waited_for.add(name)

    def ended(self, name: str) -> None:
        """Forget a worker."""
        self._ends.pop(name, None)
        self._waited_for.discard(name)
