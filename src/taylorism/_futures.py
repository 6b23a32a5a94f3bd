"""Main: futures, as those of `concurrent.futures`, for calls that workers make; imported on demand.

Nobody else than the caller moves them: main has no thread for that. A future is told of what has come of its call
whenever the caller waits for something of its Boss, or asks a future; then its callbacks are called, there.

So that `concurrent.futures.wait` and `as_completed` work too, which wait for an event that somebody else sets, the
event is replaced by one that listens to the Boss while it is waited for (`_compat.drive_waiters`).
"""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taylorism import _calls, _compat
from taylorism._errors import BadOption, BossDied, BossEnded, TaylorismError, WaitTimeout, describe, quote
from taylorism._link import Link
from taylorism._messages import State
from taylorism._policy import checked_wait

if TYPE_CHECKING:
    from taylorism._boss import Boss

__all__ = ["CallFuture", "Calls"]

#: seconds that a listener has to answer
_PATIENCE = 10.0


class FutureNotDone(WaitTimeout, FutureTimeout):
    """The call has not ended in time; before Python 3.11, `concurrent.futures` has a TimeoutError of its own."""


class CallFuture(Future[Any]):
    """What will come of a call; from `Boss.submit`. The methods are those of `concurrent.futures.Future`.

    Attributes
    ----------
    id : int
        For `Boss.cancel`, which also stops a call that runs.
    name : str
        The name of its worker.
    """

    def __init__(self, boss: Boss, number: int, name: str) -> None:
        super().__init__()
        self.id = number
        self.name = name
        self._boss: Boss | None = boss
        self._why: BaseException | None = None
        _compat.drive_waiters(self, boss._link.wait_until)

    def result(self, timeout: float | None = None) -> Any:
        """Return what the call returned; wait for it, `timeout` seconds at most.

        Raises
        ------
        Exception
            What the call raised.
        concurrent.futures.CancelledError
            It was cancelled, or stopped with all others.
        TimeoutError
            It has not ended in time, or cannot, because the Boss is halted.
        """
        self._await(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, None where it returned; wait for it, `timeout` seconds at most.

        Raises
        ------
        concurrent.futures.CancelledError, TimeoutError
            As `result`.
        """
        self._await(timeout)
        return super().exception(0)

    def done(self) -> bool:
        """Whether the call has returned, or raised, or was cancelled."""
        self._look()
        return super().done()

    def running(self) -> bool:
        """Whether the call is being made."""
        self._look()
        boss = self._boss
        return boss is not None and boss._link.results.views[self.id].state == State.RUNNING

    def cancelled(self) -> bool:
        """Whether the call was cancelled, or stopped with all others."""
        self._look()
        return super().cancelled()

    def cancel(self) -> bool:
        """Cancel the call unless it has begun, and return whether it is cancelled.

        What runs goes on to its end, as with `concurrent.futures`; `Boss.cancel` stops it.
        """
        boss = self._boss
        if boss is not None and not self.done():
            boss._link.cancel([self.id], _PATIENCE, pending_only=True)
        return self.cancelled()

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Have `fn` called with this future when it is done: at once, or while the caller waits for something."""
        self._look()
        super().add_done_callback(fn)

    def _look(self) -> None:
        """Take in what has come, without waiting."""
        boss = self._boss
        if boss is not None:
            boss._link.receive()
            boss._calls.settle()

    def _await(self, timeout: float | None) -> None:
        boss, seconds = self._boss, checked_wait(timeout)
        if boss is not None:
            boss._calls.wait(lambda: self._boss is None, seconds)
        if not super().done():
            raise FutureNotDone(
                f"{self.name} has not ended within {timeout} s, or cannot begin because its Boss was halted: wait "
                "again, cancel it, or set the Boss to work by make_them_work()."
            )
        if super().cancelled():
            raise CancelledError(self._told()) from self._why

    def _told(self) -> str:
        if self._why is None:
            return f"{self.name} was cancelled, or stopped with all the work of its Boss."
        return f"{self.name} was stopped with all the others, because of {describe(self._why)}"

    def _settle(self, state: str, value: Any, why: BaseException | None) -> None:
        """Become done; nothing happens where that has happened already."""
        with suppress(InvalidStateError):
            if state == State.DONE:
                self.set_result(value)
            elif state == State.FAILED:
                self.set_exception(value)
            else:
                self._why = why
                _compat.cancel_future(self)
        self._boss = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}, {self._standing()}>"

    def _standing(self) -> str:
        boss = self._boss
        if super().cancelled():
            return "cancelled"
        if not super().done():
            return "pending" if boss is None else boss._link.results.views[self.id].state
        error = super().exception(0)
        return "returned" if error is None else f"raised {type(error).__name__}"


class Calls:
    """The futures of a Boss that are not done yet.

    Parameters
    ----------
    link : Link
        Of that Boss.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._open: dict[int, CallFuture] = {}
        self._count = itertools.count(1)

    def order(
        self, boss: Boss, function: Callable[..., Any], calls: Iterable[_calls.Packed], common: Mapping[str, Any]
    ) -> list[CallFuture]:
        """Have workers make calls, and return their futures.

        Raises
        ------
        BossEnded
            No more work is taken.
        """
        if self._link.closed:
            raise _ended()
        common = {**common, _calls.FUNCTION: _calls.packed_function(function)}
        prefix = common.pop("name", _calls.label(function))
        numbered = zip(calls, self._count)  # noqa: B905 - the numbers have no end
        sets: list[dict[str, Any]] = [
            {"name": f"{prefix}-{number}", _calls.ARGUMENTS: each} for each, number in numbered
        ]
        packed = self._link.pack(common, sets)
        numbers = self._link.order(common, sets, packed, calls=True)
        if len(numbers) < len(sets):
            raise _ended()
        futures = [CallFuture(boss, number, each["name"]) for number, each in zip(numbers, sets, strict=True)]
        self._open.update(zip(numbers, futures, strict=True))
        return futures

    def wait(self, reached: Callable[[], bool], timeout: float | None) -> None:
        """Wait, `timeout` seconds at most, unless the Boss was halted and no worker runs."""
        link = self._link
        if link.halted:
            link.cancel((), _PATIENCE)  # for all the news so far
        link.wait_until(lambda: reached() or (link.halted and link.results.idle), timeout)

    def settle(self) -> None:
        """Tell the futures what has come of their calls."""
        results = self._link.results
        for number in list(results.outcomes):
            if number in self._open:  # else it is just being made
                self._tell(number, *results.outcomes.get(number, (State.CANCELLED, None)))
                results.outcomes.pop(number, None)
        if results.over and self._open:
            died = isinstance(results.fatal, BossDied)
            for number in list(self._open):
                state, value = (State.FAILED, results.fatal) if died else (State.STOPPED, None)
                self._tell(number, *results.outcomes.pop(number, (state, value)))

    def _tell(self, number: int, state: str, value: Any) -> None:
        future = self._open.get(number)
        if future is not None:
            future._settle(state, value, self._link.results.fatal)
            self._open.pop(number, None)


def _ended() -> BossEnded:
    return BossEnded(
        "this Boss takes no more calls, since its end was ordered, by end(), wait_till_finished(), a stop, or the "
        "end of its `with` block: make another one."
    )


def submit(boss: Boss, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> CallFuture:
    """Have a worker of `boss` make one call."""
    packed = _calls.packed_arguments([(args, kwargs)], several=False)
    (future,) = boss._calls.order(boss, function, [packed], {})
    return future


def map_in_order(
    boss: Boss,
    function: Callable[..., Any],
    iterables: Sequence[Iterable[Any]],
    timeout: float | None,
    chunksize: int,
    attributes: Mapping[str, Any],
) -> Iterator[Any]:
    """Have workers of `boss` make calls, and return an iterator over the values, in order.

    Raises
    ------
    BadOption
        `chunksize` is less than 1, or `timeout` no number.
    """
    if isinstance(chunksize, bool) or not isinstance(chunksize, int) or chunksize < 1:
        raise BadOption(f"chunksize={quote(chunksize, 200)} makes no sense: give a whole number from 1 on.")
    seconds = checked_wait(timeout)
    deadline = None if seconds is None else time.monotonic() + seconds
    calls: Iterator[Any] = (((*args,), {}) for args in zip(*iterables))  # noqa: B905 - the shortest one ends it
    packed = [_calls.packed_arguments(chunk, several=True) for chunk in _chunks(calls, chunksize)]
    futures = boss._calls.order(boss, function, packed, attributes) if packed else []
    return _values(boss, deque(futures), deadline)


def _chunks(calls: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(calls, size)):
        yield chunk


def _values(boss: Boss, futures: deque[CallFuture], deadline: float | None) -> Iterator[Any]:
    try:
        while futures:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            yield from futures.popleft().result(left)
    finally:
        if futures and os.getpid() == boss._link._pid:
            with suppress(TaylorismError):
                boss._link.withdraw([future.id for future in futures])
