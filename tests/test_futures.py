"""Calls and their futures: as those of `concurrent.futures`, on a Boss whose other workers they leave alone."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import functools
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import footprints
import pytest
import workers
from workers import alive, pid_in, slots, until

import taylorism
from taylorism._futures import CallFuture


def given(*args, **kwargs):
    """Return what it was given."""
    return args, kwargs


def square(number):
    """Square a number; 3 has none."""
    if number == 3:
        raise LookupError(number)
    return number**2


def read(path):
    """Read a pipe: until somebody opens its other end."""
    with open(path, "rb") as file:
        file.read()
    return path


def interrupted(path, mark):
    """Read a pipe, and note that nothing has interrupted it."""
    read(path)
    mark.write_text("done")


def fail_once(path):
    """Fail where a file does not exist, and make it."""
    if not path.exists():
        path.touch()
        raise LookupError(path)
    return "at last"


def leave_a_program(path, how):
    """Start a program, and fail or return."""
    program = subprocess.Popen(["sleep", "100"])
    workers.write_pid(path, program.pid)
    if how == "fail":
        raise LookupError(how)


class Sealed:
    """Arrives in a worker, and does not come back."""

    def __reduce__(self):
        if os.getpid() == MAIN:
            raise LookupError("only in a worker")
        return _only_elsewhere, (MAIN,)


MAIN = os.getpid()


def _only_elsewhere(pid):
    if os.getpid() == pid:
        raise LookupError("not in main")


def make_sealed():
    """Return what cannot be loaded in main."""
    return Sealed()


@pytest.fixture
def gate(tmp_path):
    """Return a pipe that holds up who reads it until it is unlocked."""
    path = str(tmp_path / "gate")
    os.mkfifo(path)
    return path


def unlock(path):
    """Let one reader go on."""
    with open(path, "wb"):
        pass


# ---------------------------------------------------------------------------------------------------------
# submit
# ---------------------------------------------------------------------------------------------------------


def test_a_call_is_made_with_its_arguments():
    """Whatever their names; brackets are not replaced, and no other attribute is needed."""
    with taylorism.Boss() as boss:
        odd = boss.submit(given, "[name]", [{"a": "[b]"}], self=1, function=2, boss=3, name="None", timeout=4)
        partial = boss.submit(functools.partial(pow, 2), 5)
        assert isinstance(odd, cf.Future) and isinstance(odd, CallFuture)
        assert odd.result() == (
            ("[name]", [{"a": "[b]"}]),
            dict(self=1, function=2, boss=3, name="None", timeout=4),
        )
        assert (partial.result(), partial.exception(), partial.result(0)) == (32, None, 32)
        assert partial.done() and not (partial.running() or partial.cancelled() or partial.cancel())


def test_a_call_fails_alone(capfd):
    """Its future raises, as often as it is asked; nothing is stopped, announced, or raised at the end."""
    for on_error in ("stop", "finish", "collect"):
        with taylorism.Boss(on_error=on_error) as boss:
            bad, good = boss.submit(square, 3), boss.submit(square, 4)
            for _ in range(2):
                with pytest.raises(LookupError) as caught:
                    bad.result()
            assert caught.value.args == (3,) and bad.exception() is caught.value
            assert "square" in str(caught.value.__cause__) and good.result() == 16
            assert boss.wait() and boss.poll()
        assert boss.get_report()["status"] == "finished" and boss.errors == {bad.name: caught.value}
    assert capfd.readouterr() == ("", "")


def test_calls_and_workers_share_a_boss():
    """The records are those of the workers; what is waited for, and shown, is all."""
    boss = taylorism.Boss(on_error="finish")
    future, bad = boss.submit(square, 2), boss.submit(square, 3)
    boss.set_instructions(*workers.do("echo", "a", name="w"))
    assert [record["name"] for record in boss.as_completed()] == ["w"]
    assert set(boss.status().done) == {"w", future.name} and boss.status().failed == (bad.name,)
    boss.set_instructions(*workers.do("throw", LookupError("worker"), name="thrower"))
    with pytest.raises(taylorism.WorkersFailed) as caught:
        boss.wait_till_finished()
    assert list(caught.value.errors) == ["thrower"] and future.result() == 4
    assert set(boss.errors) == {"thrower", bad.name}


def test_a_worker_that_stops_everything_stops_the_calls(gate):
    """They are cancelled, and say for which reason; no more are taken."""
    boss = taylorism.Boss(scheduler=slots(2))
    running = boss.submit(read, gate)
    until(running.running)
    boss.halt()
    boss.set_instructions(*workers.do("throw", KeyError("k"), name="bad"))
    waiting = boss.submit(square, 2)  # for the slot of the other, when that has failed
    boss.make_them_work()
    for future in (running, waiting):
        with pytest.raises(cf.CancelledError, match="KeyError") as cancelled:
            future.result()
        assert isinstance(cancelled.value.__cause__, KeyError)
    with pytest.raises(KeyError):
        boss.submit(square, 2)
    with pytest.raises(KeyError):
        boss.wait_till_finished()
    with pytest.raises(taylorism.BossEnded):
        boss._calls.order(boss, square, [], {})


def test_a_call_that_cannot_be_sent_is_told_at_once():
    """In the caller, with what to do; what is no function, too. The Boss goes on."""
    with taylorism.Boss() as boss:
        for arguments, what in [((lambda: 1,), "lambda"), ((print, lambda: 1), "arguments")]:
            with pytest.raises(taylorism.InstructionsNotPicklable, match=what) as caught:
                boss.submit(*arguments)
            assert "Give" in str(caught.value)
        for function in ("square", None):
            with pytest.raises(TypeError, match="cannot be called"):
                boss.submit(function)
        with pytest.raises(taylorism.InstructionsNotPicklable):
            boss.map(print, [1], [threading.Lock()])
        assert boss.submit(square, 2).result() == 4


def test_a_function_that_came_after_its_boss_is_told_of(monkeypatch):
    """The worker knows what there was when the Boss was made, and the failure says so."""
    with taylorism.Boss() as boss:
        late = functools.wraps(square)(lambda: 1)
        late.__qualname__ = late.__name__ = "late"
        monkeypatch.setattr(sys.modules[__name__], "late", late, raising=False)
        with pytest.raises(taylorism.TransmissionError, match="before the Boss is made"):
            boss.submit(late).result()


@pytest.mark.parametrize("end", ["end", "wait_till_finished", "stop_them_working"])
def test_a_boss_that_was_ended_takes_no_calls(end):
    """A RuntimeError, as an executor that was shut down raises."""
    boss = taylorism.Boss()
    future = boss.submit(square, 2)
    future.result()
    getattr(boss, end)()
    for order in (lambda: boss.submit(square, 2), lambda: boss.map(square, [2])):
        with pytest.raises(RuntimeError, match="make another") as caught:
            order()
        assert type(caught.value) is taylorism.BossEnded
    boss.wait_till_finished()
    assert future.result() == 4


def test_what_becomes_of_a_worker_is_raised_by_its_future():
    """Its death, a report that cannot be sent or opened; `sys.exit()` is no failure."""
    with taylorism.Boss() as boss:
        cases = [
            (boss.submit(os._exit, 3), taylorism.WorkerDied),
            (boss.submit(threading.Lock), taylorism.TransmissionError),
            (boss.submit(make_sealed), taylorism.TransmissionError),
            (boss.submit(sys.exit, 3), SystemExit),
        ]
        for future, error in cases:
            assert type(future.exception()) is error
        assert boss.submit(sys.exit).result() is None


def test_a_call_is_tried_again(tmp_path):
    """As often as the Boss is told to try; only the last failure counts."""
    with taylorism.Boss(max_trials=2) as boss:
        assert boss.submit(fail_once, tmp_path / "mark").result() == "at last"
        assert boss.submit(square, 3).exception().args == (3,)


def test_what_a_failed_call_has_started_goes_with_it(tmp_path):
    """Also where one failure stops everything else; what was left by one that ended well is spared."""
    with taylorism.Boss() as boss:
        bad = boss.submit(leave_a_program, tmp_path / "bad", "fail")
        good = boss.submit(leave_a_program, tmp_path / "good", "return")
        cf.wait([bad, good])
        gone, spared = pid_in(tmp_path / "bad"), pid_in(tmp_path / "good")
        until(lambda: not alive(gone))
        boss.wait()
        assert boss.submit(square, 2).result() == 4 and alive(spared)
        os.kill(spared, signal.SIGKILL)


def test_it_goes_too_where_the_process_has_had_another_worker_before(tmp_path):
    """An ordinary one, whom nothing of that kind was asked of."""
    with taylorism.Boss(scheduler=slots(1), max_tasks_per_child=None) as boss:
        boss.set_instructions(*workers.do("echo", 1))
        boss.wait()
        bad = boss.submit(leave_a_program, tmp_path / "bad", "fail")
        cf.wait([bad])
        gone = pid_in(tmp_path / "bad")
        until(lambda: not alive(gone))


def test_the_death_of_the_listener_is_raised_by_all(gate):
    """As a broken pool is; nobody waits for ever."""
    boss = taylorism.Boss()
    futures = [boss.submit(read, gate), boss.submit(read, gate)]
    until(futures[0].running)
    boss._process.kill()
    for future in futures:
        with pytest.raises(taylorism.BossDied):
            future.result()
    with pytest.raises(taylorism.BossDied):
        boss.wait_till_finished()


def test_a_stop_cancels_the_calls(gate):
    """Those that run, and those that wait."""
    boss = taylorism.Boss(scheduler=slots(1))
    futures = [boss.submit(read, gate), boss.submit(square, 2)]
    until(futures[0].running)
    boss.stop_them_working()
    for future in futures:
        with pytest.raises(cf.CancelledError, match="stopped with all"):
            future.result()
    assert all(future.cancelled() and future.done() for future in futures)
    boss.wait_till_finished()


def test_a_future_keeps_its_boss():
    """Though nobody else does; when it is done, it lets go of it."""
    future = taylorism.Boss().submit(square, 5)
    assert future.result() == 25
    assert future._boss is None
    gc.collect()


def test_a_forgotten_boss_with_calls_leaves_nobody(gate):
    """Once the futures are forgotten too."""
    boss = taylorism.Boss()
    future = boss.submit(read, gate)
    until(future.running)
    pid = boss.get_report()["workers_info"][future.name]["pid"]
    del boss, future
    gc.collect()
    until(lambda: not alive(pid))


# ---------------------------------------------------------------------------------------------------------
# waiting, cancelling, callbacks
# ---------------------------------------------------------------------------------------------------------


def test_waiting_is_bounded(gate):
    """By the TimeoutError of this Python, of concurrent.futures and of taylorism; the call goes on."""
    with taylorism.Boss() as boss:
        future = boss.submit(read, gate)
        for wait in (future.result, future.exception):
            for error in (TimeoutError, cf.TimeoutError, taylorism.WaitTimeout):
                with pytest.raises(error, match="goes on|wait again"):
                    wait(timeout=0.01)
        with pytest.raises(taylorism.BadOption):
            future.result("soon")
        unlock(gate)
        assert future.result(timeout=30) == gate


def test_a_halted_boss_is_not_waited_for():
    """The call cannot begin, and who waits is told; it is made when the Boss goes on."""
    with taylorism.Boss() as boss:
        boss.halt()
        future = boss.submit(square, 2)
        with pytest.raises(TimeoutError, match="make_them_work"):
            future.result()
        assert not future.done() and "pending" in repr(future)
        boss.make_them_work()
        assert future.result() == 4


def test_what_has_not_begun_is_cancelled_by_its_future(gate):
    """What runs is not, as with an executor; `Boss.cancel` stops it."""
    with taylorism.Boss(scheduler=slots(1)) as boss:
        running, waiting = boss.submit(read, gate), boss.submit(square, 2)
        until(running.running)
        assert not waiting.running() and (running.cancel(), waiting.cancel()) == (False, True)
        assert (running.cancelled(), waiting.cancelled()) == (False, True) and waiting.cancel()
        with pytest.raises(cf.CancelledError):
            waiting.exception()
        assert boss.cancel(running.id) == [running.id]
        assert running.cancelled() and running.done() and not running.running()
        assert [repr(each).split(", ")[1] for each in (running, waiting)] == ["cancelled>"] * 2
    assert boss.get_report()["status"] == "finished"


def test_a_future_shows_what_has_become_of_it(gate):
    """With the name of its worker, which is that of the function with a number."""
    with taylorism.Boss(scheduler=slots(1)) as boss:
        good, bad, slow = boss.submit(square, 2), boss.submit(square, 3), boss.submit(read, gate)
        cf.wait([good, bad])
        until(slow.running)
        shown = [repr(each) for each in (good, bad, slow)]
        unlock(gate)
    assert shown == [
        "<CallFuture square-1, returned>",
        "<CallFuture square-2, raised LookupError>",
        "<CallFuture read-3, running>",
    ]


def test_callbacks_are_called_while_main_waits(gate, caplog):
    """Once, in their order, with the future; at once where it is done; one that fails is logged."""
    told = []
    with taylorism.Boss() as boss:
        future = boss.submit(read, gate)
        future.add_done_callback(lambda each: told.append((1, each)))
        future.add_done_callback(lambda each: 1 // 0)
        future.add_done_callback(lambda each: told.append((2, boss.submit(square, 2))))
        unlock(gate)
        assert boss.wait() and told[0] == (1, future)
        assert told[1][1].result() == 4 and len(told) == 2
        future.add_done_callback(lambda each: told.append(3))
        assert told[2] == 3
    assert "ZeroDivisionError" in caplog.text


def test_callbacks_of_what_is_cancelled_may_ask_again(gate, caplog):
    """Any future, its own included, and the Boss; each is called once."""
    told = []
    with taylorism.Boss(scheduler=slots(1)) as boss:
        running, *waiting = boss.submit(read, gate), boss.submit(square, 2), boss.submit(square, 3)

        def tell(future):
            told.append((future, [each.done() for each in waiting], boss.wait(0)))

        for future in waiting:
            future.add_done_callback(tell)
        boss.cancel(*(future.id for future in waiting))
        assert cf.wait(waiting).not_done == set()
        assert len(told) == 2 and {each for each, *_ in told} == set(waiting)
        unlock(gate)
        assert running.result() == gate
    assert not caplog.records


def test_a_callback_is_called_though_nobody_keeps_the_future():
    """At the latest at the end of the block."""
    told = []
    with taylorism.Boss() as boss:
        boss.submit(square, 4).add_done_callback(lambda future: told.append(future.result()))
        gc.collect()
    assert told == [16]


def test_the_functions_of_concurrent_futures_wait_for_them(gate):
    """`wait` with all its conditions, `as_completed`, both with a timeout."""
    with taylorism.Boss(scheduler=slots(2)) as boss:
        slow, bad, good = boss.submit(read, gate), boss.submit(square, 3), boss.submit(square, 4)
        assert cf.wait([slow], timeout=0.01) == (set(), {slow})
        assert cf.wait([slow, bad], return_when=cf.FIRST_COMPLETED) == ({bad}, {slow})
        assert cf.wait([slow, good, bad], return_when=cf.FIRST_EXCEPTION).not_done >= {slow}
        with pytest.raises(cf.TimeoutError):
            list(cf.as_completed([slow], timeout=0.01))
        order = cf.as_completed([slow, good, bad])
        assert {next(order), next(order)} == {good, bad}
        unlock(gate)
        assert next(order) is slow
        assert cf.wait([slow, good, bad]).not_done == set()


def test_futures_of_several_kinds_are_waited_for_together(gate):
    """Those of two Bosses, and of an executor, which is set by a thread of its own."""
    with cf.ThreadPoolExecutor(1) as pool, taylorism.Boss() as one, taylorism.Boss() as two:
        futures = [one.submit(square, 1), two.submit(read, gate), pool.submit(time.sleep, 0.02)]
        order = cf.as_completed(futures)
        assert {next(order), next(order)} == {futures[0], futures[2]}
        unlock(gate)
        assert next(order) is futures[1]
        one.wait_till_finished()
        last = [pool.submit(time.sleep, 0.02), futures[0]]
        assert cf.wait(last).done == set(last)


def test_any_thread_may_wait(gate):
    """While main waits too; a coroutine waits by a thread."""
    with taylorism.Boss() as boss:
        future, found = boss.submit(read, gate), []
        threads = [threading.Thread(target=lambda: found.append(future.result())) for _ in range(3)]
        for thread in threads:
            thread.start()
        unlock(gate)
        assert future.result() == gate
        for thread in threads:
            thread.join()
        assert found == [gate] * 3

        async def ask():
            return await asyncio.to_thread(boss.submit(square, 2).result)

        assert asyncio.run(ask()) == 4


# ---------------------------------------------------------------------------------------------------------
# map
# ---------------------------------------------------------------------------------------------------------


def test_map_is_like_the_builtin_one():
    """In the order of the items, up to the end of the shortest; in chunks, and with nothing."""
    with taylorism.Boss(scheduler=slots(4)) as boss:
        numbers = range(10)
        assert list(boss.map(pow, numbers, numbers)) == list(map(pow, numbers, numbers))
        for size in (1, 3, 100):
            found = boss.map(pow, iter(numbers), itertools.count(), range(1, 8), chunksize=size)
            assert list(found) == list(map(pow, numbers, itertools.count(), range(1, 8)))
        assert list(boss.map(square, [])) == list(boss.map(square)) == []
        assert list(boss.map(given, [[1], {"a": 2}])) == [(([1],), {}), (({"a": 2},), {})]
        assert list(boss.map(sys.exit, [None, 0], chunksize=2)) == [None, None]


def test_one_worker_makes_the_calls_of_a_chunk():
    """So fewer are started."""
    with taylorism.Boss() as boss:
        found = list(boss.map(given, range(7), chunksize=3))
        assert [args for args, _ in found] == [(number,) for number in range(7)]
        assert len(boss.status().done) == 3


def test_an_exception_is_raised_at_its_place(tmp_path, gate):
    """After the values before it; what has not begun is cancelled then, what runs goes on to its end."""
    with taylorism.Boss(scheduler=slots(2)) as boss:
        slow = boss.submit(interrupted, gate, tmp_path / "mark")
        until(slow.running)
        values = boss.map(square, [1, 2, 3, 4, 5, 6, 7, 8])
        assert (next(values), next(values)) == (1, 4)
        with pytest.raises(LookupError) as caught:
            next(values)
        assert caught.value.args == (3,)
        with pytest.raises(StopIteration):
            next(values)
        unlock(gate)
        boss.wait()
        assert (tmp_path / "mark").exists()
        assert boss.submit(square, 9).result() == 81


def test_an_iterator_that_is_closed_cancels_what_has_not_begun(tmp_path):
    """As that of an executor does; one that was never asked cancels nothing."""
    gates = [str(tmp_path / str(number)) for number in range(3)]
    for path in gates:
        os.mkfifo(path)
    with taylorism.Boss(scheduler=slots(1)) as boss:
        values = boss.map(read, gates)
        unlock(gates[0])
        assert next(values) == gates[0]
        until(lambda: "read-2" in boss.status().running)
        values.close()
        unlock(gates[1])
        boss.wait()
        assert boss.status().done == ("read-1", "read-2") and boss.status().cancelled == ("read-3",)
        del values
        boss.map(square, [1, 2])
        gc.collect()
        boss.wait()
        assert len(boss.status().done) == 4


def test_map_has_a_timeout_for_all_of_it(gate):
    """From the call of map on; what makes no sense is told at once."""
    with taylorism.Boss() as boss:
        values = boss.map(read, [gate], timeout=0.01)
        with pytest.raises(cf.TimeoutError):
            next(values)
        unlock(gate)
        for wrong in (dict(chunksize=0), dict(chunksize="2"), dict(timeout="soon")):
            with pytest.raises(ValueError, match="makes no sense"):
                boss.map(square, [1], **wrong)


def test_a_name_that_stands_in_itself_costs_its_own_call():
    """Footprints would replace it without end, and the listener would hear of nothing any more."""
    with taylorism.Boss() as boss:
        with pytest.raises(footprints.FootprintMaxIter, match="'name' stands in its own value"):
            list(boss.map(square, [1], name="[name]"))
        assert list(boss.map(square, [2])) == [4]


def test_map_tells_the_scheduler():
    """What each worker needs; what can never start fails there, and names are as wanted."""
    with taylorism.Boss(footprints.proxy.scheduler(limit="memory", max_memory=100)) as boss:
        assert list(boss.map(square, [1, 2], memory=60, name="sq")) == [1, 4]
        assert set(boss.status().done) == {"sq-1", "sq-2"}
        with pytest.raises(taylorism.NeverStartable):
            list(boss.map(square, [1, 2], memory=1000))


@pytest.mark.parametrize("name", ["memory", "expected_time"])
def test_what_a_call_cannot_declare_is_told_with_its_instructions(name):
    """As it is of instructions; without the pickles."""
    with taylorism.Boss(slots(1)) as boss, pytest.raises(taylorism.NoAdequateWorker) as caught:
        list(boss.map(square, [2], **{name: "much"}))
    text = str(caught.value)
    assert "no adequate Worker was found" in text and f"'{name}': 'much'" in text and "are numbers" in text
    assert "square" in text and "pickle" not in text


# ---------------------------------------------------------------------------------------------------------
# among other classes, and start methods
# ---------------------------------------------------------------------------------------------------------


def test_no_class_of_the_users_is_asked():
    """Neither one that takes everything; and none of theirs sees ours."""

    class Everything(taylorism.Worker):
        _explicit = False

        def _task(self, **kwargs):
            return "mine"

    collector = footprints.collectors.get(tag="worker")
    try:
        with taylorism.Boss() as boss:
            assert boss.submit(square, 2).result() == 4
        assert "Caller" not in [cls.__name__ for cls in collector]
    finally:
        collector.discard(Everything)


_SPAWNED = """
import sys, taylorism
def cube(number):
    return number**3
if __name__ == "__main__":
    with taylorism.Boss(start_method=sys.argv[1]) as boss:
        print(list(boss.map(cube, range(4), chunksize=3)), boss.submit(cube, 5).result())
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_functions_of_a_script_are_called(method, tmp_path):
    """Whatever the start method."""
    script = tmp_path / "script.py"
    script.write_text(_SPAWNED)
    done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 8, 27] 125\n", "")


def test_futures_are_imported_on_demand_only():
    """`import taylorism` knows nothing of concurrent.futures."""
    code = "import sys, taylorism; print('taylorism._futures' in sys.modules, 'concurrent.futures' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
