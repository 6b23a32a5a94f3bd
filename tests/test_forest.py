"""The forest, against a plain sorted list: the same answers, in a number of steps that hardly grows."""

from __future__ import annotations

import gc
import random
import tracemalloc
from math import inf, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taylorism import _forest
from taylorism._forest import Forest

#: few values, so that keys and demands often are equal, and limits are often reached
NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 3.0, 5.0, 8.0, inf])
KEYS = st.tuples(st.integers(0, 5), st.integers(0, 3))


def within(demand, limits, strict):
    """Compare as the documentation says."""
    return all(each < limit if strict else each <= limit for each, limit in zip(demand, limits, strict=False))


class AsAList(RuleBasedStateMachine):
    """A forest and a list of its leaves, in the order in which they came, do the same."""

    @initialize(dimensions=st.sampled_from([1, 2]), strict=st.booleans())
    def begin(self, dimensions, strict):
        self.forest = Forest(dimensions, strict=strict)
        self.leaves = []
        self.gone = []

    def demand(self, data):
        return data.draw(st.tuples(*[NUMBERS] * self.forest.dimensions))

    def ordered(self):
        return sorted(self.leaves, key=lambda leaf: leaf.key)

    @rule(key=KEYS, data=st.data())
    def add(self, key, data):
        demand = self.demand(data)
        leaf = self.forest.add(key, demand, "item")
        assert (leaf.key, leaf.demand, leaf.item) == (key, demand, "item")
        self.leaves.append(leaf)

    @rule(keys=st.lists(KEYS, max_size=60), data=st.data())
    def extend(self, keys, data):
        seed = data.draw(st.integers(0, 99))
        chance = random.Random(seed)
        values = [0.0, 1.0, 2.0, 3.0, 5.0, 8.0]
        entries = [
            (key, tuple(chance.choice(values) for _ in range(self.forest.dimensions)), index)
            for index, key in enumerate(keys)
        ]
        leaves = self.forest.extend(iter(entries))
        assert [(leaf.key, leaf.demand, leaf.item) for leaf in leaves] == entries
        self.leaves += leaves

    @precondition(lambda self: self.leaves)
    @rule(data=st.data())
    def remove(self, data):
        leaf = self.leaves.pop(data.draw(st.integers(0, len(self.leaves) - 1)))
        self.forest.remove(leaf)
        self.gone.append(leaf)

    @rule(data=st.data())
    def take_those_that_fit(self, data):
        limits = self.demand(data)
        for _ in range(data.draw(st.integers(0, 30))):
            leaf = self.look(limits)
            if leaf is None:
                break
            self.forest.remove(leaf)
            self.leaves.remove(leaf)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def nothing_is_removed_twice(self, data):
        with pytest.raises(KeyError):
            self.forest.remove(data.draw(st.sampled_from(self.gone)))

    @rule(data=st.data())
    def search(self, data):
        self.look(self.demand(data))

    @rule(data=st.data())
    def search_by_the_first_number_alone(self, data):
        self.look(self.demand(data)[:1])

    def look(self, limits):
        found = self.forest.first_that_fits(limits)
        fitting = (leaf for leaf in self.ordered() if within(leaf.demand, limits, self.forest.strict))
        assert found is next(fitting, None)
        return found

    @invariant()
    def is_the_same(self):
        ordered = self.ordered()
        assert len(self.forest) == len(ordered)
        assert self.forest.first() is (ordered[0] if ordered else None)

    @rule()
    def iterate(self):
        assert list(self.forest) == self.ordered()


TestAsAList = AsAList.TestCase
TestAsAList.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


@given(
    dimensions=st.sampled_from([1, 2]),
    strict=st.booleans(),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([2, 6, 1000]),
)
@settings(max_examples=20, deadline=None)
def test_a_long_life_is_right(dimensions, strict, seed, spread):
    """Hundreds of leaves, searched and removed until none is left, with demands alike and with all different."""
    live(dimensions, strict, seed, spread)


def live(dimensions, strict, seed, spread):
    """Let a forest become empty, and look whether it is right all the time."""
    chance = random.Random(seed)
    forest = Forest(dimensions, strict=strict)
    draw = lambda: tuple(float(chance.randrange(spread)) for _ in range(dimensions))  # noqa: E731
    leaves = forest.extend(((index % 7,), draw(), index) for index in range(400))
    left = {leaf.item: leaf for leaf in sorted(leaves, key=lambda leaf: leaf.key)}
    while left:
        limits = draw()[: chance.choice([1, dimensions])]
        fitting = (leaf for leaf in left.values() if within(leaf.demand, limits, strict))
        found = forest.first_that_fits(limits)
        assert found is next(fitting, None)
        for leaf in {found, chance.choice(list(left.values()))} - {None}:
            forest.remove(leaf)
            del left[leaf.item]
    assert len(forest) == 0
    assert forest.first() is forest.first_that_fits((inf,) * dimensions) is None


@pytest.mark.parametrize("lowest", [1, 5, 64])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_it_does_not_matter_into_how_many_trees_leaves_are_split(monkeypatch, dimensions, lowest):
    """Not even where there are as many trees as may be, and keys are equal in several of them."""
    monkeypatch.setattr(_forest, "_LOWEST", lowest)
    for seed in range(4):
        live(dimensions, strict=seed % 2 == 0, seed=seed, spread=[2, 6, 1000][seed % 3])


@pytest.mark.parametrize("lowest", [1, 5, 64, 1024])
def test_equal_keys_keep_the_order_in_which_they_came(monkeypatch, lowest):
    """However they came, one by one or many at once."""
    monkeypatch.setattr(_forest, "_LOWEST", lowest)
    forest = Forest()
    items = iter(range(1000))
    for size in (1, 1, 5, 1, 1, 1, 40, 2, 1, 1, 90, 1):
        forest.extend(((0,), (1.0,), next(items)) for _ in range(size))
    assert [leaf.item for leaf in forest] == list(range(145))
    order = []
    while leaf := forest.first_that_fits((1.0,)):
        order.append(leaf.item)
        forest.remove(leaf)
    assert order == list(range(145))


def test_what_is_seen_may_be_removed_on_the_way():
    """Removals do not disturb an iteration, and what was removed is not seen any more."""
    forest = Forest()
    leaves = forest.extend(((index,), (1.0,), index) for index in range(100))
    seen = []
    for leaf in forest:
        seen.append(leaf.item)
        forest.remove(leaf)
        if leaf.item % 2 == 0 and leaf.item < 90:
            forest.remove(leaves[leaf.item + 1])
    assert seen == [*range(0, 90, 2), *range(90, 100)]
    assert list(forest) == []


@pytest.mark.parametrize("dimensions", [0, 3, "1"])
def test_there_are_one_or_two_dimensions(dimensions):
    """Anything else is refused."""
    with pytest.raises(ValueError, match="1 or 2"):
        Forest(dimensions)


def test_a_demand_has_as_many_numbers_as_there_are_dimensions():
    """Else nothing of the call is added."""
    forest = Forest(2)
    with pytest.raises(ValueError, match=r"\(1\.0,\)"):
        forest.extend([((0,), (1.0, 1.0), "fine"), ((1,), (1.0,), "odd")])
    assert len(forest) == 0 and list(forest) == []


def test_items_need_not_compare():
    """Neither when keys are equal, nor when demands are."""
    forest = Forest(2)
    first, *_ = forest.extend(((0,), (1.0, 1.0), object()) for _ in range(20))
    assert forest.first() is forest.first_that_fits((1.0, 1.0)) is first
    assert "Leaf((0,), (1.0, 1.0)" in repr(first)


def test_infinite_limits_are_limits():
    """What is removed does not fit even then, and strictly below infinity an infinite demand is not."""
    for strict in (False, True):
        forest = Forest(1, strict=strict)
        small, big = forest.extend([((1,), (1.0,), "small"), ((0,), (inf,), "big")])
        assert forest.first_that_fits((inf,)) is (small if strict else big)
        forest.remove(big)
        assert forest.first_that_fits((inf,)) is small
        forest.remove(small)
        assert forest.first_that_fits((inf,)) is None


@pytest.mark.parametrize("dimensions", [1, 2])
def test_infinite_limits_pass_by_what_is_removed(dimensions):
    """A whole stretch of holes does not look like something that fits."""
    forest = Forest(dimensions)
    leaves = forest.extend(((index,), (1.0,) * dimensions, index) for index in range(100))
    for leaf in leaves[:40]:
        assert forest.first_that_fits((inf,) * dimensions) is leaf
        forest.remove(leaf)
    assert forest.first_that_fits((inf,) * dimensions) is leaves[40]


def test_infinite_demands_come_up_again():
    """What was undercut by a demand fits when that one is gone."""
    forest = Forest(2)
    leaves = forest.extend(((index,), (inf, 5.0), index) for index in range(100))
    small = forest.add((-1,), (1.0, 1.0), "small")
    assert forest.first_that_fits((inf, 9.0)) is small
    forest.extend(((index,), (inf, 5.0), index) for index in range(100, 300))
    assert forest.first_that_fits((2.0, 2.0)) is small
    forest.remove(small)
    assert forest.first_that_fits((inf, 9.0)) is leaves[0]
    assert forest.first_that_fits((9.0, inf)) is None


def test_a_removed_item_is_let_go():
    """The forest does not hold it any longer, nor does the hole in its place."""
    forest = Forest()
    leaves = forest.extend(((index,), (1.0,), [index]) for index in range(10))
    forest.first_that_fits((1.0,))
    forest.remove(leaves[3])
    assert not [each for each in gc.get_referrers(leaves[3]) if each is not leaves]


# -- steps ------------------------------------------------------------------------------------------------------


class Steps:
    """How often numbers and keys were compared, from a moment on."""

    def __init__(self):
        self.count = 0
        self.kinds = []

    def kind(self, base):
        """Make a kind of number that can count its comparisons."""

        class Counted(base):
            __slots__ = ()

        self.kinds.append((Counted, base))
        return Counted

    def begin(self):
        """Count from now on; until then, a forest of such numbers is made as fast as any."""
        for kind, base in self.kinds:
            for name in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__"):
                setattr(kind, name, self._counting(getattr(base, name)))
            kind.__hash__ = base.__hash__

    def _counting(self, plain):
        def compare(one, other):
            self.count += 1
            return plain(one, other)

        return compare

    def of(self, call, *args):
        """Return how many comparisons a call makes."""
        before = self.count
        call(*args)
        return self.count - before


#: demands in one and in two dimensions, and limits within which there is one, a rare one, or none
BATCHES = {
    "memory": (lambda chance: (chance.random(),), [(0.5,), (0.001,), (-1.0,)]),
    "memory and cpus": (
        lambda chance: (chance.random(), float(chance.randint(1, 32))),
        [(0.5, 16.0), (0.01, 1.0), (0.5, 0.0)],
    ),
    "much of the one or of the other": (
        lambda chance: chance.choice([(1000.0, 1.0), (1.0, 8.0)]),
        [(500.0, 7.0), (999.0, 100.0), (1e9, 1.0)],
    ),
    "the less of the one the more of the other": (
        lambda chance: (number := chance.random(), 1.0 - number),
        [(0.5, 0.49999), (0.3, 0.71), (0.9, 0.2)],
    ),
}


def filled(batch, size, steps):
    """Make a forest of numbers that count from now on, surveyed, in a few trees, with holes."""
    real, whole = steps.kind(float), steps.kind(int)
    chance = random.Random(size)
    demand = BATCHES[batch][0]
    forest = Forest(1 if batch == "memory" else 2)

    def entry():
        return (whole(chance.randrange(10**9)),), tuple(map(real, demand(chance))), None

    leaves = forest.extend(entry() for _ in range(size))
    forest.first_that_fits(BATCHES[batch][1][0])
    for leaf in chance.sample(leaves, size // 4):
        forest.remove(leaf)
    for _ in range(100):
        forest.add(*entry())
    for limits in BATCHES[batch][1]:
        forest.first_that_fits(limits)
    steps.begin()
    return forest


@pytest.mark.parametrize("size", [1000, 30_000])
@pytest.mark.parametrize("batch", BATCHES)
def test_a_search_takes_few_steps(batch, size):
    """Their number is bounded by a constant times the square of log2(n), whether something fits or not."""
    steps = Steps()
    forest = filled(batch, size, steps)
    assert steps.of(forest.first) <= 4 * log2(size)
    for limits in BATCHES[batch][1]:
        assert steps.of(forest.first_that_fits, limits) <= 4 * log2(size) ** 2


@pytest.mark.parametrize("batch", ["memory", "memory and cpus"])
def test_the_first_search_takes_no_more_steps_with_more_leaves(batch):
    """What fits is found among the lowest keys, and nothing else is put in order for that."""
    demand, limits = BATCHES[batch]

    def steps_of(size):
        steps, chance = Steps(), random.Random(3)
        real = steps.kind(float)
        forest = Forest(len(limits[0]))
        forest.extend(((index,), tuple(map(real, demand(chance))), None) for index in range(size))
        steps.begin()
        return steps.of(forest.first_that_fits, limits[0])

    assert steps_of(40_000) <= 1.5 * steps_of(2000)


@pytest.mark.parametrize("size", [1000, 30_000])
@pytest.mark.parametrize("batch", ["memory", "memory and cpus", "much of the one or of the other"])
def test_a_removal_takes_few_steps(batch, size):
    """On average over many searches and removals, however the leaves came."""
    steps = Steps()
    forest = filled(batch, size, steps)
    for _ in range(400):
        forest.remove(forest.first_that_fits((1000.0, 32.0)[: forest.dimensions]))
    # A removal also pays for a part of the tree that is made anew when half of it is gone.
    assert steps.count <= 400 * 2 * log2(size) ** 2


def test_one_by_one_takes_few_steps():
    """Each of many additions costs a constant times log2(n) comparisons of keys on average."""
    steps = Steps()
    whole = steps.kind(int)
    steps.begin()
    chance = random.Random(1)
    forest = Forest()
    size = 10_000
    for _ in range(size):
        forest.add((whole(chance.randrange(10**9)),), (1.0,), None)
    assert steps.count <= 4 * size * log2(size)
    assert len(forest._trees) <= log2(size) + 1


def test_the_counting_counts():
    """A walk through all of them would be seen."""
    steps = Steps()
    forest = filled("memory", 1000, steps)
    assert steps.of(lambda: [leaf for leaf in forest if leaf.demand <= (-1.0,)]) > 800


def traced(make):
    """Return what `make` returns, and the bytes that are in use for it afterwards."""
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        gc.collect()
        return made, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def planted(entries, limits):
    """Make a forest that was searched."""
    forest = Forest(len(limits))
    forest.extend(entries)
    forest.first_that_fits(limits)
    return forest


@pytest.mark.parametrize("batch", [batch for batch in BATCHES if "less" not in batch])
def test_memory_per_item(batch):
    """Under 400 bytes each, with key and demand: as many for 30 000 items as for ten thousand or a hundred."""
    demand, limits = BATCHES[batch]
    chance = random.Random(5)
    entries = (((float(index), index), demand(chance), None) for index in range(30_000))
    forest, used = traced(lambda: planted(entries, limits[0]))
    assert used / len(forest) < 400


def test_memory_in_the_worst_case():
    """Where all stand in the front, the forest itself still takes less than 300 bytes for each."""
    demand, limits = BATCHES["the less of the one the more of the other"]
    chance = random.Random(5)
    entries = [((float(index), index), demand(chance), None) for index in range(100_000)]
    forest, used = traced(lambda: planted(entries, limits[0]))
    assert used / len(forest) < 300


def test_nothing_stays_of_what_is_removed():
    """The memory goes down with the number of leaves, in whatever order they go."""
    demand, limits = BATCHES["memory and cpus"]
    chance = random.Random(5)

    def lived():
        entries = (((float(index), index), demand(chance), None) for index in range(20_000))
        forest = planted(entries, limits[0])
        for leaf in chance.sample(list(forest), 19_900):
            forest.remove(leaf)
        return forest

    forest, used = traced(lived)
    assert len(forest) == 100
    assert used < 100 * 1000
