"""What the tests order: a worker that does what it is told, a few special ones, schedulers, and ways to wait.

`Doer` has one discriminating attribute, `deed`, the name of a function below; footprints registers all classes
of the test session globally, so no other class may have an attribute of that name.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import taylorism

HERE = Path(__file__).resolve().parent

# ---------------------------------------------------------------------------------------------------------
# ways to wait
# ---------------------------------------------------------------------------------------------------------


def until(condition: Callable[[], Any], what: str = "", seconds: float = 15.0) -> Any:
    """Return what `condition` returns once that is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what or condition}"
        time.sleep(0.005)
    return found


def alive(pid: int) -> bool:
    """Whether process `pid` exists and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def pid_in(path: Path) -> int:
    """Wait for `path` to hold a process number and return it."""
    until(lambda: path.exists() and path.read_text().endswith("\n"), f"a pid in {path}")
    return int(path.read_text())


def write_pid(path: Path, pid: int | None = None) -> None:
    """Write a process number to `path`, which is there once it is whole: who writes it may be stopped meanwhile."""
    draft = path.with_suffix(".draft")
    draft.write_text(f"{os.getpid() if pid is None else pid}\n")
    draft.rename(path)


def working(*order: Any, **options: Any) -> taylorism.Boss:
    """Return a Boss at work on one order."""
    options.setdefault("scheduler", slots(2))
    boss = taylorism.Boss(**options)
    boss.set_instructions(*order)
    boss.make_them_work()
    return boss


def done_so_far(boss: taylorism.Boss) -> int:
    """Return how many records there are."""
    return len(boss.get_report()["workers_report"])


def reports(boss: taylorism.Boss) -> list[Any]:
    """Wait, and return the bare reports in order of completion."""
    boss.wait_till_finished()
    return [record["report"] for record in boss.get_report()["workers_report"]]


def slots(number: int) -> Any:
    """Return a scheduler with that many slots."""
    import footprints

    return footprints.proxy.scheduler(limit="threads", max_threads=number)


def laxist() -> Any:
    """Return a scheduler that launches everything."""
    import footprints

    return footprints.proxy.scheduler(nosort=True)


# ---------------------------------------------------------------------------------------------------------
# the worker that does what it is told
# ---------------------------------------------------------------------------------------------------------

DEEDS: dict[str, Callable[..., Any]] = {}


def deed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make `function` something that `Doer` can be told to do."""
    known = DEEDS.setdefault(function.__name__, function)
    assert known.__code__.co_filename == function.__code__.co_filename, f"two deeds are called {function.__name__}"
    DEEDS[function.__name__] = function
    return function


class Doer(taylorism.Worker):
    """Does one of the deeds; its value is handed to the function."""

    _footprint = dict(
        attr=dict(
            deed=dict(type=str),
            value=dict(type=object, optional=True, default=None),
        )
    )

    def _task(self, **kwargs: Any) -> Any:
        return DEEDS[self.deed](self.value, self)


def do(name: str, /, *values: Any, **common: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return common and individual instructions: `name` done once with each of `values`."""
    return {"deed": name, **common}, {"value": list(values)}


@deed
def echo(value: Any, worker: Any) -> Any:
    return value


@deed
def attributes(value: Any, worker: Any) -> dict[str, Any]:
    return {name: getattr(worker, name) for name in value}


@deed
def surroundings(value: Any, worker: Any) -> dict[str, Any]:
    import multiprocessing

    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "directory": os.getcwd(),
        "variable": os.environ.get(value or "", None),
        "stdin": sys.stdin.read(),
        "stdin by number": os.read(0, 10),
        "daemonic": multiprocessing.current_process().daemon,
        "group": os.getpgrp(),
        "threads": threading.active_count(),
        "global": STATE["word"],
    }


#: a global of this module: main's at the creation of the Boss
STATE = {"word": "as imported", "count": 0}


@deed
def count_up(value: Any, worker: Any) -> int:
    STATE["count"] += 1
    return STATE["count"]


@deed
def die_by(value: int, worker: Any) -> None:
    os.kill(os.getpid(), value)
    time.sleep(60)


@deed
def segfault(value: Any, worker: Any) -> None:
    ctypes.string_at(0)


@deed
def os_exit(value: int, worker: Any) -> None:
    os._exit(value)


@deed
def sys_exit(value: Any, worker: Any) -> None:
    sys.exit(value)


@deed
def bare_sys_exit(value: Any, worker: Any) -> None:
    sys.exit()


@deed
def throw(value: BaseException, worker: Any) -> None:
    raise value


@deed
def throw_from(value: Any, worker: Any) -> None:
    try:
        raise KeyError("the root of it")
    except KeyError as error:
        raise RuntimeError("what came of it") from error


class OddInit(Exception):
    """An exception that wants other arguments than it hands on; pickle cannot load it."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code} ({hint})")
        self.code, self.hint = code, hint


class Prefixing(Exception):
    """An exception that pickle loads, with its message made twice."""

    def __init__(self, code: object) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Keyworded(Exception):
    """An exception whose `__init__` has no positional arguments at all."""

    def __init__(self, *, why: str = "none") -> None:
        super().__init__()
        self.why = why

    def __str__(self) -> str:
        return f"because of {self.why}"


class OddNew(Exception):
    """An exception that cannot be made without its own arguments."""

    def __new__(cls, one: Any, other: Any) -> OddNew:
        return super().__new__(cls, one, other)

    def __init__(self, one: Any, other: Any) -> None:
        super().__init__(one)
        self.other = other


class Slotted(Exception):
    """An exception with slots."""

    __slots__ = ("extra",)


class OwnReduce(Exception):
    """An exception that says itself how it is pickled."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.first, self.second = first, second

    def __reduce__(self) -> Any:
        return OwnReduce, (self.first, self.second)


class NoString(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class OddSystem(OSError):
    """An OSError with an `__init__` of its own."""

    def __init__(self, path: str) -> None:
        super().__init__(2, "not there", path)


class Rude(BaseException):
    """No Exception."""


ODD: dict[str, Callable[[], BaseException]] = {
    "odd init": lambda: OddInit(3, hint="see the log"),
    "prefixing": lambda: Prefixing(3),
    "keyworded": lambda: Keyworded(why="rain"),
    "odd new": lambda: OddNew(1, 2),
    "own reduce": lambda: OwnReduce(1, 2),
    "no string": lambda: NoString("x"),
    "odd system": lambda: OddSystem("/nowhere"),
    "file not found": lambda: FileNotFoundError(2, "No such file or directory", "/nowhere"),
    "key": lambda: KeyError("key"),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "several arguments": lambda: ValueError("a", 2, None),
    "called process": lambda: subprocess.CalledProcessError(3, ["false"], b"out", b"err"),
    "stop iteration": lambda: StopIteration(5),
    "memory": lambda: MemoryError(),
    "recursion": lambda: RecursionError("deep"),
    "assertion": lambda: AssertionError("no"),
    "base": lambda: BaseException("base"),
    "rude": lambda: Rude("rude"),
    "keyboard": lambda: KeyboardInterrupt(),
    "generator": lambda: GeneratorExit(),
    "exit with text": lambda: SystemExit("text"),
}


@deed
def throw_odd(value: str, worker: Any) -> None:
    make = ODD[value]
    raise make()


@deed
def throw_slotted(value: Any, worker: Any) -> None:
    error = Slotted("slots")
    error.extra = value
    raise error


@deed
def throw_local(value: Any, worker: Any) -> None:
    class Local(Exception):
        pass

    raise Local("of this function")


@deed
def throw_unpicklable(value: Any, worker: Any) -> None:
    raise ValueError("it holds a lock", threading.Lock())


class LoadsOnlyWhereMade(Exception):
    """An exception that loads in the process where it was made, hence in the worker, and nowhere else."""

    def __reduce__(self) -> Any:
        return _only_in, (os.getpid(), LoadsOnlyWhereMade, self.args)


class ReportOfWhereMade:
    """A report that loads in the process where it was made only."""

    def __reduce__(self) -> Any:
        return _only_in, (os.getpid(), dict, ())


def _only_in(pid: int, cls: type, args: tuple[Any, ...]) -> Any:
    if os.getpid() != pid:
        raise ImportError("this does not load here")
    return cls(*args)


@deed
def throw_not_loadable(value: Any, worker: Any) -> None:
    raise LoadsOnlyWhereMade("of the worker")


@deed
def report_not_loadable(value: Any, worker: Any) -> Any:
    return ReportOfWhereMade()


@deed
def return_exception(value: Any, worker: Any) -> Any:
    return ValueError("returned, not raised")


@deed
def return_interrupt(value: Any, worker: Any) -> Any:
    return KeyboardInterrupt("returned, not raised")


@deed
def return_unpicklable(value: str, worker: Any) -> Any:
    class Local:
        pass

    unpicklable: dict[str, Callable[[], Any]] = {
        "lambda": lambda: lambda: None,
        "lock": threading.Lock,
        "local object": Local,
        "generator": lambda: (i for i in range(3)),
        "file": lambda: open(os.devnull),
        "deep": _deep,
        "raising reduce": RaisingReduce,
    }
    return unpicklable[value]()


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


class RaisingReduce:
    """Its pickling raises what nobody expects of it."""

    def __reduce__(self) -> Any:
        raise OddInit(4, hint="in reduce")


class NoText:
    """A report that cannot be shown, but sent."""

    def __repr__(self) -> str:
        raise OddInit(5, hint="in repr")


@deed
def return_no_text(value: Any, worker: Any) -> Any:
    return NoText()


@deed
def big(value: int, worker: Any) -> Any:
    """Return that many MiB in an array; numbered to be checked."""
    import numpy

    array = numpy.zeros(value * 1024 * 128, dtype="i8")
    array[0], array[-1] = 1, 2
    return array


@deed
def big_bytes(value: int, worker: Any) -> bytes:
    return b"x" * (value << 20)


@deed
def out_of_memory(value: Any, worker: Any) -> None:
    import resource

    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    bytearray(1 << 30)


@deed
def no_memory_to_pickle(value: Any, worker: Any) -> Any:
    """Have room for the report, and none for its pickle."""
    import resource

    report = [bytes(1 << 20) + bytes([i]) for i in range(64)]
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.RLIM_INFINITY))
    return report


# -- that wait ------------------------------------------------------------------------------------------


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.005)


@deed
def wait(value: str, worker: Any) -> str:
    """Note the start, wait for `value`/release, and note that the clean-up was done."""
    place = Path(value)
    try:
        write_pid(place / f"{worker.name}.pid")  # in here: who reads it may send a signal at once
        _wait_for(place / "release")
    finally:
        (place / f"{worker.name}.cleaned").touch()
    (place / f"{worker.name}.done").touch()
    return str(worker.name)


@deed
def wait_then_fail(value: str, worker: Any) -> None:
    wait(value, worker)
    raise ValueError("after the release")


@deed
def ignore(value: str, worker: Any) -> None:
    """Ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    write_pid(Path(value) / f"{worker.name}.pid")
    time.sleep(60)


@deed
def swallow(value: str, worker: Any) -> None:
    """Swallow whatever is raised."""
    while True:
        try:
            write_pid(Path(value) / f"{worker.name}.pid")
            time.sleep(60)
        except BaseException:
            pass


@deed
def swallow_once(value: str, worker: Any) -> str:
    """Swallow the interruption and finish."""
    try:
        write_pid(Path(value) / f"{worker.name}.pid")
        time.sleep(60)
    except BaseException:
        pass
    return "finished all the same"


@deed
def turn_into_another(value: str, worker: Any) -> None:
    """Raise another error when interrupted."""
    try:
        write_pid(Path(value) / f"{worker.name}.pid")
        time.sleep(60)
    finally:
        raise RuntimeError("raised while it was stopped")


@deed
def caught_interrupt(value: str, worker: Any) -> str:
    """Tell what is raised by a signal of our own."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except BaseException as error:
        return f"{type(error).__module__}.{type(error).__name__}"
    return "nothing"


@deed
def fail_after_a_signal(value: Any, worker: Any) -> None:
    """Handle a signal, then fail for another reason."""
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(60)
    except taylorism._compat.SignalInterruptError:
        pass
    raise ValueError("the real reason")


# -- that have children ---------------------------------------------------------------------------------


@deed
def os_system(value: str, worker: Any) -> None:
    """Wait in C for a program that notes its number."""
    os.system(f"echo $$ > {value}/program.pid; exec sleep 60")


@deed
def nap(value: Any, worker: Any) -> Any:
    time.sleep(0.02)
    return value


@deed
def abort(value: Any, worker: Any) -> None:
    os.abort()


@deed
def programs(value: str, worker: Any) -> None:
    """Start a tree of programs that ignore SIGTERM and wait for it."""
    script = "trap '' TERM; sleep 61 & echo $! > {0}/deep.pid; echo $$ > {0}/shell.pid; wait; sleep 62"
    subprocess.run(["sh", "-c", script.format(value)], check=True)


@deed
def leave_a_program(value: str, worker: Any) -> int:
    """Start a program and return without waiting for it."""
    program = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
    write_pid(Path(value) / "program.pid", program.pid)
    program.returncode = 0  # silences the ResourceWarning
    return program.pid


@deed
def leave_a_deaf_program(value: str, worker: Any) -> None:
    """Wait beside a program that ignores what asks it to end."""
    with subprocess.Popen(["sh", "-c", f"trap '' INT TERM; echo $$ > {value}/program.pid; sleep 60"]) as program:
        pid_in(Path(value) / "program.pid")
        try:
            write_pid(Path(value) / f"{worker.name}.pid")
            time.sleep(60)
        finally:
            program.returncode = 0  # it is not waited for


@deed
def daemonize(value: str, worker: Any) -> str:
    """Leave a double-forked daemon that waits for `value`/release with all our descriptors open."""
    place = Path(value)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            write_pid(place / "daemon.pid")
            _wait_for(place / "release")
        os._exit(0)
    os.waitpid(pid, 0)
    pid_in(place / "daemon.pid")
    return "left a daemon"


@deed
def pool(value: int, worker: Any) -> list[int]:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as workers:
        return workers.map(abs, range(-value, 0))


@deed
def child_process(value: int, worker: Any) -> int:
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=os._exit, args=(value,))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@deed
def child_left_to_exit(value: str, worker: Any) -> str:
    """Leave a child process of multiprocessing and a thread, which are joined when a process exits."""
    import multiprocessing

    place = Path(value)
    multiprocessing.get_context("fork").Process(target=_touch_later, args=(place / "child",)).start()
    threading.Thread(target=_touch_later, args=(place / "thread",)).start()
    return "left two"


def _touch_later(path: Path) -> None:
    time.sleep(0.1)
    path.touch()


@deed
def nested(value: int, worker: Any) -> list[Any]:
    boss = taylorism.Boss(scheduler=slots(2))
    boss.set_instructions(*do("echo", *range(value)))
    boss.make_them_work()
    return sorted(reports(boss))


@deed
def nested_waiting(value: str, worker: Any) -> list[Any]:
    boss = taylorism.Boss(scheduler=slots(2))
    boss.set_instructions(*do("wait", value, value))
    boss.make_them_work()
    return reports(boss)


@deed
def nested_left_to_exit(value: str, worker: Any) -> str:
    """End a Boss and return without waiting for it."""
    boss = taylorism.Boss(scheduler=slots(2))
    boss.set_instructions(*do("touch", f"{value}/one", f"{value}/two"))
    boss.make_them_work(terminate=True)
    STATE["boss"] = boss
    return "left a Boss"


@deed
def touch(value: str, worker: Any) -> None:
    time.sleep(0.05)
    Path(value).touch()


@deed
def fork_and_return(value: Any, worker: Any) -> str:
    """Fork, and have the copy return too, as if it were the worker."""
    pid = os.fork()
    if pid == 0:
        return "the copy"
    os.waitpid(pid, 0)
    return "the worker"


@deed
def close_everything(value: Any, worker: Any) -> str:
    os.closerange(3, 1000)
    return "closed"


@deed
def close_streams(value: Any, worker: Any) -> str:
    sys.stdout.close()
    sys.stderr.close()
    return "closed"


@deed
def print_it(value: str, worker: Any) -> None:
    print(value)


@deed
def print_and_die(value: str, worker: Any) -> None:
    print(value)
    os.kill(os.getpid(), signal.SIGKILL)


@deed
def log_it(value: str, worker: Any) -> None:
    import logging

    logging.getLogger("user").warning(value)


# -- for the options ------------------------------------------------------------------------------------


@deed
def fail_till(value: Any, worker: Any) -> Any:
    """Note a launch in the file ``value[0]``; fail until there were ``value[1]`` of them."""
    path, trials = Path(value[0]), value[1]
    with path.open("a") as file:
        file.write(f"{worker.name}\n")
    if len(path.read_text().splitlines()) < trials:
        raise ValueError(f"trial {len(path.read_text().splitlines())}")
    return "at last"


@deed
def say(value: Any, worker: Any) -> Any:
    """Write to both standard outputs, from Python and from a program; then fail, if told to."""
    print(f"{worker.name} says {value}", flush=True)
    os.system(f"echo a program of {worker.name} >&2")
    if value == "fail":
        raise ValueError("after having said something")


def _taken(mebibytes: int) -> mmap.mmap:
    """Return memory that is new to this process: malloc may have as much left over from what main did before."""
    block = mmap.mmap(-1, mebibytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(mebibytes):
        block.write(b"1" * (1 << 20))
    return block


@deed
def allocate(value: Any, worker: Any) -> Any:
    """Use `value` MiB for a moment."""
    with _taken(value) as block:
        return len(block)


@deed
def hold(value: Any, worker: Any) -> Any:
    """Hold ``value[1]`` MiB, in the directory ``value[0]`` say that they are there, and wait for the release."""
    with _taken(value[1]):
        (Path(value[0]) / "there").touch()
        _wait_for(Path(value[0]) / "release")
        return worker.memory


@deed
def burn(value: Any, worker: Any) -> Any:
    """Use so many seconds of processor time."""
    while time.process_time() < value:
        pass


# ---------------------------------------------------------------------------------------------------------
# special workers
# ---------------------------------------------------------------------------------------------------------


class InitRaises(taylorism.Worker):
    """Its constructor fails."""

    _footprint = dict(attr=dict(init_raises=dict(type=str)))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        raise OddInit(6, hint=self.init_raises)


class InitExits(taylorism.Worker):
    """Its constructor leaves the interpreter."""

    _footprint = dict(attr=dict(init_exits=dict(type=int)))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sys.exit(self.init_exits)


class InitSets(taylorism.Worker):
    """What its constructor sets reaches the task; so does what its prehook sets."""

    _footprint = dict(attr=dict(init_sets=dict(type=int)))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.double = 2 * self.init_sets
        self.order = ["init"]
        self.made_in = os.getpid()

    def _work_and_communicate_prehook(self) -> None:
        self.order.append("prehook")

    def _task(self, **kwargs: Any) -> Any:
        return self.double, [*self.order, "task"], self.made_in != os.getpid(), dict(kwargs)


def hook(worker: Any) -> None:
    """Stand for a hook of a scheduler."""
    worker.order.append("hook")


def failing_hook(worker: Any) -> None:
    """Stand for a hook that fails."""
    raise LookupError("in the hook")


class PrehookRaises(taylorism.Worker):
    """Its prehook fails."""

    _footprint = dict(attr=dict(prehook_raises=dict(type=str)))

    def _work_and_communicate_prehook(self) -> None:
        raise LookupError(self.prehook_raises)


class NoTask(taylorism.Worker):
    """Does not implement its task."""

    _footprint = dict(attr=dict(no_task=dict(type=str)))


class ProudOwner(taylorism.Worker):
    """Uses names that a package might have wanted, as attributes and as methods."""

    _footprint = dict(
        attr=dict(
            proud_owner=dict(type=str),
            timeout=dict(type=str),
            status=dict(type=int),
            report=dict(type=str),
            instructions=dict(type=str),
            process=dict(type=str),
            pid=dict(type=str),
            retries=dict(type=str),
            log=dict(type=str),
            result=dict(type=int),
            boss=dict(type=str),
        )
    )

    def _live(self) -> str:
        return "mine"

    def run(self) -> str:
        return "mine"

    def start(self) -> str:
        return "mine"

    def stop(self) -> str:
        return "mine"

    def _task(self, **kwargs: Any) -> Any:
        return [self.timeout, self.status, self.pid, self._live(), self.run(), self.start(), self.stop()]


class WithDict(taylorism.Worker):
    """Has an FPDict, over which footprints itself can stumble."""

    import footprints as _fp

    _footprint = dict(attr=dict(with_dict=dict(type=_fp.FPDict)))

    def _task(self, **kwargs: Any) -> Any:
        return dict(self.with_dict)


class Choosy(taylorism.Worker):
    """Takes one of two words."""

    _footprint = dict(attr=dict(choosy=dict(type=str, values=["this", "that"])))

    def _task(self, **kwargs: Any) -> str:
        return str(self.choosy)


class PrintsWhenMade(taylorism.Worker):
    """Prints in its constructor, hence in the listener."""

    _footprint = dict(attr=dict(prints_when_made=dict(type=int)))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        print(f"made {self.prints_when_made}")

    def _task(self, **kwargs: Any) -> None:
        pass


class Bound(taylorism.BindedWorker):
    """A worker of the deprecated class."""

    _footprint = dict(attr=dict(bound=dict(type=str)))

    def _task(self, **kwargs: Any) -> Any:
        return self.scheduler_ticket, self.binding()


class Blind(taylorism.Worker):
    """Its work() starts nothing."""

    _footprint = dict(attr=dict(blind=dict(type=str)))

    def work(self) -> None:
        pass


# ---------------------------------------------------------------------------------------------------------
# schedulers
# ---------------------------------------------------------------------------------------------------------


class Scheduler:
    """No footprint, only a callable `launchable`: calls a function with what it is given."""

    def __init__(self, decide: Callable[..., Any]) -> None:
        self.decide = decide

    def launchable(self, pending_instructions: Any, workers: Any, report: Any) -> Any:
        """Decide."""
        return self.decide(pending_instructions, workers, report)


@deed
def write_shared(value: Any, worker: Any) -> Any:
    """Write an element of a shared array, wherever in the value it is."""
    array = value["array"] if isinstance(value, dict) else value
    assert type(array).__name__ == "SharedNumpyArray"
    with array.get_lock():
        array[int(worker.memory)] += worker.memory
    return array


@deed
def fail_once(value: Any, worker: Any) -> Any:
    """Fail the first time, which the shared array remembers."""
    value[0] += 1
    if value[0] == 1:
        raise RuntimeError("the first time")
    return value.tolist()


# ---------------------------------------------------------------------------------------------------------
# objects that are hard to carry
# ---------------------------------------------------------------------------------------------------------


class LoadsOnlyInTheListener:
    """An instruction that main can pickle and cannot load."""

    def __init__(self, main: int) -> None:
        self.main = main

    def __reduce__(self) -> Any:
        return _not_in, (self.main,)


def _not_in(pid: int) -> Any:
    if os.getpid() == pid:
        raise ImportError("this does not load in main")
    return LoadsOnlyInTheListener(pid)


class NeverLoads:
    """An instruction that can be pickled and never loaded."""

    def __reduce__(self) -> Any:
        return _never, ()


def _never() -> Any:
    raise ImportError("this never loads")

