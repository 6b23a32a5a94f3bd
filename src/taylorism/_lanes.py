"""Listener, pure: where sets stand while they are pending, such that those who can start are found among very many.

Sets that claim values which somebody holds are in the way of a search: each would be looked at, and passed over,
at every launch. So they are put aside, in *lanes*. A lane has a part of a claim, and all that stand in it claim
at least that; so where somebody holds one value of it, nobody in that lane is looked at::

    main lane            all whose values were free, or were not looked at yet
    {licence}            those whom a search met while the licence was held
    {licence, disk 1}    those whom it met there, the licence being free, while disk 1 was held

A lane whose values are free is *open*, and is searched too. One with a value that is held waits by that value, and
is looked at again when it is free. A set goes into the lane of one value more each time that it is met in vain: so
it moves as often as it has values, and not each time that somebody takes one of them. (By value alone, without the
lanes of several, all who want two disks went to and fro between these at every launch.)

Where there are too many lanes the smallest are given up: what stands there goes back into the main lane. It was put
aside one by one, so that costs no more than that did.

Where very many come at once, those that claim the same are put aside at once: to meet 100 000 one by one, in the
first turn, would take a second.
"""

from __future__ import annotations

import heapq
import math
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from taylorism._forest import Forest, Leaf
from taylorism._gates import Claim, Holdings, Part, is_plain

__all__ = ["Entry", "Lane", "Lanes", "seconds_of"]

Instructions = dict[str, Any]
#: finds an entry in a lane
Look = Callable[["Lane"], "Entry | None"]

#: a lane of so few is hardly worth to be searched apart
_FEW = 16
#: more open lanes than that, each of which is looked at by a search, or that many in all: those of few are given up
_SOME, _APART = 32, 512
#: more open ones than that: the smallest are given up, too
_OPEN = 256
#: if the claims of a batch are no more different than that, each gets its lane beforehand; else
_DIFFERENT = 256
#: the value that so large a part of the batch claims
_POPULAR = 1 / 16


_KEY = operator.attrgetter("key")


class Entry:
    """A set of instructions that is pending.

    Attributes
    ----------
    key : tuple
        Where it stands in the order; no two have the same.
    demand : float
        What it takes of the thing that is limited.
    claim : Claim
        The values that it wants.
    gone : bool
        Whether it was taken out.
    seconds : float
        How long it is expected to take; for ever where that is not declared.
    """

    __slots__ = ("aside", "claim", "demand", "gone", "instructions", "key", "lane", "leaf", "seconds")

    def __init__(self, instructions: Instructions, key: Any, demand: float, claim: Claim) -> None:
        self.instructions = instructions
        self.key = key
        self.demand = demand
        self.claim = claim
        self.gone = False
        self.aside = False
        self.lane: Lane
        self.leaf: Leaf
        self.seconds = seconds_of(instructions)


def seconds_of(instructions: Instructions) -> float:
    """Return how long a set is expected to take; for ever where that is not declared, or is no number above 0."""
    try:
        seconds = float(instructions.get("expected_time") or math.inf)
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return seconds if seconds > 0 else math.inf  # not a number is not above 0 either


class Lane:
    """Entries whose claims have some parts in common, in order.

    Parameters
    ----------
    strict : bool
        Whether what is taken has to stay below a limit.
    parts : frozenset of Part
        These.

    Attributes
    ----------
    first : Entry or None
        The first entry.
    """

    def __init__(self, strict: bool, parts: frozenset[Part] = frozenset()) -> None:
        self.parts = parts
        self.first: Entry | None = None
        self._strict = strict
        self._forest = Forest(2, strict=strict)
        # Limits within which nothing was found, nor will be unless something is added.
        self._vain = -math.inf
        self._vain_brief = (-math.inf, -math.inf)

    def __len__(self) -> int:
        return len(self._forest)

    def __bool__(self) -> bool:
        return True  # also an empty one is a lane

    def extend(self, entries: Sequence[Entry]) -> None:
        """Put entries here."""
        # In order, so that neighbours in the forest are made one after the other, and lie in memory side by side.
        ordered = sorted(entries, key=_KEY)
        leaves = self._forest.extend((entry.key, (entry.demand, entry.seconds), entry) for entry in ordered)
        for entry, leaf in zip(ordered, leaves, strict=True):
            entry.lane, entry.leaf = self, leaf
        self.first = _entry(self._forest.first())
        self._vain, self._vain_brief = -math.inf, (-math.inf, -math.inf)

    def remove(self, entry: Entry) -> None:
        """Take an entry out."""
        self._forest.remove(entry.leaf)
        del entry.leaf  # each knows the other
        if entry is self.first:
            self.first = _entry(self._forest.first())

    def emptied(self) -> list[Entry]:
        """Take out all entries, and return them."""
        entries = [leaf.item for leaf in self._forest]
        self._forest, self.first = Forest(2, strict=self._strict), None
        return entries

    def first_that_fits(self, limit: float) -> Entry | None:
        """Return the first entry that takes no more than that."""
        if limit <= self._vain:
            return None
        entry = _entry(self._forest.first_that_fits((limit,)))
        if entry is None:
            self._vain = limit
        return entry

    def first_brief(self, limit: float, seconds: float) -> Entry | None:
        """Return the first entry that takes no more than that, and is expected to take no longer either."""
        if limit <= self._vain or (limit <= self._vain_brief[0] and seconds <= self._vain_brief[1]):
            return None
        edge = math.nextafter(seconds, math.inf) if self._strict else seconds
        entry = _entry(self._forest.first_that_fits((limit, edge)))
        if entry is None:
            self._vain_brief = (limit, seconds)
        return entry


def _entry(leaf: Leaf | None) -> Entry | None:
    return None if leaf is None else leaf.item


class Lanes:
    """All that is pending.

    Parameters
    ----------
    strict : bool
        Whether what is taken has to stay below a limit.
    """

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._main = Lane(strict)
        self._apart: dict[frozenset[Part], Lane] = {}
        self._open: dict[frozenset[Part], Lane] = {}
        self._waiting: defaultdict[Part, list[Lane]] = defaultdict(list)
        self._untidy = _SOME  # that many seem to be open: time to look at them
        self._aside: list[tuple[Any, Entry]] = []  # a heap of those that do not stand in the main lane

    def add(self, entries: Sequence[Entry]) -> None:
        """Take new entries."""
        claiming = [entry for entry in entries if entry.claim]
        if len(claiming) > _FEW:
            self._found_lanes(claiming)
        places: defaultdict[Lane, list[Entry]] = defaultdict(list)
        for entry in entries:
            places[self._home(entry)].append(entry)
        for lane, those in places.items():
            self._move(those, lane)

    def _home(self, entry: Entry) -> Lane:
        """Return the lane that a new entry comes into: one that is there."""
        if not (self._apart and entry.claim):
            return self._main
        if (lane := self._apart.get(frozenset(entry.claim))) is not None:
            return lane
        lanes = (self._apart.get(frozenset((part,))) for part in entry.claim)
        return max((lane for lane in lanes if lane is not None), key=len, default=self._main)

    def _found_lanes(self, entries: Sequence[Entry]) -> None:
        """Open lanes for what many of these entries claim."""
        alike = Counter(frozenset(filter(is_plain, entry.claim)) for entry in entries)
        if len(alike) > _DIFFERENT:
            single = Counter(part for entry in entries for part in entry.claim if is_plain(part))
            least = _POPULAR * len(entries)
            alike = Counter({frozenset((part,)): count for part, count in single.items() if count >= least})
        for parts, count in alike.items():
            if count > _FEW and parts:
                self._lane(parts)

    def _lane(self, parts: frozenset[Part]) -> Lane:
        """Return the lane of these parts, which is made and opened if there is none."""
        lane = self._apart.get(parts)
        if lane is None:
            lane = self._apart[parts] = self._open[parts] = Lane(self._strict, parts)
        return lane

    def _move(self, entries: Sequence[Entry], lane: Lane) -> None:
        lane.extend(entries)
        for entry in entries:
            if lane is not self._main and not entry.aside:
                entry.aside = True
                heapq.heappush(self._aside, (entry.key, entry))

    def remove(self, entry: Entry) -> None:
        """Take an entry out."""
        entry.gone = True
        lane = entry.lane
        lane.remove(entry)
        if lane.first is None and lane.parts in self._open:
            self._give_up(lane)

    # -- searching ------------------------------------------------------------------------------------

    def first(self) -> Entry | None:
        """Return who comes first of all."""
        first = self._main.first
        while self._aside:
            key, entry = self._aside[0]
            if not entry.gone and entry.lane is not self._main:
                return entry if first is None or key < first.key else first
            heapq.heappop(self._aside)
            entry.aside = False
        return first

    def wake(self, held: Holdings) -> None:
        """Open the lanes whose values are free now; to be called when some may have become so."""
        for part in [each for each in self._waiting if held.obstacle((each,)) is None]:
            for lane in self._waiting.pop(part):
                self._reopen(lane, held)
        if len(self._open) >= self._untidy:
            self._tidy(held)

    def _reopen(self, lane: Lane, held: Holdings) -> None:
        if lane.first is None or (len(self._apart) > _APART and len(lane) <= _FEW):
            self._give_up(lane)
        elif obstacle := held.obstacle(lane.parts):
            self._close(lane, obstacle)
        else:
            self._open[lane.parts] = lane

    def _tidy(self, held: Holdings) -> None:
        """Close lanes that only seem to be open, and give some up if too many are."""
        for lane in list(self._open.values()):
            if obstacle := held.obstacle(lane.parts):
                self._close(lane, obstacle)
        lanes = sorted(self._open.values(), key=len)
        few = sum(1 for lane in lanes if len(lane) <= _FEW) if len(lanes) > _SOME else 0
        for lane in lanes[: max(few, len(lanes) - _OPEN)]:
            self._give_up(lane)
        self._untidy = len(self._open) + _SOME

    def _close(self, lane: Lane, obstacle: Part) -> None:
        """Have a lane wait for a value."""
        self._open.pop(lane.parts, None)
        self._waiting[obstacle].append(lane)

    def _give_up(self, lane: Lane) -> None:
        """Put what stands in a lane back into the main one."""
        self._open.pop(lane.parts, None)
        del self._apart[lane.parts]
        self._move(lane.emptied(), self._main)

    def search(self, look: Look, held: Holdings, wanted: Holdings) -> Entry | None:
        """Return the first entry that can have what it claims, of those that `look` finds in a lane.

        Parameters
        ----------
        look : callable
            Finds the first in a lane that fits otherwise.
        held : Holdings
            What others have.
        wanted : Holdings
            What is to be left for one who waits.
        """
        best: Entry | None = None
        for lane in list(self._open.values()):
            if lane.first is None or (best is not None and best.key < lane.first.key) or look(lane) is None:
                continue  # cheaper than to look at what is held
            if obstacle := held.obstacle(lane.parts):
                self._close(lane, obstacle)
            elif not wanted.obstacle(lane.parts):
                best = self._found(lane, best, look, held, wanted)
        return self._found(self._main, best, look, held, wanted)

    def _found(self, lane: Lane, best: Entry | None, look: Look, held: Holdings, wanted: Holdings) -> Entry | None:
        """Return the first in a lane that can have what it claims, or `best` if that comes first."""
        while (entry := look(lane)) is not None and (best is None or entry.key < best.key):
            barred = held.obstacle(entry.claim)
            obstacle = barred or wanted.obstacle(entry.claim)
            if obstacle is None:
                return entry
            if not self._put_aside(entry, obstacle, barred is not None):
                break
        return best

    def _put_aside(self, entry: Entry, obstacle: Part, barred: bool) -> bool:
        """Have an entry stand where one value more is waited for; return False if it does so already.

        It never does, unless values change, or do not equal themselves; that must not be a loop without end.
        """
        parts = entry.lane.parts | {obstacle}
        if parts == entry.lane.parts:
            return False
        fresh = parts not in self._apart
        lane = self._lane(parts)
        entry.lane.remove(entry)
        self._move([entry], lane)
        if fresh and barred:
            self._close(lane, obstacle)
        return True
