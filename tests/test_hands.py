"""The processes that run several workers: how many there are, what each is given, and when they go."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import footprints
import psutil
import pytest
from workers import HERE, Scheduler, alive, deed, do, laxist, reports, slots, until, working

import taylorism
from taylorism import _batches, _hands
from taylorism._channel import ChannelClosed, Inflow
from taylorism._hands import Hand, Hands, Spent
from taylorism._ledger import Common, Job
from taylorism._messages import Done
from taylorism._series import Desk


@deed
def own_pid(value: Any, worker: Any) -> int:
    """Tell of our process."""
    return os.getpid()


@deed
def open_files(value: Any, worker: Any) -> tuple[int, int]:
    """Tell of our process, and how many descriptors it has."""
    return os.getpid(), len(os.listdir("/proc/self/fd"))


def children_of(boss: taylorism.Boss) -> list[int]:
    """Return the processes of a Boss."""
    return [child.pid for child in psutil.Process(boss._process.pid).children()]


# ---------------------------------------------------------------------------------------------------------
# how many
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("most", [1, 2, 5, None])
def test_no_process_runs_more_than_it_may(most, watched, monkeypatch):
    """A process runs as many Workers as were asked for, and is replaced."""
    monkeypatch.setattr(_batches, "AMOUNT", 10.0)
    options = {"timeout": 60.0} if watched else {}
    pids = reports(working(*do("own_pid", *range(11)), max_tasks_per_child=most, scheduler=slots(1), **options))
    counts = [pids.count(pid) for pid in dict.fromkeys(pids)]
    assert counts == {1: [1] * 11, 2: [2] * 5 + [1], 5: [5, 5, 1], None: [11]}[most]


@deed
def parents(value: Any, worker: Any) -> tuple[int, int]:
    """Tell of our parent, and of the one that the Worker knows of."""
    return os.getppid(), worker._parent_pid


@pytest.mark.parametrize("most", [1, None])
def test_a_worker_knows_its_parent_wherever_it_is_built(most):
    """By that it is told whether it runs in a process of its own, whose libraries may be capped."""
    boss = working(*do("parents", 1, 2, 3), max_tasks_per_child=most, scheduler=slots(1))
    listener = boss._process.pid
    assert reports(boss) == [(listener, listener)] * 3


def test_no_more_processes_than_slots(monkeypatch):
    """Where nobody fails, there are as many processes as may run at a time."""
    pids = reports(working(*do("own_pid", *range(200)), max_tasks_per_child=None, scheduler=slots(3)))
    assert len(pids) == 200 and len(set(pids)) <= 3


@pytest.mark.parametrize("entry", [taylorism.run_as_server, taylorism.batch_main])
def test_both_ways_in_have_the_option(entry, capsys):
    """`run_as_server` and `batch_main` take it as `Boss` does."""
    common, individual = do("own_pid", 1, 2, 3)
    found = entry(common, individual, scheduler=slots(1), max_tasks_per_child=None)
    if entry is taylorism.run_as_server:
        found.wait_till_finished()
        found = found.get_report()
    assert len({record["report"] for record in found["workers_report"]}) == 1


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "2"])
def test_what_makes_no_sense_is_refused(value):
    """The option is a whole number from 1 on, or None."""
    with pytest.raises(taylorism.BadOption, match="max_tasks_per_child"):
        taylorism.Boss(max_tasks_per_child=value)


def test_descriptors_of_a_process_do_not_grow():
    """A process that is replaced often leaves nothing open, in the listener and in those that follow."""
    boss = working(*do("open_files", *range(30)), max_tasks_per_child=2, scheduler=slots(2), timeout=60.0)
    boss.wait(10)
    found = [record["report"] for record in boss.get_report()["workers_report"]]
    until(lambda: len(children_of(boss)) <= 2)
    listener = len(os.listdir(f"/proc/{boss._process.pid}/fd"))
    boss.set_instructions(*do("open_files", *range(30)))
    boss.wait(10)
    until(lambda: len(children_of(boss)) <= 2)
    assert len(os.listdir(f"/proc/{boss._process.pid}/fd")) <= listener + 8  # of two processes that wait
    boss.wait_till_finished()
    assert len({pid for pid, _ in found}) >= 14 and max(count for _, count in found) < 30


def test_hooks_that_cannot_be_sent():
    """Workers with such hooks, which a fork inherits, have a process each, and none of these is left waiting."""
    common, individual = do("open_files", *range(12))

    def decide(pending: Any, running: Any, report: Any) -> Any:
        launch = pending[: 2 - len(running)]
        for each in launch:
            each["scheduler_hooks"] = footprints.FPList([lambda worker: os.environ.update(HOOKED="yes")])
        return launch, pending[len(launch) :]

    boss = working(common, individual, max_tasks_per_child=None, scheduler=Scheduler(decide))
    boss.wait(10)
    left = children_of(boss)
    boss.end()
    found = reports(boss)
    assert len({pid for pid, _ in found}) == 12 and len(left) <= 4


def test_worker_with_a_work_of_its_own():
    """Who says himself how he is set to work has a process of his own; the others are not disturbed."""
    boss = working(*do("own_pid", 1, 2), max_tasks_per_child=None, scheduler=slots(1))
    boss.set_instructions({}, {"works_alone": [1, 2]})
    boss.set_instructions(*do("own_pid", 3))
    found = reports(boss)
    assert len(set(found)) == 3 and found[0] == found[1] == found[4]


class WorksAlone(taylorism.Worker):
    """Overrides `work`."""

    _footprint = dict(attr=dict(works_alone=dict(type=int)))

    def work(self) -> None:
        """Start the process, as ever."""
        super().work()

    def _task(self, **kwargs: Any) -> int:
        return os.getpid()


def test_few_descriptors():
    """Where the system has no more room, the rest waits for those that run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 45, hard))
    try:
        found = reports(working(*do("own_pid", *range(60)), max_tasks_per_child=None, scheduler=laxist()))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(found) == 60 and len(set(found)) < 30


# ---------------------------------------------------------------------------------------------------------
# while there is nothing to do, and at the end
# ---------------------------------------------------------------------------------------------------------


def _cpu(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def test_idle_processes_wait_and_are_used_again():
    """Between two orders the processes are there and take no cpu; the second is done by them, and they go."""
    boss = working(*do("own_pid", *range(20)), max_tasks_per_child=None, scheduler=slots(2))
    boss.wait(10)
    everybody = [boss._process.pid, *children_of(boss)]
    switches = [psutil.Process(pid).num_ctx_switches().voluntary for pid in everybody]
    before = _cpu(everybody)
    time.sleep(0.1)
    after = [psutil.Process(pid).num_ctx_switches().voluntary for pid in everybody]
    assert _cpu(everybody) - before <= 0.02 and sum(after) - sum(switches) <= 6
    boss.set_instructions(*do("own_pid", *range(20)))
    assert set(reports(boss)) <= set(everybody[1:])
    assert not any(map(alive, everybody))


def test_idle_process_that_is_killed_is_replaced():
    """Who dies with nothing to do costs nothing."""
    boss = working(*do("own_pid", 1), max_tasks_per_child=None, scheduler=slots(1))
    boss.wait(10)
    (pid,) = children_of(boss)
    os.kill(pid, signal.SIGKILL)
    boss.set_instructions(*do("own_pid", 2))
    first, second = reports(boss)
    assert first == pid != second


@pytest.mark.parametrize("how", ["stop_them_working", "drop"])
def test_idle_processes_go_with_their_boss(how):
    """A Boss that is stopped, or forgotten, leaves no process."""
    boss = working(*do("own_pid", 1, 2, 3), max_tasks_per_child=None, scheduler=slots(2))
    boss.wait(10)
    everybody = [boss._process.pid, *children_of(boss)]
    if how == "stop_them_working":
        boss.stop_them_working()
        boss.wait_till_finished()
    del boss
    until(lambda: not any(map(alive, everybody)))


PROGRAM = """
import os, sys, time
sys.path.insert(0, {here!r})
import workers
from workers import *
boss = working(*do("nap", *range(10)), max_tasks_per_child=None, scheduler=slots(2))
boss.wait(10)
pids = [int(x) for x in open(f"/proc/{{boss._process.pid}}/task/{{boss._process.pid}}/children").read().split()]
boss.set_instructions(*do("nap", *range(100000)))
try:
    print(boss._process.pid, *pids, flush=True)
    boss.wait_till_finished()
except KeyboardInterrupt:
    boss.stop_them_working()
    boss.wait_till_finished()
    print(boss.get_report()["status"], flush=True)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_main_is_killed_or_interrupted(signum):
    """Nothing outlives a main that is killed; after a Ctrl-C, stop and report work."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM.format(here=str(HERE))], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL, start_new_session=True) as main:
        assert main.stdout is not None
        pids = list(map(int, main.stdout.readline().split()))
        assert len(pids) == 3
        if signum == signal.SIGINT:
            os.killpg(main.pid, signum)
        else:
            os.kill(main.pid, signum)
        assert main.stdout.read() == ("pending\n" if signum == signal.SIGINT else "")
    until(lambda: not any(map(alive, pids)), seconds=4)


# ---------------------------------------------------------------------------------------------------------
# what travels
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"timeout": 60.0}, {}])
def test_big_instructions(options):
    """Instructions that are larger than any buffer of the system arrive whole, common ones too."""
    values = [bytes([i]) * (1 << 20) for i in range(6)]
    common, individual = do("shape_of", *values, extra=b"z" * (3 << 20))
    found = reports(working(common, individual, max_tasks_per_child=None, scheduler=slots(2), **options))
    assert sorted(found) == [(i, 1 << 20) for i in range(6)]


@deed
def shape_of(value: Any, worker: Any) -> tuple[int, int]:
    """Tell what a value is, without sending it."""
    return value[0], len(value)


def test_shared_arrays():
    """All see, and write, the same memory, whatever way it came, and whenever the array was made."""
    numpy = pytest.importorskip("numpy")
    from taylorism.util import SharedNumpyArray

    first = SharedNumpyArray(numpy.zeros(8))
    boss = taylorism.Boss(scheduler=slots(2), max_tasks_per_child=None,
                          sharedmemory_common_instructions={"value": first})
    second = SharedNumpyArray(numpy.zeros(8))
    boss.set_instructions({"deed": "write_shared"}, {"memory": [1, 2, 3, 4, 5]})
    boss.make_them_work()
    boss.wait_till_finished()
    other = working(*do("write_shared", *[second] * 5), max_tasks_per_child=None, scheduler=slots(2))
    other.wait_till_finished()
    assert first[...].tolist() == [0, 1, 2, 3, 4, 5, 0, 0] and len(other.get_report()["workers_report"]) == 5
    third = SharedNumpyArray(numpy.zeros(8))
    common, individual = {"deed": "write_shared", "value": {"array": third}}, {"memory": [1, 2, 3, 4, 5]}
    working(common, individual, max_tasks_per_child=None, scheduler=slots(2)).wait_till_finished()
    assert third[...].tolist() == [0, 1, 2, 3, 4, 5, 0, 0]


METHODS = """
import os, sys
sys.path.insert(0, {here!r})
from workers import *
import test_hands
if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        order = do("own_pid", *range(20))
        found = reports(working(*order, max_tasks_per_child=None, scheduler=slots(1), start_method=method))
        print(len(found), len(set(found)))
"""


def test_other_start_methods(tmp_path):
    """A listener that is no fork has such processes, too."""
    program = tmp_path / "program.py"
    program.write_text(METHODS.format(here=str(HERE)))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.stderr) == ("20 1\n" * 2, "")


def test_cpus_given_by_the_scheduler():
    """A process serves Workers of as many cpus as it began with; the caps of another would be in their way."""
    scheduler = footprints.proxy.scheduler(limit="cpus", max_cpus=1)
    found = reports(working(*do("own_pid", *range(6)), max_tasks_per_child=None, scheduler=scheduler))
    assert len(found) == 6 and len(set(found)) == 1


def test_boss_in_a_thread():
    """It works outside the main thread."""
    found: list[Any] = []
    order = do("own_pid", *range(10))
    thread = threading.Thread(
        target=lambda: found.extend(reports(working(*order, max_tasks_per_child=None, scheduler=slots(1))))
    )
    thread.start()
    thread.join()
    assert len(found) == 10 and len(set(found)) == 1


def test_inner_boss_reuses_too():
    """A Boss inside a Worker has such processes of its own."""
    found = reports(working(*do("inner", 1, 2), max_tasks_per_child=None, scheduler=slots(1)))
    assert [each[0] for each in found] == [8, 8] and found[0][1] == found[1][1]


@deed
def inner(value: Any, worker: Any) -> tuple[int, int]:
    """Have a Boss of our own."""
    boss = working(*do("own_pid", *range(8)), max_tasks_per_child=None, scheduler=slots(1))
    return len(reports(boss)), os.getpid()


def test_time_is_for_each():
    """A limit of time is that of one Worker, not of its process; who exceeds it costs itself alone."""
    deeds = [0.0, 60.0, 0.0, 0.0]
    boss = working(*do("sleep_for", *deeds), max_tasks_per_child=None, scheduler=slots(1), on_error="collect",
                   timeout=lambda instructions: 0.3 if instructions["value"] == 60.0 else 60.0, stop_grace=0.2)
    boss.wait_till_finished()
    report = boss.get_report()
    pids = [record["report"] for record in report["workers_report"]]
    assert len(pids) == 3 and pids[0] != pids[1] == pids[2]
    assert [type(error) for error in report["errors"].values()] == [taylorism.WorkerTimeout]


@deed
def sleep_for(value: float, worker: Any) -> int:
    """Take so many seconds."""
    time.sleep(value)
    return os.getpid()


@pytest.mark.parametrize("options", [{"timeout": 60.0}, {}])
def test_trials_are_counted_for_each_set(options, tmp_path):
    """Who fails is tried again, in another process, under its name."""
    path = tmp_path / "trials"
    boss = working({"deed": "fail_till"}, {"value": [(path, 1), (path, 4)]}, max_tasks_per_child=None, max_trials=3,
                   scheduler=slots(1), **options)
    assert reports(boss) == ["at last"] * 2
    first, second, third, fourth = path.read_text().split()
    assert second == third == fourth != first
    assert [info["trials"] for info in boss.get_report()["workers_info"].values()] == [1, 3]


def test_order_to_one_that_has_just_died(monkeypatch):
    """What a process was given and had not begun when it died is given to another, and not charged."""
    give = Hands.give

    def kill_first(self: Hands, hand: Hand, name: str, instructions: Any) -> bool:
        os.kill(hand.process.pid, signal.SIGSTOP)
        given = give(self, hand, name, instructions)
        os.kill(hand.process.pid, signal.SIGKILL)
        return given

    monkeypatch.setattr(Hands, "give", kill_first)
    boss = working(*do("own_pid", *range(4)), max_tasks_per_child=None, scheduler=slots(1), timeout=60.0)
    assert len(set(reports(boss))) == 4
    assert {info["trials"] for info in boss.get_report()["workers_info"].values()} == {1}


# ---------------------------------------------------------------------------------------------------------
# its parts
# ---------------------------------------------------------------------------------------------------------


class _Process:
    """Stands for a process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.kept = self.killed = False

    def keep(self) -> None:
        """Note it."""
        self.kept = True

    def kill(self) -> None:
        """Note it."""
        self.killed = True


@pytest.fixture
def engaged():
    """Make hands, engaged, each with the other ends of its descriptors; close them at the end."""
    poller = select.poll()
    made: list[tuple[Hands, Hand, int, int]] = []

    def make(most: int | None = None, hands: Hands | None = None, share: int = 0) -> tuple[Hands, Hand, int]:
        hands = hands or Hands(most, poller)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        hand = hands.prepare(writer, share)
        its = os.dup(hand.desk.orders)
        pid = 1_000_000 + len(made)
        hands.engage(hand, _Process(pid), Inflow(reader))  # type: ignore[arg-type]
        made.append((hands, hand, its, writer))
        return hands, hand, its

    yield make
    for hands, hand, its, writer in made:
        hands.gone(hand.process.pid)
        for fd in (its, writer):
            try:
                os.close(fd)
            except OSError:
                pass


def test_hand_counts_what_it_may_be_given(engaged):
    """It is sent away with its last Worker, and what is taken back does not bring it back."""
    hands, hand, _ = engaged(3)
    assert hand.left == 2 and hand.process.kept
    assert hands.give(hand, "a", {}) and hand.left == 1 and not hand.leaving
    assert hands.give(hand, "b", {}) and hand.left == 0 and hand.leaving
    hands.rest(hand)
    assert hands.free(0) is None and hands.next_deadline < float("inf")


def test_hand_that_may_run_one_is_leaving_from_the_start(engaged):
    """Its orders are closed at once."""
    _, hand, its = engaged(1)
    assert hand.leaving and os.read(its, 10) == b""


def test_others_of_another_share_are_sent_away(engaged):
    """One that began with other cpus is of no use, and leaves."""
    hands, one, _ = engaged(None, share=1)
    _, two, _ = engaged(None, hands, share=2)
    hands.rest(one)
    hands.rest(two)
    assert hands.free(2) is two and one.leaving and not two.leaving and hands.free(2) is None


def test_what_was_not_begun_is_counted_once(engaged):
    """Permits are taken back all at once; those of what could not be sent are not counted."""
    hands, hand, its = engaged(None)
    common = Common(1, b"c")
    jobs = [Job(number, {}, 0, common, b"p") for number in range(5)]
    assert hands.give_several(hand, jobs, {}) and os.read(hand.permits[0], 2) == b"\1\1"
    os.close(its)
    assert not hands.give_several(hand, jobs, {})
    assert hand.take_back() == 3 and hand.take_back() == 0


def test_common_part_is_sent_once(engaged):
    """Until there is another."""
    hands, hand, its = engaged(None)
    for common in (Common(1, b"one"), Common(1, b"one"), Common(7, b"two")):
        hands.give_several(hand, [Job(3, {}, 0, common, b"p")], {})
    inflow = Inflow(its)
    os.set_blocking(its, False)
    inflow.pull()
    frames = [inflow.ready[number] for number in sorted(inflow.ready)]
    parts = [[bytes(part) for part in frame.segments] for frame in frames]
    assert parts == [[b"one", b"p"], [b"p"], [b"two", b"p"]]
    assert [frame.head[0] for frame in frames] == [1, 2, 3]


def test_order_that_does_not_fit_is_sent_bit_by_bit(engaged):
    """The loop waits for room, and the hand is sent away when all is sent."""
    hands, hand, its = engaged(2)
    size = 4 << 20
    assert hands.give(hand, "a", {"x": b"x" * size})
    fd = hand.orders.fileno()
    assert not hand.leaving
    got = 0
    while not hand.leaving:
        got += len(os.read(its, 1 << 20))
        hands.supply([fd])
    while piece := os.read(its, 1 << 20):
        got += len(piece)
    assert got > size


def test_death_in_the_middle_of_an_order(engaged):
    """What has no room in a process that dies is dropped with it."""
    hands, hand, its = engaged(None)
    assert hands.give(hand, "a", {"x": b"x" * (4 << 20)})
    os.close(its)
    hands.supply([hand.orders.fileno()])
    assert hands.gone(hand.process.pid) is hand and hand.unbegun == 1 and not hands
    assert hands.gone(hand.process.pid) is None


def test_who_lingers_is_killed(engaged, monkeypatch):
    """A process that is sent away has some seconds, as whoever has reported."""
    monkeypatch.setattr(_hands, "LINGER", 0.0)
    hands, hand, _ = engaged(None)
    hands.rest(hand)
    hands.enforce(time.monotonic())
    assert not hand.process.killed
    hands.retire()
    assert hands.next_deadline <= time.monotonic()
    hands.enforce(time.monotonic())
    assert hand.process.killed and hands.next_deadline == float("inf")


def test_refused_pipe_leaves_nothing_open(monkeypatch):
    """Where the system has no more descriptors, what was opened is closed."""
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(_hands.os, "pipe", lambda: (_ for _ in ()).throw(OSError(24, "Too many open files")))
    with pytest.raises(OSError, match="Too many"):
        Hands(None, select.poll()).prepare(1, 0)
    monkeypatch.undo()
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_each_used():
    """Processor time is shared out between the Workers; a peak is of who raised it."""
    ours, its = socket.socketpair()
    hand = Hand(Desk(-1, -1, -1), (-1, -1), ours, 5, 0)
    assert hand.used(Done(True, "a", 0, 1, 0.5, 0.25, 1000)) == (Spent(0.5, 0.25, 1000), True)
    assert hand.used(Done(True, "b", 0, 1, 0.1, 0.0, 1000)) == (Spent(0.1, 0.0, 1000), False)
    used, highest = hand.rest_of(Spent(1.0, 0.5, 2000))
    assert used == pytest.approx((0.4, 0.25, 2000)) and highest
    hand.close()
    its.close()


def test_closed_hand_cannot_be_given_anything(engaged):
    """One that has gone is known by that."""
    hands, hand, its = engaged(None)
    os.close(its)
    with pytest.raises(ChannelClosed):
        hand.give("a", {})
    assert not hands.give(hand, "a", {})
    with pytest.raises(taylorism.TaylorismError):
        hands.give(hand, "a", {"x": lambda: None})
    assert not hands.give_several(hand, [Job(1, {}, 0, Common(1, b""), b"")], {"x": lambda: None})
