"""Main: a Boss's tie to its listener: the process, the channel, what has come of it, and the end of it.

Any thread, and any signal handler on top of one, may come in here at any moment. So there are no locks: a
handler that interrupts their holder would wait for ever. A section that must not be entered twice is claimed by an
entry in a dict, which is one operation of the interpreter; who finds it claimed goes away, because the holder will
see what he came for before it leaves. The claims are written such that an exception out of a handler cannot
leave one behind: they are released by operations that the interpreter does not interrupt.

Nor may it leave a process or a descriptor behind. A link is in `_alive` before it has any, and until the last is
closed: what an exception has left undone there is done by the next call, the next Boss or the end of the program.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from taylorism import _channel, _exits, _freight, _instructions, _listener, _process, _streams, _tree
from taylorism._channel import Channel, ChannelClosed
from taylorism._descriptors import close_all
from taylorism._errors import TaylorismError
from taylorism._hold import Berth, Hold
from taylorism._messages import Cancel, NewSets, Order, Signal, to_wire
from taylorism._policy import Policy
from taylorism._results import Results
from taylorism._setup import Setup

__all__ = ["Link"]

_log = logging.getLogger("taylorism")

#: what is logged where the system has nothing to make a `Hold` of
_NO_HOLD = (
    "big reports and instructions take the pipe: this system has no shared memory without a name (memfd, or a file "
    "in /dev/shm), or too few descriptors are left"
)
#: what was logged so far
_said: set[str] = set()

#: seconds after which a waiting main looks again by itself: a signal handler may have read what it waits for
_TICK = 1.0
#: the same with other threads of main waiting
_CROWDED_TICK = 0.05
#: seconds that a listener has, beyond the grace of its workers, to obey an order to stop at once
_MARGIN = 5.0
#: seconds for which the end of a forgotten Boss may hold up the main program
_BRIEFLY = 0.2

#: the number of requests whose answers nobody waits for
_UNHEARD = -1

#: after which the listener takes no more instructions
_CLOSING = (Signal.END, Signal.STOP, Signal.STOP_LISTENING, Signal.STOP_RIGHTNOW)

#: the ties of this process that are not undone; strong, for a Boss may be forgotten with work to be finished
_alive: list[Link] = []


class Link:
    """The tie to a listener. Holds no resource of the system before `start`.

    Parameters
    ----------
    scheduler, shared, verbose, maxlenreport, policy
        As in `Setup`.
    start_method : {'fork', 'spawn', 'forkserver'}
        How the listener is started.

    Attributes
    ----------
    process : Process
        The listener.
    results : Results
        What has come from it.
    begun, halted, closed : bool
        Whether it was told to work, to halt, to take no more instructions.
    on_news : callable
        Called now and then while main waits.
    """

    def __init__(
        self,
        scheduler: Any,
        shared: Mapping[str, Any],
        verbose: bool,
        maxlenreport: int,
        policy: Policy,
        start_method: str,
    ) -> None:
        self._pid = os.getpid()
        self._grace = policy.stop_grace
        self._hold = Hold()
        self.results = Results(policy.on_error, self._hold)
        self._numbers = itertools.count()
        self._requests = itertools.count()
        self.begun = self.halted = self.closed = False
        self.on_news: Callable[[], object] = _nothing
        self._claims: dict[str, object] = {}
        self._waiting = 0
        self._kill_at = float("inf")
        self._ending = False
        self._user: Callable[[], object] = _somebody
        self.on_close: Callable[[], object] = _nothing
        self._sockets: list[socket.SocketType] = []
        self._watches: list[int] = []
        self._channel = Channel()
        self._setup = Setup(
            Channel(), self._pid, scheduler, shared, verbose, maxlenreport, policy, hold=self._hold
        )
        self._forks = start_method == "fork"
        self.process: Any = self._listener(start_method)

    def _listener(self, start_method: str) -> Any:
        if start_method == "fork":
            return _process.ForkedProcess(self._become_listener)
        return _process.ContextProcess(start_method, _listener.serve, self._setup)

    def _become_listener(self) -> None:
        """In the fork: let go of main's ends, then be the listener."""
        self._hold = Hold()  # that of the setup stays open
        for link in _alive:
            link._close()
        _listener.serve(self._setup)

    def start(self, user: object = None) -> None:
        """Start the listener; whatever is raised meanwhile, it leaves nothing behind.

        Parameters
        ----------
        user : object, optional
            The tie is forgotten as soon as this is.

        Raises
        ------
        OSError
            The system refuses a process or a descriptor.
        """
        _sweep()
        if user is not None:
            self._user = weakref.ref(user)
        try:
            _alive.append(self)
            _exits.before_leaving(_finish_all)
            self._tie()
        except BaseException:
            self._user = _nothing
            self._end()
            raise

    def _tie(self) -> None:
        _streams.flush_quietly()
        if self._forks:
            _streams.lay_out()
        if not self._hold.open():
            _say_once(logging.DEBUG, _NO_HOLD)
        self._channel, self._setup.channel = Channel.pair(self._sockets)
        self.process.start()
        self._setup.channel.close()
        _process.watch(self.process.pid, self._watches)

    @property
    def _tied(self) -> bool:
        """Whether there is anything left to undo, by this process."""
        return self._pid == os.getpid() and self in _alive

    @property
    def _forgotten(self) -> bool:
        """Whether nobody will ask for anything any more."""
        return self._user() is None

    # -- sending --------------------------------------------------------------------------------------

    def pack(self, common: Mapping[str, Any], sets: Sequence[dict[str, Any]]) -> _instructions.Packed:
        """Pickle sets of instructions, with what is big in them in the hold.

        Raises
        ------
        InstructionsNotPicklable
            Names the attribute and the cause.
        """
        berth = None if self.closed or not sets else self._hold.own_berth()
        try:
            return _instructions.pack(common, sets, lambda value: _dumped(value, berth))
        except BaseException:
            if berth is not None:
                berth.empty()
            raise

    def send(self, head: Order | Cancel, segments: Iterable[Any] = ()) -> None:
        """Send an order; a listener that is gone takes none, and that is no error here.

        Returns when the system has taken it, or another thread of ours is at it.
        """
        self._check_process()
        self._push(head, segments)
        self._write_out()

    def _push(self, head: Order | Cancel | NewSets, segments: Iterable[Any]) -> None:
        if self._channel.fd >= 0:
            self._channel.outflow.push(_channel.encode(to_wire(head), segments))

    def _write_out(self) -> None:
        try:
            self._write()
        except ChannelClosed:
            self.receive()  # what a listener that hangs up has still said

    def order(
        self,
        common: Mapping[str, Any],
        sets: Sequence[dict[str, Any]],
        packed: Sequence[bytes],
        calls: bool = False,
    ) -> list[int]:
        """Send sets of instructions, and return their numbers; none is taken once the end was ordered.

        What comes of `calls` is no record: see `Results.outcomes`.
        """
        if self.closed or not sets:
            return []
        # One call into C, so that no other thread or handler can come in between: the numbers are in sequence.
        numbers = list(itertools.islice(self._numbers, len(sets)))
        assert numbers[-1] - numbers[0] == len(sets) - 1
        self._check_process()
        self.results.hold(numbers, getattr(packed, "handed", {}))
        if calls:
            self.results.calls.update(numbers)
        # Sent, then expected: if a handler raises between the two, nothing is waited for that nobody knows of. And
        # written first, so that the listener has something to do meanwhile; what is interrupted is sent later.
        now = time.time()
        self._push(NewSets(range(numbers[0], numbers[-1] + 1), calls), packed)
        try:
            self._write_out()
        finally:
            self.results.expect(numbers, sets, now, common)
        return numbers

    def cancel(
        self, wanted: Sequence[int | str], timeout: float, pending_only: bool = False
    ) -> tuple[int | str, ...] | None:
        """Have the listener cancel what is wanted, and wait for its answer; None where it has not come in time.

        With nothing wanted, it answers when it has told of all that has started or ended so far.
        """
        request, answers = next(self._requests), self.results.answers
        self.send(Cancel(request, tuple(wanted), pending_only))
        if not self.wait_until(lambda: request in answers, timeout):
            return None
        return answers.pop(request, ())

    def withdraw(self, numbers: Sequence[int]) -> None:
        """Have the listener cancel what of these is still pending; waits for no answer."""
        self.send(Cancel(_UNHEARD, tuple(numbers), pending_only=True))

    def signal(self, signal: Signal) -> None:
        """Send one of the signals."""
        self.begun = self.begun or signal is Signal.RESUME
        self.halted = signal is Signal.HALT or (self.halted and signal is not Signal.RESUME)
        self.closed = self.closed or signal in _CLOSING
        if signal is Signal.STOP_RIGHTNOW:
            self._kill_at = min(self._kill_at, time.monotonic() + self._grace + _MARGIN)
        self.send(Order(signal))
        # Last: where a Ctrl-C comes meanwhile, the end of the program does not wait for the work.
        self._ending = self._ending or signal in (Signal.END, Signal.STOP, Signal.STOP_LISTENING)

    def _write(self) -> None:
        while self._channel.fd >= 0 and not self._channel.outflow.empty:
            if not self._exclusively("write", self._flush):
                return  # who holds the claim looks again after letting go of it
            if not self._channel.outflow.empty:
                self._channel.wait(_TICK, *self._watched())
                self.receive()

    def _flush(self) -> None:
        if self._channel.fd >= 0:
            self._channel.outflow.flush()

    def _exclusively(self, what: str, act: Callable[[], object]) -> bool:
        """Call `act`, unless somebody is at `what` already; return whether it was called."""
        mine, done = object(), False
        try:
            if self._claims.setdefault(what, mine) is mine:
                act()
                done = True
        finally:
            # Python 3.10 runs handlers also where an exception arrives, but not before a `try` begins.
            try:
                # No call in these two lines, so that no handler can run between them.
                if what in self._claims and self._claims[what] is mine:
                    del self._claims[what]
            finally:
                pass
        return done

    def _watched(self) -> tuple[int, ...]:
        return tuple(self._watches)

    # -- receiving ------------------------------------------------------------------------------------

    def receive(self) -> None:
        """Take in what has come, without waiting."""
        self._check_process()
        self._exclusively("read", self._read)

    def _read(self) -> None:
        if self._channel.fd < 0:
            return
        inflow = self._channel.inflow
        inflow.pull()
        for number in sorted(inflow.ready):
            self.results.note(number, inflow.ready[number])
            inflow.ready.pop(number, None)
        if self.results.fatal is not None and self._kill_at == float("inf"):
            # Also right where the listener does not know: a report that cannot be opened here.
            self.signal(Signal.STOP_RIGHTNOW)
        if not self.results.over and (inflow.ended or self.process.exitcode is not None):
            self._note_death()

    def _note_death(self) -> None:
        self.process.join(_MARGIN)
        self._channel.inflow.pull(to_the_end=True)
        if not self._channel.inflow.ready:
            _tree.end_marked(self.results.mark)
            self.results.listener_died(self.process.exitcode)

    # -- waiting --------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the work, `timeout` seconds at most; return whether it has come."""
        return self.wait_until(lambda: False, timeout)

    def wait_until(self, reached: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait, `timeout` seconds at most, for something or the end of the work; return whether either has come."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        self._waiting += 1
        try:
            return self._wait_until(lambda: self.results.over or reached(), deadline)
        except KeyboardInterrupt:
            self.give_up()
            raise
        finally:
            try:  # as in `_exclusively`
                self._waiting -= 1
            finally:
                pass

    def _wait_until(self, reached: Callable[[], bool], deadline: float) -> bool:
        while True:
            with suppress(ChannelClosed):
                self._exclusively("write", self._flush)  # what an interrupted sender has left
            self.receive()
            self.on_news()
            if reached():
                return True
            now = time.monotonic()
            if now >= deadline:
                return False
            if now >= self._kill_at:
                self.process.kill()  # it hangs in a scheduler or a constructor of the user's
            tick = _TICK if self._waiting == 1 else _CROWDED_TICK
            self._channel.wait(min(tick, deadline - now), *self._watched())

    # -- the end --------------------------------------------------------------------------------------

    def close(self, timeout: float | None = None) -> None:
        """Wait for the end of a listener that has said its last word, and undo the tie.

        If another thread is still reading or writing, the tie is undone by that one.
        """
        if self._tied:
            self.process.join(timeout)
            if self.process.exitcode is not None:
                self._exclusively("read", lambda: self._exclusively("write", self._close))

    def _close(self) -> None:
        """Close all that is main's; to be repeated where it was interrupted."""
        self._channel.close()
        self._hold.drop()
        self.on_close()
        self.on_close = _nothing
        close_all(self._watches)
        if self._pid == os.getpid():
            for sock in self._sockets:  # the listener's end, too, where it was not started
                sock.close()
            with suppress(ValueError):
                _alive.remove(self)  # last: see the head of this module

    def _end(self) -> None:
        """End the listener, without grace, and undo the tie."""
        self.process.kill()
        self.process.join(_MARGIN)
        self._close()

    def give_up(self) -> None:
        """Have the end of the program stop the work rather than wait for it: the user interrupted it."""
        self._ending = False

    def drop(self) -> None:
        """Let go of a listener whose Boss is forgotten; what it was told to end, it ends."""
        self._user = _nothing
        try:
            self._let_go()
        except BaseException:  # the handler of the user's that raises here is told by the interpreter alone
            self._let_go()
            raise

    def _let_go(self) -> None:
        if not self._tied or (self._ending and not self.results.over):
            return
        if self._channel.fd < 0:
            self._end()  # that was begun, and interrupted
            return
        self.signal(Signal.STOP_RIGHTNOW)
        if self.wait(_BRIEFLY):
            self.close(_BRIEFLY)

    def finish(self) -> None:
        """At the end of the program: finish what was told to end, stop the rest; always bounded by Ctrl-C."""
        try:
            if self._ending and self._pid == os.getpid():
                self.signal(Signal.RESUME)
                self.wait()
                self.close()
        except BaseException:
            pass  # a Ctrl-C, or an error that the listener has told of: nobody is left to raise it to
        self._stop()

    def _stop(self) -> None:
        if not self._tied:
            return
        try:
            if self._channel.fd >= 0:
                self.signal(Signal.STOP_RIGHTNOW)
                self.wait(self._grace + 2 * _MARGIN)
        except BaseException:
            pass  # a second Ctrl-C: no more grace
        finally:
            if not self.results.over:
                self.process.kill()
                _tree.end_marked(self.results.mark)
            self.process.join(_MARGIN)
            self._close()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise TaylorismError(
                f"this Boss belongs to process {self._pid}, and this is process {os.getpid()}, a fork of it: "
                "make a Boss of its own here."
            )


def _dumped(value: object, berth: Berth | None) -> bytes:
    packed, trouble = _freight.dump(value, berth)
    if trouble:
        _say_once(logging.WARNING, _freight.REMARK % ("instructions take", trouble))
    return packed


def _say_once(level: int, text: str) -> None:
    if text not in _said:
        _said.add(text)
        _log.log(level, "%s", text)


def _nothing() -> None:
    """Do nothing."""


def _somebody() -> bool:
    """Stand for a user that is not known."""
    return True


def _sweep() -> None:
    """Undo the ties of forgotten or finished Bosses whose listeners have ended meanwhile."""
    for link in [each for each in _alive if each._tied]:
        if link._forgotten and not link._ending:
            link.signal(Signal.STOP_RIGHTNOW)  # its `drop` may have been interrupted
        if (link._forgotten or link.results.over) and not link.process.is_alive():
            link._close()


def _finish_all() -> None:
    for link in list(_alive):
        link.finish()
