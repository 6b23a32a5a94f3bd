"""The link: any thread and any signal handler may come in at any moment; nothing is lost, nobody hangs."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import random
import select
import signal
import sys
import threading
import zlib
from contextlib import contextmanager

import pytest
from forked import Injected, in_fork, interrupted, storm, timer, two_blows

from taylorism import _channel, _descriptors, _exits, _hold, _link, _listener, _process, _signals, _tree
from taylorism._channel import Frame, encode, pack_object
from taylorism._errors import BossDied, TaylorismError
from taylorism._link import Link
from taylorism._messages import Cancel, Cancelled, NewSets, Order, Over, Signal, WorkerDone, from_wire
from taylorism._policy import Policy

#: seconds that anything here may take at the very most
PATIENCE = 20.0


# -- listeners of our own ---------------------------------------------------------------------------------


def flush(channel):
    """Write everything, reading meanwhile."""
    while not channel.outflow.flush():
        channel.wait(None)
        channel.inflow.pull()


def orders(channel):
    """Yield what main sends, until it hangs up."""
    while not channel.inflow.ended:
        channel.wait(None)
        channel.inflow.pull()
        for number in sorted(channel.inflow.ready):
            head, segments = channel.inflow.ready.pop(number)
            yield Frame(from_wire(head), segments)


def collector(setup):
    """Collect what is sent, check its sums, and report it at END."""
    got = []
    for frame in orders(setup.channel):
        if isinstance(frame.head, NewSets):
            mark, body = (bytes(segment) for segment in frame.segments)
            sender, number, check = pickle.loads(mark)
            assert zlib.crc32(body) == check
            got.append((sender, number))
        elif frame.head.signal is Signal.END:
            setup.channel.outflow.push(encode(WorkerDone("collector", 0), pack_object(got)))
            setup.channel.outflow.push(encode(Over()))
            flush(setup.channel)
            return


def echo(setup):
    """Send back as a report whatever is sent."""
    for frame in orders(setup.channel):
        if isinstance(frame.head, NewSets):
            body = pickle.dumps(bytes(frame.segments[0]))
            setup.channel.outflow.push(encode(WorkerDone("echo", 0), [body]))
            setup.channel.outflow.flush()
        elif frame.head.signal is Signal.END:
            setup.channel.outflow.push(encode(Over()))
            flush(setup.channel)
            return


def canceller(setup):
    """Cancel all that is wanted, but for what is called "done"."""
    for frame in orders(setup.channel):
        if isinstance(frame.head, Cancel):
            which = tuple(each for each in frame.head.wanted if each != "done")
            setup.channel.outflow.push(encode(Cancelled(frame.head.request, which)))
            flush(setup.channel)
        elif isinstance(frame.head, Order) and frame.head.signal is Signal.END:
            setup.channel.outflow.push(encode(Over()))
            flush(setup.channel)
            return


def numberer(setup):
    """Report at END the numbers that came, and how many segments with them."""
    got = []
    for frame in orders(setup.channel):
        if isinstance(frame.head, NewSets):
            got.append(([*frame.head.numbers], len(frame.segments)))
        elif frame.head.signal is Signal.END:
            setup.channel.outflow.push(encode(WorkerDone("numberer", 0), pack_object(got)))
            setup.channel.outflow.push(encode(Over()))
            flush(setup.channel)
            return


def deaf(setup):
    """Neither hear nor say anything."""
    while True:
        signal.pause()


def one_order(setup):
    """Leave after the first order, without a word."""
    next(orders(setup.channel))
    os._exit(3)


@contextmanager
def link_to(serve, **options):
    """Tie main to a listener that is only this function; nothing is left of it afterwards."""
    real, _listener.serve = _listener.serve, serve
    try:
        link = Link(None, {}, False, 0, Policy(**options), "fork")
        link.start()
    finally:
        _listener.serve = real
    try:
        yield link
    finally:
        link.process.kill()
        link.process.join(PATIENCE)
        link._close()
    assert link not in _link._alive


def post(link, sender, number, size=10):
    """Send a set that proves itself."""
    body = random.Random(number).randbytes(size)
    link.send(NewSets(range(0)), [pickle.dumps((sender, number, zlib.crc32(body))), body])


def collected(link):
    """End, wait, and return what the collector got, by sender."""
    link.signal(Signal.END)
    assert link.wait(PATIENCE) and link.results.error is None, link.results.error
    by_sender = {}
    for sender, number in link.results.report()["workers_report"][0]["report"]:
        by_sender.setdefault(sender, []).append(number)
    return by_sender


# -- sending ----------------------------------------------------------------------------------------------


def test_orders_arrive_once_and_in_order():
    """Small and large ones."""
    with link_to(collector) as link:
        for number in range(300):
            post(link, "main", number, 200_000 if number % 50 == 0 else 10)
        assert collected(link) == {"main": [*range(300)]}


def test_many_threads_and_a_signal_handler_may_send_at_once():
    """Every order comes once and whole, those of one sender in their order."""
    numbers = itertools.count()

    def handler(signum, frame):  # it may be interrupted by itself
        post(link, "handler", next(numbers))

    def send(sender):
        for number in range(150):
            post(link, sender, number, (1, 300, 40_000)[number % 3])

    interval = sys.getswitchinterval()
    with link_to(collector) as link:
        threads = [threading.Thread(target=send, args=(name,)) for name in ("one", "two", "three")]
        with timer(handler, 0.001):
            sys.setswitchinterval(1e-5)
            for thread in threads:
                thread.start()
            send("main")
            for thread in threads:
                thread.join()
            sys.setswitchinterval(interval)
        got = collected(link)
        assert sorted(got.pop("handler")) == [*range(next(numbers))]
        assert got == {sender: [*range(150)] for sender in ("main", "one", "two", "three")}


def test_a_handler_that_raises_while_orders_are_sent_tears_none():
    """Each order that was sent comes once and whole; one that was interrupted comes once or not at all."""
    sure = []
    with link_to(collector) as link:
        with storm(_link, _channel) as hits:
            number = 0
            while len(hits) < 300:
                try:
                    post(link, "main", number, (1, 3000, 150_000)[number % 3])
                    sure.append(number)
                except Injected:
                    pass
                number += 1
        got = collected(link)["main"]
    assert got == sorted(set(got)) and set(sure) <= set(got)
    assert not link._claims


def test_a_second_signal_as_the_first_one_leaves_lets_go_of_all_claims():
    """Python 3.10 runs handlers where an exception arrives, too: at the beginning of a `finally`."""
    with link_to(collector) as link:
        for enter in (lambda act: link._exclusively("write", act), link.wait_until):
            with two_blows() as act, pytest.raises((TypeError, Injected)):
                enter(act)
            assert not link._claims and link._waiting == 0
        post(link, "main", 1)
        assert collected(link) == {"main": [1]}


def test_both_sides_may_have_much_to_say():
    """20 MB there and 20 MB back: nobody waits for the other to read first."""
    bodies = [os.urandom(1000) * 1000 for _ in range(20)]
    with link_to(echo) as link:
        for body in bodies:
            link.send(NewSets(range(0)), [body])
        link.signal(Signal.END)
        assert link.wait(PATIENCE)
        assert [record["report"] for record in link.results.report()["workers_report"]] == bodies


def test_what_an_interrupted_sender_left_is_sent_by_who_waits():
    """A handler that raised in the middle of a write leaves an order half sent: it is not forgotten."""
    with link_to(collector) as link:
        flush_once = link._channel.outflow.flush

        def interrupted():
            link._channel.outflow.flush = flush_once
            raise KeyboardInterrupt

        link._channel.outflow.flush = interrupted
        with pytest.raises(KeyboardInterrupt):
            link.signal(Signal.END)
        assert link.wait(2.0)


def test_a_listener_that_is_gone_takes_no_orders_and_that_is_no_error():
    """What it was is told by the results."""
    with link_to(one_order) as link:
        for number in range(50):
            post(link, "main", number, 300_000)
        assert link.wait(PATIENCE)
        assert isinstance(link.results.error, BossDied) and "status 3" in str(link.results.error)
        post(link, "main", 51)
        link.signal(Signal.STOP_RIGHTNOW)


# -- waiting ----------------------------------------------------------------------------------------------


def test_several_threads_may_wait_and_all_come_back():
    """Whoever reads the end, the others learn of it."""
    came, errors = [], []

    def wait():
        try:
            came.append(link.wait(PATIENCE))
        except BaseException as error:
            errors.append(error)

    with link_to(collector) as link:
        threads = [threading.Thread(target=wait) for _ in range(6)]
        for thread in threads:
            thread.start()
        link.signal(Signal.END)
        wait()
        link.close()
        for thread in threads:
            thread.join()
    assert (came, errors) == ([True] * 7, [])


def test_a_thread_about_to_wait_while_another_undoes_the_tie_comes_back():
    """Two threads wait: the other reads the last word and closes, just before this one looks at the descriptor."""
    with link_to(collector) as link:
        real = link._channel.wait

        def other_thread_first(*args):
            link._channel.wait = real
            link.signal(Signal.END)
            while not link.results.over:
                link.receive()
            link.close()
            real(*args)

        link._channel.wait = other_thread_first
        assert link.wait(PATIENCE)


def test_two_threads_may_undo_the_tie_at_the_same_moment(monkeypatch):
    """The second finds it undone."""
    with link_to(collector) as link:
        collected(link)
        getpid = os.getpid

        def other_thread_first():
            monkeypatch.setattr(_link.os, "getpid", getpid)
            link._close()
            return getpid()

        link.process.join(PATIENCE)
        monkeypatch.setattr(_link.os, "getpid", other_thread_first)
        link._close()
    assert link not in _link._alive


def test_a_wait_is_bounded_by_its_timeout():
    """And says that nothing came."""
    with link_to(deaf) as link:
        assert link.wait(0.0) is False
        assert link.wait(0.02) is False


def test_a_wait_is_interrupted_by_a_handler_that_raises_and_can_be_repeated():
    """Ctrl-C, a hundred times; afterwards all still works."""
    with link_to(collector) as link:
        post(link, "main", 0)
        with storm(_link, _channel, seconds=0.002) as hits:
            while len(hits) < 100:
                try:
                    link.wait(PATIENCE)
                except Injected:
                    pass
        assert (link._waiting, link._claims) == (0, {})
        assert collected(link) == {"main": [0]}


def test_a_handler_may_read_what_main_is_waiting_for():
    """A `get_report` in a handler takes the last word; the waiting main sees it nevertheless, and soon."""
    with link_to(collector) as link:
        calls = []

        def handler(signum, frame):
            if not calls:
                link.signal(Signal.END)
            calls.append(link.receive())

        with timer(handler, 0.003):
            assert link.wait(PATIENCE)
    assert calls


def test_an_order_to_stop_that_is_not_obeyed_ends_with_a_kill(monkeypatch):
    """A listener that hangs in a scheduler of the user's is killed after the grace and a margin."""
    monkeypatch.setattr(_link, "_MARGIN", 0.01)
    with link_to(deaf, stop_grace=0.01) as link:
        link.signal(Signal.STOP_RIGHTNOW)
        assert link.wait(PATIENCE)
        assert isinstance(link.results.error, BossDied) and "SIGKILL" in str(link.results.error)


def test_a_listener_that_is_killed_is_noticed_while_main_waits():
    """At once, and its end is told in words."""
    with link_to(deaf) as link:
        threading.Timer(0.02, link.process.kill).start()
        assert link.wait(PATIENCE)
        assert "killed by SIGKILL" in str(link.results.error)


@pytest.mark.parametrize("watched", [True, False])
def test_a_death_is_noticed_though_a_child_of_main_holds_the_channel(watched, monkeypatch):
    """End of file does not come then: the process is watched, or asked for."""
    if not watched:
        monkeypatch.delattr(os, "pidfd_open")
    reader, writer = os.pipe()

    def holder(setup):
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)  # holds our end until the test is over
            os._exit(0)
        os._exit(7)

    with link_to(holder) as link:
        assert link.wait(PATIENCE)
        assert "status 7" in str(link.results.error)
    os.close(reader)
    os.close(writer)


# -- the end ----------------------------------------------------------------------------------------------


def test_what_a_forgotten_link_had_to_finish_is_finished_at_the_end_of_the_program():
    """`finish` waits for what was told to end, and stops the rest."""
    with link_to(collector) as link:
        post(link, "main", 1)
        link.signal(Signal.END)
        link.drop()  # lets it be: it was told to end
        link.finish()
        assert link.results.report()["workers_report"][0]["report"] == [("main", 1)]
        assert link not in _link._alive and not link.process.is_alive()


def test_the_end_of_the_program_stops_what_was_not_told_to_end(monkeypatch):
    """However deaf the listener is."""
    monkeypatch.setattr(_link, "_MARGIN", 0.01)
    with link_to(deaf, stop_grace=0.01) as link:
        link.finish()
        assert link not in _link._alive
        link.process.join(PATIENCE)
        assert link.process.exitcode == -signal.SIGKILL
        link.finish()
        link.drop()
        link.close()


def test_a_forgotten_link_is_swept_by_the_next(monkeypatch):
    """A drop holds nobody up; the tie is undone when another is made."""
    monkeypatch.setattr(_link, "_BRIEFLY", 0.01)
    with link_to(deaf) as link:
        link.drop()
        assert link in _link._alive
        link.process.kill()
        os.waitid(os.P_PID, link.process.pid, os.WEXITED | os.WNOWAIT)
        with link_to(collector):
            assert link not in _link._alive and link._channel.fd == -1


def test_a_fork_of_main_has_no_boss():
    """It is told to make its own; and its end leaves the listener alone."""
    with link_to(collector) as link:

        def check():
            for call in (link.receive, lambda: link.signal(Signal.END), lambda: link.wait(0.1)):
                with pytest.raises(TaylorismError, match="make a Boss of its own"):
                    call()
            link.drop()
            link.finish()
            link.close()
            _link._finish_all()

        in_fork(check)
        post(link, "main", 1)
        assert collected(link) == {"main": [1]}


def test_a_listener_holds_no_end_of_the_other_bosses():
    """Otherwise the end of one would not be seen by its own listener."""

    def fds(setup):
        got = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)}
        setup.channel.outflow.push(encode(WorkerDone("w", 0), pack_object(got)))
        setup.channel.outflow.push(encode(Over()))
        flush(setup.channel)

    with link_to(deaf) as first:
        ends = {os.readlink(f"/proc/self/fd/{first._channel.fd}")}
        with link_to(fds) as link:
            ends.add(os.readlink(f"/proc/self/fd/{link._channel.fd}"))
            assert link.wait(PATIENCE)
            assert not ends & link.results.report()["workers_report"][0]["report"]


def _is_open(fd):
    try:
        os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False
    return True


def test_a_listener_that_cannot_be_started_leaves_nothing_behind(monkeypatch):
    """The system's error comes out; no tie, no descriptor."""

    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before, alive = len(os.listdir("/proc/self/fd")), list(_link._alive)
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(BlockingIOError):
        Link(None, {}, False, 0, Policy(), "fork").start()
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), _link._alive) == (before, alive)


def test_a_waiting_main_uses_no_cpu():
    """It sleeps in one system call, and is woken a few times a second at most."""
    with link_to(deaf) as link:
        calls = []
        real = link._channel.wait
        link._channel.wait = lambda *args: (calls.append(args), real(*args))
        link.wait(0.1)
    assert len(calls) <= 3


def test_a_report_is_there_as_soon_as_it_was_sent():
    """Nothing paces the way up: main reads what has come at every call."""
    with link_to(echo) as link:
        link.send(NewSets(range(0)), [b"x"])
        assert select.select([link._channel.fd], [], [], PATIENCE)[0]
        link.receive()
        assert link.results.report()["workers_report"] == [{"name": "echo", "report": b"x"}]
        link.send(Order(Signal.END))
        assert link.wait(PATIENCE)


# -- sets of instructions, and their cancelling -----------------------------------------------------------


def order(link, *names):
    """Order one set for each name; return their numbers."""
    sets = [{"name": name} for name in names]
    return link.order({"common": 1}, sets, [b"common", *(b"set" for _ in sets)])


def test_sets_have_numbers_in_sequence_that_main_and_listener_agree_on():
    """Each call goes on where the last one ended; no set, no number."""
    with link_to(numberer) as link:
        assert (order(link, "a", "b"), order(link), order(link, "c")) == ([0, 1], [], [2])
        assert link.results.knows("b") and link.results.knows(2) and not link.results.knows(3)
        link.signal(Signal.END)
        assert order(link, "too late") == []
        assert not link.results.knows("too late")
        assert link.wait(PATIENCE)
        assert link.results.report()["workers_report"][0]["report"] == [([0, 1], 3), ([2], 2)]


@pytest.mark.parametrize("last", [Signal.END, Signal.STOP, Signal.STOP_LISTENING, Signal.STOP_RIGHTNOW])
def test_no_set_is_taken_after_the_last_order(last):
    """Whichever of them it was; a HALT is none."""
    with link_to(deaf) as link:
        link.signal(Signal.HALT)
        assert order(link, "a") == [0]
        link.signal(last)
        assert link.closed and order(link, "b") == []


def test_what_was_told_is_known():
    """Whether it began, and whether it is halted: RESUME undoes a HALT, nothing else does."""
    with link_to(deaf) as link:
        assert (link.begun, link.halted, link.closed) == (False, False, False)
        told = []
        for signal_ in (Signal.HALT, Signal.SEND_REPORT, Signal.RESUME, Signal.END):
            link.signal(signal_)
            told.append((link.begun, link.halted, link.closed))
    assert told == [(False, True, False), (False, True, False), (True, False, False), (True, False, True)]


def test_threads_that_order_at_once_get_numbers_of_their_own():
    """In sequence for each call, all different, with a handler that orders too."""
    got = []

    def many():
        got.extend(order(link, *"abcdefg") for _ in range(60))

    interval = sys.getswitchinterval()
    with link_to(numberer) as link:
        threads = [threading.Thread(target=many) for _ in range(3)]
        with timer(lambda signum, frame: got.append(order(link, "x", "y")), 0.002):
            sys.setswitchinterval(1e-5)
            for thread in threads:
                thread.start()
            many()
            for thread in threads:
                thread.join()
            sys.setswitchinterval(interval)
        assert all(numbers == [*range(numbers[0], numbers[0] + len(numbers))] for numbers in got)
        flat = sorted(itertools.chain.from_iterable(got))
        assert flat == [*range(len(flat))]
        link.signal(Signal.END)
        assert link.wait(PATIENCE)
        came = link.results.report()["workers_report"][0]["report"]
        assert sorted(numbers for numbers, _ in came) == sorted(got)


def test_a_cancel_returns_what_the_listener_answers():
    """To this request, not to another; in the order of the user."""
    with link_to(canceller) as link:
        assert link.cancel([3, "done", "a"], PATIENCE) == (3, "a")
        assert link.cancel([], PATIENCE) == ()
        assert link.results.answers == {}


def test_a_cancel_is_bounded():
    """None says that no answer has come in time; an end of the work is an answer: nothing was cancelled."""
    with link_to(deaf) as link:
        assert link.cancel(["a"], 0.02) is None
        link.process.kill()
        assert link.cancel(["a"], PATIENCE) == ()


def test_threads_that_cancel_at_once_get_their_own_answers():
    """Whoever reads it."""
    got = {}

    def cancel(name):
        got[name] = [link.cancel([name, number], PATIENCE) for number in range(20)]

    with link_to(canceller) as link:
        threads = [threading.Thread(target=cancel, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        cancel("main")
        for thread in threads:
            thread.join()
    assert got == {name: [(name, number) for number in range(20)] for name in ("a", "b", "c", "main")}


def test_a_wait_ends_when_what_is_waited_for_is_so():
    """Before the work is over; or at its end; or in vain at the deadline."""
    with link_to(echo) as link:
        assert not link.wait_until(lambda: link.results.reported == 1, 0.02)
        link.send(NewSets(range(1)), [b"x"])
        assert link.wait_until(lambda: link.results.reported == 1, PATIENCE)
        assert not link.results.over and not link.wait(0.0)
        link.signal(Signal.END)
        assert link.wait_until(lambda: False, PATIENCE) and link.results.over
        assert link._waiting == 0


def test_who_waits_is_called_at_every_news():
    """For a bar that shows how far the work is; what it raises comes out of the wait, which can be repeated."""
    with link_to(echo) as link:
        seen = []
        link.on_news = lambda: seen.append(link.results.reported)
        link.send(NewSets(range(1)), [b"x"])
        assert link.wait_until(lambda: link.results.reported == 1, PATIENCE)
        assert seen[-1] == 1
        link.on_news = lambda: 1 / 0
        with pytest.raises(ZeroDivisionError):
            link.wait(PATIENCE)
        assert (link._waiting, link._claims) == (0, {})


def test_the_end_of_the_tie_is_told_once():
    """What shows something can take it down."""
    told = []
    with link_to(collector) as link:
        link.on_close = lambda: told.append("closed")
        collected(link)
        link.close()
        link.close()
        assert told == ["closed"]
    assert told == ["closed"]


def test_the_kill_comes_after_the_grace_that_the_user_gave(monkeypatch):
    """A listener whose workers may take long to leave is not killed in the middle of that."""
    monkeypatch.setattr(_link, "_MARGIN", 0.01)
    with link_to(deaf, stop_grace=100.0) as link:
        link.signal(Signal.STOP_RIGHTNOW)
        assert not link.wait(0.05) and link.process.is_alive()


# -- exceptions at any moment -----------------------------------------------------------------------------

#: where main's processes and descriptors come and go
_HOLDERS = (_channel, _descriptors, _exits, _hold, _link, _process, _signals)


def kept():
    """Return what could be left behind."""
    fds = {fd for fd in os.listdir("/proc/self/fd") if _is_open(fd)}
    return fds, _tree.children(os.getpid()), list(_link._alive), signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_start_that_is_interrupted_at_any_step_leaves_nothing(monkeypatch):
    """No process, no descriptor, no blocked signal: who gets the exception has nothing to close."""
    monkeypatch.setattr(_listener, "serve", deaf)
    for at in itertools.count(1):
        before, link = kept(), Link(None, {}, False, 0, Policy(), "fork")
        steps, done = interrupted(_HOLDERS, link.start, at)
        if done:
            link._end()
        assert kept() == before, f"step {at}"
        if steps < at:
            break
    assert at > 50


def test_an_end_that_is_interrupted_at_any_step_can_be_repeated(monkeypatch):
    """What the first has left open, the second closes."""
    monkeypatch.setattr(_listener, "serve", collector)
    for at in itertools.count(1):
        before, link = kept(), Link(None, {}, False, 0, Policy(), "fork")
        link.start()
        collected(link)
        steps, _ = interrupted(_HOLDERS, link.close, at)
        link.close()
        assert kept() == before, f"step {at}"
        if steps < at:
            break
    assert at > 20
