"""The life of a process that runs several Workers: each has its own, and nothing of the one before."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import footprints
import numpy as np
import pytest
import workers
from forked import in_fork
from workers import deed, do, reports, slots, working

import taylorism
from taylorism import _batches, _channel, _child, _instructions, _series, _signals
from taylorism._hold import Hold
from taylorism._messages import Outcome
from taylorism._series import Desk, _Part, _Permits, _Surroundings
from taylorism.util import SharedNumpyArray


@pytest.fixture(params=["watched", "batched"])
def options(request, monkeypatch):
    """Both ways to a process that runs several: each worker looked after by itself, or in batches."""
    monkeypatch.setattr(_batches, "AMOUNT", 10.0)
    limit = {"timeout": 60.0} if request.param == "watched" else {}
    return {"max_tasks_per_child": None, "scheduler": slots(1), **limit}


@deed
def spoil_then_look(value: Any, worker: Any) -> Any:
    """Tell of the surroundings, then spoil them."""
    handlers = [signal.getsignal(signum) for signum in (signal.SIGALRM, signal.SIGTERM, signal.SIGPIPE)]
    place = os.getcwd(), os.environ.get("SPOILT"), os.environ.get("HOME"), sorted(os.sched_getaffinity(0))
    alarm = signal.getitimer(signal.ITIMER_REAL)[0]
    seen = (*place, sys.stdout.name, sys.stdin.name, alarm, handlers[0], callable(handlers[1]), handlers[2])
    os.chdir(value)
    os.environ["SPOILT"] = "yes"
    os.environ.pop("HOME", None)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sys.stdout = sys.stderr
    sys.stdin = None  # type: ignore[assignment]
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    return os.getpid(), seen


@deed
def now_and_then(value: Any, worker: Any) -> Any:
    """Do another deed with its value, or tell of our process."""
    return os.getpid() if value is None else workers.DEEDS[value[0]](value[1], worker)


@deed
def close_descriptor(value: int, worker: Any) -> int:
    """Close a descriptor."""
    os.close(value)
    return os.getpid()


def test_each_has_its_own(options):
    """Each Worker of a process has its own name, ticket, hooks, arguments and report."""
    scheduler = footprints.proxy.scheduler(limit="threads", max_threads=1, binded=True)
    names = [f"w{i}" for i in range(6)]
    common, individual = do("attributes", *[["name", "scheduler_ticket", "scheduler_hooks", "memory"]] * 6)
    individual |= {"name": names, "memory": list(range(6))}
    boss = working(common, individual, **{**options, "scheduler": scheduler})
    boss.wait_till_finished()
    records = boss.get_report()["workers_report"]
    assert [record["name"] for record in records] == names
    assert [record["report"]["name"] for record in records] == names
    assert [record["report"]["memory"] for record in records] == list(range(6))
    assert {record["report"]["scheduler_ticket"] for record in records} == {0}
    assert all(len(record["report"]["scheduler_hooks"]) == 1 for record in records)
    infos = boss.get_report()["workers_info"]
    assert list(infos) == names and len({info["pid"] for info in infos.values()}) == 1
    assert set(infos["w0"]) == set(infos["w5"]) and {info["status"] for info in infos.values()} == {"done"}
    assert all((info["peak_memory"] is None) == bool(info["unknown"]) for info in infos.values())


def test_default_names_are_unique(options):
    """Workers without a name have one of their own each, and are known by it."""
    boss = working(*do("attributes", *[["name"]] * 5), **options)
    names = [report["name"] for report in reports(boss)]
    assert len(set(names)) == 5 and set(boss.get_report()["workers_info"]) == set(names)


def test_substituted_names(options):
    """A name that footprints makes of attributes is made for each."""
    common, individual = do("attributes", *[["name"]] * 4, name="job-[memory]")
    boss = working(common, individual | {"memory": [1, 2, 3, 4]}, **options)
    assert [report["name"] for report in reports(boss)] == [f"job-{i}.0" for i in (1, 2, 3, 4)]


def test_init_prehook_and_task_are_of_one_object(options):
    """What `__init__` sets reaches the task, in a process that others have used too."""
    boss = working({}, {"init_sets": [1, 2, 3, 4]}, **options)
    assert [report[:2] for report in reports(boss)] == [(2 * i, ["init", "prehook", "task"]) for i in (1, 2, 3, 4)]


def test_surroundings_are_restored(options, tmp_path):
    """Directory, environment, cpus, streams, handlers of signals and alarms are for each as they were."""
    found = reports(working(*do("spoil_then_look", *[str(tmp_path)] * 5), **options))
    assert len({pid for pid, _ in found}) == 1
    assert [seen for _, seen in found] == [found[0][1]] * 5 and found[0][1][0] == os.getcwd()


def test_what_leaks_is_what_is_documented(options):
    """The variables of modules are those that the Worker before has left."""
    assert reports(working(*do("count_up", 1, 2, 3, 4), **options)) == [1, 2, 3, 4]


def test_bound_worker_leaves_no_binding(options):
    """Who binds itself does not bind the next one."""
    boss = working({}, {"bound": ["x"], "scheduler_ticket": [0]}, **options)
    boss.set_instructions(*do("now_and_then", None))
    boss.set_instructions({"deed": "mask_here"}, {"value": [None]})
    assert sorted(os.sched_getaffinity(0)) in reports(boss)


@deed
def mask_here(value: Any, worker: Any) -> Any:
    """Tell which cpus there are."""
    return sorted(os.sched_getaffinity(0))


def test_directory_that_is_gone(options, tmp_path):
    """Where the process cannot go back, it ends, and the work goes on."""
    here, gone = os.getcwd(), tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    try:
        boss = working(*do("leave_directory", *[str(gone)] * 3), **options)
        found = reports(boss)
    finally:
        os.chdir(here)
    assert len(set(found)) == 3


@deed
def leave_directory(value: str, worker: Any) -> int:
    """Go elsewhere; the first one removes where we were."""
    os.chdir("/")
    if os.path.isdir(value):
        os.rmdir(value)
    return os.getpid()


def test_into_a_directory_that_is_removed(options, tmp_path):
    """Who leaves its process in a directory that exists no more harms nobody."""
    values = [str(tmp_path / f"d{i}") for i in range(3)]
    assert reports(working(*do("into_removed", *values), **options)) == [os.getcwd()] * 3


@deed
def into_removed(value: str, worker: Any) -> str:
    """Tell where we are, and go to where nothing is."""
    before = os.getcwd()
    os.mkdir(value)
    os.chdir(value)
    os.rmdir(value)
    return before


@pytest.mark.parametrize(("name", "value"), [("close_streams", None), ("close_descriptor", 1)])
def test_closed_streams_end_the_process(name, value, options):
    """The next one has standard streams that are open, since it has another process."""
    boss = working(*do("now_and_then", None, (name, value), ("say", "hello"), None), **options)
    found = reports(boss)
    assert len(found) == 4 and found[0] != found[3]


# ---------------------------------------------------------------------------------------------------------
# failures
# ---------------------------------------------------------------------------------------------------------

FAILURES: list[tuple[str, Any, type[BaseException]]] = [
    ("throw", ValueError("one"), ValueError),
    ("throw_local", None, taylorism.TaylorismError),
    ("throw_not_loadable", None, taylorism.TaylorismError),
    ("sys_exit", 3, SystemExit),
    ("throw_odd", "keyboard", KeyboardInterrupt),
    ("out_of_memory", None, MemoryError),
    ("return_unpicklable", "lock", taylorism.TransmissionError),
    ("report_not_loadable", None, taylorism.TransmissionError),
    ("os_exit", 0, taylorism.WorkerDied),
    ("die_by", signal.SIGKILL, taylorism.WorkerDied),
    ("segfault", None, taylorism.WorkerDied),
    ("close_everything", None, taylorism.WorkerDied),
]


def test_each_failure_costs_itself_alone(options):
    """Whatever becomes of some, all others report, and the failures are their own."""
    values = [each for name, value, _ in FAILURES for each in (None, (name, value))]
    common, individual = do("now_and_then", *values, None)
    individual["name"] = [f"w{i}" for i in range(len(values) + 1)]
    boss = working(common, individual, on_error="collect", **options)
    boss.wait_till_finished()
    report = boss.get_report()
    assert [each["name"] for each in report["workers_report"]] == [f"w{i}" for i in range(0, len(values) + 1, 2)]
    kinds = {f"w{2 * i + 1}": kind for i, (_, _, kind) in enumerate(FAILURES)}
    assert set(report["errors"]) == set(kinds)
    assert [name for name, error in report["errors"].items() if not isinstance(error, kinds[name])] == []


def test_quiet_exit_is_no_failure(options):
    """`sys.exit()` ends a task, not its process."""
    boss = working(*do("now_and_then", None, ("bare_sys_exit", None), None), **options)
    first, nothing, last = reports(boss)
    assert nothing is None and first == last


def test_what_cannot_be_built(options):
    """What is raised while a Worker is built, wherever that is, is the failure of that one."""
    boss = working(*do("echo", 1), on_error="collect", **options)
    boss.set_instructions({}, {"init_exits": [3, 4]})
    boss.set_instructions({}, {"init_raises": ["a"]})
    boss.set_instructions({"no_such_attribute": 1}, {"value": [1]})
    boss.set_instructions(*do("echo", 2))
    assert reports(boss) == [1, 2]
    errors = list(boss.get_report()["errors"].values())
    kinds = [SystemExit, SystemExit, workers.OddInit, AttributeError]
    assert all(map(isinstance, errors, kinds)) and len(errors) == 4
    assert [error.code for error in errors[:2]] == [3, 4]


class LoadsInTheListener:
    """An instruction that loads in the listener, and nowhere below it."""

    def __init__(self, main: int) -> None:
        self.main = main

    def __reduce__(self) -> Any:
        return _not_below, (self.main,)


def _not_below(main: int) -> Any:
    if os.getpid() != main and os.getppid() != main:
        raise ImportError("not in a worker")
    return LoadsInTheListener(main)


def test_common_instructions_that_load_in_the_listener_alone(options):
    """Each set that has them fails by itself, and the work comes to its end."""
    boss = working({"deed": "now_and_then", "extra": LoadsInTheListener(os.getpid())}, {"value": [None] * 4},
                   on_error="collect", **options)
    boss.wait_till_finished()
    report = boss.get_report()
    assert len(report["workers_report"]) + len(report["errors"]) == 4 and len(report["workers_report"]) >= 1
    assert all("not in a worker" in str(error) for error in report["errors"].values())


def test_copy_that_comes_back_from_its_task(options):
    """A fork that returns from the task is nobody: the worker's own report counts, once."""
    assert reports(working(*do("fork_and_return", 1, 2, 3), **options)) == ["the worker"] * 3


def test_swallowed_signal_ends_the_process_after_the_report(options, tmp_path):
    """Who finishes in spite of a signal reports, and its process goes as it was told."""
    boss = working(*do("now_and_then", None, ("usr1", None), None), **options)
    first, told, last = reports(boss)
    assert told == "finished" and first != last


@deed
def usr1(value: Any, worker: Any) -> str:
    """Finish in spite of a signal."""
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(60)
    except taylorism._compat.SignalInterruptError:
        pass
    return "finished"


# ---------------------------------------------------------------------------------------------------------
# logs, reports, children
# ---------------------------------------------------------------------------------------------------------


class SaysWhenMade(taylorism.Worker):
    """Prints in its constructor, and in its task."""

    _footprint = dict(attr=dict(says_when_made=dict(type=int)))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        print(f"made {self.says_when_made}")

    def _task(self, **kwargs: Any) -> int:
        print(f"task {self.says_when_made}", end="")
        return os.getpid()


def test_log_of_each(tmp_path, capfd):
    """Each has its own log files, with all that it writes and nothing else; what is made is not in them."""
    numbers = list(range(4))
    boss = working({}, {"says_when_made": numbers, "name": [f"w{i}" for i in numbers]}, log_dir=tmp_path,
                   max_tasks_per_child=None, scheduler=slots(1))
    assert len(set(reports(boss))) == 1
    assert [(tmp_path / f"w{i}.out").read_text() for i in numbers] == [f"task {i}" for i in numbers]
    assert sum(len((tmp_path / f"w{i}.err").read_text()) for i in numbers) == 0
    assert {f"made {i}" for i in numbers} == set(capfd.readouterr().out.split("\n")) - {""}


def test_log_of_a_failure_and_of_programs(tmp_path):
    """A failure quotes its own log; what programs write, and what `logging` does, goes there too."""
    common, individual = do("say", "a", "b", "fail", "c")
    boss = working(common, individual | {"name": list("abfc")}, log_dir=tmp_path, max_tasks_per_child=None,
                   scheduler=slots(1), on_error="collect")
    boss.wait_till_finished()
    (error,) = boss.get_report()["errors"].values()
    assert isinstance(error, ValueError)
    assert {each: (tmp_path / f"{each}.out").read_text() for each in "abfc"} == {
        "a": "a says a\n", "b": "b says b\n", "f": "f says fail\n", "c": "c says c\n"
    }
    assert {(tmp_path / f"{each}.err").read_text() for each in "abc"} == {f"a program of {c}\n" for c in "abc"}


def test_log_directory_that_is_removed(tmp_path):
    """Who can have no log fails, as without reuse."""
    logs = tmp_path / "logs"
    boss = working(*do("remove_tree", str(logs), None), log_dir=logs, max_tasks_per_child=None, scheduler=slots(1),
                   on_error="collect")
    boss.wait_till_finished()
    assert [type(each) for each in boss.get_report()["errors"].values()] == [FileNotFoundError]


@deed
def remove_tree(value: str | None, worker: Any) -> None:
    """Remove a directory with all that is in it."""
    import shutil

    shutil.rmtree(value or "/nowhere")


def test_big_reports(options):
    """Reports that are larger than a pipe, between others, come whole and in order."""
    sizes = [0, 70_000, 1, 3 << 20, 2, 65_536, 65_535, 3]
    assert [len(each) for each in reports(working(*do("bytes_of", *sizes), **options))] == sizes


@deed
def bytes_of(value: int, worker: Any) -> bytes:
    """Return so many bytes."""
    return bytes(value)


def test_arrays_in_reports(options):
    """Arrays, which travel beside the pickle, are those of the task."""
    found = reports(working(*do("big", 1, 1, 1), **options))
    assert [(array[0], array[-1], array.nbytes) for array in found] == [(1, 2, 1 << 20)] * 3
    assert all(array.flags.writeable for array in found)


def test_verbose_texts(caplog, options):
    """Each start and report is told of, in reused processes too."""
    with caplog.at_level("INFO", "taylorism"):
        assert reports(working(*do("echo", "aa", "bb"), verbose=True, **options)) == ["aa", "bb"]


def test_children_of_tasks(options, tmp_path):
    """Pools, children and inner Bosses work in each Worker; a thread or child that is left is waited for."""
    deeds = [("pool", 4), ("child_process", 3), ("nested", 3), ("pool", 4), ("child_left_to_exit", str(tmp_path))]
    found = reports(working(*do("now_and_then", *deeds, None), **options))
    assert found[:5] == [[4, 3, 2, 1], 3, [0, 1, 2], [4, 3, 2, 1], "left two"]
    assert {path.name for path in tmp_path.iterdir()} == {"child", "thread"}


def test_daemon_that_holds_all_descriptors(options, tmp_path):
    """A daemon that a task leaves keeps neither the next Worker nor the end waiting."""
    boss = working(*do("now_and_then", ("daemonize", str(tmp_path)), None, None), **options)
    assert len(reports(boss)) == 3
    (tmp_path / "release").touch()
    workers.until(lambda: not workers.alive(workers.pid_in(tmp_path / "daemon.pid")))


# ---------------------------------------------------------------------------------------------------------
# its parts
# ---------------------------------------------------------------------------------------------------------


def test_permits_are_of_one_frame():
    """A permit of a later frame says that the rest of this one was taken back, and is kept for the later one."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    permits = _Permits(reader)
    os.write(writer, bytes([5, 5, 6, 6]))
    taken = [permits.take(frame) for frame in (5, 5, 5, 5, 6, 6 + 256, 6)]
    os.close(writer)
    assert taken == [True, True, False, False, True, True, False]
    assert not permits.take(7)  # and the listener is gone
    os.close(reader)


def test_what_somebody_may_change_is_loaded_for_each():
    """What nobody can, or what all are to see, is one object; and what does not load says so each time."""
    part = _Part(_instructions.pack_one({"a": [1]}), pickle.loads)
    assert part.load()["a"] == [1] and part.load()["a"] is not part.load()["a"]
    for constant in ({}, {"a": "text", "b": 1.5, "c": None}, {"a": SharedNumpyArray(np.zeros(2))}):
        part = _Part(_instructions.pack_one(constant), pickle.loads)
        assert part.load() is part.load()
    broken = _Part(_instructions.pack_one({"a": workers.NeverLoads()}), pickle.loads)
    for _ in range(2):
        with pytest.raises(ImportError):
            broken.load()


@deed
def replace_environment(value: Any, worker: Any) -> bool:
    """Put a dict in the place of `os.environ`, as some do to restore it; tell whether there was one."""
    found = type(os.environ) is dict or "REPLACED" in os.environ
    os.environ["REPLACED"] = "yes"
    os.environ = os.environ.copy()
    return found


def test_a_dict_in_the_place_of_the_environment_goes_with_its_task(options):
    """Its report is no loss, and the next one has what there was before."""
    assert reports(working(*do("replace_environment", 1, 2, 3), **options)) == [False] * 3


@deed
def append(value: Any, worker: Any) -> int:
    """Append to a list, and tell how long it is."""
    value = value["list"] if isinstance(value, dict) else value
    value.append(1)
    return len(value)


@pytest.mark.parametrize("value", [[], {"list": [], "much": np.zeros(100_000)}])
def test_what_a_task_makes_of_common_instructions_is_its_own(options, value):
    """The next one gets what main has given; that which is big, too."""
    boss = working({"deed": "append", "value": value}, {"name": [f"n{i}" for i in range(40)]}, **options)
    assert reports(boss) == [1] * 40


@deed
def forget_to_release(value: Any, worker: Any) -> tuple[int, bool]:
    """Take the lock of a shared array and keep it; tell whether its last holder has died."""
    value.acquire()
    value[0] += 1
    return os.getpid(), value.get_lock().took_over


def test_a_lock_that_is_left_held_ends_the_process(options):
    """Nobody else would get it, while this process waits for more to do; the next holder is told."""
    total = SharedNumpyArray(np.zeros(1))
    boss = working({"deed": "forget_to_release", "value": total}, {"name": ["a", "b", "c"]}, **options)
    pids, told = zip(*reports(boss), strict=True)
    assert len(set(pids)) == 3 and told == (False, True, True) and total[0] == 3


class Unsendable(int):
    """A number that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("not me")


@deed
def unsendable(value: Any, worker: Any) -> Any:
    """Return one, or what is given."""
    return Unsendable(3) if value is None else value


def test_reports_that_look_small(options):
    """Numbers of any size and class are reports like others, and one that cannot be sent fails."""
    sent = [7, 2**14_000, True, 1.5, math.inf, signal.SIGTERM, 0]
    boss = working(*do("unsendable", None, *sent), **options, on_error="collect")
    boss.wait_till_finished()
    found = [record["report"] for record in boss.get_report()["workers_report"]]
    assert found == sent and [*map(type, found)] == [*map(type, sent)]
    (error,) = boss.errors.values()
    assert isinstance(error, taylorism.TransmissionError) and "not me" in str(error)


def _restored(spoil: Any) -> tuple[bool, bool]:
    """Return whether the surroundings could be restored, untouched and after `spoil`."""
    signal.setitimer(signal.ITIMER_REAL, 0)  # that of pytest-timeout
    surroundings = _Surroundings([])
    before = surroundings.restore()
    spoil()
    return before, surroundings.restore()


@pytest.mark.parametrize(
    ("spoil", "fine"),
    [
        (lambda: os.environ.update(A="b", PATH=""), True),
        (lambda: os.environb.update({b"\xff": b"\xfe"}), True),
        (lambda: os.chdir("/"), True),
        (lambda: os.close(2), False),
        (lambda: sys.__stdin__.close(), False),
    ],
)
def test_surroundings(spoil, fine):
    """They say whether all is as it was."""

    def look() -> Any:
        sys.stdin = sys.__stdin__ = open(os.devnull)
        before = os.getcwd(), dict(os.environ)
        return _restored(spoil), (os.getcwd(), dict(os.environ)) == before

    assert in_fork(look) == ((True, fine), True)


class _Stage:
    """A process that runs several Workers, of which this process is the listener."""

    def __init__(self) -> None:
        self.orders, its = socket.socketpair()
        permits, self.permits = os.pipe()
        self.notices, notices = os.pipe()
        its.setblocking(False)
        os.set_blocking(permits, False)
        self.pid = os.fork()
        if self.pid == 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.orders.close()
            os.close(self.permits)
            _signals.Inbox().forget()  # a worker has the handlers of the listener
            try:
                desk, messenger = Desk(its.detach(), permits, notices), _child.NoticePipe(notices)
                series = _series.Series(desk, {}, messenger, None, Hold())
                worker = footprints.proxy.worker(deed="echo", value="first", name="first")
                worker.messenger = series._messenger
                series.live(worker)
            finally:
                os._exit(77)
        its.close()
        os.close(permits)
        os.close(notices)

    def order(self, frame: int, sets: dict[int, Any], permits: bytes) -> None:
        """Send sets, and permits."""
        os.write(self.permits, permits)
        each = [{"deed": "echo"}, *({"value": value} for value in sets.values())]
        parts = list(map(_instructions.pack_one, each))
        head = (frame, list(sets), _instructions.pack_one({"scheduler_ticket": 3, "scheduler_hooks": []}))
        self.orders.sendall(b"".join(_channel.encode(head, parts)))

    def end(self) -> tuple[list[Any], int]:
        """Return the heads that it has written, and its exit status."""
        self.orders.close()
        os.close(self.permits)
        os.set_blocking(self.notices, True)
        data = b"".join(iter(lambda: os.read(self.notices, 1 << 16), b""))
        os.close(self.notices)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.write(writer, data)
        os.close(writer)
        inflow = _channel.Inflow(reader)
        inflow.pull(to_the_end=True)
        os.close(reader)
        return [inflow.ready[number].head for number in sorted(inflow.ready)], status


def test_series_begins_what_it_has_permits_for():
    """What was taken back is not begun; a process whose orders end does what it has, and leaves."""
    stage = _Stage()
    stage.order(1, {10: "a", 11: "b"}, b"\1")
    stage.order(2, {12: "c"}, b"\2")
    heads, status = stage.end()
    numbers = [number for head in heads[1:] for number in head]
    assert (heads[0][0], heads[0][1], numbers, status) == (True, "first", [10, 12], 0)


def test_series_ends_with_a_failure():
    """What fails is told, and nothing that follows is begun."""
    stage = _Stage()
    stage.order(1, {10: "a"}, b"\1")
    os.write(stage.permits, b"\2\2")
    parts = [_instructions.pack_one({"deed": "throw", "value": ValueError("x")})] * 2
    head = (2, [20, 21], _instructions.pack_one({}))
    stage.orders.sendall(b"".join(_channel.encode(head, [_instructions.pack_one({}), *parts])))
    heads, status = stage.end()
    assert heads[1] == [10] and heads[2].outcome is Outcome.FAILURE and len(heads) == 3 and status == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_one_that_waits(signum):
    """It dies of the signal, as one at its task does."""
    stage = _Stage()
    stage.order(1, {10: "a"}, b"\1")
    assert os.read(stage.notices, 1)  # it has its handlers
    os.kill(stage.pid, signum)
    os.waitid(os.P_PID, stage.pid, os.WEXITED | os.WNOWAIT)
    assert stage.end()[1] == -signum


def test_threads_of_a_task_go_on(options):
    """A thread that a task leaves is there for the next ones; it does not keep the process for ever."""
    found = reports(working(*do("leave_thread", 1, 2), **options))
    assert found[0][0] == found[1][0] and found[1][1] == found[0][1] + 1


@deed
def leave_thread(value: Any, worker: Any) -> tuple[int, int]:
    """Leave a thread."""
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return os.getpid(), threading.active_count()


def test_multiprocessing_sees_no_children_of_others(options):
    """What a Worker starts with multiprocessing is not taken for a child of the next one's."""
    found = reports(working(*do("active_children", 1, 2, 3), **options))
    assert found == [0, 0, 0]


@deed
def active_children(value: Any, worker: Any) -> int:
    """Start a child, and count those that there are then."""
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    return len(multiprocessing.active_children())


def test_log_of_many_costs_no_stream_each(tmp_path):
    """The streams of a process with log files are made once."""
    boss = working(*do("stream_ids", *range(4)), log_dir=tmp_path, max_tasks_per_child=None, scheduler=slots(1))
    assert len(set(reports(boss))) == 1
    assert Path(tmp_path).is_dir()


@deed
def stream_ids(value: Any, worker: Any) -> tuple[int, int]:
    """Tell which objects the standard streams are."""
    return id(sys.stdout), id(sys.stderr)
