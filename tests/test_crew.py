"""The crew: workers are started, heard, reaped and stopped, however they and what they started behave."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from forked import exit_code, fork, in_fork

from taylorism import _channel, _child, _crew, _ladder, _signals, _tree, _usage
from taylorism._channel import open_object
from taylorism._crew import Crew
from taylorism._errors import TaylorismError
from taylorism._ledger import Job
from taylorism._messages import Outcome, State
from taylorism._policy import Policy

#: seconds that anything here may take at the very most
PATIENCE = 20.0


class Stub:
    """What the crew asks of a Worker; its process does what it is told."""

    def __init__(self, life, name="w"):
        self.name = name
        self.life = life
        self.messenger = self._process = None
        self.memory = 0.0

    def work(self):
        """Start the process."""
        self._process.start()

    def live(self, log_dir=None):
        """Do in the process what a worker does there."""
        self.life(self)


class Stage:
    """A listener that has nothing but a crew."""

    def __init__(self, **options):
        _tree.become_subreaper()
        _child.run = Stub.live
        self.inbox = _signals.Inbox()
        self.poller = select.poll()
        self.poller.register(self.inbox.fd, select.POLLIN)
        self.crew = Crew(self.poller, self.inbox.forget, 0, Policy(**options))
        self.crew._oom_kills = 0  # known, so that the crew has no chore of its own
        self.gone = []
        self.given_up = []

    def start(self, life, name="w", number=0, seconds=None):
        """Start a worker; return its member."""
        return self.crew.start(Stub(life, name), Job(number, {"a": 1}), seconds)

    def turn(self, timeout=0.02):
        """Do once what the loop of the listener does."""
        ready = {fd for fd, _ in self.poller.poll(timeout * 1000)}
        self.inbox.drain(self.inbox.fd in ready)
        for member in self.crew.heard(ready):
            self.crew.hear(member)
        for member in self.crew.reap() if self.inbox.child_ended() or self.crew.winding_up else ():
            self.crew.hear(member, dead=True)
            if self.crew.dismiss(member):
                self.gone.append(member)
        self.given_up += self.crew.enforce()

    def until(self, reached):
        """Turn until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < deadline, "it never comes"
            self.turn()

    def end(self):
        """Turn until all are gone."""
        self.until(lambda: self.crew.all_gone)
        assert _tree.children(os.getpid()) == []


def report(value):
    """Make a life that gives a report and leaves."""

    def life(worker):
        worker.messenger.put(_child.Result(worker.name, value))
        worker.messenger.close()

    return life


def wait_for_ever(worker=None):
    """Be interrupted by SIGTERM, with the exception that a task gets."""
    role = _signals.Interruption()
    role.begin()
    while True:
        signal.pause()


def stubborn(worker=None):
    """Ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker.messenger.put(_child.Result(worker.name, "deaf")) if worker else None
    while True:
        signal.pause()


@pytest.fixture
def ready():
    """Give a function to be called in a child when it is ready, and one that waits for that."""
    reader, writer = os.pipe()
    yield (lambda: os.write(writer, b"!")), (lambda: os.read(reader, 1))
    os.close(reader)
    os.close(writer)


# -- life and death -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "text", 3_000_000])
def test_a_report_is_heard_and_its_worker_reaped(value):
    """Whatever its size; the pipe is closed, the exit code known."""

    def check():
        stage = Stage()
        before = set(os.listdir("/proc/self/fd"))
        sent = bytes(value) if isinstance(value, int) else value
        member = stage.start(report(np.frombuffer(sent, "u1") if isinstance(value, int) else sent))
        stage.end()
        assert stage.gone == [member] and member.process.exitcode == 0
        assert member.notice.head.outcome is Outcome.REPORT
        came = open_object(member.notice.segments)
        assert (came.tobytes() if isinstance(value, int) else came) == sent
        assert set(os.listdir("/proc/self/fd")) == before

    in_fork(check)


@pytest.mark.parametrize("code", [0, 3])
def test_a_death_without_a_word_is_a_member_without_a_notice(code):
    """The listener makes a failure of it."""

    def check():
        stage = Stage()
        member = stage.start(lambda worker: os._exit(code))
        stage.end()
        return member.notice, member.process.exitcode, member.name

    assert in_fork(check) == (None, code, "w")


def test_a_torn_notice_is_none():
    """Only a whole frame is a report."""

    def life(worker):
        notice, segments = worker.messenger.packed(_child.Result("w", "report"))
        stream = b"".join(map(bytes, _channel.encode(notice, segments)))
        os.write(worker.messenger.fd, stream[:-1])
        os.kill(os.getpid(), signal.SIGKILL)

    def check():
        stage = Stage()
        member = stage.start(life)
        stage.end()
        return member.notice, member.process.exitcode

    assert in_fork(check) == (None, -signal.SIGKILL)


def test_what_a_dead_worker_has_written_is_read_to_its_end():
    """Though nobody had listened before it died."""

    def check():
        stage = Stage()
        member = stage.start(report("x" * 30_000))
        os.waitid(os.P_PID, member.process.pid, os.WEXITED | os.WNOWAIT)
        (gone,) = stage.crew.reap()
        assert gone is member and member.notice is None
        notice = stage.crew.hear(member, dead=True)
        stage.crew.dismiss(member)
        assert stage.crew.all_gone
        return open_object(notice.segments)

    assert in_fork(check) == "x" * 30_000


def test_a_death_is_seen_though_a_grandchild_holds_the_pipe():
    """End of file says nothing; and what is left behind holds nothing up."""

    def life(worker):
        fork(lambda: signal.pause())
        os._exit(4)

    def check():
        stage = Stage()
        member = stage.start(life)
        stage.until(lambda: stage.gone)
        assert stage.gone == [member] and member.process.exitcode == 4
        assert stage.crew.all_gone and _tree.children(os.getpid())  # a child left on purpose may live on
        stage.crew.stop(0.0)
        stage.end()

    in_fork(check)


def test_many_workers_at_once():
    """All are heard, each once."""

    def check():
        stage = Stage()
        members = [stage.start(report(number), f"w{number}") for number in range(40)]
        stage.end()
        assert {member.name for member in stage.gone} == {member.name for member in members}
        return sorted(open_object(member.notice.segments) for member in members)

    assert in_fork(check) == [*range(40)]


def test_a_worker_holds_no_descriptor_of_the_others():
    """But the standard streams and its own pipe."""

    def fds(worker):
        worker.messenger.put(_child.Result(worker.name, _descriptors()))
        worker.messenger.close()

    def check():
        before = _descriptors()
        stage = Stage()
        for number in range(3):
            stage.start(lambda worker: signal.pause(), f"p{number}")
        member = stage.start(fds)
        stage.until(lambda: member.notice is not None)
        stage.crew.stop(0.0)
        stage.end()
        return [each for each in open_object(member.notice.segments) if each not in before]

    (own,) = in_fork(check)
    assert own.startswith("pipe:")


def _descriptors():
    """Return what is behind each descriptor of this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


def test_a_status_that_was_asked_for_in_the_listener_is_not_lost():
    """A scheduler of the user's sees the workers: it may ask whether one is alive, or stop it."""

    def check():
        stage = Stage()
        member = stage.start(lambda worker: os._exit(3))
        os.waitid(os.P_PID, member.process.pid, os.WEXITED | os.WNOWAIT)
        assert not member.worker._process.is_alive()
        assert stage.crew.reap() == [member]
        return member.process.exitcode

    assert in_fork(check) == 3


def test_a_worker_that_ends_just_before_it_is_killed_is_reaped(monkeypatch):
    """The signal that it has ended may come between the reaping and the deadline."""
    monkeypatch.setattr(_crew, "LINGER", 0.0)

    def check():
        stage = Stage()
        member = stage.start(report("r"))
        while member.notice is None:
            select.select([member.inflow.fd], [], [])
            stage.crew.hear(member)
        os.waitid(os.P_PID, member.process.pid, os.WEXITED | os.WNOWAIT)
        stage.crew.enforce()
        assert stage.crew.reap() == [member]
        stage.crew.dismiss(member)
        return stage.crew.all_gone

    assert in_fork(check)


def test_a_worker_that_lives_on_after_its_report_is_ended(monkeypatch):
    """Threads and children that it waits for get some seconds, not for ever; the report stays."""
    monkeypatch.setattr(_crew, "LINGER", 0.05)

    def life(worker):
        report("r")(worker)
        wait_for_ever()

    def check():
        stage = Stage()
        member = stage.start(life)
        stage.end()
        stage.until(lambda: stage.crew.next_deadline == float("inf"))  # the last look at their memory is over too
        return open_object(member.notice.segments), member.process.exitcode

    assert in_fork(check) == ("r", -signal.SIGKILL)


# -- starts that fail -----------------------------------------------------------------------------------


def test_a_refused_process_leaves_nothing_behind(monkeypatch):
    """No descriptor, no member."""

    def check():
        stage = Stage()
        before = os.listdir("/proc/self/fd")

        def refuse():
            raise BlockingIOError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(os, "fork", refuse)
        with pytest.raises(OSError):
            stage.start(report(1))
        assert os.listdir("/proc/self/fd") == before
        return stage.crew.all_gone

    assert in_fork(check)


def test_a_refused_pipe_leaves_nothing_behind(monkeypatch):
    """The same, one step earlier."""

    def check():
        stage = Stage()

        def refuse():
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "pipe", refuse)
        with pytest.raises(OSError):
            stage.start(report(1))
        return stage.crew.all_gone

    assert in_fork(check)


def test_a_work_that_starts_nothing_is_an_error_that_names_the_class():
    """A subclass may override `work`; it must start the process."""

    def check():
        stage = Stage()
        before = os.listdir("/proc/self/fd")
        worker = Stub(report(1))
        worker.work = lambda: None
        with pytest.raises(TaylorismError, match=r"work\(\) of Stub started no process"):
            stage.crew.start(worker, Job(0, {}))
        assert os.listdir("/proc/self/fd") == before

    in_fork(check)


# -- the ladder -----------------------------------------------------------------------------------------


def test_a_polite_worker_cleans_up_before_it_leaves(tmp_path, ready):
    """SIGTERM raises in it, its ``finally`` runs, and nothing is killed."""
    trace, (tell, wait) = tmp_path / "cleaned", ready

    def life(worker):
        try:
            role = _signals.Interruption()
            role.begin()
            tell()
            signal.pause()
        finally:
            trace.write_text("yes")

    def check():
        stage = Stage()
        member = stage.start(life)
        wait()
        stage.crew.stop()
        assert stage.crew.stopping
        stage.end()
        return member.process.exitcode

    assert in_fork(check) == 1
    assert trace.read_text() == "yes"


def test_a_stubborn_worker_and_all_below_it_are_killed(ready):
    """Its child that ignores SIGTERM, a program that it started, and an orphan."""
    (tell, wait), pipe = ready, os.pipe()

    def life(worker):
        fork(stubborn)
        fork(lambda: fork(stubborn))  # an orphan at once
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(50)"], pass_fds=[pipe[1]])
        os.wait()
        tell()
        stubborn()

    def check():
        os.close(pipe[0])
        stage = Stage()
        member = stage.start(life)
        wait()
        os.close(pipe[1])
        stage.crew.stop(0.05)
        stage.end()
        return member.process.exitcode

    assert in_fork(check) == -signal.SIGKILL
    os.close(pipe[1])
    assert os.read(pipe[0], 1) == b"", "something below still holds the pipe"
    os.close(pipe[0])


def test_a_stopped_process_is_ended_too(ready):
    """SIGCONT comes with SIGTERM: what was suspended by hand runs its clean-up."""
    tell, wait = ready

    def life(worker):
        _signals.Interruption().begin()
        tell()
        signal.pause()

    def check():
        stage = Stage()
        member = stage.start(life)
        wait()
        os.kill(member.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, member.process.pid, os.WSTOPPED)
        stage.crew.stop()
        stage.end()
        return member.process.exitcode

    assert in_fork(check) == 1


def test_a_second_stop_may_only_shorten_the_first():
    """When main dies, nobody waits for the tasks any more; a longer grace is not granted again."""

    def check():
        stage = Stage()
        member = stage.start(stubborn)
        stage.until(lambda: member.notice is not None)
        stage.crew.stop(50.0)
        first = stage.crew.next_deadline
        stage.crew.stop(100.0)
        assert stage.crew.next_deadline <= first
        stage.crew.stop(0.0)
        stage.end()
        return member.process.exitcode

    assert in_fork(check) == -signal.SIGKILL


def test_what_the_system_cannot_end_is_given_up(monkeypatch):
    """A process on a dead network disk does not answer to SIGKILL: it is named, and left."""
    monkeypatch.setattr(_ladder, "_UNKILLABLE", 0.05)

    def check():
        stage = Stage()
        member = stage.start(stubborn)
        stage.until(lambda: member.notice is not None)
        send = _tree.send
        _tree.send = lambda pids, *signals: None
        stage.crew.stop(0.0)
        stage.until(lambda: stage.crew.all_gone)
        send([member.process.pid], signal.SIGKILL)
        os.waitpid(member.process.pid, 0)
        return stage.given_up == [member]

    assert in_fork(check)


def test_an_idle_crew_has_no_deadline():
    """Nothing is due before something happens."""

    def check():
        stage = Stage()
        assert stage.crew.next_deadline == float("inf") and stage.crew.all_gone
        stage.crew.stop()
        assert stage.crew.all_gone

    in_fork(check)


# -- one worker alone -----------------------------------------------------------------------------------


def tell(writer):
    """Write our number; small enough to come in one piece."""
    os.write(writer, f"{os.getpid()}\n".encode())


def numbers(reader, count):
    """Read so many numbers of processes."""
    data = b""
    while data.count(b"\n") < count:
        data += os.read(reader, 1000)
    return {int(line) for line in data.split()}


def stubborn_after_telling(writer):
    """Ignore SIGTERM, and say so."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(writer)
    while True:
        signal.pause()


def with_daemon(writer):
    """Make a life that starts a process that has it as its parent no more, then goes on for ever."""

    def life(worker):
        _signals.Interruption().begin()
        exit_code(fork(lambda: fork(stubborn_after_telling, writer)))
        while True:
            signal.pause()

    return life


def a_tree(writer):
    """Make a life with a child, a grandchild and a program below it; all of them ignore SIGTERM."""

    def child():
        fork(stubborn_after_telling, writer)
        stubborn_after_telling(writer)

    def life(worker):
        fork(child)
        ignoring = "import os, signal, sys; signal.signal(15, signal.SIG_IGN); "
        telling = f"os.write({writer}, b'%d\\n' % os.getpid()); signal.pause()"
        subprocess.Popen([sys.executable, "-c", ignoring + telling], pass_fds=[writer])
        stubborn_after_telling(writer)

    return life


def adopted(reader):
    """Read the number of a process, and wait until it is a child of ours."""
    found = numbers(reader, 1)
    deadline = time.monotonic() + PATIENCE
    while not found <= {*_tree.children(os.getpid())}:
        assert time.monotonic() < deadline, "it is never adopted"
        time.sleep(0.001)
    return found


def there(pids):
    """Return those that have not ended and been reaped."""
    return {pid for pid in pids if os.path.exists(f"/proc/{pid}")}


@pytest.mark.parametrize("on_error", ["stop", "collect"])
def test_one_worker_is_stopped_with_its_tree_and_the_others_go_on(on_error):
    """All of its tree ignores SIGTERM; it is gone when all of them are, not before."""

    def check():
        reader, writer = os.pipe()
        stage = Stage(on_error=on_error, stop_grace=0.05)
        other = stage.start(wait_for_ever, "other")
        member = stage.start(a_tree(writer), "one")
        tree = numbers(reader, 4)
        assert member.process.pid in tree
        stage.crew.stop_one(member, State.CANCELLED)
        assert stage.crew.winding_up and not stage.crew.stopping
        stage.until(lambda: stage.gone)
        assert stage.gone == [member] and not there(tree) and not stage.given_up
        assert member.process.exitcode == -signal.SIGKILL and member.sentence == State.CANCELLED
        assert not stage.crew.winding_up
        assert stage.crew.is_here(other) and not stage.crew.is_here(member)
        assert _tree.children(os.getpid()) == [other.process.pid]
        stage.crew.stop(0.0)
        stage.end()

    in_fork(check)


@pytest.mark.parametrize("on_error", ["stop", "collect"])
def test_what_one_worker_has_let_go_of_is_stopped_with_it(on_error):
    """A process that forked twice is ours, not below the worker; it goes with it all the same."""

    def check():
        reader, writer = os.pipe()
        stage = Stage(on_error=on_error, stop_grace=0.05)
        member = stage.start(with_daemon(writer))
        orphan = adopted(reader)
        stage.crew.stop_one(member, State.CANCELLED)
        stage.until(lambda: stage.gone)
        left = there(orphan)
        stage.crew.stop(0.0)
        stage.end()
        return left

    assert in_fork(check) == set()


def test_one_worker_that_cleans_up_is_not_killed(tmp_path):
    """It has its grace; the rest of its tree is waited for as long, and goes by itself."""

    def check():
        reader, writer = os.pipe()
        stage = Stage(stop_grace=50.0)

        def life(worker):
            _signals.Interruption().begin()
            try:
                tell(writer)
                signal.pause()
            finally:
                (tmp_path / "trace").write_text("cleaned up")

        member = stage.start(life)
        numbers(reader, 1)
        stage.crew.stop_one(member, State.FAILED)
        stage.end()
        return member.process.exitcode

    assert in_fork(check) == 1
    assert (tmp_path / "trace").read_text() == "cleaned up"


def test_who_is_cancelled_while_he_is_stopped_is_cancelled():
    """A worker that had its time, and is then cancelled, is not tried again; it is not sent SIGTERM twice."""

    def check():
        stage = Stage(stop_grace=0.05)
        member = stage.start(stubborn)
        stage.until(lambda: member.notice is not None)
        stage.crew.stop_one(member, State.FAILED)
        ladder = member.ladder
        stage.crew.stop_one(member, State.CANCELLED)
        assert member.sentence == State.CANCELLED and member.ladder is ladder
        stage.crew.stop_one(member, State.FAILED)
        assert member.sentence == State.CANCELLED
        stage.end()

    in_fork(check)


def test_a_stop_of_one_may_be_overtaken_by_a_stop_of_all():
    """Both end; nobody is left, and nothing is due any more."""

    def check():
        reader, writer = os.pipe()
        stage = Stage(stop_grace=50.0)
        members = [stage.start(a_tree(writer), f"w{number}", number) for number in range(2)]
        tree = numbers(reader, 8)
        stage.crew.stop_one(members[0], State.CANCELLED)
        assert stage.crew.next_deadline > time.monotonic() - 1
        stage.crew.stop(0.0)
        stage.end()
        assert not there(tree) and not stage.crew.winding_up
        assert sorted(stage.gone, key=members.index) == members

    in_fork(check)


def test_one_worker_that_the_system_cannot_end_is_given_up(monkeypatch):
    """The others go on; what it writes later is heard no more, and its end holds nobody up."""
    monkeypatch.setattr(_ladder, "_UNKILLABLE", 0.05)

    def check():
        reader, writer = os.pipe()
        stage = Stage(on_error="collect", stop_grace=0.0)

        def life(worker):
            os.read(reader, 1)
            report("too late")(worker)
            signal.pause()

        member, other = stage.start(life, "one"), stage.start(wait_for_ever, "other")
        before, send = set(os.listdir("/proc/self/fd")), _tree.send
        _tree.send = lambda pids, *signals: None
        stage.crew.stop_one(member, State.FAILED)
        stage.until(lambda: stage.given_up)
        assert stage.given_up == [member] and not stage.crew.winding_up
        assert stage.crew.is_here(other) and not stage.crew.is_here(member)
        os.write(writer, b"!")
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            stage.turn()
        heard, left = member.notice, before & set(os.listdir("/proc/self/fd"))
        _tree.send, _ladder._UNKILLABLE = send, 60.0
        send([member.process.pid], signal.SIGKILL)
        stage.crew.stop(0.0)
        stage.end()
        assert stage.gone == [other]
        return heard is None, len(before) - len(left)

    assert in_fork(check) == (True, 1)


def test_who_was_given_up_is_charged_to_nobody_else(monkeypatch):
    """It is a child of ours until the system ends it; a worker that fails later does not wait for it."""
    monkeypatch.setattr(_ladder, "_UNKILLABLE", 0.02)

    def check():
        stage = Stage(on_error="collect", stop_grace=0.0)
        member = stage.start(wait_for_ever, "one")
        send = _tree.send
        _tree.send = lambda pids, *signals: None
        stage.crew.stop_one(member, State.FAILED)
        stage.until(lambda: stage.given_up)
        later = stage.start(lambda worker: os._exit(7), "later")
        os.waitid(os.P_PID, later.process.pid, os.WEXITED | os.WNOWAIT)
        (dead,) = stage.crew.reap()
        at_once = dead is later and stage.crew.dismiss(later)
        _tree.send, _ladder._UNKILLABLE = send, 60.0
        send([member.process.pid], signal.SIGKILL)
        stage.crew.stop(0.0)
        stage.end()
        return at_once

    assert in_fork(check)


# -- what a dead worker leaves --------------------------------------------------------------------------


def orphan_of(writer, end):
    """Make a life that starts something that ignores SIGTERM, waits until it is there, and comes to its end."""

    def life(worker):
        reader, inner = os.pipe()

        def child():
            os.write(inner, b"!")
            stubborn_after_telling(writer)

        fork(child)
        os.read(reader, 1)
        end(worker)

    return life


def failing(worker):
    """Give a failure, and leave."""
    worker.messenger.put(_child.Result(worker.name, error=ZeroDivisionError("of the task")))
    worker.messenger.close()
    os._exit(1)


@pytest.mark.parametrize("on_error", ["finish", "collect"])
@pytest.mark.parametrize("end", [lambda worker: os._exit(7), failing])
def test_what_a_failed_worker_leaves_is_stopped(on_error, end):
    """It is gone when that is too; the others go on."""

    def check():
        reader, writer = os.pipe()
        stage = Stage(on_error=on_error, stop_grace=0.05)
        other = stage.start(wait_for_ever, "other")
        member = stage.start(orphan_of(writer, end))
        orphan = numbers(reader, 1)
        stage.until(lambda: stage.gone)
        assert stage.gone == [member] and not there(orphan)
        assert not member.sentence and stage.crew.is_here(other) and not stage.crew.stopping
        stage.crew.stop(0.0)
        stage.end()

    in_fork(check)


@pytest.mark.parametrize("on_error", ["stop", "finish", "collect"])
def test_what_a_worker_leaves_that_ended_well_is_spared(on_error):
    """It was left on purpose: also by the failure of another, later, but not by a stop of all."""

    def check():
        reader, writer = os.pipe()
        stage = Stage(on_error=on_error, stop_grace=0.05)
        good = stage.start(orphan_of(writer, report("done")), "good")
        orphan = numbers(reader, 1)
        stage.until(lambda: stage.gone)
        assert stage.gone == [good] and there(orphan) == orphan and stage.crew.all_gone
        bad = stage.start(lambda worker: os._exit(7), "bad")
        stage.until(lambda: len(stage.gone) == 2)
        assert stage.gone == [good, bad] and not stage.crew.winding_up
        assert there(orphan) == orphan
        stage.crew.stop(0.0)
        stage.end()
        assert not there(orphan)

    in_fork(check)


def test_what_a_running_worker_has_let_go_of_is_not_charged_to_another():
    """A daemon of a worker that goes on must not go with one that fails meanwhile."""

    def check():
        reader, writer = os.pipe()
        stage = Stage(on_error="collect", stop_grace=0.0)

        stage.start(with_daemon(writer), "goes on")
        orphan = adopted(reader)
        bad = stage.start(lambda worker: os._exit(7), "bad")
        stage.until(lambda: stage.gone)
        assert stage.gone == [bad]
        left = there(orphan) == orphan
        stage.crew.stop(0.0)
        stage.end()
        return left

    assert in_fork(check)


@pytest.mark.parametrize("order", [("good", "bad"), ("bad", "good")])
@pytest.mark.parametrize("program", [False, True])
def test_who_left_what_is_told_apart(order, program):
    """Two workers end at the same moment: only what the failed one leaves is stopped, be it a program or a fork."""

    def started(writer):
        if not program:
            stubborn_after_telling(writer)
        telling = f"import os, signal; os.write({writer}, b'%d\\n' % os.getpid()); signal.pause()"
        os.set_inheritable(writer, True)
        os.execv(sys.executable, [sys.executable, "-c", telling])

    def life(writer, gate, end):
        def live(worker):
            fork(started, writer)
            os.read(gate, 1)
            end(worker)

        return live

    def check():
        gate, opened = os.pipe()
        pipes = {name: os.pipe() for name in order}
        stage = Stage(on_error="collect", stop_grace=0.05)
        ends = {"good": report("done"), "bad": lambda worker: os._exit(7)}
        members = {name: stage.start(life(pipes[name][1], gate, ends[name]), name) for name in order}
        left = {name: numbers(pipes[name][0], 1) for name in order}
        os.write(opened, b"!!")
        for member in members.values():
            os.waitid(os.P_PID, member.process.pid, os.WEXITED | os.WNOWAIT)
        stage.until(lambda: len(stage.gone) == 2)
        assert not there(left["bad"]) and there(left["good"]) == left["good"]
        stage.crew.stop(0.0)
        stage.end()

    in_fork(check)


# -- time and names ---------------------------------------------------------------------------------------


def test_a_worker_that_has_had_its_time_is_overdue():
    """It alone, until it is being stopped; the loop is told when."""

    def check():
        stage = Stage(timeout=1.0, stop_grace=50.0)
        before = time.monotonic()
        long = stage.start(wait_for_ever, "long", seconds=1000.0)
        free = stage.start(wait_for_ever, "free")
        assert stage.crew.overdue() == []
        stage.crew._lookout.next_look = float("inf")
        assert before + 1000.0 <= stage.crew.next_deadline <= time.monotonic() + 1000.0
        short = stage.start(wait_for_ever, "short", seconds=0.001)
        assert stage.crew.next_deadline <= time.monotonic() + 0.001
        time.sleep(0.002)
        assert stage.crew.overdue() == [short] and short.seconds == 0.001
        stage.crew.stop_one(short, State.FAILED)
        assert stage.crew.overdue() == []
        assert [member.sentence for member in (long, free, short)] == ["", "", State.FAILED]
        stage.crew.stop(0.0)
        stage.end()

    in_fork(check)


def test_without_a_time_limit_nobody_is_overdue():
    """Nor is anything due; the same for a limit that allows any time."""

    def check():
        for options in ({}, {"timeout": lambda instructions: None}):
            stage = Stage(**options)
            stage.start(wait_for_ever)
            stage.crew._lookout.next_look = float("inf")
            assert stage.crew.overdue() == [] and stage.crew.next_deadline == float("inf")
            stage.crew.stop(0.0)
            stage.end()

    in_fork(check)


def test_a_worker_that_has_reported_is_not_overdue():
    """Its task is done in time; how long its process lingers is another matter."""

    def check():
        stage = Stage(timeout=1.0)

        def life(worker):
            report("r")(worker)
            wait_for_ever()

        member = stage.start(life, seconds=0.05)
        stage.until(lambda: member.notice is not None)
        time.sleep(0.06)
        late = bool(stage.crew.overdue())
        stage.crew.stop(0.0)
        stage.end()
        return late

    assert not in_fork(check)


def test_a_worker_that_has_died_is_not_overdue():
    """What it left may take its time to end; it has failed by its own doing, not for lack of time."""

    def check():
        reader, writer = os.pipe()
        stage = Stage(on_error="collect", timeout=1.0, stop_grace=0.5)
        member = stage.start(orphan_of(writer, lambda worker: os._exit(7)), seconds=0.1)
        numbers(reader, 1)
        stage.until(lambda: member.process.noted)
        assert stage.crew.winding_up
        time.sleep(0.1)
        late = bool(stage.crew.overdue())
        stage.crew.stop(0.0)
        stage.end()
        return late

    assert not in_fork(check)


def test_who_is_called_is_found_by_number_and_by_name():
    """Those that are at their task; several may have had one name, and a number is no name."""

    def check():
        stage = Stage()
        first = stage.start(wait_for_ever, "a", 0)
        second = stage.start(wait_for_ever, "1", 1)
        lingering = stage.start(stubborn, "b", 2)
        stage.until(lambda: lingering.notice is not None)
        dead = stage.start(lambda worker: os._exit(0), "c", 3)
        os.waitid(os.P_PID, dead.process.pid, os.WEXITED | os.WNOWAIT)
        stage.crew.reap()
        called = {wanted: stage.crew.called({wanted}) for wanted in (0, 1, 2, 3, 4, "a", "1", "b", "c", "0", "")}
        stage.crew.stop(0.0)
        stage.end()
        found = {wanted: members for wanted, members in called.items() if members}
        assert found == {0: [first], 1: [second], "a": [first], "1": [second], 3: [dead], "c": [dead]}
        assert stage.crew.called({0}) == []

    in_fork(check)


def test_a_process_without_a_worker_that_cannot_be_ended_is_given_up():
    """It is waited for until the stop has given up, and no longer."""

    def check():
        crew = Stage(max_tasks_per_child=2).crew
        crew.hands._all[0] = object()
        waits = crew.all_gone
        crew._ladder = SimpleNamespace(has_given_up=True)
        return waits, crew.all_gone

    assert in_fork(check) == (False, True)


# -- what they used, and their logs -----------------------------------------------------------------------


def test_what_a_worker_used_is_known_at_its_end():
    """Processor time and memory, of the worker alone."""

    def life(worker):
        # Mapped, not allocated: what `malloc` has free is inherited, and to change it does not count (`_usage`).
        kept = np.frombuffer(mmap.mmap(-1, 60 << 20), float)
        kept[:] = 1
        start = time.process_time()
        while time.process_time() < start + 0.05:
            kept[0] += 1
        report("r")(worker)

    def check():
        stage = Stage()
        busy, idle = stage.start(life, "busy"), stage.start(report("r"), "idle")
        assert busy.usage.rusage is None
        stage.end()
        assert busy.usage.rusage.ru_utime + busy.usage.rusage.ru_stime >= 0.05
        assert idle.usage.rusage.ru_utime < 0.05
        assert 60 <= busy.usage.peak < 110 and idle.usage.peak < 30, (busy.usage.peak, idle.usage.peak)
        assert busy.usage.unknown == ""

    in_fork(check)


def test_the_end_that_somebody_else_has_noted_tells_no_usage():
    """None, and why."""

    def check():
        stage = Stage()
        member = stage.start(lambda worker: os._exit(3))
        os.waitid(os.P_PID, member.process.pid, os.WEXITED | os.WNOWAIT)
        assert not member.worker._process.is_alive()
        stage.end()
        return member.usage.peak, member.usage.unknown

    peak, unknown = in_fork(check)
    assert peak is None and "noted by another" in unknown


def test_a_crew_with_nobody_in_it_looks_at_nobody(monkeypatch):
    """The look at their memory that was due when the last one left is the last one."""
    for pause in ("_PAUSE", "_THRIFT"):
        monkeypatch.setattr(_usage, pause, 0.0)

    def check():
        stage = Stage()
        stage.start(report("r"))
        assert stage.crew.next_deadline < float("inf")
        stage.end()
        stage.until(lambda: stage.crew.next_deadline == float("inf"))

    in_fork(check)


def test_a_worker_is_told_where_its_output_goes_and_what_was_there_before(tmp_path):
    """The directory goes to its process; how long the files were is kept for the message of a failure."""
    (tmp_path / "w.out").write_text("12345")
    (tmp_path / "w.err").write_text("123")

    def check():
        stage = Stage(log_dir=str(tmp_path))
        _child.run = lambda worker, log_dir: (worker.messenger.put(_child.Result("w", log_dir)), os._exit(0))
        member = stage.start(None)
        new = stage.start(None, "new")
        stage.end()
        return member.logged, new.logged, open_object(member.notice.segments)

    assert in_fork(check) == ((5, 3), (0, 0), str(tmp_path))


def test_without_a_directory_nothing_is_told():
    """Nor looked for."""

    def check():
        stage = Stage()
        _child.run = lambda worker, log_dir: (worker.messenger.put(_child.Result("w", log_dir)), os._exit(0))
        member = stage.start(None)
        stage.end()
        return member.logged, open_object(member.notice.segments)

    assert in_fork(check) == ((0, 0), None)
