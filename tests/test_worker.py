"""`Worker`: section 5 of what the package promises, under a Boss and alone."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import footprints
import psutil
import pytest
import workers
from workers import Scheduler, alive, do, laxist, reports, slots, until

import taylorism


def run(*order: Any, **options: Any) -> list[Any]:
    """Return the reports of one order."""
    options.setdefault("scheduler", slots(2))
    boss = taylorism.Boss(**options)
    boss.set_instructions(*order)
    return reports(boss)


def new(**instructions: Any) -> taylorism.Worker:
    """Return a worker made here, in main."""
    worker = footprints.proxy.worker(**instructions)
    assert worker is not None
    return worker


# ---------------------------------------------------------------------------------------------------------
# the footprint
# ---------------------------------------------------------------------------------------------------------


def test_footprint_of_the_base_class():
    """The base class has these attributes, with these defaults, and no other."""
    attributes = taylorism.Worker.footprint_retrieve().attr
    assert set(attributes) == {
        *("name", "memory", "expected_time", "scheduler_ticket", "scheduler_hooks")
    }
    assert all(attribute["optional"] for attribute in attributes.values())
    worker = new(deed="echo")
    assert (worker.memory, worker.expected_time, worker.scheduler_ticket) == (0.0, 0.0, None)
    assert isinstance(worker.memory, float) and isinstance(worker.expected_time, float)
    assert worker.scheduler_hooks == [] and isinstance(worker.scheduler_hooks, footprints.FPList)


def test_values_are_converted():
    """Values are converted to the types of the attributes."""
    worker = new(deed="echo", memory="12", expected_time=3, scheduler_ticket="4")
    assert (worker.memory, worker.expected_time, worker.scheduler_ticket) == (12.0, 3.0, 4)


def test_name_is_a_uuid_when_not_given():
    """Without a name, each worker gets one of its own."""
    names = {new(deed="echo").name for _ in range(10)}
    assert len(names) == 10 and all(len(name) == 36 for name in names)


def test_name_may_be_changed():
    """The access to the name is rwx."""
    worker = new(deed="echo", name="one")
    worker.name = "two"
    assert worker.name == "two"


def test_name_expands_attributes():
    """Footprints' expansion works in a name."""
    assert new(deed="echo", memory=3, name="does_[deed]").name == "does_echo"
    found = run({"deed": "attributes", "value": ["name"], "name": "m[memory]"}, {"memory": [1, 2]})
    assert sorted(each["name"] for each in found) == ["m1.0", "m2.0"]


def test_identity_of_the_classes():
    """The public classes say that they are of `taylorism`."""
    assert taylorism.Worker.__module__ == "taylorism" == taylorism.BindedWorker.__module__
    assert taylorism.Worker.footprint_abstract() and taylorism.BindedWorker.footprint_abstract()


def test_other_names_are_free():
    """A user's class may use any other name, for attributes and methods, and it reaches the task."""
    order = dict(
        proud_owner="x",
        **dict.fromkeys(("timeout", "report", "instructions", "process", "pid", "retries"), "mine"),
        **dict(log="mine", boss="mine", status=1, result=2),
    )
    assert run({}, {key: [value] for key, value in order.items()}) == [
        ["mine", 1, "mine", "mine", "mine", "mine", "mine"]
    ]


# ---------------------------------------------------------------------------------------------------------
# at work
# ---------------------------------------------------------------------------------------------------------


def test_constructor_prehook_hooks_and_task():
    """Constructor in the listener, then in the process of the worker the hooks, the prehook, the task."""
    order = {"scheduler_hooks": [footprints.FPList([workers.hook])]}
    found = run({}, {"init_sets": [4], **order}, scheduler=Scheduler(lambda p, w, r: (p, [])))
    assert found == [(8, ["init", "hook", "prehook", "task"], True, {})]


def test_a_fresh_process_for_each():
    """Nothing leaks from one task to the next."""
    assert run(*do("count_up", 1, 2, 3), scheduler=slots(1)) == [1, 1, 1]
    found = run(*do("surroundings", "", "", ""), scheduler=slots(1))
    assert len({each["pid"] for each in found}) == 3


def test_state_of_main_at_the_creation_of_the_boss(tmp_path, monkeypatch):
    """A worker has the directory, environment, and globals that main had when the Boss was made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAYLORISM_TEST", "then")
    monkeypatch.setitem(workers.STATE, "word", "then")
    boss = taylorism.Boss()
    monkeypatch.chdir("/")
    monkeypatch.setenv("TAYLORISM_TEST", "now")
    monkeypatch.setitem(workers.STATE, "word", "now")
    boss.set_instructions(*do("surroundings", "TAYLORISM_TEST"))
    (found,) = reports(boss)
    assert (found["directory"], found["variable"], found["global"]) == (str(tmp_path), "then", "then")


def test_process_of_a_worker():
    """It is a child of the listener, not daemonic, of main's process group, with an empty stdin."""
    boss = taylorism.Boss()
    boss.set_instructions(*do("surroundings", None))
    listener = boss._process.pid
    (found,) = reports(boss)
    assert found["parent"] == listener and found["pid"] not in (listener, os.getpid())
    assert found["group"] == os.getpgrp()
    assert not found["daemonic"] and found["threads"] == 1
    assert found["stdin"] == "" and found["stdin by number"] == b""


def test_stdin_of_main_is_untouched(monkeypatch):
    """What main has to read is still there after the work."""
    reader, writer = os.pipe()
    os.write(writer, b"for main\n")
    os.close(writer)
    saved = os.dup(0)
    os.dup2(reader, 0)
    try:
        (found,) = run(*do("surroundings", None))
        assert found["stdin"] == "" and found["stdin by number"] == b""
        assert os.read(0, 100) == b"for main\n"
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(reader)


def test_stdout_and_stderr_are_inherited(capfd):
    """What a task prints comes out, once, and main's own buffered text is not repeated."""
    print("from main", end="\n")
    run(*do("print_it", "from worker 1", "from worker 2"))
    print("main again")
    lines = capfd.readouterr().out.splitlines()
    assert sorted(lines[1:3]) == ["from worker 1", "from worker 2"]
    assert lines[0] == "from main" and lines[3:] == ["main again"]


def test_worker_may_have_children():
    """A worker may start processes of `multiprocessing`, also a pool of them."""
    assert run(*do("child_process", 7)) == [7]
    assert run(*do("pool", 5, 5, 5)) == [[5, 4, 3, 2, 1]] * 3


def test_children_and_threads_left_to_the_exit(tmp_path):
    """A process and a thread that the task left to its exit are waited for, as by multiprocessing."""
    assert run(*do("child_left_to_exit", str(tmp_path))) == ["left two"]
    assert sorted(os.listdir(tmp_path)) == ["child", "thread"]


def test_sigterm_raises_signal_interrupt_error():
    """SIGTERM raises `bronx.system.interrupt.SignalInterruptError` inside the task."""
    assert run(*do("caught_interrupt", None)) == ["bronx.system.interrupt.SignalInterruptError"]


@pytest.mark.parametrize("value", [0, None, "bare"])
def test_successful_exit_is_a_success(value):
    """`sys.exit(0)` and `sys.exit()` are a success with the report None."""
    assert run(*(do("bare_sys_exit", 1) if value == "bare" else do("sys_exit", value))) == [None]


def test_binding_of_a_free_process():
    """A process that is bound to all cpus has the binding `[None]`."""
    assert new(deed="echo").binding() == [None]


def test_binding_of_a_bound_worker():
    """With `binded=True`, a worker is bound to one cpu, of which `binding` tells the number."""
    scheduler = footprints.proxy.scheduler(limit="threads", max_threads=1, binded=True)
    (found,) = run(*do("binding", 1), scheduler=scheduler)
    assert len(found) == 1 and (found[0] in os.sched_getaffinity(0) or found == [None])


@workers.deed
def binding(value: Any, worker: Any) -> Any:
    """Tell where the worker is bound."""
    return worker.binding()


def test_binded_worker_warns_and_binds(caplog):
    """The deprecated BindedWorker warns, and binds itself to the cpu of its ticket."""
    with caplog.at_level("WARNING", "taylorism"):
        new(bound="x")
    assert "BindedWorker" in caplog.text or "Bound" in caplog.text
    ((ticket, found),) = run({}, {"bound": ["x"]}, scheduler=slots(1))
    assert ticket == 0
    assert len(found) == 1


def test_ticket_is_the_lowest_free_slot():
    """Each worker gets the lowest free slot number."""
    found = run({"deed": "attributes", "value": ["scheduler_ticket"]}, {"memory": [0, 0, 0]}, scheduler=slots(1))
    assert found == [{"scheduler_ticket": 0}] * 3


def test_task_that_breaks_its_own_streams():
    """A task that closes its streams still reports."""
    assert run(*do("close_streams", 1)) == ["closed"]


def test_copy_of_the_worker_does_not_report():
    """If a task forks and the copy returns as well, the worker's own report counts."""
    assert run(*do("fork_and_return", 1)) == ["the worker"]


# ---------------------------------------------------------------------------------------------------------
# alone, without a Boss
# ---------------------------------------------------------------------------------------------------------


class Box:
    """A messenger: anything with `put`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, record: Any) -> None:
        """Write down what came."""
        self.path.write_text(repr(record))


def test_worker_holds_nothing_until_it_works():
    """A worker that is made to be looked at holds no descriptor, process or thread."""
    before = len(os.listdir("/proc/self/fd"))
    found = [new(deed="echo", value=number) for number in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert found[3].footprint_attributes and found[3].value == 3
    assert found[3]._parent_pid == os.getpid() and found[3]._process is not None
    del found
    gc.collect()


def test_worker_alone_with_a_queue():
    """A worker works without a Boss, with a queue of multiprocessing as messenger."""
    queue = multiprocessing.get_context("fork").Queue()
    worker = new(deed="echo", value=5, name="alone")
    worker.messenger = queue
    assert worker.messenger is queue
    worker.work()
    assert queue.get(timeout=10) == {"name": "alone", "report": 5}
    worker.bye()
    worker.bye()
    assert worker._process.exitcode == 0
    queue.close()
    queue.join_thread()


def test_worker_alone_that_fails(tmp_path):
    """The record of a failure has the exception and its traceback, as in 1.1."""
    worker = new(deed="throw", value=ValueError("alone"), name="alone")
    worker.messenger = Box(tmp_path / "record")
    worker.work()
    worker.bye()
    record = (tmp_path / "record").read_text()
    assert "ValueError('alone')" in record and "'traceback': [" in record and "'name': 'alone'" in record


def test_worker_alone_without_a_messenger(capfd):
    """Without a messenger the work is done all the same, and an error is told on stderr."""
    worker = new(deed="print_it", value="said alone")
    worker.work()
    worker.bye()
    worker = new(deed="throw", value=ValueError("alone"))
    worker.work()
    worker.bye()
    out, err = capfd.readouterr()
    assert out == "said alone\n" and "ValueError: alone" in err


def test_buffered_text_of_main_is_not_repeated(capfd):
    """What main has printed and not flushed is not printed again by a worker alone."""
    sys.stdout.write("once, ")
    worker = new(deed="print_it", value="from the worker")
    worker.work()
    worker.bye()
    sys.stdout.flush()
    assert capfd.readouterr().out.count("once") == 1


@pytest.mark.parametrize("messenger", [object(), 3, type("M", (), {"put": 1})()])
def test_messenger_must_have_put(messenger):
    """What is set as messenger must have a callable `put`."""
    worker = new(deed="echo")
    with pytest.raises((AssertionError, AttributeError)):
        worker.messenger = messenger
    assert worker.messenger is None


def test_bye_of_a_worker_never_started():
    """`bye` does nothing on a worker that was never started."""
    new(deed="echo").bye()


def test_stop_before_the_start():
    """A worker that was stopped, twice, before its start never starts."""
    worker = new(deed="echo")
    worker.stop_working()
    worker.stop_working()
    worker.work()
    assert worker._process.pid is None
    worker.bye()


def test_stop_after_the_start(tmp_path):
    """A running worker may be stopped twice; its clean-up is done; it may be stopped again afterwards."""
    worker = new(deed="wait", value=str(tmp_path), name="w")
    worker.work()
    pid = workers.pid_in(tmp_path / "w.pid")
    worker.stop_working()
    worker.stop_working()
    worker.bye()
    worker.stop_working()
    assert (tmp_path / "w.cleaned").exists() and not (tmp_path / "w.done").exists()
    assert not psutil.pid_exists(pid)
    assert worker._process.exitcode == -signal.SIGTERM


def test_worker_alone_killed(tmp_path):
    """`bye` returns when the worker was killed."""
    worker = new(deed="wait", value=str(tmp_path), name="w")
    worker.work()
    os.kill(workers.pid_in(tmp_path / "w.pid"), signal.SIGKILL)
    worker.bye()
    assert worker._process.exitcode == -signal.SIGKILL


def test_dropped_running_worker_is_reaped_or_stopped(tmp_path):
    """A running worker that is dropped by main does not go on for ever, as in 1.1."""
    worker = new(deed="wait", value=str(tmp_path), name="w")
    worker.work()
    pid = workers.pid_in(tmp_path / "w.pid")
    del worker
    gc.collect()
    until(lambda: not alive(pid), "its end", 3)


def test_worker_survives_a_busy_boss():
    """A worker made in main next to a Boss has nothing to do with it."""
    boss = taylorism.Boss(scheduler=laxist())
    boss.set_instructions(*do("echo", 1))
    worker = new(deed="echo")
    boss.make_them_work()
    worker.bye()
    assert reports(boss) == [1]
