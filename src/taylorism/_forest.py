"""Leaf, any process, pure: what is pending, in an order, to be searched for the first that fits, at scale.

A list that is searched from its beginning takes as long as it is; a heap knows its first one only. Here the
leaves stand in a few sorted arrays, the trees, each larger than all younger ones together (the
logarithmic method of Bentley and Saxe): what is new becomes a tree of its own, and trees are merged as soon as one
of them is no longer larger than those after it. So there are at most ``log2(n) + 1``, and each leaf moves about
that often in its life::

    trees, the oldest first      sizes 40, 12, 3, 1       a new leaf: 40, 12, 3, [1, 1] -> 40, 12, 3, 2

    one tree     1   what is least below          nodes in the order of a heap; the last row are buckets of a
               2   3                              few leaves, which are looked through one by one
              4 5 6 7
              |||| ||||  the leaves, by key; those removed are holes, and half of them holes: it is made anew

Very many leaves become several trees, of which the one with the lowest keys is the smallest. A search looks there
first, and mostly finds something; so the others are surveyed later, one after the other, or not at all::

    100 000 leaves at once      83 616, 12 288, 3 072, 1 024       the lowest keys stand in the last one

Of the leaves below it a node knows what is *exactly* enough to tell whether one of them fits, so that the way down
to the first that does never turns back. Where one number is looked at, that is the smallest demand. Where two are,
it is the front: the demands that no other undercuts in both. The smallest of each component alone is not enough:
where half of the leaves ask for much memory and the others for many cpus, nearly every node would look like a fit,
and none be one. A tree has nodes of both kinds, if it is searched in both ways.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain
from math import inf
from operator import attrgetter, itemgetter, le, lt
from typing import Any

__all__ = ["Forest", "Leaf"]

#: what one set of instructions needs of each kind: one or two numbers, never NaN
Demand = tuple[float, ...]
#: what a node knows of the leaves below it
Summary = Any

#: leaves that share a node of the last row: fewer take more memory, more take longer to look through
_BUCKET = 16

#: so many with the lowest keys become a tree of their own where there are four times as many, then four times those
_LOWEST, _TIMES = 1024, 4

_by_key = attrgetter("key")
_head = attrgetter("head")


class Leaf:
    """Something that is pending, as it stands in a `Forest`.

    Attributes
    ----------
    key : tuple
        Where it stands in the order; among equals, the one that came first is first.
    demand : tuple of float
        What it needs, one number for each dimension.
    item : object
        What was added.
    """

    __slots__ = ("_place", "_tree", "demand", "item", "key")

    def __init__(self, key: Any, demand: Demand, item: Any) -> None:
        self.key = key
        self.demand = demand
        self.item = item
        self._tree: _Tree | None = None
        self._place = 0

    def __repr__(self) -> str:
        return f"Leaf({self.key!r}, {self.demand!r}, {self.item!r})"


class Forest:
    """A collection in the order of keys that finds the first leaf whose demand is within limits.

    With ``n`` leaves in it, `first` takes O(log n) steps; `add`, and `extend` for each leaf, O(log n) on average;
    `remove` O(log n) in one dimension, and `first_that_fits` O(log² n). In two dimensions both take a factor
    more: ``log f`` to find, ``f`` to remove, where ``f`` is the length of a front, at most the number of different
    values of that component which has fewer of them (cpus: a few; numbers drawn independently: about ``log n``).
    The worst case is ``f = n``, where all values are different and each more of the one is a little less of the
    other: then it still finds in O(log³ n), and removes in O(n).

    A single call may take longer, up to O(n log n): trees are merged, made anew, or searched for the first time.

    Parameters
    ----------
    dimensions : 1 or 2
        How many numbers a demand has. With two, one may search by both, or by the first alone.
    strict : bool
        Whether a demand has to stay below the limits, instead of reaching them at most.
    """

    def __init__(self, dimensions: int = 1, *, strict: bool = False) -> None:
        if dimensions not in _KINDS:
            raise ValueError(f"dimensions={dimensions!r}: a demand has 1 or 2 numbers")
        self.dimensions = dimensions
        self.strict = strict
        self._trees: list[_Tree] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Leaf]:
        """Yield the leaves in order, but those that are removed meanwhile; additions may be missed."""
        for leaf in merge(*(tree.living() for tree in self._trees), key=_by_key):
            if leaf._tree is not None:
                yield leaf

    def add(self, key: Any, demand: Demand, item: Any) -> Leaf:
        """Add an item, and return the leaf by which it can be removed."""
        return self.extend([(key, demand, item)])[0]

    def extend(self, entries: Iterable[tuple[Any, Demand, Any]]) -> list[Leaf]:
        """Add items in one go, and return their leaves, in the order of the entries.

        Parameters
        ----------
        entries : iterable of tuple
            Of each one ``(key, demand, item)``.

        Raises
        ------
        ValueError
            A demand has another number of numbers; nothing was added then.
        """
        leaves = [Leaf(*entry) for entry in entries]
        if odd := next((leaf for leaf in leaves if len(leaf.demand) != self.dimensions), None):
            raise ValueError(f"demand {odd.demand!r}: it has to have {self.dimensions} numbers")
        if leaves:
            self._trees += _planted(sorted(leaves, key=_by_key))
            self._count += len(leaves)
            self._merge_where_due()
        return leaves

    def remove(self, leaf: Leaf) -> None:
        """Take out a leaf.

        Raises
        ------
        KeyError
            It is not in the forest (any more).
        """
        tree = leaf._tree
        if tree is None:
            raise KeyError(leaf)
        tree.drop(leaf)
        self._count -= 1
        if 2 * tree.alive <= len(tree.leaves):
            self._renew(tree)

    def first(self) -> Leaf | None:
        """Return the leaf with the lowest key, None when there is none."""
        return min(map(_head, self._trees), key=_by_key, default=None)

    def first_that_fits(self, limits: Sequence[float]) -> Leaf | None:
        """Return the leaf with the lowest key of those whose demand is within `limits`, None if none is.

        Parameters
        ----------
        limits : sequence of float
            As many as there are dimensions, or one; each component of the demand is compared with its own.
        """
        kind = _KINDS[len(limits)]
        may_be, fits = kind.tests(tuple(limits), self.strict)
        best: Leaf | None = None
        for tree in reversed(self._trees):  # the older ones last: they win where keys are equal
            if best is None or tree.head.key <= best.key:
                found = tree.find(kind, may_be, fits)
                if found is not None and (best is None or found.key <= best.key):
                    best = found
        return best

    def _renew(self, tree: _Tree) -> None:
        """Make a tree anew without its holes."""
        index = self._trees.index(tree)
        self._trees[index : index + 1] = [_Tree(list(tree.living()))] if tree.alive else []
        self._merge_where_due()

    def _merge_where_due(self) -> None:
        """Merge the oldest tree that is not larger than all younger ones together, and those.

        In one go, and none of the older trees is then to be merged too. Each leaf that moves comes among at least
        twice as many as before, which is why it moves but ``log2(n)`` times (see `_planted` for those that become
        several trees). The order of age is kept: equal keys stay in the order in which they came.
        """
        younger, due = 0, None
        for index in range(len(self._trees) - 1, -1, -1):
            size = len(self._trees[index].leaves)
            if size <= younger:
                due = index
            younger += size
        if due is not None:
            leaves = sorted(chain.from_iterable(tree.living() for tree in self._trees[due:]), key=_by_key)
            self._trees[due:] = _planted(leaves)


def _planted(leaves: list[Leaf]) -> list[_Tree]:
    """Return trees of some leaves in order, each larger than those after it; the last one has the lowest keys.

    The first is three times as large as the others together, at least. So some more leaves do not have all of them
    merged: as many must come, or go, as would pay for it.
    """
    trees, start, end = [], 0, _past_equals(leaves, _LOWEST)
    while end * _TIMES <= len(leaves):
        trees.append(_Tree(leaves[start:end]))
        start, end = end, _past_equals(leaves, end * _TIMES)
    trees.append(_Tree(leaves[start:]))
    trees.reverse()
    return trees


def _past_equals(leaves: list[Leaf], place: int) -> int:
    """Return a place, or the first after it where those before have other keys: equal keys stay in one tree."""
    if place >= len(leaves):
        return place
    return bisect_right(leaves, leaves[place - 1].key, lo=place, key=_by_key)


class _Tree:
    """Leaves in order, which become holes, and above them what is least; it never grows.

    Attributes
    ----------
    leaves : list of Leaf or None
        In order, with holes.
    alive : int
        How many are no holes.
    head : Leaf
        The first of them; not to be asked for where all are holes.
    """

    __slots__ = ("_least", "_surveys", "alive", "head", "leaves")

    def __init__(self, leaves: list[Leaf]) -> None:
        self.leaves: list[Leaf | None] = [*leaves]
        self.alive = len(leaves)
        self.head = leaves[0]
        self._least: Demand = ()
        # Not before a search: a tree may be merged without having been searched, and some are never.
        self._surveys: dict[type[_Kind], _Survey] = {}
        for place, leaf in enumerate(leaves):
            leaf._tree = self
            leaf._place = place

    def living(self) -> Iterator[Leaf]:
        """Return the leaves, in order."""
        return filter(None, self.leaves)

    def least(self) -> Demand:
        """Return a demand that no leaf undercuts in any number: most of what is in vain is seen by that alone."""
        if not self._least:
            demands = [leaf.demand for leaf in self.living()]
            self._least = tuple(min(map(itemgetter(at), demands)) for at in range(len(demands[0])))
        return self._least

    def drop(self, leaf: Leaf) -> None:
        """Make a hole of a leaf."""
        leaf._tree = None
        self.leaves[leaf._place] = None
        self.alive -= 1
        if leaf is self.head and self.alive:
            self.head = self._following(leaf._place)
        for survey in self._surveys.values():
            survey.mend(leaf._place // _BUCKET, leaf.demand)

    def _following(self, place: int) -> Leaf:
        """Return the first leaf after a hole, where there is one; in all, no more steps than there are leaves."""
        while (leaf := self.leaves[place]) is None:
            place += 1
        return leaf

    def find(
        self, kind: type[_Kind], may_be: Callable[[Summary], bool], fits: Callable[[Demand], bool]
    ) -> Leaf | None:
        """Return the first leaf that fits, None if none does.

        Parameters
        ----------
        kind : type
            What has to be known for it.
        may_be : callable
            Tells, by what a node knows, whether a leaf below it fits.
        fits : callable
            The same of the demand of a leaf.
        """
        if fits(self.head.demand):
            return self.head  # where nearly all fit, a tree is never surveyed
        survey = self._surveys.get(kind)
        if survey is None:
            if not may_be(kind.summary([self.least()])):
                return None
            survey = self._surveys[kind] = _Survey(self.leaves, kind)
        bucket = survey.first(may_be)
        return next((leaf for leaf in bucket if leaf is not None and fits(leaf.demand)), None)


class _Survey:
    """What the nodes above the leaves of a tree know, for one kind of search."""

    __slots__ = ("_kind", "_leaves", "_nodes", "_width")

    def __init__(self, leaves: list[Leaf | None], kind: type[_Kind]) -> None:
        self._leaves = leaves
        self._kind = kind
        buckets = (len(leaves) + _BUCKET - 1) // _BUCKET
        self._width = width = 1 << (buckets - 1).bit_length()
        self._nodes: list[Summary] = [kind.NOTHING] * (2 * width)
        for bucket in range(buckets):
            self._nodes[width + bucket] = self._bucket(bucket)
        for node in range(width - 1, 0, -1):
            self._nodes[node] = kind.join(self._nodes[2 * node], self._nodes[2 * node + 1])

    def _bucket(self, number: int) -> Summary:
        """Return what there is to know of one bucket."""
        bucket = self._leaves[number * _BUCKET : (number + 1) * _BUCKET]
        return self._kind.summary([leaf.demand for leaf in bucket if leaf is not None])

    def first(self, may_be: Callable[[Summary], bool]) -> list[Leaf | None]:
        """Return the first bucket in which something fits, an empty list if there is none."""
        nodes = self._nodes
        if not may_be(nodes[1]):
            return []
        node = 1
        while node < self._width:
            node *= 2
            if not may_be(nodes[node]):
                node += 1  # then it is below the other: one of the two fits where what is above them does
        start = (node - self._width) * _BUCKET
        return self._leaves[start : start + _BUCKET]

    def mend(self, bucket: int, gone: Demand) -> None:
        """Correct what the nodes above a bucket know, as far up as it matters."""
        nodes = self._nodes
        node = self._width + bucket
        before, nodes[node] = nodes[node], self._bucket(bucket)
        unchanged = before == nodes[node]
        while (node := node // 2) and not unchanged:
            mended = self._kind.mended(nodes[node], gone, nodes[2 * node], nodes[2 * node + 1])
            unchanged = mended is None
            if not unchanged:
                nodes[node] = mended


class _Least:
    """What nodes know where the first number is looked at: the smallest demand below, the second breaking ties."""

    #: larger than any demand, and than limits that are infinite
    NOTHING: Summary = (inf, inf, inf)

    join = staticmethod(min)

    @staticmethod
    def summary(demands: list[Demand]) -> Summary:
        """Return what is to be known of some demands."""
        return min(demands, default=_Least.NOTHING)

    @staticmethod
    def mended(least: Summary, gone: Demand, left: Summary, right: Summary) -> Summary | None:
        """Return what a node knows once a demand is gone and those below it are mended; None: as before."""
        if least != gone:
            return None
        now = min(left, right)
        return None if now == gone else now

    @staticmethod
    def tests(limits: Demand, strict: bool) -> tuple[Callable[[Summary], bool], Callable[[Demand], bool]]:
        """Return how to tell whether something below a node, and whether a demand, is within limits."""
        # Where a demand has a second number, that decides nothing: the shorter of two tuples is the smaller one.
        within = limits.__gt__ if strict else (*limits, inf).__ge__
        return within, within


class _Front:
    """What nodes know in two dimensions: the demands that no other undercuts in both, the first numbers rising.

    The second numbers are falling then: of those whose first number is within a limit, the last one asks for least.
    """

    NOTHING: Summary = []

    @staticmethod
    def join(left: Summary, right: Summary) -> Summary:
        """Return what the node above two others knows."""
        return _falling(sorted(left + right))

    @staticmethod
    def summary(demands: list[Demand]) -> Summary:
        """Return what is to be known of some demands."""
        return _falling(sorted(demands))

    @staticmethod
    def mended(front: Summary, gone: Demand, left: Summary, right: Summary) -> Summary | None:
        """Return what a node knows once a demand is gone and those below it are mended; None: as before.

        What comes up in its place was undercut by it alone, and stands between its neighbours. (To join `left` and
        `right` anew took 250 ms a removal where all of 100 000 stood in the front; this, 0.1 ms.)
        """
        at = bisect_left(front, gone)
        if at == len(front) or front[at] != gone:
            return None
        until = front[at + 1] if at + 1 < len(front) else (inf, inf, inf)
        parts = (below[bisect_left(below, gone) : bisect_left(below, until)] for below in (left, right))
        risen = _falling(sorted(chain.from_iterable(parts)), front[at - 1][1] if at else None)
        if risen == [gone]:
            return None  # there is another one like it
        front[at : at + 1] = risen
        return front

    @staticmethod
    def tests(limits: Demand, strict: bool) -> tuple[Callable[[Summary], bool], Callable[[Demand], bool]]:
        """Return how to tell whether something below a node, and whether a demand, is within limits."""
        first, second = limits
        below, count = (lt, bisect_left) if strict else (le, bisect_right)
        edge = (first, -inf if strict else inf)

        def may_be(front: Summary) -> bool:
            among = count(front, edge)
            return among > 0 and bool(below(front[among - 1][1], second))

        def fits(demand: Demand) -> bool:
            return bool(below(demand[0], first) and below(demand[1], second))

        return may_be, fits


def _falling(demands: list[Demand], last: float | None = None) -> list[Demand]:
    """Return those of some sorted demands whose second number is below that of all before, and below `last`."""
    front = []
    for demand in demands:
        if last is None or demand[1] < last:
            last = demand[1]
            front.append(demand)
    return front


_Kind = _Least | _Front

_KINDS: dict[int, type[_Kind]] = {1: _Least, 2: _Front}
