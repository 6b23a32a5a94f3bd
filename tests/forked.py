"""Tools of the tests: functions run in a fork, and exceptions that come at any step of a module."""

from __future__ import annotations

import ctypes
import dis
import functools
import gc
import itertools
import logging
import operator
import os
import pickle
import signal
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

import psutil

import taylorism

#: seconds that a whole test may take where the timer of pytest-timeout is borrowed
PATIENCE = 30.0


def in_fork(function: Callable[..., Any], *args: Any) -> Any:
    """Return what `function` returns in a fork of this process; what it raises fails the test."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _answer(writer, function, args)
    os.close(writer)
    with open(reader, "rb") as file:
        answer = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert answer, f"the fork left without an answer, with status {status}"
    failure, value = pickle.loads(answer)
    assert not failure, failure
    return value


def _answer(writer: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        answer = pickle.dumps(("", function(*args)))
    except BaseException:
        answer = pickle.dumps((traceback.format_exc(), None))
    try:
        for child in psutil.Process().children(recursive=True):
            child.kill()  # or it would hold the pipe of the answer
        with open(writer, "wb") as file:
            file.write(answer)
    finally:
        os._exit(0)


def fork(function: Callable[..., Any], *args: Any) -> int:
    """Return the pid of a fork that calls `function`, and leaves with status 0, or 1 if that raises."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function(*args)
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    return pid


def exit_code(pid: int) -> int:
    """Wait for the end of a child, and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Injected(BaseException):
    """What a handler of the user's raises, at the worst moment."""


def _raise_injected() -> None:
    raise Injected


class Injector:
    """Calls `action` once (by default, raises `Injected`), before the n-th instruction that runs in one module.

    A signal handler runs between two instructions of bytecode; so what stands this stands every signal.
    """

    def __init__(
        self, module: ModuleType, at: int = 0, action: Callable[[], Any] = _raise_injected
    ) -> None:
        self._filename = module.__file__
        self._at = at
        self._action = action
        self.count = 0
        sys._getframe().f_trace_opcodes = True  # 3.12 looks for it, in any frame, at the next `settrace`

    def run(self, function: Callable[[], Any]) -> Any:
        """Call `function` with the injection; the module runs untouched once it has happened."""
        before = sys.gettrace()
        gc.disable()  # an exception that is raised in a callback of the collector's cannot come out
        sys.settrace(self._enter)
        try:
            return function()
        finally:
            sys.settrace(before)
            gc.enable()

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename != self._filename:
            return None
        frame.f_trace = self._step  # before the next line: 3.13 looks at it there
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self.count += 1
            if self.count == self._at:
                self._action()
        return self._step


@contextmanager
def two_blows() -> Iterator[Callable[[], object]]:
    """Yield what fails with a TypeError, in one call into C, while a signal has come whose handler has not run.

    The handler raises `Injected` if it runs in code of ours.
    """
    ours = os.path.dirname(taylorism.__file__)

    def handler(signum: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename.startswith(ours):
            raise Injected

    trip = ctypes.PyDLL(None).PyErr_SetInterruptEx
    trip.argtypes, trip.restype = [ctypes.c_int], None
    steps = itertools.chain(map(trip, (signal.SIGVTALRM,)), map(operator.neg, ("no number",)))
    old_handler = signal.signal(signal.SIGVTALRM, handler)
    try:
        yield functools.partial(any, steps)
    finally:
        signal.signal(signal.SIGVTALRM, old_handler)


class _Wire:
    """What can be watched as it goes."""


class Tripper(Injector):
    """Has a real signal pending, once, at the n-th step of some modules at which a handler may run.

    The interpreter runs handlers as a function begins, after a call, and as a loop goes round. What is between
    two of these is not torn, as it is by `Injector`.
    """

    def __init__(self, modules: Iterable[ModuleType], at: int, signum: int) -> None:
        super().__init__(sys.modules[__name__], at)
        self._filenames = {module.__file__ for module in modules}
        trip = ctypes.PyDLL(None).PyErr_SetInterruptEx
        trip.argtypes, trip.restype = [ctypes.c_int, ctypes.py_object], None
        # C has to call it, as the wire goes: after a call of our own, the handler would run, and raise, in here.
        self._wire: _Wire | None = _Wire()
        self._tie: Any = weakref.ref(self._wire, functools.partial(trip, signum))

    def disarm(self) -> None:
        """Have nothing happen any more."""
        self._tie = None

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        self._filename = frame.f_code.co_filename if frame.f_code.co_filename in self._filenames else ""
        step = super()._enter(frame, event, arg)
        if step is not None:
            self.count += 1
            if self.count == self._at:
                self._wire = None
        return step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode" and dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith(("CALL", "JUMP")):
            self.count += 1
            if self.count == self._at:
                self._wire = None
        return self._step


def raise_injected(signum: int, frame: FrameType | None) -> None:
    """Be the handler that raises, but not in what logging has done around a fork: nothing can come out of that."""
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back  # of the tracing itself
    if frame is None or frame.f_code.co_filename != logging.__file__:
        raise Injected


def interrupted(modules: Iterable[ModuleType], act: Callable[[], object], at: int) -> tuple[int, bool]:
    """Call `act` with a handler that raises at its `at`-th step.

    Returns
    -------
    tuple of int and bool
        How many steps there were, and whether it came to its end.
    """
    tripper, done = Tripper(modules, at, signal.SIGVTALRM), False
    old_handler = signal.signal(signal.SIGVTALRM, raise_injected)
    try:
        tripper.run(act)
        done = True
    except Injected:
        pass
    finally:
        tripper.disarm()
        signal.signal(signal.SIGVTALRM, old_handler)
    return tripper.count, done


@contextmanager
def storm(*modules: ModuleType, seconds: float = 0.0004) -> Iterator[list[int]]:
    """Have a real signal come all the time; its handler raises `Injected` wherever `modules` are at work.

    Yields
    ------
    list
        One line number for each time that it has.
    """
    hits: list[int] = []
    files = {module.__file__ for module in modules}
    deadline = time.monotonic() + PATIENCE

    def handler(signum: int, frame: FrameType | None) -> None:
        assert time.monotonic() < deadline, "the test hangs"
        here = frame
        while here is not None and here.f_code.co_filename not in files:
            here = here.f_back
        if here is not None:
            hits.append(here.f_lineno)
            raise Injected

    with timer(handler, seconds):
        yield hits


@contextmanager
def timer(handler: Callable[[int, FrameType | None], None], seconds: float) -> Iterator[None]:
    """Call `handler` as a signal handler every so many seconds; the timer of pytest-timeout comes back after."""
    gc.collect()
    gc.disable()  # an exception that is raised in a callback of the collector's cannot come out
    old_handler = signal.signal(signal.SIGALRM, handler)
    old_timer = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old_handler)
        signal.setitimer(signal.ITIMER_REAL, *old_timer)
        gc.enable()
