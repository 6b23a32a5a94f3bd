"""The schedulers, without any process: by example, and by chance on a virtual clock."""

from __future__ import annotations

import builtins
import copy
import functools
import heapq
import itertools
import logging
import os
import pickle
import resource
import subprocess
import sys
import time
import types
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import footprints
import numpy as np
import pytest
from forked import in_fork
from hypothesis import given
from hypothesis import strategies as st

from taylorism import _cpus, _memory, schedulers
from taylorism._errors import TaylorismError
from taylorism._queues import Fifo, Listed
from taylorism._ranked import Ranked
from taylorism._shares import CpuShare, share_of
from taylorism.schedulers import (
    MAX_NUMBER_PROCESSES,
    BaseScheduler,
    BindingAwareScheduler,
    SchedulerValueError,
    binding_setup,
    is_ours,
    queue_of,
)


def make(**keys):
    """Make a scheduler as users do."""
    return footprints.proxy.scheduler(**keys)


def worker(name="w", memory=0.0, ticket=None, **more):
    """Make what a scheduler sees of a running worker."""
    return SimpleNamespace(name=name, memory=memory, scheduler_ticket=ticket, **more)


def running(*workers):
    """Make the dict of the running workers."""
    return {w.name: w for w in workers}


def sets(n, **more):
    """Make n sets of instructions."""
    return [{"name": f"t{i}", **more} for i in range(n)]


def names(batch):
    """Return the names in a batch, in order."""
    return [instructions["name"] for instructions in batch]


# --------------------------------------------------------------------------------------------------
# Names, keys, defaults


@pytest.mark.parametrize(
    ("keys", "cls"),
    [
        ({"nosort": True}, "NewLaxistScheduler"),
        ({"laxist": True}, "NewLaxistScheduler"),
        ({"unsorted": True}, "NewLaxistScheduler"),
        ({"limit": "threads", "max_threads": 2}, "NewMaxThreadsScheduler"),
        ({"limit": "processes", "maxpc": 2}, "NewMaxThreadsScheduler"),
        ({"limit": "threads", "maxthreads": "2", "binded": True}, "NewMaxThreadsScheduler"),
        ({"limit": "memory"}, "NewMaxMemoryScheduler"),
        ({"limit": "mem", "max_memory": 10}, "NewMaxMemoryScheduler"),
        ({"limit": "threads+memory", "max_threads": 2}, "LongerFirstScheduler"),
        ({"limit": "threads", "singlefile": True, "maxpc": 2}, "NewSingleOpenFileScheduler"),
    ],
)
def test_the_keys_choose_the_class(keys, cls):
    """Each row of the table, with the aliases."""
    scheduler = make(**keys)
    assert type(scheduler) is getattr(schedulers, cls)
    assert scheduler.identity == "anonymous"
    assert make(identity="mine", **keys).identity == "mine"


@pytest.mark.parametrize(
    "keys",
    [
        {"limit": "threads"},
        {"limit": "threads+memory"},
        {"limit": "nonsense", "max_threads": 2},
        {"limit": "threads", "max_threads": "many"},
        {"nosort": False},
    ],
)
def test_keys_that_match_no_class_give_none(keys, capsys):
    """As in 1.1: footprints says why on stdout."""
    assert make(**keys) is None


def test_remapped_values_read_as_their_main_name():
    """'processes' is 'threads' and 'mem' is 'memory'."""
    assert make(limit="processes", max_threads=1).limit == "threads"
    assert make(limit="mem").limit == "memory"


def test_attributes_and_defaults_of_the_memory_scheduler():
    """The figures that the contract states, and max_memory found out in floating-point MiB."""
    scheduler = make(limit="memory")
    assert scheduler.memory_per_task == 2048.0
    assert scheduler.memory_max_percentage == 0.75
    assert scheduler.binded is False
    assert scheduler.max_memory == pytest.approx(0.75 * _memory.usable_memory())
    scheduler.max_memory = "100"
    assert scheduler.max_memory == 100.0


def test_the_fraction_is_taken_of_what_is_usable(monkeypatch):
    """Under a memory limit of 1000 MiB, half is 500."""
    monkeypatch.setattr(_memory, "usable_memory", lambda: 1000.0)
    assert make(limit="memory", memory_max_percentage=0.5).max_memory == 500.0
    assert make(limit="threads+memory", max_threads=1).max_memory == 750.0
    assert make(limit="memory", max_memory=3000).max_memory == 3000.0


def test_a_memory_that_cannot_be_found_has_to_be_given(monkeypatch):
    """The error says what to give; with it there is none."""

    def fail():
        raise OSError("no idea")

    monkeypatch.setattr(_memory, "usable_memory", fail)
    with pytest.raises(OSError, match="NewMaxMemoryScheduler: no idea; give max_memory, in MiB"):
        make(limit="memory")
    assert make(limit="memory", max_memory=10).max_memory == 10


@pytest.mark.parametrize("zero", [0, "0", 0.0])
@pytest.mark.parametrize(
    "keys",
    [{"limit": "threads"}, {"limit": "threads+memory"}, {"limit": "threads", "singlefile": 1}],
)
def test_zero_slots_mean_half_of_the_cpus_at_that_moment(monkeypatch, keys, zero):
    """Read as the resolved number; counted when the scheduler is made, not at import."""
    monkeypatch.setattr(_cpus, "default_width", lambda: 7)
    scheduler = make(max_threads=zero, **keys)
    assert scheduler.max_threads == 7
    assert scheduler._all_tickets() == set(range(7))
    with pytest.raises(AttributeError):
        scheduler.max_threads = 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_on_one_cpu_there_is_one_slot():
    """1.1 had none there, and waited for ever."""
    mask = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mask)})
    try:
        scheduler = make(limit="threads", max_threads=0)
    finally:
        os.sched_setaffinity(0, mask)
    assert scheduler.max_threads == 1
    launch, keep = scheduler.launchable(sets(2), {}, [])
    assert (names(launch), names(keep)) == (["t0"], ["t1"])


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"limit": "threads", "max_threads": -1}, "NewMaxThreadsScheduler: max_threads=-1 .* 1 or"),
        ({"limit": "threads+memory", "max_threads": -2}, "LongerFirstScheduler: max_threads=-2"),
        ({"limit": "memory", "max_memory": -5}, "max_memory=-5.0 .* MiB above 0"),
        ({"limit": "memory", "max_memory": 0}, "max_memory=0.0"),
        ({"limit": "memory", "max_memory": float("nan")}, "max_memory=nan"),
        ({"limit": "memory", "memory_per_task": -1}, "memory_per_task=-1.0"),
        ({"limit": "memory", "memory_max_percentage": 0}, "memory_max_percentage=0.0 .* fraction"),
    ],
)
def test_nonsense_is_refused_at_once(keys, text):
    """The error names the class, the attribute, the value and what is accepted."""
    with pytest.raises(ValueError, match=text) as caught:
        make(**keys)
    assert isinstance(caught.value, TaylorismError)
    assert caught.value.key in keys
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.key) == (
        SchedulerValueError,
        str(caught.value),
        caught.value.key,
    )


def test_the_base_classes_cannot_be_made():
    """They are there to be inherited from."""
    for cls in (BaseScheduler, schedulers.NewLimitedScheduler):
        with pytest.raises(footprints.FootprintInvalidDefinition):
            cls(limit="threads")


def test_the_names_of_the_module():
    """All that 1.1 published is there."""
    assert set(schedulers.__all__) >= {
        "BaseScheduler", "NewLaxistScheduler", "NewLimitedScheduler", "NewMaxThreadsScheduler",
        "NewMaxMemoryScheduler", "LongerFirstScheduler", "NewSingleOpenFileScheduler",
        "BindingAwareScheduler", "binding_setup", "MAX_NUMBER_PROCESSES", "LaxistScheduler",
        "MaxThreadsScheduler", "MaxMemoryScheduler", "SingleOpenFileScheduler",
    }  # fmt: skip
    assert all(hasattr(schedulers, name) for name in schedulers.__all__)
    assert MAX_NUMBER_PROCESSES == 512


def test_importing_the_module_is_light():
    """Neither numpy nor matplotlib is loaded, nothing is printed."""
    code = (
        "import sys, taylorism.schedulers\n"
        "sys.exit(' '.join({'numpy', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "keys",
    [
        {"nosort": True},
        {"limit": "threads", "max_threads": 3, "binded": True},
        {"limit": "memory", "max_memory": 5000},
        {"limit": "threads+memory", "max_threads": 3, "max_memory": 5000},
        {"limit": "threads", "singlefile": True, "max_threads": 3},
    ],
)
@pytest.mark.parametrize(
    "copier", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_schedulers_can_be_copied_and_sent(keys, copier):
    """A listener that is not forked gets its scheduler by pickling."""
    scheduler = make(**keys)
    again = copier(scheduler)
    assert type(again) is type(scheduler)
    assert again.footprint_as_dict() == scheduler.footprint_as_dict()
    batch = sets(5, memory=1000.0, fileA="a")
    mine, theirs = (s.launchable(copy.deepcopy(batch), {}, []) for s in (scheduler, again))
    assert mine == theirs


class UnsetScheduler(BaseScheduler):
    """A user's scheduler that has an attribute without a value."""

    _footprint: ClassVar = {
        "attr": {
            "unsetkind": {"values": ["unset"]},
            "deadline": {"optional": True, "type": float},
        },
    }


def test_an_attribute_without_a_value_is_none_after_pickling():
    """footprints' marker is known by its identity, which pickle does not keep."""
    scheduler = make(unsetkind="unset")
    assert scheduler.deadline is None
    assert pickle.loads(pickle.dumps(scheduler)).deadline is None


# --------------------------------------------------------------------------------------------------
# What all have in common

ALL = [
    {"nosort": True},
    {"limit": "threads", "max_threads": 3},
    {"limit": "memory", "max_memory": 5000},
    {"limit": "threads+memory", "max_threads": 3, "max_memory": 5000},
    {"limit": "threads", "singlefile": True, "max_threads": 3},
]


@pytest.mark.parametrize("keys", ALL)
def test_the_callers_list_is_untouched(keys):
    """Same dicts in the same order; those that are kept say what they said, both lists are new."""
    pending = [
        {"name": f"t{i}", "expected_time": i % 3, "memory": 900 + i, "fileA": i % 4}
        for i in range(12)
    ]
    before, texts = list(pending), [repr(p) for p in pending]
    launch, keep = make(**keys).launchable(pending, {}, [])
    assert launch
    assert [id(p) for p in pending] == [id(p) for p in before]
    assert launch is not pending
    assert keep is not pending
    launched = {id(p) for p in launch}
    for instructions, text in zip(pending, texts, strict=True):
        if id(instructions) not in launched:
            assert repr(instructions) == text
        else:
            assert set(instructions) - {"scheduler_ticket", "scheduler_hooks"} == set(before[0]) - {
                "scheduler_ticket",
                "scheduler_hooks",
            }


@pytest.mark.parametrize("keys", ALL)
def test_nothing_pending_launches_nothing(keys):
    """An empty turn is two empty lists."""
    assert make(**keys).launchable([], running(worker()), []) == ([], [])


@pytest.mark.parametrize("keys", ALL)
def test_a_decision_needs_no_clock_and_no_system(keys, monkeypatch):
    """The same schedulers run on a virtual clock: they may not look at the real world."""
    scheduler = make(**keys)

    def fail(*_, **__):
        raise AssertionError("the scheduler looked outside")

    with monkeypatch.context() as patch:
        for module, name in [
            (time, "time"), (time, "monotonic"), (time, "perf_counter"), (builtins, "open"),
            (os, "cpu_count"), (os, "getpid"), (os, "environ"), (Path, "read_text"),
            (_cpus, "usable_cpus"), (_memory, "usable_memory"),
        ]:  # fmt: skip
            patch.setattr(module, name, fail)
        launch, keep = scheduler.launchable(sets(9, memory=900.0), running(worker()), [])
        reason = scheduler.never_startable({"memory": 10.0})
    assert len(launch) + len(keep) == 9
    assert reason is None


@pytest.mark.parametrize("keys", ALL)
def test_a_hundred_thousand_sets_are_one_pass(keys):
    """No step is quadratic: this takes minutes if one is."""
    scheduler = make(**keys)
    launch, keep = scheduler.launchable(sets(100_000, memory=900.0, fileA="a"), {}, [])
    assert len(launch) + len(keep) == 100_000


# --------------------------------------------------------------------------------------------------
# Tickets and hooks


def test_tickets_are_the_lowest_free_ones():
    """Slots 0 and 2 are taken, 1 and 3 are free."""
    workers = running(worker("a", ticket=0), worker("b", ticket=2))
    launch, _ = make(limit="threads", max_threads=4).launchable(sets(5), workers, [])
    assert [p["scheduler_ticket"] for p in launch] == [1, 3]


@pytest.mark.parametrize(
    "keys",
    [
        {"limit": "threads", "max_threads": sys.maxsize},
        {"limit": "threads", "max_threads": sys.maxsize, "exclusive": "file"},
        {"limit": "threads", "max_threads": sys.maxsize, "singlefile": True},
        {"limit": "threads+memory", "max_threads": sys.maxsize},
        {"limit": "cpus", "max_cpus": 10**9},
        {"limit": "cpus", "max_cpus": 10**9, "binded": True},
        {"limit": "cpus", "max_cpus": 3, "max_threads": sys.maxsize},
    ],
)
def test_a_huge_limit_costs_nothing(keys):
    """It is how somebody says that there is none; with a set of all slots, the memory of the machine was full."""

    def check():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
        scheduler = make(**keys)
        launch, _ = scheduler.launchable(sets(2, memory=1.0), running(worker(ticket=0, memory=1.0)), [])
        queue = queue_of(scheduler)
        queue.add(sets(2, memory=1.0))
        taken = queue.take(running(worker(ticket=1, memory=1.0)), 0.0)
        return [each["scheduler_ticket"] for each in (*launch, *taken)]

    assert in_fork(check) == [1, 2, 0, 2]


def test_a_worker_without_a_ticket_takes_none():
    """A stranger among the workers takes a place, but not a slot."""
    launch, _ = make(limit="threads", max_threads=3).launchable(sets(3), running(worker()), [])
    assert [p["scheduler_ticket"] for p in launch] == [0, 1]


def test_there_is_no_ticket_where_there_are_no_slots():
    """The laxist scheduler has none at all."""
    launch, keep = make(laxist=True).launchable(sets(3), running(worker("a")), [])
    assert [p["scheduler_ticket"] for p in launch] == [None] * 3
    assert keep == []


def test_the_slots_of_the_memory_scheduler_run_out():
    """After 512 of them, the ticket is None."""
    launch, _ = make(limit="memory", max_memory=1e6).launchable(sets(514, memory=1), {}, [])
    assert [p["scheduler_ticket"] for p in launch] == [*range(512), None, None]


def test_hooks_are_a_list_of_their_own_for_each_set():
    """Nobody's list is changed by a change to another's."""
    launch, _ = make(limit="threads", max_threads=2, binded=True).launchable(sets(2), {}, [])
    first, second = (p["scheduler_hooks"] for p in launch)
    assert first == second == [binding_setup]
    assert first is not second


@pytest.mark.parametrize("keys", ALL[1:])
def test_only_binded_schedulers_bind(keys):
    """binded=False is the default."""
    assert make(**keys)._workers_hooks() == []
    assert make(binded=True, **keys)._workers_hooks() == [binding_setup]


@BindingAwareScheduler
class BindingScheduler(BaseScheduler):
    """A user's scheduler that can bind, with a hook of its own."""

    _footprint: ClassVar = {
        "attr": {
            "bindingkind": {"values": ["user"]},
            "binded": {"type": bool, "optional": True, "default": False},
        },
    }

    def _workers_hooks(self):
        return ["mine"]


def test_the_decorator_adds_to_the_hooks_of_a_class():
    """What the class had comes first; a class without `binded` just keeps what it had."""
    assert make(bindingkind="user")._workers_hooks() == ["mine"]
    assert make(bindingkind="user", binded=True)._workers_hooks() == ["mine", binding_setup]


def test_the_decorator_can_be_applied_twice():
    """To a class whose parent has it."""
    again = BindingAwareScheduler(type("Again", (BindingScheduler,), {"__module__": __name__}))
    scheduler = again(bindingkind="user", binded=True)
    assert scheduler._workers_hooks() == ["mine", binding_setup]


@pytest.mark.parametrize(("ticket", "cpu"), [(0, 4), (1, 8), (2, 6), (3, 4), (7, 8)])
def test_a_worker_is_bound_to_the_cpu_of_its_slot(monkeypatch, ticket, cpu):
    """The cpus are used in the order of the sockets, and again from the first."""
    bound = []
    monkeypatch.setattr(_cpus, "socketpacked", lambda: [4, 8, 6])
    monkeypatch.setattr(_cpus, "bind", bound.append)
    monkeypatch.setattr(_cpus, "require_affinity", lambda: None)
    binding_setup(worker(ticket=ticket))
    assert bound == [cpu]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_binding_for_real():
    """The calling process runs on one cpu afterwards, one that it was allowed before."""
    mask = os.sched_getaffinity(0)
    expected = _cpus.socketpacked()[-1]
    try:
        binding_setup(worker(ticket=len(mask) * 3 - 1))
        assert os.sched_getaffinity(0) == {expected}
    finally:
        os.sched_setaffinity(0, mask)


def test_a_worker_without_a_slot_is_not_bound(monkeypatch, caplog):
    """It runs anywhere, and the log says so."""
    monkeypatch.setattr(_cpus, "bind", lambda cpu: pytest.fail("bound"))
    binding_setup(worker("lonely"))
    assert "lonely" in caplog.text


def test_binding_is_refused_at_once_where_there_is_none(monkeypatch):
    """On macOS, when the scheduler is made, with what to do."""
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(OSError, match="binded=False"):
        make(limit="threads", max_threads=2, binded=True)
    with pytest.raises(OSError, match="binded=False"):
        binding_setup(worker(ticket=0))
    assert make(limit="threads", max_threads=2).max_threads == 2


# --------------------------------------------------------------------------------------------------
# Threads


def test_threads_launches_the_first_ones():
    """Three slots, one taken: two start, in order."""
    launch, keep = make(limit="threads", max_threads=3).launchable(sets(4), running(worker()), [])
    assert (names(launch), names(keep)) == (["t0", "t1"], ["t2", "t3"])


def test_threads_may_be_overfull():
    """More workers than slots (max_threads was the user's own business before): nothing starts."""
    workers = running(worker("a"), worker("b"), worker("c"))
    launch, keep = make(limit="threads", max_threads=1).launchable(sets(5), workers, [])
    assert (launch, len(keep)) == ([], 5)


# --------------------------------------------------------------------------------------------------
# Memory


def memory_turn(memories, workers=(), **keys):
    """Return the names launched of sets with these memories, 'x' for one that does not say."""
    pending = [{"name": f"t{i}", "memory": m} for i, m in enumerate(memories)]
    for instructions in pending:
        if instructions["memory"] == "x":
            del instructions["memory"]
    launch, keep = make(limit="memory", **keys).launchable(pending, running(*workers), [])
    assert sorted(names(launch) + names(keep)) == sorted(names(pending))
    return names(launch)


def test_memory_stays_below_the_limit():
    """Strictly: 60 + 40 is not below 100, 60 + 39 is."""
    assert memory_turn([60, 40, 39], max_memory=100) == ["t0", "t2"]


def test_a_set_that_does_not_fit_lets_smaller_ones_pass():
    """In order, each one that fits."""
    assert memory_turn([50, 80, 30, 30, 10], max_memory=100) == ["t0", "t2", "t4"]


def test_a_set_that_does_not_say_counts_memory_per_task():
    """So does None; a 0 in the instructions is a 0."""
    keys = {"max_memory": 100, "memory_per_task": 45}
    assert memory_turn(["x", None, "x", 0, 9], **keys) == ["t0", "t1", "t3", "t4"]


def test_a_running_worker_of_no_memory_counts_memory_per_task():
    """0 is what a Worker has that was not told."""
    workers = [worker("a", memory=0.0), worker("b", memory=20.0)]
    assert memory_turn([35, 34], workers, max_memory=100, memory_per_task=45) == ["t1"]


def test_nothing_starts_once_the_memory_is_used_up():
    """Not even a set of 0 MiB: the sum has to stay below the limit."""
    assert memory_turn([0, 1], [worker(memory=100)], max_memory=100) == []


@pytest.mark.parametrize(
    "half", [50, 50.0, "50", " 5e1 ", np.float32(50), np.int64(50), np.array(50.0), True + 49]
)
def test_any_number_is_understood(half):
    """Text, numpy scalars, integers: two of 50 do not stay below 100."""
    assert memory_turn([half, half, 49], max_memory=100) == ["t0", "t2"]


@pytest.mark.parametrize(
    "bad", ["much", "", "512 MB", -1, float("nan"), [5], 1j, object(), 10**400]
)
@pytest.mark.parametrize("keys", [{"limit": "memory"}, {"limit": "threads+memory", "maxpc": 2}])
def test_a_bad_memory_is_an_error_that_names_it(keys, bad):
    """The set, the value, what is accepted; the same when the set comes in."""
    scheduler = make(max_memory=100, **keys)
    instructions = {"name": "the guilty one", "memory": bad, "other": 7}
    for call in (
        lambda: scheduler.launchable([instructions], {}, []),
        lambda: scheduler.never_startable(instructions),
    ):
        with pytest.raises(ValueError, match=r"worker 'the guilty one'.*a number of MiB") as caught:
            call()
        text = str(caught.value)
        assert f"memory={repr(bad)[:100]}" in text
        assert "'other': 7" in text
        assert caught.value.key == "memory"


def test_a_huge_set_is_not_printed_whole():
    """The message stays readable; a set without a name is told by its keys."""
    scheduler = make(limit="memory", max_memory=100)
    instructions = {"memory": "bad", "data": list(range(100_000))}
    with pytest.raises(SchedulerValueError) as caught:
        scheduler.launchable([instructions], {}, [])
    assert len(str(caught.value)) < 2000
    assert "memory='bad'" in str(caught.value)


# --------------------------------------------------------------------------------------------------
# Longest first


def longest_turn(pending, workers=(), **keys):
    """Return the names launched and kept of sets given as (expected_time, memory)."""
    batch = [{"name": f"t{i}", "expected_time": t, "memory": m} for i, (t, m) in enumerate(pending)]
    scheduler = make(limit="threads+memory", **keys)
    launch, keep = scheduler.launchable(batch, running(*workers), [])
    return names(launch), names(keep)


def test_the_longest_go_first():
    """And stay in order among equals; what is kept is in that order too."""
    pending = [(1, 0), (5, 0), (3, 0), (5, 0), (None, 0), (-1, 0)]
    turn = longest_turn(pending, max_threads=3, max_memory=100)
    assert turn == (["t1", "t3", "t2"], ["t0", "t4", "t5"])


def test_longest_first_may_use_up_the_memory():
    """At most, not below: 60 + 40 is 100; then a set of 0 MiB still fits."""
    turn = longest_turn([(9, 60), (8, 41), (7, 40), (6, 0)], max_threads=9, max_memory=100)
    assert turn == (["t0", "t2", "t3"], ["t1"])


def test_longest_first_has_both_limits():
    """One slot is taken; the running worker, of no memory, counts memory_per_task."""
    keys = {"max_threads": 3, "max_memory": 100, "memory_per_task": 30}
    turn = longest_turn([(1, 10), (2, 71), (3, None), (4, 1), (5, 1)], [worker()], **keys)
    assert turn == (["t4", "t3"], ["t2", "t1", "t0"])


def test_longest_first_with_too_much_running():
    """Workers above the memory or the slots: nothing starts."""
    busy = [worker("a", memory=150)]
    assert longest_turn([(1, 0)], busy, max_threads=5, max_memory=100) == ([], ["t0"])
    assert longest_turn([(1, 0)], busy, max_threads=1, max_memory=999) == ([], ["t0"])


@pytest.mark.parametrize("bad", ["long", float("nan"), [1]])
def test_a_bad_expected_time_is_an_error_that_names_it(bad):
    """The set, the value, what is accepted; the same when the set comes in."""
    scheduler = make(limit="threads+memory", max_threads=2, max_memory=100)
    instructions = {"name": "slow", "expected_time": bad}
    with pytest.raises(SchedulerValueError, match=r"worker 'slow'.*expected_time=.*seconds"):
        scheduler.launchable([instructions], {}, [])
    with pytest.raises(SchedulerValueError, match="expected_time"):
        scheduler.never_startable(instructions)


def test_expected_times_of_several_kinds_are_compared_as_numbers():
    """'10' is longer than 9."""
    pending = [("10", 0), (9, 0), (np.float64(11), 0), (float("inf"), 0)]
    turn = longest_turn(pending, max_threads=4, max_memory=1)
    assert turn == (["t3", "t2", "t0", "t1"], [])


# --------------------------------------------------------------------------------------------------
# Never startable


@pytest.mark.parametrize(
    ("keys", "memory", "startable"),
    [
        ({"limit": "memory"}, 99.5, True),
        ({"limit": "memory"}, 100, False),
        ({"limit": "memory"}, "101", False),
        ({"limit": "memory"}, None, False),
        ({"limit": "memory", "memory_per_task": 99}, None, True),
        ({"limit": "threads+memory", "maxpc": 1}, 100, True),
        ({"limit": "threads+memory", "maxpc": 1}, 100.5, False),
        ({"limit": "threads+memory", "maxpc": 1}, None, False),
    ],
)
def test_what_can_never_start_is_told_beforehand(keys, memory, startable):
    """By a sentence with both numbers; it agrees with what launchable does on an empty machine."""
    scheduler = make(max_memory=100, **keys)
    instructions = {"name": "big", "memory": memory}
    reason = scheduler.never_startable(instructions)
    launch, _ = scheduler.launchable([instructions], {}, [])
    assert bool(launch) is startable
    assert (reason is None) is startable
    if reason:
        assert "100 MiB" in reason
        assert f"{float(memory or 2048):g} MiB" in reason
        assert "raise max_memory" in reason
        assert ("memory_per_task" in reason) is (memory is None)


@pytest.mark.parametrize("keys", [ALL[0], ALL[1], ALL[4]])
def test_without_a_memory_limit_everything_can_start(keys):
    """Whatever it declares."""
    assert make(**keys).never_startable({"memory": 1e99}) is None


@pytest.mark.parametrize("keys", ALL)
def test_ours_are_told_from_users_schedulers_by_the_module(keys):
    """The listener asks never_startable only where launchable is ours."""
    assert is_ours(make(**keys)) and is_ours(make(**keys).queue())
    assert type(make(**keys)).__module__ == "taylorism.schedulers"


# --------------------------------------------------------------------------------------------------
# Files


def file_turn(files, workers=(), max_threads=10):
    """Return the names launched of sets with these (fileA, fileB); None leaves it out."""
    pending = [
        {"name": f"t{i}"} | {k: v for k, v in zip(("fileA", "fileB"), pair, strict=True) if v}
        for i, pair in enumerate(files)
    ]
    scheduler = make(limit="threads", singlefile=True, max_threads=max_threads)
    launch, keep = scheduler.launchable(pending, running(*workers), [])
    assert names(keep) == [n for n in names(pending) if n not in names(launch)]
    return names(launch)


def test_two_sets_on_one_file_do_not_start_in_one_turn():
    """1.1 looked at the running workers only."""
    assert file_turn([("a", "b"), ("a", "c"), ("d", "e")]) == ["t0", "t2"]


def test_the_two_keys_name_the_same_files():
    """fileA of one is fileB of the other; both keys of one set may name one file."""
    assert file_turn([("a", "a"), ("b", "a"), ("b", "c"), ("c", "d")]) == ["t0", "t2"]


def test_a_file_of_a_running_worker_is_waited_for():
    """Also by its fileB."""
    workers = [worker(fileA="x", fileB="y")]
    assert file_turn([("y", "b"), ("a", "x"), ("c", "d")], workers) == ["t2"]


def test_slots_limit_as_well():
    """Waiting for a file takes no slot."""
    files = [("a", None), ("a", None), ("b", None), ("c", None)]
    assert file_turn(files, max_threads=2) == ["t0", "t2"]
    assert file_turn(files, [worker(fileA="z", fileB="z")], max_threads=2) == ["t0"]


def test_a_set_without_files_holds_none():
    """1.1 raised KeyError; one key of the two is enough too."""
    assert file_turn([(None, None), (None, "a"), (None, None), ("a", None)]) == ["t0", "t1", "t2"]


def test_a_worker_of_another_class_holds_no_file():
    """It has neither attribute, or they are not set."""
    workers = [worker("a"), worker("b", fileA=None, fileB=None)]
    assert file_turn([("x", None)], workers) == ["t0"]


def test_none_is_no_file():
    """Two sets with fileB=None share nothing."""
    pending = [{"name": "a", "fileA": 1, "fileB": None}, {"name": "b", "fileA": 2, "fileB": None}]
    launch, _ = make(limit="threads", singlefile=True, maxpc=5).launchable(pending, {}, [])
    assert names(launch) == ["a", "b"]


def test_values_of_any_kind_are_compared():
    """Lists are not hashable, and equal to a hashable list of footprints; arrays have no truth."""
    array = np.arange(3)
    hashable = footprints.FPList(["l"])
    assert file_turn([(["l"], None), (["l"], None), (hashable, None), (["m"], None)]) == [
        "t0",
        "t3",
    ]
    assert file_turn([(hashable, None), (["l"], None)]) == ["t0"]
    pending = [{"name": n, "fileA": array} for n in "ab"] + [{"name": "c", "fileA": np.arange(3)}]
    launch, _ = make(limit="threads", singlefile=True, maxpc=5).launchable(pending, {}, [])
    assert names(launch) == ["a", "c"]


def test_a_path_is_the_text_that_it_becomes_in_the_worker():
    """footprints makes text of it."""
    assert file_turn([(Path("d/f"), None), ("d/f", None)]) == ["t0"]
    assert file_turn([(Path("d/f"), None)], [worker(fileA="d/f")]) == []


# --------------------------------------------------------------------------------------------------
# Schedulers of users, written for 1.1


class UserScheduler(BaseScheduler):
    """A base class of a user's own, as 1.1 taught it."""

    _abstract = True
    _footprint: ClassVar = {"attr": {"limit": {"values": ["every-other"]}}}

    def launchable(self, pending_instructions, workers, report):
        raise NotImplementedError


class EveryOtherScheduler(UserScheduler):
    """One in two, with slots of its own."""

    _footprint: ClassVar = {"attr": {"step": {"type": int, "optional": True, "default": 2}}}

    def _all_tickets(self):
        return {10, 20, 30}

    def _workers_hooks(self):
        return ["hook"]

    def launchable(self, pending_instructions, workers, report):
        launchable = self._assign_tickets(workers, pending_instructions[:: self.step])
        return launchable, pending_instructions[1 :: self.step]


class PoliteScheduler(schedulers.NewMaxThreadsScheduler):
    """Ours, with a rule of the user's before it, and one slot more."""

    _footprint: ClassVar = {"attr": {"limit": {"values": ["polite"]}}}

    def _all_tickets(self):
        return super()._all_tickets() | {99}

    def launchable(self, pending_instructions, workers, report):
        ready = [p for p in pending_instructions if p.get("ready")]
        launchable, late = super().launchable(ready, workers, report)
        return launchable, [p for p in pending_instructions if not p.get("ready")] + late


def test_a_scheduler_of_a_user():
    """Its own keys choose it; its slots and hooks are given out."""
    scheduler = make(limit="every-other")
    assert type(scheduler) is EveryOtherScheduler
    launch, keep = scheduler.launchable(sets(7), running(worker(ticket=20)), [])
    assert names(launch) == ["t0", "t2", "t4", "t6"]
    assert [p["scheduler_ticket"] for p in launch] == [10, 30, None, None]
    assert launch[0]["scheduler_hooks"] == ["hook"]
    assert names(keep) == ["t1", "t3", "t5"]
    assert scheduler.launchable.__module__ != "taylorism.schedulers"
    assert scheduler.never_startable({"memory": 1e99}) is None


def test_a_user_extends_one_of_ours():
    """super().launchable() does its part, with the slots that the subclass has."""
    scheduler = make(limit="polite", max_threads=2)
    assert type(scheduler) is PoliteScheduler
    pending = [{"name": f"t{i}", "ready": i % 2} for i in range(6)]
    launch, keep = scheduler.launchable(pending, {}, [])
    assert (names(launch), names(keep)) == (["t1", "t3"], ["t0", "t2", "t4", "t5"])
    workers = running(worker("a", ticket=0), worker("b", ticket=1))
    assert scheduler._assign_tickets(workers, [{}]) == [
        {"scheduler_ticket": 99, "scheduler_hooks": []}
    ]


def test_a_scheduler_without_launchable_says_so():
    """The message names the class and what it has to do."""
    with pytest.raises(NotImplementedError, match="UnsetScheduler has no launchable"):
        make(unsetkind="unset").launchable([], {}, [])


# --------------------------------------------------------------------------------------------------
# Deprecated names


@pytest.mark.parametrize(
    ("old", "args", "cls", "values"),
    [
        ("LaxistScheduler", (), "NewLaxistScheduler", {"nosort": True}),
        ("MaxThreadsScheduler", (3,), "NewMaxThreadsScheduler", {"max_threads": 3}),
        (
            "MaxMemoryScheduler", (0.5, 1000), "NewMaxMemoryScheduler",
            {"max_memory": 500.0, "memory_max_percentage": 0.5},
        ),
        (
            "SingleOpenFileScheduler", (4,), "NewSingleOpenFileScheduler",
            {"max_threads": 4, "singlefile": True},
        ),
    ],
)  # fmt: skip
def test_deprecated_names_warn_and_delegate(caplog, old, args, cls, values):
    """A warning in the log, no other; every attribute is that of the scheduler behind."""
    with caplog.at_level(logging.WARNING):
        scheduler = getattr(schedulers, old)(*args)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("taylorism.schedulers", "WARNING")
    assert old in record.getMessage()
    assert "deprecated" in record.getMessage()
    assert "footprints.proxy.scheduler(" in record.getMessage()
    assert scheduler.footprint_clsname() == cls
    assert {key: getattr(scheduler, key) for key in values} == values
    assert scheduler.identity == "anonymous"
    assert is_ours(scheduler)
    assert scheduler.never_startable({"memory": 1.0}) is None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = scheduler.nonsense


def test_defaults_of_the_deprecated_names(monkeypatch):
    """Half of the cpus, three quarters of the memory."""
    monkeypatch.setattr(_cpus, "default_width", lambda: 5)
    monkeypatch.setattr(_memory, "usable_memory", lambda: 1000.0)
    assert schedulers.MaxThreadsScheduler().max_threads == 5
    assert schedulers.SingleOpenFileScheduler(max_threads=0).max_threads == 5
    assert schedulers.MaxMemoryScheduler().max_memory == 750.0
    assert schedulers.MaxMemoryScheduler(max_memory_percentage=0.1).max_memory == 100.0
    assert schedulers.MaxMemoryScheduler(total_system_memory=10).max_memory == 7.5


@pytest.mark.parametrize(
    "copier", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_deprecated_scheduler_can_be_copied_and_sent(copier):
    """Copies look for special methods on an object that is still empty."""
    again = copier(schedulers.MaxThreadsScheduler(2))
    launch, keep = again.launchable(sets(3), {}, [])
    assert (names(launch), names(keep)) == (["t0", "t1"], ["t2"])


# --------------------------------------------------------------------------------------------------
# By chance, on a virtual clock

memories = st.one_of(st.none(), st.integers(0, 12), st.integers(1, 9).map(str))
files = st.sampled_from([None, "a", "b", "c", ["l"], ["m"], 7])
tasks = st.lists(
    st.fixed_dictionaries(
        {
            "duration": st.integers(1, 5),
            "memory": memories,
            "expected_time": st.one_of(st.none(), st.integers(0, 3)),
            "fileA": files,
            "fileB": files,
        }
    ),
    max_size=25,
)


class Machine:
    """Runs a batch under a scheduler, on a clock of its own, and looks at every turn."""

    def __init__(self, scheduler, batch, check, arrivals=1):
        self.scheduler, self.check = scheduler, check
        self.batch = [{"name": f"t{i}", **task} for i, task in enumerate(batch)]
        self.waves = [self.batch[i::arrivals] for i in range(arrivals)]
        self.pending, self.workers, self.ends, self.launched = [], {}, [], []
        self.now, self.order = 0, itertools.count()

    def run(self):
        """Run until nothing is left that can start; return what is still pending."""
        while self.waves or self.ends:
            if self.waves:
                self.pending = self.pending + self.waves.pop(0)
            else:
                self.finish_one()
            self.turn()
        return self.pending

    def finish_one(self):
        """Let the next worker end."""
        self.now, _, name = heapq.heappop(self.ends)
        del self.workers[name]

    def turn(self):
        """Ask the scheduler, twice, and check what it must not change."""
        before, frozen = list(self.pending), copy.deepcopy(self.pending)
        again = self.scheduler.launchable(copy.deepcopy(self.pending), self.workers, [])
        launch, keep = self.scheduler.launchable(self.pending, self.workers, [])
        assert (launch, keep) == again
        assert all(one is other for one, other in zip(self.pending, before, strict=True))
        assert Counter(map(id, launch + keep)) == Counter(map(id, before))
        texts = {p["name"]: p for p in frozen}
        assert all(p == texts[p["name"]] for p in keep)
        self.check_tickets(launch)
        self.check(self, launch, keep)
        self.pending = keep
        for instructions in launch:
            self.start(instructions)

    def check_tickets(self, launch):
        """The lowest free slots, in order, then None."""
        taken = {w.scheduler_ticket for w in self.workers.values()}
        free = sorted(self.scheduler._all_tickets() - taken - {None})
        expected = (free + [None] * len(launch))[: len(launch)]
        assert [p["scheduler_ticket"] for p in launch] == expected

    def start(self, p):
        """Make a worker as footprints would."""
        self.workers[p["name"]] = worker(
            p["name"],
            float(p["memory"] or 0),
            p["scheduler_ticket"],
            fileA=p["fileA"],
            fileB=p["fileB"],
        )
        self.launched.append(p["name"])
        heapq.heappush(self.ends, (self.now + p["duration"], next(self.order), p["name"]))


def everything_ran(machine):
    """Tell that the batch was run whole, each task once."""
    return Counter(machine.launched) == Counter(names(machine.batch))


def per_task(memory, default):
    """Count the memory of a set as the contract does."""
    return default if memory is None else float(memory)


@given(tasks, st.integers(1, 5), st.integers(1, 3))
def test_threads_by_chance(batch, max_threads, arrivals):
    """Never too many, never an idle slot, in order; all run once."""

    def check(machine, launch, keep):
        busy = len(machine.workers) + len(launch)
        assert busy <= max_threads
        assert busy == max_threads or not keep
        assert launch + keep == machine.pending

    machine = Machine(make(limit="threads", max_threads=max_threads), batch, check, arrivals)
    assert machine.run() == []
    assert everything_ran(machine)


@given(tasks, st.integers(1, 3))
def test_laxist_by_chance(batch, arrivals):
    """All at once."""

    def check(machine, launch, keep):
        assert keep == []

    machine = Machine(make(nosort=True), batch, check, arrivals)
    assert machine.run() == []
    assert everything_ran(machine)


@given(tasks, st.integers(1, 15), st.integers(0, 6), st.integers(1, 3))
def test_memory_by_chance(batch, max_memory, default, arrivals):
    """Below the limit at every launch; what is kept does not fit; what is left never would."""

    def check(machine, launch, keep):
        used = sum(w.memory or default for w in machine.workers.values())
        asked = [per_task(p["memory"], default) for p in launch]
        total = used + sum(asked)
        assert total < max_memory or not launch
        assert all(total + per_task(p["memory"], default) >= max_memory for p in keep)
        assert launch == [p for p in machine.pending if p in launch]
        assert keep == [p for p in machine.pending if p not in launch]

    scheduler = make(limit="memory", max_memory=max_memory, memory_per_task=default)
    machine = Machine(scheduler, batch, check, arrivals)
    left = machine.run()
    assert all(scheduler.never_startable(p) for p in left)
    assert not any(scheduler.never_startable(p) for p in machine.batch if p not in left)
    assert Counter(machine.launched + names(left)) == Counter(names(machine.batch))


@given(tasks, st.integers(1, 5), st.integers(1, 15), st.integers(0, 6), st.integers(1, 3))
def test_longest_first_by_chance(batch, max_threads, max_memory, default, arrivals):
    """Within both limits; no slot is idle that something pending could use; longest first."""

    def length(p):
        return -(p["expected_time"] or 0)

    def check(machine, launch, keep):
        used = sum(w.memory or default for w in machine.workers.values())
        free = max_memory - used - sum(per_task(p["memory"], default) for p in launch)
        slots = max_threads - len(machine.workers) - len(launch)
        assert (free >= 0 and slots >= 0) or not launch
        assert slots <= 0 or all(per_task(p["memory"], default) > free for p in keep)
        ordered = sorted(machine.pending, key=length)
        assert launch == [p for p in ordered if p in launch]
        assert keep == [p for p in ordered if p not in launch]

    scheduler = make(
        limit="threads+memory", max_threads=max_threads, max_memory=max_memory,
        memory_per_task=default,
    )  # fmt: skip
    machine = Machine(scheduler, batch, check, arrivals)
    left = machine.run()
    assert all(scheduler.never_startable(p) for p in left)
    assert not any(scheduler.never_startable(p) for p in machine.batch if p not in left)
    assert Counter(machine.launched + names(left)) == Counter(names(machine.batch))


@given(tasks, st.integers(1, 5), st.integers(1, 3))
def test_files_by_chance(batch, max_threads, arrivals):
    """Never two on one file, never too many; what is kept waits for a file or for a slot."""

    def held(things):
        return [{repr(f) for f in pair if f is not None} for pair in things]

    def check(machine, launch, keep):
        after = held((w.fileA, w.fileB) for w in machine.workers.values())
        after += held((p["fileA"], p["fileB"]) for p in launch)
        assert all(a.isdisjoint(b) for a, b in itertools.combinations(after, 2))
        assert len(after) <= max_threads
        busy = set().union(*after)
        waiting = held((p["fileA"], p["fileB"]) for p in keep)
        assert len(after) == max_threads or not any(w.isdisjoint(busy) for w in waiting)
        assert keep == [p for p in machine.pending if p not in launch]

    scheduler = make(limit="threads", singlefile=True, max_threads=max_threads)
    machine = Machine(scheduler, batch, check, arrivals)
    assert machine.run() == []
    assert everything_ran(machine)


# --------------------------------------------------------------------------------------------------
# Cpus


def cpus_turn(asked, workers=(), **keys):
    """Return the names launched with their cpus, and those kept, of sets with these ncpus."""
    pending = [{"name": f"t{i}"} | ({} if n is None else {"ncpus": n}) for i, n in enumerate(asked)]
    launch, keep = make(limit="cpus", **keys).launchable(pending, running(*workers), [])
    assert all("ncpus" not in p or p["ncpus"] in asked for p in keep)
    shares = [share_of(SimpleNamespace(**p)).ncpus for p in launch]
    assert shares == [p["ncpus"] for p in launch]
    return {p["name"]: n for p, n in zip(launch, shares, strict=True)}, names(keep)


def test_cpus_chooses_its_class_and_counts_what_there_is(monkeypatch):
    """0 is all that may be used, and reads as that number."""
    monkeypatch.setattr(_cpus, "usable_cpus", lambda: 6)
    scheduler = make(limit="cpus")
    assert type(scheduler) is schedulers.MaxCpusScheduler
    assert (scheduler.max_cpus, scheduler.max_threads, scheduler.binded) == (6, None, False)
    assert make(limit="cpus", max_cpus="0").max_cpus == 6
    assert make(limit="cpus", max_cpus=20, maxpc=3).max_threads == 3
    assert scheduler._all_tickets() == set(range(6))
    assert make(limit="cpus", max_cpus=20, maxpc=3)._all_tickets() == {0, 1, 2}


@pytest.mark.parametrize(
    ("keys", "text"),
    [({"max_cpus": -1}, "max_cpus=-1 .* 1 or"), ({"max_threads": -1}, "MaxCpusScheduler: max_threads=-1")],
)
def test_cpus_refuses_nonsense(keys, text):
    """The error names the class, the attribute, the value and what is accepted."""
    with pytest.raises(SchedulerValueError, match=text):
        make(limit="cpus", **{"max_cpus": 2, **keys})


@pytest.mark.parametrize("bad", [0, -1, 1.5, "many", float("nan"), float("inf"), [2]])
def test_a_bad_ncpus_is_an_error_that_names_it(bad):
    """The set, the value, what is accepted; the same when the set comes in, to a list or to a queue."""
    scheduler = make(limit="cpus", max_cpus=4)
    instructions = {"name": "the guilty one", "ncpus": bad}
    for call in (
        lambda: scheduler.launchable([instructions], {}, []),
        lambda: scheduler.never_startable(instructions),
        lambda: scheduler.queue().add([instructions]),
    ):
        with pytest.raises(SchedulerValueError, match=r"the guilty one.*a whole number") as caught:
            call()
        assert caught.value.key == "ncpus"


def test_each_set_has_the_cpus_that_it_asks_for():
    """Never more than there are; a smaller one passes; one each where nothing is said."""
    assert cpus_turn([4, None, 4, 3, "1"], max_cpus=8) == ({"t0": 4, "t1": 1, "t3": 3}, ["t2", "t4"])


def test_running_workers_have_theirs():
    """By the hook that they were given, whatever they declare; by what they declare without it."""
    workers = [worker("a", ncpus=7, scheduler_hooks=[CpuShare(2)]), worker("b", ncpus=3), worker("c")]
    assert cpus_turn([3, 2], workers, max_cpus=8) == ({"t1": 2}, ["t0"])


@pytest.mark.parametrize(
    ("asked", "keys", "expected"),
    [
        ([None] * 5, {"max_threads": 3}, {"t0": 3, "t1": 3, "t2": 2}),
        ([None] * 2, {"max_threads": 3}, {"t0": 4, "t1": 4}),
        ([None], {"max_threads": 3}, {"t0": 8}),
        ([2, None, None], {"max_threads": 3}, {"t0": 2, "t1": 3, "t2": 3}),
        ([None] * 9, {"max_threads": 20}, {f"t{i}": 1 for i in range(8)}),
        ([None] * 3, {}, {"t0": 1, "t1": 1, "t2": 1}),
    ],
)
def test_free_cpus_are_shared_where_the_slots_are_limited(asked, keys, expected):
    """Equally among those that start together, remainders to the first."""
    assert cpus_turn(asked, max_cpus=8, **keys)[0] == expected


def test_slots_limit_cpus_as_well():
    """However many cpus are free."""
    launched, kept = cpus_turn([1, 1, 1], [worker("a", ticket=0)], max_cpus=8, max_threads=2)
    assert (launched, kept) == ({"t0": 1}, ["t1", "t2"])


def test_more_cpus_than_there_are_can_never_start():
    """The sentence has both numbers."""
    scheduler = make(limit="cpus", max_cpus=4)
    reason = scheduler.never_startable({"ncpus": 5})
    assert "5" in reason
    assert "4" in reason
    assert "raise max_cpus" in reason
    assert scheduler.never_startable({"ncpus": 4}) is None
    assert scheduler.never_startable({}) is None


def test_binded_cpus_are_neighbours_and_nobody_elses(monkeypatch):
    """Those of running workers are taken; the others are given out in the order of the topology."""
    monkeypatch.setattr(_cpus, "require_affinity", lambda: None)
    monkeypatch.setattr(_cpus, "compact", lambda: [0, 2, 4, 6, 1, 3])
    scheduler = make(limit="cpus", max_cpus=6, binded=True)
    workers = running(worker("a", scheduler_hooks=[CpuShare(2, (2, 4))]))
    launch, _ = scheduler.launchable([{"name": "t0", "ncpus": 2}, {"name": "t1"}], workers, [])
    assert [share_of(SimpleNamespace(**p)).cpus for p in launch] == [(0, 6), (1,)]
    unbound, _ = make(limit="cpus", max_cpus=6).launchable(sets(1), {}, [])
    assert share_of(SimpleNamespace(**unbound[0])).cpus == ()


# --------------------------------------------------------------------------------------------------
# What is held, for every limit

GATED = [
    {"limit": "threads", "max_threads": 9},
    {"limit": "memory", "max_memory": 5000, "memory_per_task": 10},
    {"limit": "threads+memory", "max_threads": 9, "max_memory": 5000, "memory_per_task": 10},
    {"limit": "cpus", "max_cpus": 9},
]
NEW = [
    {"limit": "cpus", "max_cpus": 4},
    {"limit": "cpus", "max_cpus": 4, "max_threads": 3},
    *({**keys, "exclusive": "fileA", "shared": ("fileB",)} for keys in GATED),
]


@pytest.mark.parametrize("keys", GATED)
def test_writers_go_alone_and_readers_together(keys):
    """Within one turn, and beside those that run; lists of values, too."""
    scheduler = make(**keys, exclusive="fileA", shared=["fileB"])
    pending = [
        {"name": "w0", "fileA": "x"},
        {"name": "w1", "fileA": "x"},
        {"name": "r0", "fileB": "x"},
        {"name": "r1", "fileB": ["y", "z"]},
        {"name": "r2", "fileB": ("z",)},
        {"name": "w2", "fileA": ["q", "z"]},
        {"name": "e0"},
        {"name": "r3", "fileB": "held"},
    ]
    launch, keep = scheduler.launchable(pending, running(worker(fileA=["held"])), [])
    assert names(launch) == ["w0", "r1", "r2", "e0"]
    assert names(keep) == ["w1", "r0", "w2", "r3"]
    launch, keep = scheduler.launchable(keep, running(worker(fileB="x"), worker("v", fileB="z")), [])
    assert names(launch) == ["r0", "r3"]
    assert names(keep) == ["w1", "w2"]


@pytest.mark.parametrize("keys", GATED)
@pytest.mark.parametrize("names_given", ["fileA", ["fileA"], ("fileA", "other")])
def test_names_of_attributes_are_given_as_one_or_several(keys, names_given):
    """As a text, a list or a tuple; they read as a tuple and survive being sent."""
    scheduler = pickle.loads(pickle.dumps(make(**keys, exclusive=names_given)))
    assert scheduler.exclusive[:1] == ("fileA",)
    assert scheduler.shared == ()
    launch, _ = scheduler.launchable(sets(2, fileA="x"), {}, [])
    assert names(launch) == ["t0"]


def test_singlefile_is_exclusive_in_two_names():
    """And may be told others, or readers."""
    keys = {"limit": "threads", "singlefile": True, "max_threads": 3}
    assert make(**keys).exclusive == ("fileA", "fileB")
    scheduler = make(**keys, exclusive="disk", shared="fileA")
    launch, _ = scheduler.launchable([*sets(2, fileA="x"), {"name": "w", "disk": "x"}], {}, [])
    assert names(launch) == ["t0", "t1"]


def pending_is_untouched(keys):
    """Tell what test_the_callers_list_is_untouched does, where a launched set may also get its number of cpus."""
    pending = [{"name": f"t{i}", "memory": 900, "fileA": i % 4} for i in range(12)]
    before, texts = list(pending), [repr(p) for p in pending]
    launch, keep = make(**keys).launchable(pending, {}, [])
    assert launch
    assert all(one is other for one, other in zip(pending, before, strict=True))
    assert Counter(map(id, launch + keep)) == Counter(map(id, before))
    assert [repr(p) for p in keep] == [text for p, text in zip(before, texts, strict=True) if p in keep]
    added = {"scheduler_ticket", "scheduler_hooks", "ncpus"}
    assert all(set(p) - added == {"name", "memory", "fileA"} for p in launch)


@pytest.mark.parametrize("keys", NEW)
def test_the_new_ones_are_as_pure(keys, monkeypatch):
    """Same dicts in the same order, what is kept says what it said; no clock and no system."""
    pending_is_untouched(keys)
    test_nothing_pending_launches_nothing(keys)
    test_a_decision_needs_no_clock_and_no_system(keys, monkeypatch)


@pytest.mark.parametrize("keys", NEW)
def test_a_hundred_thousand_sets_are_one_pass_of_the_new_ones(keys):
    """No step is quadratic: this takes minutes if one is."""
    test_a_hundred_thousand_sets_are_one_pass(keys)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from([None, 1, 2, 3, 5]), files, files), max_size=20),
    st.integers(5, 8),
    st.sampled_from([None, 1, 3, 9]),
    st.integers(1, 3),
)
def test_cpus_by_chance(rows, max_cpus, max_threads, arrivals):
    """Within cpus, slots and files at every launch; what is kept has one of them in its way; all run once."""
    batch = [
        {"duration": d, "memory": None, "fileA": a, "fileB": b} | ({} if n is None else {"ncpus": n})
        for d, n, a, b in rows
    ]

    def values(of):
        return ({repr(of(key)) for key in (name,) if of(key) is not None} for name in ("fileA", "fileB"))

    def clash(one, other):
        (writes, reads), (also_writes, also_reads) = one, other
        return writes & (also_writes | also_reads) or reads & also_writes

    def check(machine, launch, keep):
        slots = max_cpus if max_threads is None else max_threads
        assert len(machine.workers) + len(launch) <= slots
        shares = [share_of(w).ncpus for w in machine.workers.values()]
        shares += [share_of(SimpleNamespace(**p)).ncpus for p in launch]
        assert sum(shares) <= max_cpus
        held = [tuple(values(lambda key, w=w: getattr(w, key, None))) for w in machine.workers.values()]
        held += [tuple(values(p.get)) for p in launch]
        assert not any(clash(one, other) for one, other in itertools.combinations(held, 2))
        full = len(machine.workers) + len(launch) == slots
        for p in keep:
            hindered = any(clash(tuple(values(p.get)), other) for other in held)
            assert full or hindered or p.get("ncpus", 1) > max_cpus - sum(shares)

    class CpuMachine(Machine):
        def start(self, p):
            super().start(p)
            self.workers[p["name"]].scheduler_hooks = p["scheduler_hooks"]

        def turn(self):
            """Ask once: what is compared by value is compared by identity here."""
            launch, keep = self.scheduler.launchable(self.pending, self.workers, [])
            assert Counter(map(id, launch + keep)) == Counter(map(id, self.pending))
            self.check_tickets(launch)
            self.check(self, launch, keep)
            self.pending = keep
            for each in launch:
                self.start(each)

    claims = {"exclusive": "fileA", "shared": "fileB"}
    scheduler = make(limit="cpus", max_cpus=max_cpus, max_threads=max_threads, **claims)
    machine = CpuMachine(scheduler, batch, check, arrivals)
    assert machine.run() == []
    assert everything_ran(machine)


# --------------------------------------------------------------------------------------------------
# Queues


class OwnQueue(Listed):
    """A queue of a user's own."""


class FastScheduler(BaseScheduler):
    """A user's, with a queue and no launchable."""

    _footprint: ClassVar = {"attr": {"fastkind": {"values": ["fast"]}}}

    def queue(self):
        return OwnQueue()


class FastAndOldScheduler(UserScheduler):
    """A user's, with both, one below the other."""

    _footprint: ClassVar = {"attr": {"limit": {"values": ["fast-and-old"]}}}

    def launchable(self, pending_instructions, workers, report):
        return [], pending_instructions

    def queue(self):
        return OwnQueue()


class WithUnrelatedQueue(UserScheduler):
    """A user's from before there were queues, which means something else by that word."""

    _footprint: ClassVar = {
        "attr": {"limit": {"values": ["unrelated"]}, "queue": {"optional": True, "default": "normal"}}
    }

    def launchable(self, pending_instructions, workers, report):
        return pending_instructions, []


class Holder:
    """Not a scheduler of ours at all: anything that has a launchable is one."""

    def launchable(self, pending_instructions, workers, report):
        return pending_instructions, []

    def queue(self):
        return OwnQueue()


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (ALL[0], Fifo), (ALL[1], Fifo), (ALL[2], Ranked), (ALL[3], Ranked), (ALL[4], Ranked),
        *((keys, Ranked) for keys in NEW),
    ],
)  # fmt: skip
def test_all_of_ours_have_a_queue(keys, kind):
    """A new one each time; also when the scheduler has been sent."""
    scheduler = make(**keys)
    assert type(queue_of(scheduler)) is kind
    assert queue_of(scheduler) is not queue_of(scheduler)
    assert type(queue_of(pickle.loads(pickle.dumps(scheduler)))) is kind


def test_who_overrides_launchable_is_asked_for_it():
    """A subclass of ours, a mixin before one of ours, and one level further down."""

    class Mixin:
        def launchable(self, pending_instructions, workers, report):
            return [], pending_instructions

    class MixedScheduler(Mixin, schedulers.NewMaxThreadsScheduler):
        _footprint: ClassVar = {"attr": {"limit": {"values": ["mixed"]}}}

    class PoliteToo(PoliteScheduler):
        _footprint: ClassVar = {"attr": {"limit": {"values": ["polite-too"]}}}

    try:
        assert queue_of(make(limit="polite", max_threads=2)) is None
        assert queue_of(make(limit="polite-too", max_threads=2)) is None
        assert queue_of(make(limit="mixed", max_threads=2)) is None
        assert queue_of(make(limit="every-other")) is None
        assert queue_of(make(unsetkind="unset")) is None
    finally:
        for cls in (MixedScheduler, PoliteToo):
            footprints.collectors.get(tag="scheduler").discard(cls)


@pytest.mark.parametrize("bound", [False, True])
def test_a_launchable_that_is_set_on_the_object_is_asked(bound):
    """Whether it was made a method of it or not."""

    def hold_all(self, pending_instructions, workers, report):
        return [], pending_instructions

    scheduler = make(limit="threads", max_threads=2)
    ask = types.MethodType(hold_all, scheduler) if bound else functools.partial(hold_all, scheduler)
    object.__setattr__(scheduler, "launchable", ask)
    assert queue_of(scheduler) is None


def test_a_queue_of_a_users_own_is_used():
    """With a launchable beside it or without."""
    assert type(queue_of(make(fastkind="fast"))) is OwnQueue
    assert type(queue_of(make(limit="fast-and-old"))) is OwnQueue


def test_a_subclass_that_changes_both_has_its_queue():
    """The queue is no less than the launchable of the same class."""

    class BothScheduler(schedulers.NewMaxThreadsScheduler):
        _footprint: ClassVar = {"attr": {"limit": {"values": ["both"]}}}

        def launchable(self, pending_instructions, workers, report):
            return super().launchable(pending_instructions, workers, report)

        def queue(self):
            return OwnQueue()

    try:
        assert type(queue_of(make(limit="both", max_threads=1))) is OwnQueue
    finally:
        footprints.collectors.get(tag="scheduler").discard(BothScheduler)


def test_slots_and_hooks_of_a_subclass_are_those_of_its_queue():
    """Who overrides only these keeps the fast path."""

    class SlotsScheduler(schedulers.NewMaxThreadsScheduler):
        _footprint: ClassVar = {"attr": {"limit": {"values": ["slots"]}}}

        def _all_tickets(self):
            return {7, 8}

        def _workers_hooks(self):
            return ["hook"]

    try:
        queue = queue_of(make(limit="slots", max_threads=2))
        queue.add(sets(3))
        taken = queue.take({}, 0.0)
    finally:
        footprints.collectors.get(tag="scheduler").discard(SlotsScheduler)
    assert [(p["scheduler_ticket"], p["scheduler_hooks"]) for p in taken] == [(7, ["hook"]), (8, ["hook"])]


def test_what_is_no_queue_is_none():
    """An attribute or a method of that name means what it meant; launchable is asked."""
    assert queue_of(make(limit="unrelated")) is None
    assert queue_of(Holder()) is None
    assert queue_of(SimpleNamespace(launchable=lambda *args: None)) is None


def test_deprecated_names_have_the_queue_of_what_is_behind():
    """A subclass of one that has a launchable of its own is asked for that."""

    class Mine(schedulers.MaxThreadsScheduler):
        def launchable(self, pending_instructions, workers, report):
            return [], pending_instructions

    assert type(queue_of(schedulers.LaxistScheduler())) is Fifo
    assert type(queue_of(schedulers.MaxThreadsScheduler(2))) is Fifo
    assert type(queue_of(schedulers.MaxMemoryScheduler(0.5, 1000))) is Ranked
    assert type(queue_of(schedulers.SingleOpenFileScheduler(2))) is Ranked
    assert queue_of(Mine(2)) is None
