"""Programs that the tests run as main programs of their own: ``scenarios.py NAME PLACE``."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import footprints
import workers
from workers import do, laxist, slots

import taylorism

PLACE = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()


def at_work(*order, **options):
    """Return a Boss at work."""
    options.setdefault("scheduler", laxist())
    boss = taylorism.Boss(**options)
    boss.set_instructions(*order)
    boss.make_them_work()
    return boss


def waiting(name="w", deed="wait"):
    """Return a Boss whose worker waits for PLACE/release, as soon as it does."""
    boss = at_work(*do(deed, str(PLACE), name=name))
    workers.pid_in(PLACE / f"{name}.pid")
    return boss


def say(text):
    """Tell the test something."""
    (PLACE / "new").write_text(f"{text}\n")
    (PLACE / "new").rename(PLACE / "said")


# -- exits ----------------------------------------------------------------------------------------------


def exit_without_end():
    globals()["boss"] = waiting()


def exit_unused():
    globals()["boss"] = taylorism.Boss()


def exit_with_program():
    globals()["boss"] = boss = at_work(*do("os_system", str(PLACE)))
    workers.pid_in(PLACE / "program.pid")
    assert boss


def exit_with_end():
    boss = at_work(*do("touch", *(str(PLACE / f"done{n}") for n in range(6))), scheduler=slots(2))
    boss.end()
    globals()["boss"] = boss


def exit_with_end_forgotten():
    exit_with_end()
    del globals()["boss"]


def exit_with_terminate_unused():
    boss = taylorism.Boss()
    boss.set_instructions(*do("touch", *(str(PLACE / f"done{n}") for n in range(6))))
    boss.end()


def exit_uncaught():
    globals()["boss"] = waiting()
    raise LookupError("of main")


def exit_uncaught_after_end():
    exit_with_end()
    raise LookupError("of main")


def exit_with_code():
    globals()["boss"] = waiting()
    sys.exit(3)


def exit_hard():
    globals()["boss"] = waiting()
    os._exit(4)


def exit_by_exec():
    globals()["boss"] = waiting()
    os.execv(sys.executable, [sys.executable, "-c", "pass"])


def exit_after_failure():
    boss = at_work(*do("throw", ValueError("x")))
    boss.end()
    workers.until(lambda: not boss._process.is_alive())
    globals()["boss"] = boss


def exit_while_a_thread_waits():
    boss = at_work(*do("touch", *(str(PLACE / f"done{n}") for n in range(6))), scheduler=slots(2))
    threading.Thread(target=boss.wait_till_finished, daemon=True).start()
    workers.until(lambda: boss._link._ending)


def exit_after_stop_listening():
    boss = at_work(*do("touch", *(str(PLACE / f"done{n}") for n in range(6))))
    boss.make_them_work(stop_listening=True)


def exit_after_interrupted_wait():
    boss = waiting()
    signal.signal(signal.SIGALRM, _raise_timeout)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        boss.wait_till_finished()
    except TimeoutError:
        say("interrupted")


def _raise_timeout(signum, frame):
    raise TimeoutError


def exit_of_a_fork():
    boss = waiting()
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    os.waitpid(pid, 0)
    (PLACE / "release").touch()
    say(workers.reports(boss))


def exit_slow():
    """Leave a task that swallows everything to the exit."""
    waiting(deed="swallow")
    globals()["boss"] = list(taylorism._link._alive)
    boss = waiting("x", "swallow")
    say("leaving")
    globals()["boss"] = boss


def exit_slow_after_end():
    """Leave a task that swallows everything to the exit, after end()."""
    globals()["boss"] = boss = waiting(deed="swallow")
    boss.end()
    say("leaving")


# -- interrupted ----------------------------------------------------------------------------------------


def wait_plainly():
    waiting().wait_till_finished()


def wait_with_all_sorts():
    orders = {"deed": ["wait", "ignore", "os_system", "nested_waiting"]}
    names = {"name": ["w", "i", "p", "n"], "value": [str(PLACE)] * 3 + [str(PLACE / "inner")]}
    (PLACE / "inner").mkdir()
    boss = at_work({}, {**orders, **names})
    workers.pid_in(PLACE / "program.pid")
    workers.until(lambda: len(list((PLACE / "inner").glob("*.pid"))) == 2)
    workers.pid_in(PLACE / "w.pid"), workers.pid_in(PLACE / "i.pid")
    say("ready")
    boss.wait_till_finished()


def _interrupted_as_it_ends(late):
    """Wait, and have a Ctrl-C while the listener is told that nothing more will come, or just after."""
    from taylorism._link import Link
    from taylorism._messages import Order, Signal

    def send(link, head, segments=(), send=Link.send):
        ending = head == Order(Signal.END)
        if ending and not late:
            raise KeyboardInterrupt
        send(link, head, segments)
        if ending:
            raise KeyboardInterrupt

    boss = waiting()
    Link.send = send
    boss.wait_till_finished()


def interrupted_before_it_ends():
    _interrupted_as_it_ends(late=False)


def interrupted_as_it_ends():
    _interrupted_as_it_ends(late=True)


def interrupted_in_end():
    from taylorism._link import Link

    boss = waiting()
    original, Link.send = Link.send, lambda link, head: os.kill(os.getpid(), signal.SIGINT)
    try:
        boss.end()
    finally:
        Link.send = original


def interrupted_after_its_end():
    boss = waiting()
    boss.end()

    def once():
        boss._link.on_news = lambda: None
        os.kill(os.getpid(), signal.SIGINT)

    boss._link.on_news = once
    boss.wait()


def killed_with_copies_of_the_channel():
    import multiprocessing

    boss = waiting()
    pool = multiprocessing.get_context("fork").Pool(1)
    pool.apply(abs, (1,))
    say("ready")
    boss.wait_till_finished()


def wait_and_catch():
    boss = waiting()
    say("ready")
    try:
        boss.wait_till_finished()
    except KeyboardInterrupt:
        boss.stop_them_working()
        boss.wait_till_finished()
        report = boss.get_report()
        say((report["status"], report["stopped"]))


def _wait_and_linger(linger):
    """Wait; on a Ctrl-C, take much longer than the listener gives in general, then leave by it."""
    from taylorism import _listener

    _listener.VERDICT = 0.05
    boss = waiting()
    say("ready")
    try:
        boss.wait_till_finished()
    except KeyboardInterrupt:
        linger()
        boss.wait_till_finished()


def wait_and_be_busy():
    def spin():
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            pass
        raise KeyboardInterrupt

    _wait_and_linger(spin)


def wait_and_think():
    _wait_and_linger(lambda: time.sleep(0.4))


def batch():
    say("ready")
    taylorism.batch_main(*do("wait", str(PLACE), name="w"))


def batch_catching():
    from bronx.system.interrupt import SignalInterruptError

    before = signal.getsignal(signal.SIGTERM)
    try:
        taylorism.batch_main(*do("wait", str(PLACE), name="w"))
    except SignalInterruptError:
        say(("caught", signal.getsignal(signal.SIGTERM) is before))


def blocked_main_and_timer():
    boss = waiting()
    timer = threading.Timer(0.05, boss.stop_them_working)
    timer.start()
    workers.until((PLACE / "w.cleaned").exists)
    boss.wait_till_finished()
    say(boss.get_report()["stopped"])


# -- surroundings ---------------------------------------------------------------------------------------


def threads_that_print_and_log():
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    over = threading.Event()

    def chatter(number):
        while not over.is_set():
            print(f"thread {number}")
            sys.stderr.write("err\n")
            logging.getLogger("user").info("thread %d", number)

    for number in range(4):
        threading.Thread(target=chatter, args=(number,), daemon=True).start()
    try:
        for number in range(15):
            boss = at_work(*do("print_it", "from the task"), verbose=True)
            boss.set_instructions(*do("log_it", "from the task"))
            boss.wait_till_finished()
    finally:
        over.set()
    say("done")


def thread_blocked_in_print():
    """Have a thread hold the lock of stdout for ever, in a pipe that nobody reads."""
    _reader, writer = os.pipe()
    os.dup2(writer, 1)
    blocked = threading.Thread(target=print, args=("x" * 1_000_000,), kwargs={"flush": True}, daemon=True)
    blocked.start()
    os.set_blocking(writer, True)
    time.sleep(0.1)
    boss = at_work(*do("echo", 1))
    say(workers.reports(boss))
    os._exit(0)


def full_standard_error():
    """Have a standard error that takes nothing: the listener's words are lost, not its reports."""
    _reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    os.dup2(writer, 2)
    os.close(writer)
    boss = taylorism.Boss(scheduler=slots(1), verbose=True)
    sys.stderr = io.StringIO()
    for logger in (logging.getLogger(), logging.getLogger("footprints")):
        logger.handlers.clear()
    boss.set_instructions(*do("echo", 1))
    boss.set_instructions(*do("throw", ValueError("told")))
    try:
        boss.wait_till_finished()
    except ValueError as error:
        say((str(error), len(boss.get_report()["workers_done"])))


def closed_streams():
    """Make a Boss with 0, 1 and 2 closed."""
    for fd in (0, 1, 2):
        try:
            os.close(fd)
        except OSError:
            pass
    boss = waiting()
    ours = {}
    for pid in (os.getpid(), boss._process.pid, workers.pid_in(PLACE / "w.pid")):
        for fd in (0, 1, 2):
            try:
                ours[fd] = os.readlink(f"/proc/{pid}/fd/{fd}")
            except FileNotFoundError:
                pass
            wrong = ours.get(fd, "").startswith(("pipe:", "socket:", "anon_inode:"))
            assert not wrong, say(f"{pid} has {ours}")
    if sys.stdout is None:  # otherwise it fails, as in any program
        boss.set_instructions(*do("print_it", "into the void"))
    boss.set_instructions(*do("echo", 5))
    (PLACE / "release").touch()
    found = workers.reports(boss)
    boss = at_work(*do("throw", ValueError("told")))
    try:
        boss.wait_till_finished()
    except ValueError as error:
        say((sorted(map(str, found)), str(error)))


def print_and_be_killed():
    boss = at_work(*do("print_and_die", "said before its death"))
    try:
        boss.wait_till_finished()
    except taylorism.WorkerDied:
        say("died")


def worker_alone_with_buffered_text():
    sys.stdout.write("once\n")
    worker = footprints.proxy.worker(deed="print_it", value="from the worker")
    worker.work()
    worker.bye()


def boss_with_buffered_text():
    sys.stdout.write("once\n")
    at_work(*do("print_it", "from the worker")).wait_till_finished()
    sys.stdout.write("after\n")


def file_handler():
    """Log from worker and listener to a file and to standard error."""
    handlers = [logging.FileHandler(PLACE / "log"), logging.StreamHandler()]
    for name in ("user", "taylorism"):
        logging.getLogger(name).setLevel(logging.INFO)
        for handler in handlers:
            logging.getLogger(name).addHandler(handler)
    logging.getLogger("user").warning("from main")
    boss = at_work(*do("log_it", "from the task", name="w"), verbose=True)
    boss.wait_till_finished()
    logging.getLogger("user").warning("main again")
    say("done")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
