"""What is pending, without any process: by example, by chance on a virtual clock, and the steps of a launch."""

from __future__ import annotations

import cProfile
import heapq
import itertools
import math
import random
import sys
from collections import Counter
from types import SimpleNamespace

import footprints
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from taylorism import _lanes
from taylorism._gates import Gate, Names
from taylorism._queues import Fifo, Listed, PendingQueue
from taylorism._ranked import Limits, Ranked
from taylorism._shares import Granted, share_of
from taylorism.schedulers import queue_of

NO_GATE = Gate(Names(), Names())
FILES = ("fileA", "fileB")


def make(**keys):
    """Make a scheduler as users do."""
    return footprints.proxy.scheduler(**keys)


def sets(*texts, **more):
    """Make sets of instructions of their names: ``sets("a", "b")``."""
    return [{"name": text, **more} for text in texts]


def names(batch):
    """Return the names in a batch, in order, as one text."""
    return " ".join(each["name"] for each in batch)


def worker_of(instructions):
    """Make what a scheduler sees of a worker that runs on these instructions."""
    keys = ("scheduler_ticket", "scheduler_hooks", *FILES)
    more = {key: instructions.get(key) for key in keys}
    return SimpleNamespace(name=instructions["name"], memory=float(instructions.get("memory") or 0.0), **more)


class Bench:
    """A queue and the workers that run, moved by hand."""

    def __init__(self, queue):
        self.queue = queue
        self.workers = {}

    def add(self, *batch):
        """Have more pending."""
        self.queue.add(batch)

    def turn(self, now=0.0):
        """Start what the queue gives, and return the names of that."""
        taken = self.queue.take(self.workers, now)
        for each in taken:
            self.workers[each["name"]] = worker_of(each)
            self.queue.started(each["name"], each, now)
        return names(taken)

    def end(self, *gone):
        """Let workers end."""
        for name in gone:
            del self.workers[name]
            self.queue.ended(name)


def t(name, memory=None, **more):
    """Make one set of instructions, which asks for so much memory."""
    return {"name": name, **({} if memory is None else {"memory": memory}), **more}


def memory_bench(max_memory=10.5, **keys):
    """Return a bench with the queue of a memory scheduler."""
    return Bench(make(limit="memory", max_memory=max_memory, memory_per_task=1, **keys).queue())


def files_bench(max_threads=10, **keys):
    """Return a bench with the queue of a scheduler that has files, and slots enough."""
    return Bench(make(limit="threads", max_threads=max_threads, **keys).queue())


def cpus_bench(max_cpus=8, **keys):
    """Return a bench with the queue of a cpu scheduler."""
    return Bench(make(limit="cpus", max_cpus=max_cpus, **keys).queue())


# ---------------------------------------------------------------------------------------------------------
# All kinds


def fifo():
    """Return a queue of two slots that marks nothing."""
    return Fifo(lambda workers: 2 - len(workers), lambda workers, launch: None)


def ranked(**changes):
    """Return a queue without limits that marks nothing."""
    plain = {
        "rank": lambda instructions: 0,
        "demand": lambda instructions: 1.0,
        "used": lambda worker: 1.0,
        "capacity": lambda workers: 2.0,
        "room": lambda workers: math.inf,
        "mark": lambda workers, launch, spare: None,
        "gate": NO_GATE,
    }
    return Ranked(Limits(**{**plain, **changes}))


KINDS = pytest.mark.parametrize("kind", [Listed, fifo, ranked])


@KINDS
def test_what_comes_stands_behind_what_is_there(kind):
    """In its own order; a queue knows how long it is."""
    queue = kind()
    assert (len(queue), list(queue), bool(queue)) == (0, [], False)
    first, second = sets("a", "b"), sets("c")
    queue.add(iter(first))
    queue.add(second)
    queue.add([])
    assert names(queue) == "a b c"
    assert len(queue) == 3
    assert [id(each) for each in queue] == [id(each) for each in first + second]


@KINDS
def test_what_is_put_back_stands_in_front(kind):
    """In order, and before what was put back earlier."""
    queue = kind()
    queue.add(sets("a", "b"))
    queue.put_back(sets("c", "d"))
    queue.put_back(sets("e", "f"))
    queue.put_back([])
    queue.add(sets("g"))
    assert names(queue) == "e f c d a b g"
    assert len(queue) == 7


@KINDS
def test_what_is_removed_is_gone_and_the_very_one(kind):
    """Sets are told apart by identity: equal ones stay."""
    queue = kind()
    same = [{"name": "a"} for _ in range(5)]
    queue.add(same)
    queue.remove(same[3])
    queue.remove(same[0])
    assert [id(each) for each in queue] == [id(same[at]) for at in (1, 2, 4)]
    assert len(queue) == 3


@KINDS
def test_a_queue_may_change_while_it_is_looked_at(kind):
    """The order is that of the moment when it was asked for."""
    queue = kind()
    batch = sets("a", "b", "c")
    queue.add(batch)
    seen = []
    for each in queue:
        queue.remove(each)
        seen.append(each)
    assert names(seen) == "a b c"
    assert len(queue) == 0


@pytest.mark.parametrize("kind", [fifo, ranked])
def test_removing_what_is_not_there_is_an_error(kind):
    """Taken or never there: the ledger and the queue must not drift apart unseen."""
    queue = kind()
    batch = sets("a")
    queue.add(batch)
    queue.take({}, 0.0)
    with pytest.raises(KeyError):
        queue.remove(batch[0])


def test_a_list_keeps_what_it_is_told_to():
    """The order that a user's scheduler chose."""
    queue = Listed()
    batch = sets("a", "b", "c")
    queue.add(batch)
    queue.keep([batch[2], batch[0]])
    assert names(queue) == "c a"


def test_a_queue_of_a_users_own_has_to_say_what_it_does():
    """The base class decides nothing; that workers start and end may be ignored."""
    queue = PendingQueue()
    queue.started("w", {}, 0.0)
    queue.ended("w")
    for call in (
        lambda: queue.add([]), lambda: queue.put_back([]), lambda: queue.remove({}),
        lambda: queue.take({}, 0.0), lambda: len(queue), lambda: list(queue),
    ):  # fmt: skip
        with pytest.raises(NotImplementedError):
            call()


def test_a_fifo_gives_as_many_as_there_is_room_for_and_marks_them():
    """The first ones; what starts is marked in one go."""
    marked = []
    queue = Fifo(lambda workers: 3 - len(workers), lambda workers, launch: marked.append(names(launch)))
    queue.add(sets("a", "b", "c", "d"))
    assert names(queue.take({"w": None}, 0.0)) == "a b"
    assert names(queue.take({"w": None, "v": None}, 0.0)) == "c"
    assert queue.take({"w": None, "v": None, "u": None}, 0.0) == []
    assert marked[:2] == ["a b", "c"]
    assert names(queue) == "d"


# ---------------------------------------------------------------------------------------------------------
# Ranked, by example


def test_the_lowest_rank_goes_first_and_equals_as_they_came():
    """What was put back goes before all."""
    queue = ranked(rank=lambda instructions: instructions["rank"], capacity=lambda workers: 9.0)
    for name, rank in [("a", 3), ("b", 1), ("c", 2), ("d", 1)]:
        queue.add([t(name, rank=rank)])
    queue.put_back([t("z", rank=9)])
    assert names(queue) == "z b d c a"
    assert names(queue.take({}, 0.0)) == "z b d c a"


@pytest.mark.parametrize(("strict", "taken"), [(False, "a b"), (True, "a")])
def test_a_limit_is_reached_or_not(strict, taken):
    """Strict: what is used has to stay below."""
    bench = Bench(ranked(strict=strict))
    bench.add(*sets("a", "b", "c"))
    assert bench.turn() == taken


def test_what_passes_the_first_leaves_room_for_it():
    """The first will fit when the one has ended that was there before it."""
    bench = memory_bench()
    bench.add(t("elder", 6))
    assert bench.turn() == "elder"
    bench.add(t("first", 8), t("big", 3), t("small", 2), t("another", 1))
    assert bench.turn() == "small"
    bench.end("elder")
    assert bench.turn() == "first"


def test_the_first_is_never_passed_for_ever():
    """A stream of small ones, always one running, none of which says how long it takes."""
    bench = memory_bench()
    bench.add(t("s0", 6))
    bench.turn()
    bench.add(t("first", 8), *(t(f"s{at}", 4) for at in range(1, 20)))
    started = []
    while "first" not in started:
        started += bench.turn().split()
        assert started in ([], ["first"])
        bench.end(next(iter(bench.workers)))
        started += bench.turn().split()
    assert started == ["first"]


@pytest.mark.parametrize("seconds", [None, 0, 5, 1e6])
def test_nobody_passes_elders_of_whom_nobody_knows_when_they_end(seconds):
    """Not even one that is said to be brief: the elder may end before it."""
    bench = memory_bench()
    bench.add(t("elder", 6))
    bench.turn()
    bench.add(t("first", 8), t("passing", 4, expected_time=seconds))
    assert bench.turn() == ""
    bench.end("elder")
    assert bench.turn() == "first"


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        (5, "passing"), (5.0, "passing"), ("5", "passing"), (2, "passing"), (6, ""), (None, ""), (0, ""),
        (-1, ""), (math.nan, ""), (math.inf, ""), ("soon", ""), ([1], ""),
    ],
)  # fmt: skip
def test_who_is_expected_to_end_before_the_elders_may_pass(seconds, taken):
    """A time that is none, or 0, or below it, is not known: it counts as for ever."""
    bench = memory_bench()
    bench.add(t("elder", 6, expected_time=10))
    bench.turn(now=100.0)
    bench.add(t("first", 8), t("passing", 4, expected_time=seconds))
    assert bench.turn(now=105.0) == taken


@pytest.mark.parametrize(("seconds", "taken"), [(5, "passing"), (6, ""), (50, "")])
def test_who_is_brief_may_pass_until_the_last_elder_that_is_waited_for(seconds, taken):
    """Whose end makes room for the first; those that are still there then do not matter."""
    bench = memory_bench()
    bench.add(t("short", 4, expected_time=2), t("middle", 2, expected_time=5), t("long", 1, expected_time=50))
    bench.turn()
    bench.add(t("first", 8.5), t("passing", 3, expected_time=seconds))
    assert bench.turn() == taken


def test_an_elder_that_is_overdue_lets_nobody_pass():
    """It may end at any moment."""
    bench = memory_bench()
    bench.add(t("elder", 6, expected_time=10))
    bench.turn()
    bench.add(t("first", 8), t("passing", 4, expected_time=1))
    assert bench.turn(now=11.0) == ""


def test_who_may_pass_for_a_time_and_starts_later_counts():
    """It was brief enough, but a file held it up: when it starts, it takes of what is left for the others."""
    bench = memory_bench(max_memory=20.5, exclusive="fileA")
    bench.add(t("elder", 10, expected_time=10), t("holder", 1, fileA="x", expected_time=8))
    bench.turn()
    bench.add(t("first", 15), t("passing", 5), t("brief", 4, fileA="x", expected_time=5))
    assert bench.turn(now=0.0) == "passing"
    bench.end("passing")
    bench.end("holder")
    assert bench.turn(now=8.0) == "brief"
    bench.add(t("later", 5))
    assert bench.turn(now=8.0) == ""
    bench.end("elder")
    assert bench.turn(now=10.0) == "first"


def test_another_dict_at_the_same_address_is_another_set():
    """What is noted of a set that has ended must not be found again for one that comes later."""
    bench = memory_bench(max_memory=100.5)
    bench.add(t("stays", 50), *(t(f"e{at}", 0.1) for at in range(300)), t("first", 90))
    assert len(bench.turn().split()) == 301
    bench.end(*(f"e{at}" for at in range(300)))
    # The dicts of these elders are free again, and sooner or later CPython gives the same addresses to others.
    for at in range(600):
        bench.add(t(f"n{at}", 10))
        bench.turn()
    assert set(bench.workers) == {"stays", "n0"}
    bench.end("stays")
    assert bench.turn() == "first"


def test_one_that_is_put_back_goes_before_the_first():
    """And the first waits for it too: it was ahead."""
    bench = memory_bench()
    bench.add(t("elder", 6), t("refused", 2))
    taken = bench.queue.take({}, 0.0)
    assert names(taken) == "elder refused"
    bench.workers["elder"] = worker_of(taken[0])
    bench.queue.started("elder", taken[0], 0.0)
    bench.add(t("first", 10))
    bench.queue.put_back([taken[1]])
    assert names(bench.queue) == "refused first"
    assert bench.turn() == "refused"
    bench.end("elder")
    assert bench.turn() == ""
    bench.end("refused")
    assert bench.turn() == "first"


def test_when_the_first_is_removed_the_next_one_is_waited_for():
    """What was kept free for it is free again."""
    bench = memory_bench()
    bench.add(t("elder", 6))
    bench.turn()
    first = t("first", 10)
    bench.add(first, t("second", 5), t("third", 4))
    assert bench.turn() == ""
    bench.queue.remove(first)
    assert names(bench.queue) == "second third"
    assert bench.turn() == "third"
    bench.end("elder")
    assert bench.turn() == "second"


def test_a_longer_one_that_comes_later_is_the_first_then():
    """Longest-first: the order is what it promises."""
    scheduler = make(limit="threads+memory", max_threads=4, max_memory=10, memory_per_task=1)
    bench = Bench(scheduler.queue())
    bench.add(t("elder", 6, expected_time=9))
    bench.turn()
    bench.add(t("first", 8, expected_time=5))
    assert bench.turn() == ""
    bench.add(t("longer", 3, expected_time=100), t("same", 1, expected_time=5))
    assert names(bench.queue) == "longer first same"
    assert bench.turn() == "longer same"


def test_the_head_that_waits_for_a_slot_is_next():
    """Slots limit as well; a longer one that does not fit keeps no slot from a shorter one that does."""
    scheduler = make(limit="threads+memory", max_threads=2, max_memory=10, memory_per_task=1)
    bench = Bench(scheduler.queue())
    bench.add(t("a", 6, expected_time=9), t("b", 6, expected_time=8), t("c", 2), t("d", 1))
    assert bench.turn() == "a c"
    bench.end("a")
    assert bench.turn() == "b"


# ---------------------------------------------------------------------------------------------------------
# What is held


@pytest.mark.parametrize("keys", [{"singlefile": True}, {"exclusive": FILES}, {"exclusive": list(FILES)}])
def test_two_sets_on_one_file_start_one_after_the_other(keys):
    """Also when they come in one turn, and by whichever of the names."""
    bench = files_bench(**keys)
    bench.add(t("a", fileA="x"), t("b", fileB="x"), t("c", fileA=["y", "x"]), t("d", fileB="y"), t("e"))
    assert bench.turn() == "a d e"
    assert names(bench.queue) == "b c"
    bench.end("a")
    assert bench.turn() == "b"
    bench.end("b")
    assert bench.turn() == ""
    bench.end("d")
    assert bench.turn() == "c"


def test_readers_go_together_and_a_writer_alone():
    """As many readers as there are slots."""
    bench = files_bench(exclusive="fileA", shared="fileB")
    bench.add(*(t(f"r{at}", fileB="x") for at in range(3)))
    assert bench.turn() == "r0 r1 r2"
    bench.add(t("w", fileA="x"))
    assert bench.turn() == ""
    bench.end("r0", "r2")
    assert bench.turn() == ""
    bench.end("r1")
    assert bench.turn() == "w"
    bench.add(t("r3", fileB="x"), t("r4", fileB="x"))
    assert bench.turn() == ""
    bench.end("w")
    assert bench.turn() == "r3 r4"


def test_a_writer_is_not_passed_by_readers_for_ever():
    """The first of the queue waits for those that were there before it, and for nobody else."""
    bench = files_bench(exclusive="fileA", shared="fileB")
    bench.add(t("r0", fileB="x"))
    bench.turn()
    bench.add(t("w", fileA="x"))
    for at in range(1, 6):
        bench.add(t(f"r{at}", fileB="x"))
        assert "w" in names(bench.queue)
        started = bench.turn()
        bench.end(f"r{at - 1}") if f"r{at - 1}" in bench.workers else None
        started += bench.turn()
        if "w" in started.split():
            return
    pytest.fail("readers that came later go on and on, and the writer waits")


def test_who_wants_two_files_is_not_passed_for_ever():
    """By those that want one of them each, and are never gone at the same time."""
    bench = files_bench(exclusive=FILES)
    bench.add(t("x0", fileA="x"), t("y0", fileA="y"))
    bench.turn()
    bench.add(t("both", fileA="x", fileB="y"), *(t(f"{f}{at}", fileA=f) for at in range(1, 9) for f in "xy"))
    bench.turn()
    bench.end("x0")
    bench.turn()
    bench.end("y0")
    assert bench.turn().split()[:1] == ["both"]


def test_the_value_of_the_first_is_not_taken_while_it_waits_for_memory():
    """It would fit when its elder has ended, and be held up by one that came later."""
    bench = memory_bench(exclusive="fileA")
    bench.add(t("elder", 8))
    bench.turn()
    bench.add(t("first", 7, fileA="x"), t("later", 2, fileA="x"))
    bench.turn()
    bench.end("elder")
    assert bench.turn().split()[:1] == ["first"]


def test_a_set_that_waits_for_a_file_can_be_removed_or_put_back():
    """Whether it has been looked at already or not."""
    bench = files_bench(singlefile=True)
    batch = [t(name, fileA="x") for name in "abcde"]
    bench.add(*batch)
    assert bench.turn() == "a"
    bench.queue.remove(batch[1])
    bench.queue.remove(batch[3])
    bench.queue.put_back([t("z", fileA="x")])
    assert names(bench.queue) == "z c e"
    assert len(bench.queue) == 3
    order = []
    while bench.workers:
        bench.end(*bench.workers)
        order.append(bench.turn())
    assert order == ["z", "c", "e", ""]


def test_the_last_that_waits_for_a_file_can_be_removed():
    """Nothing is left of it."""
    bench = files_bench(singlefile=True)
    batch = [t(name, fileA="x") for name in "ab"]
    bench.add(*batch)
    bench.turn()
    bench.queue.remove(batch[1])
    bench.end("a")
    assert bench.turn() == ""
    assert len(bench.queue) == 0


@pytest.mark.parametrize("value", [{"k": 1}, [["l"]], ({},), 7, 1.0, True, "text", b"bytes"])
def test_values_of_any_kind_are_waited_for(value):
    """Hashable or not."""
    bench = files_bench(singlefile=True)
    bench.add(*(t(name, fileA=value) for name in "abc"), t("d", fileA={"another": 1}))
    assert bench.turn() == "a d"
    bench.end("a")
    assert bench.turn() == "b"
    bench.end("b", "d")
    assert bench.turn() == "c"


def test_what_has_a_free_file_but_no_memory_does_not_hide_who_has_both():
    """They wait for the same file: the first of them for memory now."""
    bench = memory_bench(exclusive="fileA")
    bench.add(t("holder", 1, fileA="x"), t("hog", 6), t("big", 3, fileA="x"), t("small", 1, fileA="x"))
    assert bench.turn() == "holder hog"
    bench.add(t("other", 3))
    assert bench.turn() == "other"
    bench.end("holder")
    assert bench.turn() in {"small", ""}  # x may be kept for `big`, the first
    bench.end("hog")
    bench.turn()
    assert "big" in bench.workers or "small" in bench.workers


# ---------------------------------------------------------------------------------------------------------
# Cpus


def shares(bench):
    """Return how many cpus each running worker has."""
    return {name: share_of(worker).ncpus for name, worker in bench.workers.items()}


def test_each_has_the_cpus_that_it_asks_for():
    """One where it does not say and max_threads is not set."""
    bench = cpus_bench(8)
    bench.add(t("a", ncpus=4), t("b"), t("c", ncpus="2"), t("d", ncpus=2))
    assert bench.turn() == "a b c"
    assert shares(bench) == {"a": 4, "b": 1, "c": 2}


def test_the_free_cpus_are_shared_among_those_that_start():
    """Remainders to the first; what one asks for is its own."""
    bench = cpus_bench(8, max_threads=3)
    bench.add(t("a"), t("b"), t("c"), t("d"))
    assert bench.turn() == "a b c"
    assert shares(bench) == {"a": 3, "b": 3, "c": 2}
    bench.end("a")
    assert bench.turn() == "d"
    assert shares(bench)["d"] == 3


def test_few_that_are_pending_share_all():
    """Free slots count as far as somebody takes them."""
    bench = cpus_bench(8, max_threads=4)
    bench.add(t("a", ncpus=1), t("b"))
    assert bench.turn() == "a b"
    assert shares(bench) == {"a": 1, "b": 7}


def test_what_is_kept_for_the_first_is_not_shared():
    """Who passes it gets no more than it would leave."""
    bench = cpus_bench(8, max_threads=4)
    bench.add(t("elder", ncpus=4))
    bench.turn()
    bench.add(t("first", ncpus=6), t("passing"), t("another"))
    assert bench.turn() == "passing another"
    assert shares(bench) == {"elder": 4, "passing": 1, "another": 1}
    bench.end("elder")
    assert bench.turn() == "first"


def test_a_number_that_was_given_is_not_one_that_was_asked_for():
    """So it can be told, and taken away when the set comes back."""
    queue = make(limit="cpus", max_cpus=8, max_threads=2).queue()
    queue.add([t("a"), t("b", ncpus=3)])
    given, asked = queue.take({}, 0.0)
    assert (given["ncpus"], type(given["ncpus"])) == (5, Granted)
    assert (asked["ncpus"], type(asked["ncpus"])) == (3, int)


# ---------------------------------------------------------------------------------------------------------
# By chance, on a virtual clock

INF = math.inf


class Rules:
    """What a scheduler promises, said again from the contract: slots, one thing that is limited, values."""

    def __init__(self, keys, per_task=1):
        self.keys = keys
        limit = keys.get("limit")
        self.cap = {"memory": keys.get("max_memory"), "threads+memory": keys.get("max_memory")}.get(limit)
        self.cap = keys["max_cpus"] if limit == "cpus" else self.cap
        self.strict = limit == "memory"
        self.cpus = limit == "cpus"
        self.longest = limit == "threads+memory"
        self.slots = keys.get("max_threads", keys.get("max_cpus", INF))
        self.per_task = keys.get("memory_per_task", per_task)
        self.exclusive = FILES if "singlefile" in keys else keys.get("exclusive", ())
        self.shared = keys.get("shared", ())
        self.gated = bool(self.exclusive or self.shared)

    def rank(self, task):
        return -float(task.get("expected_time") or 0) if self.longest else 0

    def demand(self, task):
        """What a set takes of the thing that is limited."""
        if self.cap is None:
            return 0
        value = task.get("ncpus" if self.cpus else "memory")
        if isinstance(value, Granted):
            value = None
        return (1 if self.cpus else self.per_task) if value is None else value

    def used(self, worker):
        if self.cap is None:
            return 0
        return share_of(worker).ncpus if self.cpus else worker.memory or self.per_task

    def fits(self, wanted, free):
        return self.cap is None or (wanted < free if self.strict else wanted <= free)

    def claims(self, read):
        """The values that are wanted, or had: exclusive ones, shared ones."""
        found = []
        for keys in (self.exclusive, self.shared):
            values = [read(key) for key in keys]
            flat = itertools.chain.from_iterable(v if isinstance(v, list) else [v] for v in values)
            found.append({str(v) for v in flat if v is not None})
        return found

    def conflict(self, one, other):
        (mine, read), (yours, also_read) = one, other
        return bool(mine & yours or mine & also_read or read & yours)


class Machine:
    """Runs a batch under the queue of a scheduler, on a clock of its own, and looks at every turn."""

    def __init__(self, keys, story):
        self.scheduler, self.rules = make(**keys), Rules(keys)
        self.queue = self.scheduler.queue()
        self.story = story
        self.pending = []  # (key, set), in order: the model of the queue
        self.count, self.front = itertools.count(), 0
        self.workers, self.tasks, self.ends = {}, {}, []
        self.started, self.cancelled, self.failed = [], [], set()
        self.first, self.waited_for, self.until, self.expected = None, set(), INF, {}
        self.now = 0

    # -- the world ---------------------------------------------------------------------------------------

    def run(self):
        """Run until nothing is left; what could not go on would be found by the checks of a turn."""
        batch = [self.make_set(at, task) for at, task in enumerate(self.story["tasks"])]
        self.coming = sorted(batch, key=lambda each: self.arrival[each["name"]])
        cancels = sorted(self.story["cancels"])
        while self.coming or self.ends or self.pending:
            times = [self.arrival[self.coming[0]["name"]]] if self.coming else []
            times += [self.ends[0][0]] if self.ends else []
            self.now = max([self.now, min(times)]) if times else self.now
            self.end_those_due()
            self.admit()
            while cancels and cancels[0][0] <= self.now:
                self.cancel(cancels.pop(0)[1])
            self.turn()
            assert self.workers or self.coming or not self.pending, "nothing runs, and something is pending"
        ran = Counter(self.started)
        assert set(ran) | set(self.cancelled) == {each["name"] for each in batch}
        assert not set(ran) & set(self.cancelled) - self.failed
        assert all(ran[name] == (2 if name in self.failed else 1) for name in ran if name not in self.cancelled)

    def make_set(self, at, task):
        """Make instructions out of what chance says."""
        self.arrival = getattr(self, "arrival", {})
        self.duration = getattr(self, "duration", {})
        name, times = f"t{at}", self.story["times"]
        self.arrival[name], self.duration[name] = task["arrival"], task["duration"]
        made = {"name": name}
        for key in ("memory", "ncpus", *FILES):
            if task[key] is not None:
                made[key] = task[key]
        if times == "exact" or (times == "some" and at % 2):
            made["expected_time"] = task["duration"]
        elif times == "wrong":
            made["expected_time"] = task["guess"]
        if self.scheduler.never_startable(made):
            for key in ("memory", "ncpus"):
                made.pop(key, None)
        return made

    def admit(self):
        due = [each for each in self.coming if self.arrival[each["name"]] <= self.now]
        self.coming = self.coming[len(due) :]
        self.queue.add(due)
        self.pending += [((1, self.rules.rank(each), next(self.count)), each) for each in due]
        self.pending.sort(key=lambda pair: pair[0])

    def put_back(self, batch):
        for each in batch:
            for mark in ("scheduler_ticket", "scheduler_hooks"):
                del each[mark]
            if isinstance(each.get("ncpus"), Granted):
                del each["ncpus"]
        self.queue.put_back(batch)
        self.front -= len(batch)
        self.pending[:0] = [((0, 0, self.front + at), each) for at, each in enumerate(batch)]

    def cancel(self, index):
        if self.pending:
            _, each = self.pending.pop(index % len(self.pending))
            self.queue.remove(each)
            self.cancelled.append(each["name"])

    def end_those_due(self):
        again = []
        while self.ends and self.ends[0][0] <= self.now:
            _, _, name = heapq.heappop(self.ends)
            del self.workers[name]
            self.queue.ended(name)
            self.waited_for.discard(name)
            task = self.tasks.pop(name)
            if int(name[1:]) in self.story["failing"] and name not in self.failed:
                self.failed.add(name)
                again.append(task)
        self.put_back(again)

    def start(self, taken):
        """Hire workers; where the system has no room for one, the rest is put back."""
        refused = self.story["refusals"].pop(0) if self.story["refusals"] else None
        until = len(taken) if refused is None or not self.workers else min(refused, len(taken))
        for each in taken[:until]:
            name = each["name"]
            self.workers[name], self.tasks[name] = worker_of(each), each
            self.queue.started(name, each, self.now)
            self.started.append(name)
            self.expected[name] = self.end_of(each)
            heapq.heappush(self.ends, (self.now + self.duration[name], next(self.count), name))
        if taken[until:]:
            self.put_back(taken[until:])
            self.waited_for -= {each["name"] for each in taken[until:]}

    # -- what is looked at -------------------------------------------------------------------------------

    def turn(self):
        """Ask the queue, and check its answer."""
        before = [each for _, each in self.pending]
        assert [id(each) for each in self.queue] == [id(each) for each in before]
        taken = self.queue.take(self.workers, self.now)
        ids = {id(each) for each in taken}
        assert len(ids) == len(taken)
        assert ids <= {id(each) for each in before}
        self.pending = [pair for pair in self.pending if id(pair[1]) not in ids]
        left = [each for _, each in self.pending]
        assert [id(each) for each in self.queue] == [id(each) for each in left]
        assert len(self.queue) == len(left)
        self.check_marks(taken, left)
        self.check_limits(taken)
        self.follow_the_first(before, taken, left)
        self.check_idleness(taken, left)
        self.start(taken)

    def check_marks(self, taken, left):
        """Tickets of those that run are distinct and the lowest; what is kept has none."""
        held = [worker.scheduler_ticket for worker in self.workers.values()]
        free = sorted(self.scheduler._all_tickets() - set(held) - {None})
        given = [each["scheduler_ticket"] for each in taken]
        assert given == (free + [None] * len(taken))[: len(taken)]
        running = [ticket for ticket in held + given if ticket is not None]
        assert len(set(running)) == len(running)
        assert None not in given or self.rules.keys.get("nosort")
        assert not any("scheduler_ticket" in each or "scheduler_hooks" in each for each in left)
        assert not any(isinstance(each.get("ncpus"), Granted) for each in left)

    def check_limits(self, taken):
        rules = self.rules
        if not taken:
            return
        assert len(self.workers) + len(taken) <= rules.slots
        used = sum(map(rules.used, self.workers.values()))
        if rules.cap is not None:
            assert rules.fits(used + sum(map(rules.demand, taken)), rules.cap)
        if rules.cpus:
            self.check_shares(taken, used)
        everybody = [rules.claims(lambda key, w=w: getattr(w, key, None)) for w in self.workers.values()]
        everybody += [rules.claims(each.get) for each in taken]
        assert not any(rules.conflict(one, other) for one, other in itertools.combinations(everybody, 2))

    def check_shares(self, taken, used):
        """The cpus that are given are there, as many as were asked for, and shared equally."""
        given = {each["name"]: share_of(worker_of(each)).ncpus for each in taken}
        assert used + sum(given.values()) <= self.rules.cap
        granted = [given[each["name"]] for each in taken if isinstance(each["ncpus"], Granted)]
        assert all(given[each["name"]] == each["ncpus"] for each in taken)
        assert granted == sorted(granted, reverse=True)
        assert not granted or 1 <= granted[-1] <= granted[0] <= granted[-1] + 1
        if granted and "max_threads" not in self.rules.keys:
            assert set(granted) == {1}

    def follow_the_first(self, before, taken, left):
        """The first starts at the latest when those have ended whom it waits for, and not after it could have."""
        if not left:
            self.first = None
            return
        first = left[0]
        passing = taken
        if not (self.first is first and before[0] is first):
            ahead = {id(each) for each in before[: next(at for at, each in enumerate(before) if each is first)]}
            self.first = first
            self.waited_for = set(self.workers) | {each["name"] for each in taken if id(each) in ahead}
            passing = [each for each in taken if id(each) not in ahead]
            self.until = self.shadow(taken[: len(taken) - len(passing)])
        self.note_the_brief(taken, passing)
        assert self.waited_for, f"{first} waits for those that came after it: {list(self.workers)}"
        # (What is granted to sets that ask for no cpus is all that is free, when there is no slot for the first.)
        exact = self.story["times"] == "exact" and not (self.rules.cpus and "max_threads" in self.rules.keys)
        assert self.now < self.until or not exact, f"{first} was to start at {self.until}, and has been passed"

    def note_the_brief(self, taken, passing):
        """Those who pass and are expected to have ended in time are waited for, too."""
        for at, each in enumerate(taken):
            passes = any(each is other for other in passing)
            if passes and self.end_of(each) <= self.shadow(taken[:at]) < INF:
                self.waited_for.add(each["name"])

    def end_of(self, each):
        """When a set that starts now is expected to end."""
        return self.now + (float(each.get("expected_time") or 0) or INF)

    def shadow(self, taken):
        """When the first is expected to have all that it wants, where these have started in this turn."""
        rules = self.rules
        staying = {name: self.about(name) for name in self.workers}
        for each in taken:
            staying[each["name"]] = self.end_of(each), rules.demand(each), rules.claims(each.get)
        wanted, claims = rules.demand(self.first), rules.claims(self.first.get)
        for end, name in sorted((staying[name][0], name) for name in staying if name in self.waited_for):
            del staying[name]
            free = (rules.cap or 0) - sum(demand for _, demand, _ in staying.values())
            barred = any(rules.conflict(claims, held) for _, _, held in staying.values())
            if rules.fits(wanted, free) and not barred:
                return end
        return INF

    def ends_by(self, name, taken, until):
        """Whether one who is waited for will have ended when the first is to start: all, if that is unknown."""
        starting = {each["name"]: each for each in taken}
        return (self.end_of(starting[name]) if name in starting else self.expected[name]) <= until

    def about(self, name):
        """Return of a worker when it is expected to end, what it takes, and what it holds."""
        worker = self.workers[name]
        held = self.rules.claims(lambda key: getattr(worker, key, None))
        return self.expected[name], self.rules.used(worker), held

    def check_idleness(self, taken, left):
        """What is kept has no slot, does not fit, waits for a value, or would have the first wait for it."""
        rules = self.rules
        if not left or len(self.workers) + len(taken) >= rules.slots:
            return
        used = {name: rules.used(worker) for name, worker in self.workers.items()}
        used.update((each["name"], rules.demand(each)) for each in taken)
        until = self.shadow(taken)
        leaving = {name for name in used if name in self.waited_for and self.ends_by(name, taken, until)}
        staying = [used[name] for name in used if name not in leaving]
        held = [self.about(name)[2] for name in self.workers] + [rules.claims(each.get) for each in taken]
        free, first = (rules.cap or 0) - sum(used.values()), rules.claims(left[0].get)
        spare = min(free, (rules.cap or 0) - rules.demand(left[0]) - sum(staying))
        for at, each in enumerate(left):
            wanted, claims = rules.demand(each), rules.claims(each.get)
            if not rules.fits(wanted, free) or any(rules.conflict(claims, other) for other in held):
                continue
            brief = self.now < until < INF and self.end_of(each) <= until
            beside = rules.fits(wanted, spare) and not rules.conflict(claims, first)
            assert at and not brief and not beside, f"{each} could start, and {left[0]} would not be later"


def story(gated):
    """Return what may happen: a batch, and what goes wrong with it."""
    several = [["a", "b"], ["c"], ["b", "c"], ["a", "b", "c"], ["a", "c", {"k": 1}], {"k": 1}]
    values = st.sampled_from([None, None, "a", "b", "c", "d", *several]) if gated else st.none()
    task = st.fixed_dictionaries(
        {
            "duration": st.integers(1, 6),
            "guess": st.integers(0, 7),
            "arrival": st.sampled_from([0, 0, 0, 0, 1, 2, 3, 5, 8, 12]),
            "memory": st.sampled_from([None, 1, 1, 2, 3, 4, 6, 8, 10, 12]),
            "ncpus": st.sampled_from([None, None, 1, 1, 2, 3, 4, 6, 8]),
            "fileA": values,
            "fileB": values,
        }
    )
    return st.fixed_dictionaries(
        {
            "tasks": st.lists(task, min_size=1, max_size=24),
            "times": st.sampled_from(["none", "exact", "some", "wrong"]),
            "cancels": st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20)), max_size=3),
            "failing": st.sets(st.integers(0, 23), max_size=3),
            "refusals": st.lists(st.sampled_from([None, None, 0, 1, 2]), max_size=8),
        }
    )


CLAIMS = {"exclusive": ("fileA",), "shared": ("fileB",)}
WITHOUT_VALUES = [
    {"nosort": True},
    {"limit": "threads", "max_threads": 3},
    {"limit": "memory", "max_memory": 12.5, "memory_per_task": 2},
    {"limit": "threads+memory", "max_threads": 3, "max_memory": 12, "memory_per_task": 2},
    {"limit": "threads+memory", "max_threads": 6, "max_memory": 12, "memory_per_task": 2},
    {"limit": "cpus", "max_cpus": 8},
    {"limit": "cpus", "max_cpus": 8, "max_threads": 3},
    {"limit": "cpus", "max_cpus": 5, "max_threads": 8},
]
WITH_VALUES = [
    {"limit": "threads", "max_threads": 4, **CLAIMS},
    {"limit": "threads", "max_threads": 3, "exclusive": FILES},
    {"limit": "threads", "max_threads": 3, "singlefile": True},
    {"limit": "threads", "max_threads": 8, "exclusive": FILES},
    {"limit": "threads", "max_threads": 4, "shared": FILES},
    {"limit": "memory", "max_memory": 12, "memory_per_task": 2, **CLAIMS},
    {"limit": "memory", "max_memory": 30, "memory_per_task": 2, "exclusive": FILES},
    {"limit": "threads+memory", "max_threads": 6, "max_memory": 20, "memory_per_task": 2, "exclusive": FILES},
    {"limit": "threads+memory", "max_threads": 4, "max_memory": 12, "memory_per_task": 2, **CLAIMS},
    {"limit": "cpus", "max_cpus": 8, **CLAIMS},
    {"limit": "cpus", "max_cpus": 8, "max_threads": 3, "exclusive": FILES},
]


def told(keys):
    """Return a short name of some keys for a test."""
    return "-".join(str(value) for key, value in keys.items() if key not in FILES)


#: what fails is made smaller, but not explained: that takes longer than the rest
by_chance = settings(
    max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
)


@pytest.mark.parametrize("keys", WITHOUT_VALUES, ids=told)
@by_chance
@given(what=story(gated=False))
def test_limits_idleness_and_order_by_chance(keys, what):
    """No limit is exceeded; no set is lost, invented, repeated or starved; no slot is left idle."""
    Machine(keys, what).run()


@pytest.mark.parametrize("keys", WITH_VALUES, ids=told)
@by_chance
@given(what=story(gated=True))
def test_limits_idleness_and_order_by_chance_with_values(keys, what):
    """The same where values are held: the first waits for nobody who came later."""
    Machine(keys, what).run()


#: how lanes are founded and given up, other than as it is
NO_LANES_BEFOREHAND = {"_DIFFERENT": -1, "_POPULAR": 2}
BY_ONE_VALUE = {"_FEW": 1, "_DIFFERENT": 0}
EACH_BEFOREHAND = {"_FEW": 0}
HARDLY_ANY_LANES = {"_FEW": 2, "_SOME": 0, "_APART": 1, "_OPEN": 0, "_DIFFERENT": 1}


@pytest.mark.parametrize("lanes", [NO_LANES_BEFOREHAND, BY_ONE_VALUE, EACH_BEFOREHAND, HARDLY_ANY_LANES])
@pytest.mark.parametrize("keys", [WITH_VALUES[0], *WITH_VALUES[-3:]], ids=told)
def test_it_does_not_matter_where_sets_stand(monkeypatch, keys, lanes):
    """Few lanes or many, made beforehand or not: that is a matter of speed."""
    for name, value in lanes.items():
        monkeypatch.setattr(_lanes, name, value)

    @settings(by_chance, max_examples=20)
    @given(what=story(gated=True))
    def follow(what):
        Machine(keys, what).run()

    follow()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=12), st.integers(1, 5))
def test_without_another_limit_a_queue_does_what_launchable_does(arrivals, max_threads):
    """Turn by turn: the same sets with the same marks."""
    for keys in ({"nosort": True}, {"limit": "threads", "max_threads": max_threads}):
        scheduler = make(**keys)
        queue, pending, workers = scheduler.queue(), [], {}
        for wave, arriving in enumerate(arrivals):
            batch = sets(*(f"t{wave}.{at}" for at in range(arriving)))
            queue.add([dict(each) for each in batch])
            taken = queue.take(workers, 0.0)
            launch, pending = scheduler.launchable(pending + batch, workers, [])
            assert taken == launch
            assert list(queue) == pending
            workers.update((each["name"], worker_of(each)) for each in taken)
            for name in list(workers)[: len(workers) // 2]:
                del workers[name]


# ---------------------------------------------------------------------------------------------------------
# How good


def makespan(scheduler, batch):
    """Return when the last of some sets ends whose expected times are exact."""
    queue, workers, ends, now = scheduler.queue(), {}, [], 0.0
    queue.add(batch)
    while queue or ends:
        for each in queue.take(workers, now):
            workers[each["name"]] = worker_of(each)
            queue.started(each["name"], each, now)
            heapq.heappush(ends, (now + each["expected_time"], each["name"]))
        now, name = heapq.heappop(ends)
        del workers[name]
        queue.ended(name)
    return now


SHAPES = {
    "equal": lambda chance: 10.0,
    "even": lambda chance: chance.uniform(1, 100),
    "exponential": lambda chance: chance.expovariate(0.1) + 0.01,
    "long tail": lambda chance: chance.lognormvariate(0, 1),
    "two kinds": lambda chance: chance.choice([1.0, 30.0]),
    "as they come": lambda chance: float(chance.randint(1, 5)),
}


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), slots=st.integers(1, 12), wide=st.integers(15, 40))
def test_longest_first_is_within_ten_percent_of_what_is_possible(shape, seed, slots, wide):
    """On wide batches: no order ends before the mean load of a slot, or before the longest set."""
    chance = random.Random(seed)
    durations = [SHAPES[shape](chance) for _ in range(wide * slots + chance.randrange(slots))]
    scheduler = make(limit="threads+memory", max_threads=slots, max_memory=1e6, memory_per_task=1)
    bound = max(sum(durations) / slots, *durations)
    batch = [t(f"t{at}", expected_time=each) for at, each in enumerate(durations)]
    assert bound * 0.999999 <= makespan(scheduler, batch) <= bound * 1.1


def mixed(chance, shape, at):
    """Return a set that asks for memory, and claims values of which there are enough for all slots."""
    memory = chance.choice([1.0, 2.0, 5.0, 10.0, chance.uniform(0.5, 12.0)])
    files = {"fileA": chance.randrange(60), "fileB": chance.choice(["input", None])}
    return t(f"t{at}", memory, expected_time=SHAPES[shape](chance), **files)


def least_span(batch, slots, memory):
    """Return a time before which no order can end: of slots, of memory, of each value, of the longest."""
    seconds = [each["expected_time"] for each in batch]
    held = Counter()
    for each in batch:
        held[each["fileA"]] += each["expected_time"]
    area = sum(each["memory"] * each["expected_time"] for each in batch)
    return max(sum(seconds) / slots, area / memory, *held.values(), *seconds)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32), slots=st.integers(2, 10), memory=st.sampled_from([40, 60, 1000]))
def test_so_it_is_with_memory_and_values(shape, seed, slots, memory):
    """Whichever of them is scarce."""
    chance = random.Random(seed)
    batch = [mixed(chance, shape, at) for at in range(40 * slots)]
    keys = {"max_threads": slots, "max_memory": memory, "exclusive": "fileA", "shared": "fileB"}
    bound = least_span(batch, slots, memory)
    assert bound * 0.999999 <= makespan(make(limit="threads+memory", **keys), batch) <= bound * 1.1


# ---------------------------------------------------------------------------------------------------------
# How many steps

SCALED = {
    "laxist": ({"nosort": True}, lambda chance, at: {}),
    "threads": ({"limit": "threads", "max_threads": 8}, lambda chance, at: {}),
    "memory": (
        {"limit": "memory", "max_memory": 100},
        lambda chance, at: {"memory": chance.choice([5, 10, 20, 60, 90])},
    ),
    "memory, all different": (
        {"limit": "memory", "max_memory": 100},
        lambda chance, at: {"memory": chance.uniform(1, 99)},
    ),
    "longest first": (
        {"limit": "threads+memory", "max_threads": 8, "max_memory": 100},
        lambda chance, at: {"memory": chance.uniform(1, 50), "expected_time": chance.uniform(1, 1000)},
    ),
    "cpus": ({"limit": "cpus", "max_cpus": 16}, lambda chance, at: {"ncpus": chance.choice([1, 2, 4, 12])}),
    "cpus, shared": (
        {"limit": "cpus", "max_cpus": 16, "max_threads": 8},
        lambda chance, at: {"ncpus": chance.choice([None, 2, 12])},
    ),
    "singlefile, few": (
        {"limit": "threads", "max_threads": 8, "singlefile": True},
        lambda chance, at: {"fileA": chance.randrange(10)},
    ),
    "singlefile, one": (
        {"limit": "threads", "max_threads": 8, "singlefile": True},
        lambda chance, at: {"fileA": "x"},
    ),
    "singlefile, many": (
        {"limit": "threads", "max_threads": 8, "singlefile": True},
        lambda chance, at: {"fileA": at // 2},
    ),
    "readers": (
        {"limit": "threads", "max_threads": 8, **CLAIMS},
        lambda chance, at: {"fileB" if at % 4 else "fileA": "x"},
    ),
    "two of five": (
        {"limit": "threads", "max_threads": 8, "exclusive": FILES},
        lambda chance, at: {"fileA": chance.randrange(5), "fileB": chance.randrange(5)},
    ),
    "two of forty": (
        {"limit": "threads", "max_threads": 8, "exclusive": FILES},
        lambda chance, at: {"fileA": chance.randrange(40), "fileB": chance.randrange(40)},
    ),
    "three of seven": (
        {"limit": "threads", "max_threads": 8, "exclusive": "fileA"},
        lambda chance, at: {"fileA": chance.sample(range(7), 3)},
    ),
    "a licence, and an output of two": (
        {"limit": "threads", "max_threads": 8, "exclusive": FILES},
        lambda chance, at: {"fileA": "licence" if at % 3 else None, "fileB": at // 2},
    ),
    "readers that write what is theirs": (
        {"limit": "threads", "max_threads": 8, **CLAIMS},
        lambda chance, at: {"fileA": ["x", at]} if at % 20 == 0 else {"fileA": at, "fileB": "x"},
    ),
    "memory, one of four": (
        {"limit": "memory", "max_memory": 100, "exclusive": "fileA"},
        lambda chance, at: {"fileA": chance.randrange(4), "memory": chance.uniform(1, 60)},
    ),
    "memory, two of five": (
        {"limit": "memory", "max_memory": 100, "exclusive": FILES},
        lambda chance, at: {
            "fileA": chance.randrange(5), "fileB": chance.randrange(5), "memory": chance.uniform(1, 60),
        },
    ),
    "cpus, and brief ones": (
        {"limit": "cpus", "max_cpus": 16, "exclusive": "fileA"},
        lambda chance, at: {
            "fileA": chance.randrange(6), "ncpus": chance.choice([1, 2, 12]),
            "expected_time": chance.uniform(1, 99),
        },
    ),
}


class Steps:
    """Counts the lines that are executed: each round of a loop, also of those written in one line."""

    def __init__(self):
        self.count = 0

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *about):
        sys.settrace(self.before)

    def _trace(self, frame, event, arg):
        self.count += 1
        return self._trace


def drained(kind, size, counter, limit=None):
    """Return the steps that each launch takes, `limit` of them or all, where `size` sets are pending at first."""
    keys, about = SCALED[kind]
    chance = random.Random(7)
    queue, workers, launched = make(**keys).queue(), {}, 0
    queue.add([{"name": f"t{at}", **about(chance, at)} for at in range(size)])
    order = random.Random(1)

    def launch(until):
        nonlocal launched
        while queue and launched < until:
            if workers:
                name = order.choice(list(workers))
                del workers[name]
                queue.ended(name)
            launched += len(turn_of(queue, workers))

    if limit is not None:
        launch(60)  # the first turns may look at more, once for all
        launched = 0
    with counter as steps:
        launch(limit or INF)
    return steps, max(launched, 1)


def turn_of(queue, workers):
    """Start what may start."""
    taken = queue.take(workers, 0.0)
    for each in taken:
        workers[each["name"]] = worker_of(each)
        queue.started(each["name"], each, 0.0)
    return taken


def calls(kind, size):
    """Return the calls of functions, those of built-in ones too, that a launch takes where all is launched."""
    profile, launched = drained(kind, size, cProfile.Profile())
    return sum(entry.callcount for entry in profile.getstats()) / launched


def lines(kind, size):
    """Return the lines that a launch takes while about so many are pending."""
    steps, launched = drained(kind, size, Steps(), limit=40)
    return steps.count / launched


@pytest.mark.parametrize("kind", SCALED)
def test_a_launch_takes_about_as_many_calls_with_sixteen_times_as_many_pending(kind):
    """From the first to the last of a batch: what is done now and then is counted in."""
    few, many = calls(kind, 100), calls(kind, 1600)
    assert many <= 1.5 * few, (few, many)


@pytest.mark.parametrize("kind", list(SCALED)[1:])
def test_a_launch_takes_about_as_many_lines_with_sixteen_times_as_many_pending(kind):
    """No loop goes over all that is pending."""
    few, many = lines(kind, 1000), lines(kind, 16_000)
    assert many <= 1.5 * few, (few, many)


def test_taking_back_what_waits_for_a_file_takes_no_longer_where_more_wait():
    """So 100 000 sets can be cancelled."""

    def steps_each(size):
        queue, workers = files_bench(singlefile=True).queue, {}
        batch = [t(f"t{at}", fileA="x") for at in range(size)]
        queue.add(batch)
        turn_of(queue, workers)
        with Steps() as steps:
            for each in batch[100:140]:
                queue.remove(each)
        return steps.count / 40

    few, many = steps_each(500), steps_each(8000)
    assert many <= 1.5 * few, (few, many)


def test_a_worker_that_lacks_the_attribute_holds_the_value_all_the_same():
    """The queue keeps what the instructions claimed: the class may not have the attribute, or as another type."""
    scheduler = footprints.proxy.scheduler(limit="threads", max_threads=4, exclusive="disk")
    queue = queue_of(scheduler)
    one, other = {"name": "one", "disk": "A"}, {"name": "other", "disk": "A"}
    queue.add([one, other])
    assert queue.take({}, 0.0) == [one]
    queue.started("one", one, 0.0)
    running = {"one": SimpleNamespace(name="one", memory=0.0, scheduler_ticket=0)}
    assert queue.take(running, 1.0) == []
    queue.ended("one")
    assert queue.take({}, 2.0) == [other]


def test_who_is_brief_may_pass_in_the_turn_in_which_the_elders_start():
    """They have no names yet; when they are expected to end is known all the same."""
    bench = memory_bench(max_memory=1000.5)
    bench.add(t("elder", 600, expected_time=100), t("first", 900), t("brief", 300, expected_time=1))
    assert bench.turn(now=0.0) == "elder brief"


def test_a_claim_is_read_once():
    """When the set comes in; not when its worker starts, nor at any turn."""
    read = []

    class Counting(Gate):
        def claim(self, read_of):
            read.append(read_of)
            return super().claim(read_of)

    bench = Bench(ranked(gate=Counting(Names("fileA"), Names()), capacity=lambda workers: 9.0))
    bench.add(t("a", fileA="x"), t("b", fileA="x"), t("c"))
    assert [bench.turn(), bench.turn()] == ["a c", ""]
    bench.end("a")
    assert bench.turn() == "b"
    assert len(read) == 3


def test_who_passes_does_not_make_the_first_later_where_times_are_known():
    """It would fit beside the first when all have ended, but not when the first is to start."""
    bench = memory_bench(max_memory=12.5)
    bench.add(t("one", 2, expected_time=1), t("two", 2, expected_time=2), t("other", 2, expected_time=2))
    bench.turn()
    bench.add(t("first", 8), t("long", 2, expected_time=2), t("brief", 2, expected_time=1), t("small", 0.4))
    assert bench.turn() == "small brief"
    bench.end("one", "brief")
    assert bench.turn(now=1.0) == "first"


@pytest.mark.parametrize(("seconds", "taken"), [(5, "third"), (6, "")])
def test_any_brief_one_may_pass_not_only_the_next_that_fits(seconds, taken):
    """It is searched for."""
    bench = memory_bench()
    bench.add(t("elder", 6, expected_time=5))
    bench.turn()
    bench.add(t("first", 8), t("second", 4, expected_time=9), t("third", 4, expected_time=seconds))
    assert bench.turn() == taken


def test_a_brief_one_may_even_have_what_the_first_waits_for():
    """It gives it back in time."""
    bench = memory_bench(exclusive="fileA")
    bench.add(t("elder", 6, expected_time=5))
    bench.turn()
    bench.add(t("first", 8, fileA="x"), t("long", 1, fileA="x", expected_time=9))
    bench.add(t("brief", 4, fileA="x", expected_time=5))
    assert bench.turn() == "brief"
    bench.end("elder", "brief")
    assert bench.turn(now=5.0) == "first"
