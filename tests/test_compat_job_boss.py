"""A Boss of commands: who may start, which have ended and how, and not a word on standard error."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workers import HERE, until

from taylorism import MemoryExceeded
from taylorism.compat._job_boss import CpusAndMemoryScheduler, JobBoss


def scheduler(threads=2, cpus=4, memory=1000.0):
    """Return a scheduler of these limits."""
    return CpusAndMemoryScheduler(limit="cpus+memory", max_threads=threads, max_cpus=cpus, max_memory=memory)


def started(launch):
    """Return workers as `launchable` sees them."""
    return {each["name"]: SimpleNamespace(**{"memory": 0.0, **each}) for each in launch}


# -- who may start --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([{}, {}, {}], "ab"),
        ([{"ncpus": 3}, {"ncpus": 2}, {"ncpus": 1}], "ac"),
        ([{"memory": 600.0}, {"memory": 600.0}, {"memory": 400.0}], "ac"),
        ([{"memory": 0.0, "ncpus": 4}, {"memory": 1.0}, {"memory": 1.0}], "a"),
        ([{"memory": 1000.0, "ncpus": 4}], "a"),
    ],
)
def test_slots_cpus_and_memory_all_count(sets, expected):
    """Each of the three limits holds sets back; what fits beside may pass."""
    pending = [{"name": name, **one} for name, one in zip("abc", sets, strict=False)]
    launch, keep = scheduler().launchable(pending, {}, [])
    assert "".join(each["name"] for each in launch) == expected
    assert sorted(each["name"] for each in [*launch, *keep]) == sorted(each["name"] for each in pending)


@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 1000), st.booleans()), max_size=20))
def test_no_limit_is_ever_passed(jobs):
    """Whatever comes and goes."""
    asked, running = scheduler(), {}
    for number, (ncpus, memory, goes) in enumerate(jobs):
        launch, _ = asked.launchable([{"name": str(number), "ncpus": ncpus, "memory": memory}], running, [])
        running |= started(launch)
        assert len(running) <= 2
        assert sum(each.ncpus for each in running.values()) <= 4
        assert sum(each.memory for each in running.values()) <= 1000
        if goes and running:
            running.pop(next(iter(running)))


@pytest.mark.parametrize(
    ("instructions", "told"),
    [
        ({"ncpus": 4, "memory": 1000}, None),
        ({"ncpus": 5}, "ncpus=5, and max_cpus is 4"),
        ({"memory": 1001}, "1001 MiB of memory, and there are 1000 MiB"),
    ],
)
def test_what_never_fits_is_told(instructions, told):
    """In a sentence that has both numbers."""
    objection = scheduler().never_startable(instructions)
    assert objection is None if told is None else told in objection


# -- what has become of them ----------------------------------------------------------------------------


@pytest.fixture
def boss() -> Iterator[JobBoss]:
    """Return a Boss that is dismissed after the test."""
    boss = JobBoss(scheduler(), 5.0, None)
    yield boss
    boss.dismiss()
    boss.dismiss()  # which does no harm


def jobs(*commands, **more):
    """Return a set of instructions for each command."""
    return [
        {"kind": "shell", "name": str(place), "command": each, "check": False, **more}
        for place, each in enumerate(commands)
    ]


def test_exit_codes_are_told_when_it_is_over(boss):
    """Of success, failure, a signal and a time limit; only of those that are asked about."""
    numbers = boss.set_instructions(jobs("exit 0", "exit 3", "kill -9 $$"))
    numbers += boss.set_instructions([{**jobs("sleep 60")[0], "name": "slow", "runtime": 0.2}])
    until(lambda: len(boss.ended(numbers)) == 4)
    assert boss.ended(numbers) == dict(zip(numbers, [0, 3, -signal.SIGKILL, -signal.SIGTERM], strict=True))
    assert boss.ended(numbers[1:2]) == {numbers[1]: 3}
    assert boss.ended([77]) == {}


def test_what_never_ran_has_no_exit_code(boss):
    """Cancelled in the queue."""
    first, second, third = boss.set_instructions(jobs("sleep 60", "sleep 60", "sleep 60"))
    assert boss.cancel(third) == [third]
    until(lambda: third in boss.ended([third]))
    assert boss.ended([first, second, third]) == {third: None}


def test_reports_are_not_kept(boss):
    """A service lives for weeks: what the commands have written must not pile up in it."""
    numbers = boss.set_instructions(jobs("printf %9000d 1; exit 4", "true"))
    until(lambda: len(boss.ended(numbers)) == 2)
    assert [record["report"] for record in boss.get_report()["workers_report"]] == [None, None]
    assert boss.ended(numbers) == {numbers[0]: 4, numbers[1]: 0}


def test_a_worker_that_uses_too_much_memory_is_stopped(boss):
    """Twice what it has declared."""
    code = "import time; held = b'x' * 200_000_000; time.sleep(60)"
    [number] = boss.set_instructions(jobs(f'"{sys.executable}" -c "{code}"', memory=100.0))
    until(lambda: boss.ended([number]))
    assert boss.ended([number]) == {number: -signal.SIGTERM}
    assert isinstance(boss.errors["0"], MemoryExceeded)


def test_a_killed_listener_is_told(boss):
    """With it die those that run; those that wait never ran."""
    numbers = boss.set_instructions(jobs("sleep 60", "sleep 60", "sleep 60"))
    until(lambda: len(boss.status().running) == 2)
    boss._process.kill()
    until(lambda: boss.broken)
    assert boss.killed
    assert list(boss.ended(numbers).values()) == [-signal.SIGKILL, -signal.SIGKILL, None]


def test_an_error_of_the_listener_is_no_killing():
    """It would come again: it is told, and raised by who orders more."""

    class Odd:
        def launchable(self, pending, workers, report):
            raise ArithmeticError("odd")

    boss = JobBoss(Odd(), 5.0, None)
    numbers = boss.set_instructions(jobs("true"))
    until(lambda: boss.broken)
    assert not boss.killed
    with pytest.raises(ArithmeticError):
        boss.set_instructions(jobs("true"))
    assert boss.ended(numbers) == {numbers[0]: None}
    boss.dismiss()


def test_nothing_is_written_to_standard_error():
    """By main, by the listener, by workers that are stopped or killed, by commands."""
    code = """if True:
        import os, signal, sys, logging
        from test_compat_job_boss import jobs, scheduler, until, JobBoss
        logging.getLogger().setLevel(logging.WARNING)
        boss = JobBoss(scheduler(9, 9), 5.0, None)
        bad = [{"kind": "shell", "name": "odd", "command": 7}, {"kind": "nonsense"}]
        more = jobs("echo loud >&2; kill -11 $$", "sleep 60", memory=0.0, runtime=0.2)
        numbers = boss.set_instructions([*bad, *more]) + boss.set_instructions([
            {"kind": "shell", "name": "fails", "command": "no-such-program", "check": True},
            {"kind": "shell", "name": "killed", "command": "kill -9 $PPID"},
            {"kind": "shell", "name": "stays", "command": "sleep 60"},
        ])
        until(lambda: len(boss.ended(numbers)) == 6)
        boss._process.kill()
        until(lambda: boss.broken)
        try:
            boss.wait()
        except Exception as error:
            print(type(error).__name__)
        boss.dismiss()
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    told = done.stdout.splitlines()  # footprints tells of its choice there
    assert (told[-1], done.stderr) == ("BossDied", "")
