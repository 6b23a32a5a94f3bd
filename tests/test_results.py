"""Results: what events make of the report; an event that is noted twice counts once."""

from __future__ import annotations

import pickle
from itertools import chain, count

import numpy as np
import pytest
from forked import Injected, Injector
from hypothesis import given, settings
from hypothesis import strategies as st

from taylorism import _errors, _messages, _results
from taylorism._channel import Frame, pack_object, pack_record
from taylorism._compat import SignalInterruptError
from taylorism._errors import BossDied, TransmissionError, WorkersFailed, WorkerTraceback
from taylorism._messages import (
    Cancelled,
    End,
    Failure,
    Hello,
    Movements,
    Over,
    Several,
    Snapshot,
    Start,
    State,
    WorkerDone,
    WorkerFailed,
)
from taylorism._results import Results

STATES = (State.PENDING, State.RUNNING, State.DONE, State.FAILED, State.CANCELLED, State.STOPPED)
#: the keys of every report
ALWAYS = {"workers_report", "status", "errors", "workers_done", "workers_info"}
#: what nobody can load
GARBAGE = b"cno_such_module\nX\n."


def number_of(name):
    """Return the number of the set of a worker in these tests, by the letter that it begins with."""
    return ord(name[0]) - ord("a")


def done(name, report=None):
    """Make the event of a report."""
    segments = tuple(memoryview(bytes(part)) for part in pack_object(report))
    return Frame(WorkerDone(name, number_of(name)), segments)


def unloadable(name):
    """Make the event of a report that does not open."""
    return Frame(WorkerDone(name, number_of(name)), (GARBAGE,))


def failed(name, error, stops=True, number=...):
    """Make the event of a failure."""
    failure = Failure(name, "workers exception", ("Traceback\n", f"{error!r}\n"), "('a', 1)\n")
    number = number_of(name) if number is ... else number
    return Frame(WorkerFailed(failure, number, stops), (memoryview(_errors.pack(error, name)),))


def moves(*each):
    """Make the event of starts and ends."""
    return Frame(Movements(each))


def start(name, trials=1, ticket=None, when=100.0, number=None):
    """Make a start."""
    return Start(number_of(name) if number is None else number, name, 4000 + trials, ticket, trials, when)


def end(name, state=State.DONE, when=101.0, code=0, number=None):
    """Make the end of a worker that used something."""
    return End(number_of(name) if number is None else number, state, when, code, 0.5, 0.25, 12.0)


def over(*pending, stopped=()):
    """Make the last event."""
    return Frame(Over(stopped), tuple(pickle.dumps(each) for each in pending))


#: the number of each event on the channel
NUMBERS = count()


def noted(results, *frames):
    """Note events in order."""
    for frame in frames:
        results.note(next(NUMBERS), frame)
    return results


def results_of(*frames, on_error="stop"):
    """Note events in order, of sets that nobody has told of."""
    return noted(Results(on_error), *frames)


def ordered(names, on_error="stop", **instructions):
    """Return results that expect a set for each letter, which has no name yet."""
    results = Results(on_error)
    results.expect([number_of(name) for name in names], [instructions] * len(names), 99.0)
    return results


def names(report):
    """Return the names of the records, in order."""
    return [record["name"] for record in report["workers_report"]]


def standing(results):
    """Return the numbers in each state that has any."""
    found = {state: [view.number for view in results.views_in(state)] for state in STATES}
    assert {state: len(numbers) for state, numbers in found.items()} == {
        state: results.count(state) for state in STATES
    }
    return {state: numbers for state, numbers in found.items() if numbers}


# -- records, failures, the end ---------------------------------------------------------------------------


def test_nothing_yet():
    """The report of a Boss that has heard nothing is an empty interim one."""
    results = Results()
    assert results.report() == {
        "workers_report": [], "status": "interim", "errors": {}, "workers_done": [], "workers_info": {}
    }
    assert (results.error, results.over, results.snapshot, results.traceback) == (None, False, False, ())
    assert results.settled and results.idle and results.reported == 0 and standing(results) == {}


def test_records_have_name_and_report_alone():
    """In order of completion, and nothing else in a record."""
    report = results_of(done("b", 2), done("a", {"x": [1]})).report()
    assert report["workers_report"] == [{"name": "b", "report": 2}, {"name": "a", "report": {"x": [1]}}]
    assert report["workers_done"] == report["workers_report"] and report["status"] == "interim"


@pytest.mark.parametrize(
    ("frames", "status", "keys"),
    [
        ([], "interim", set()),
        ([over()], "finished", set()),
        ([over({"a": 1})], "pending", {"pending", "stopped"}),
        ([over(stopped=("w",))], "pending", {"pending", "stopped"}),
        ([failed("w", ValueError())], "workers exception", {"pending", "stopped", "traceback"}),
        ([failed("w", ValueError()), over({"a": 1})], "workers exception", {"pending", "stopped", "traceback"}),
        ([unloadable("w")], "transmission exception", {"pending", "stopped", "traceback"}),
    ],
)
def test_every_status_has_its_keys(frames, status, keys):
    """The status says how it is; the keys say what there is to know."""
    report = results_of(done("first", 1), *frames).report()
    assert report["status"] == status and set(report) == ALWAYS | keys


def test_what_was_left_is_named():
    """The sets that never ran, and the workers that were interrupted."""
    report = results_of(done("a"), over({"x": 1}, {"x": 2}, stopped=("b", "c"))).report()
    assert (report["pending"], report["stopped"]) == ([{"x": 1}, {"x": 2}], ["b", "c"])
    assert names(report) == ["a"]


def test_a_failure_keeps_what_was_done():
    """The report is the exception, its traceback the lines, and the records stay under a key of their own."""
    results = results_of(done("a", 1), failed("w", KeyError("k")), done("b", 2), over({"x": 1}))
    report = results.report()
    assert type(results.error) is KeyError and report["workers_report"] is results.error
    assert report["errors"] == {"w": results.error}
    assert report["traceback"] == ["Traceback\n", "KeyError('k')\n"] == list(results.traceback)
    assert [record["name"] for record in report["workers_done"]] == ["a", "b"]
    assert report["pending"] == [{"x": 1}]
    assert isinstance(results.error.__cause__, WorkerTraceback)
    assert "Its instructions:\n('a', 1)" in str(results.error.__cause__)


def test_the_output_of_a_worker_is_told_with_its_failure():
    """The last lines of its log stand in the cause."""
    failure = Failure("w", "workers exception", ("Traceback\n",), "", "Last lines of w.err:\nno such file\n")
    packed = memoryview(_errors.pack(KeyError("k"), "w"))
    results = results_of(Frame(WorkerFailed(failure, 0, True), (packed,)))
    assert "Last lines of w.err:\nno such file" in str(results.error.__cause__)


def test_the_first_failure_is_the_one():
    """What fails afterwards changes nothing."""
    results = results_of(failed("w", KeyError("k")), failed("v", ValueError()))
    results.listener_died(-9)
    assert type(results.error) is KeyError and results.over
    assert {name: type(error) for name, error in results.errors.items()} == {"w": KeyError, "v": ValueError}


def test_a_failure_of_nobody_is_raised_and_no_workers():
    """Where a scheduler fails, no worker is to blame."""
    results = results_of(failed("", ZeroDivisionError(), number=None))
    assert type(results.error) is ZeroDivisionError and results.errors == {}
    assert "in the listener" in str(results.error.__cause__)


@pytest.mark.parametrize("on_error", ["stop", "finish", "collect"])
def test_a_report_that_does_not_open_names_its_worker(on_error):
    """And the class of the trouble; the reports of the others stay; it stops everything where a failure does."""
    results = results_of(done("a", 1), unloadable("w"), done("b", 2), on_error=on_error)
    error = results.errors["w"]
    assert isinstance(error, TransmissionError) and error.name == "w"
    assert "'w'" in str(error) and "no_such_module" in str(error)
    assert isinstance(error.__cause__, WorkerTraceback)
    assert results.fatal is (error if on_error == "stop" else None)
    assert results.report()["status"] == {"stop": "transmission exception"}.get(on_error, results.status)
    assert len(results.report()["workers_done"]) == 2


def test_an_exception_that_was_returned_is_a_report():
    """Like any other object."""
    results = results_of(done("w", ValueError("x")), over())
    assert results.error is None and results.report()["status"] == "finished"
    assert results.report()["workers_report"][0]["report"].args == ("x",)


@pytest.mark.parametrize("on_error", ["stop", "finish", "collect"])
def test_a_listener_that_died_is_an_error_that_says_how(on_error):
    """All is over, whatever the caller wants of failures, and what was done is told."""
    results = results_of(done("a", 1), failed("b", KeyError(), stops=False), on_error=on_error)
    results.listener_died(-9)
    assert isinstance(results.error, BossDied) and "died, killed by SIGKILL" in str(results.error)
    assert results.over and results.settled and results.report()["status"] == "workers exception"
    assert results.report()["workers_done"] == [{"name": "a", "report": 1}]
    assert set(results.errors) == {"b"}


def test_a_listener_that_was_told_to_end_is_an_interruption():
    """As where it had learnt to say so itself."""
    results = Results()
    results.listener_died(-15)
    assert isinstance(results.error, SignalInterruptError) and "15" in str(results.error)


def test_a_snapshot_is_noted():
    """And taken back by who reads it."""
    assert results_of(Frame(Snapshot())).snapshot


def test_an_answer_is_kept_by_the_number_of_its_request():
    """Each who has asked finds his own."""
    results = results_of(Frame(Cancelled(7, ("a", 3))), Frame(Cancelled(8, ())))
    assert results.answers == {7: ("a", 3), 8: ()}


def test_a_pending_set_that_does_not_open_does_not_cost_the_report():
    """The end is noted all the same: otherwise every call to come would raise, and none would ever tell."""
    results = Results()
    noted(results, done("a", 1))
    noted(results, Frame(Over(), (pickle.dumps({"x": 1}), GARBAGE)))
    assert results.over and len(results.report()["pending"]) == 2


def several(*records, pid=77, ticket=3):
    """Make the event of short workers: number, name and report of each."""
    packed = [pack_record(which, name, pickle.dumps(report), 1.5, 2.5) for which, name, report in records]
    return Frame(Several(pid, ticket), (b"".join(packed),))


def test_short_workers_are_noted_like_others():
    """A record each, a state, and what is known of them."""
    results = noted(ordered("abc"), several((1, "b", "two"), (0, "é", None)))
    assert results.records == [{"name": "b", "report": "two"}, {"name": "é", "report": None}]
    assert not results.settled and results.count(State.DONE) == 2
    info = results.report()["workers_info"]["b"]
    wanted = {"id": 1, "status": "done", "pid": 77, "ticket": 3, "started": 1.5, "ended": 2.5}
    assert {key: info[key] for key in wanted} == wanted
    assert info["peak_memory"] is info["cpu_user"] is None and "short workers" in info["unknown"]


def test_what_is_told_of_a_short_worker_has_the_form_that_it_has_for_others():
    """Also where its start was told by itself, because it was long after all."""
    results = noted(ordered("ab"), moves(start("a", when=1.25)), several((0, "a", 1)))
    noted(results, moves(start("b")), done("b", 2), moves(end("b")))
    short, other = results.report()["workers_info"].values()
    assert list(short) == list(other)
    assert (short["pid"], short["trials"], short["started"], short["exitcode"]) == (77, 1, 1.5, None)


def test_a_short_worker_whose_report_does_not_open_has_failed():
    """It costs none of the others."""
    results = ordered("abc", on_error="collect")
    frame = several((0, "a", 1), (1, "b", 2), (2, "c", 3))
    spoiled = frame.segments[0].replace(pickle.dumps(2), pickle.dumps(2)[:-1] + b"?")
    frame = frame._replace(segments=(spoiled,))
    noted(results, frame)
    assert [record["name"] for record in results.records] == ["a", "c"]
    assert list(results.errors) == ["b"] and results.settled


def test_every_event_is_known():
    """No type of `_messages` is forgotten: each changes something."""
    events = {each.__name__ for each in _messages.Event.__args__}
    told = [
        Frame(Hello("1:2")), moves(start("a")), done("b"), failed("c", KeyError()), Frame(Cancelled(0, ())),
        Frame(Snapshot()), over(), several((0, "a", 1)),
    ]
    assert {type(frame.head).__name__ for frame in told} == events
    for frame in told:
        changed = noted(ordered("abc"), frame)
        assert (seen(changed), changed.mark, changed.answers) != (seen(ordered("abc")), "", {})


def test_what_the_caller_does_to_a_report_stays_with_him():
    """Lists and dicts are his own."""
    results = noted(ordered("a"), moves(start("a")), done("a"), over({"x": 1}, stopped=("b",)))
    report = results.report()
    for key in ("workers_report", "workers_done", "pending", "stopped", "errors", "workers_info"):
        report[key].clear()
    again = results.report()
    assert names(again) == ["a"] and again["pending"] == [{"x": 1}] and set(again["workers_info"]) == {"a"}


def test_a_large_array_is_given_without_a_copy():
    """It lies in the segment that came, and may be written to."""
    segment = bytearray(800_000)
    body, _ = pack_object(np.zeros(100_000))
    results = results_of(Frame(WorkerDone("a", 0), (memoryview(body), memoryview(segment))))
    array = results.report()["workers_report"][0]["report"]
    array[0] = 1.0
    assert any(segment)


def test_records_may_be_taken_from_any_on():
    """As they are given out one after the other."""
    results = results_of(done("b"), done("a"), done("c"))
    given = [[each["name"] for each in results.records_from(first)] for first in range(5)]
    assert given == [["b", "a", "c"], ["a", "c"], ["c"], [], []] and results.reported == 3


# -- where everything stands ------------------------------------------------------------------------------


def test_what_was_ordered_is_pending_and_known_by_number_and_name():
    """A name that a class has still to make is not known yet."""
    results = Results()
    results.expect([0, 1, 2, 3], [{"name": "a"}, {}, {"name": "x-[y]", "y": 1}, {"name": None}], 99.0)
    assert standing(results) == {State.PENDING: [0, 1, 2, 3]} and not results.settled and results.idle
    assert [results.views[number].name for number in range(4)] == ["a", None, None, None]
    asked = (0, 3, 4, "a", "b", "x-[y]", "x-1", "None")
    assert [wanted for wanted in asked if results.knows(wanted)] == [0, 3, "a"]
    noted(results, moves(start("x-1", number=2)))
    assert results.knows("x-1") and results.views[2].name == "x-1"


def test_what_is_individual_wins_over_what_is_common():
    """A name and a time that all have in common are those of whoever has none of his own."""
    results = Results()
    sets = [{}, {"name": "b"}, {"expected_time": 5}, {"name": None, "expected_time": None}]
    results.expect(range(4), sets, 99.0, {"name": "all", "expected_time": 2.0})
    assert [view.name for view in results.views.values()] == ["all", "b", "all", None]
    assert [view.expected for view in results.views.values()] == [2.0, 2.0, 5.0, 0.0]


@pytest.mark.parametrize("value", [None, "soon", [1, 2], object(), np.arange(3), {}])
def test_an_expected_time_that_is_none_counts_as_not_declared(value):
    """Whatever the worker will say to it."""
    results = Results()
    results.expect([0, 1], [{"expected_time": value}, {"expected_time": "2.5"}], 99.0)
    assert [view.expected for view in results.views.values()] == [0.0, 2.5]


def test_a_worker_goes_from_pending_to_done():
    """It counts as done from its report on, and is settled when its process is gone."""
    results = ordered("a")
    steps = []
    for frame in (moves(start("a")), done("a"), moves(end("a"))):
        noted(results, frame)
        steps.append((standing(results), results.settled, results.idle))
    assert steps == [
        ({State.RUNNING: [0]}, False, False),
        ({State.DONE: [0]}, False, False),
        ({State.DONE: [0]}, True, True),
    ]


@pytest.mark.parametrize("together", [True, False])
def test_a_report_may_come_before_the_start(together):
    """Reports wait for nothing, starts and ends come in bunches."""
    results = ordered("a")
    noted(results, done("a", 1))
    assert standing(results) == {State.DONE: [0]} and not results.settled and not results.idle
    rest = [moves(start("a"), end("a"))] if together else [moves(start("a")), moves(end("a"))]
    for frame in rest:
        noted(results, frame)
        assert standing(results) == {State.DONE: [0]}
    assert results.settled and results.report()["workers_info"]["a"]["pid"] == 4001


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED, State.STOPPED, State.DONE])
@pytest.mark.parametrize("started", [True, False])
def test_every_end_settles(state, started):
    """Whether or not there ever was a process."""
    before = [start("a")] if started else []
    results = noted(ordered("ab"), moves(*before, end("a", state)), moves(start("b"), end("b")))
    assert results.settled and results.idle and not results.over
    assert 0 in standing(results)[state]
    assert results.report()["workers_info"]["a" if started else "#0"]["status"] == state


def test_a_worker_that_is_tried_again_is_pending_and_not_settled():
    """Nothing of its first trial remains but the number of trials."""
    results = noted(ordered("a"), moves(start("a"), end("a", State.PENDING, code=1)))
    assert standing(results) == {State.PENDING: [0]} and not results.settled and results.idle
    assert results.report()["workers_info"] == {} and results.knows("a") and results.errors == {}
    noted(results, moves(start("a", trials=2, when=102.0)), done("a", 5), moves(end("a", when=103.0)))
    info = results.report()["workers_info"]["a"]
    assert (info["trials"], info["started"], info["ended"], info["exitcode"]) == (2, 102.0, 103.0, 0)
    assert results.records == [{"name": "a", "report": 5}] and results.settled and results.error is None


def test_a_trial_that_runs_does_not_wear_the_end_of_the_one_before():
    """Its end, its status and its use are not known yet, and it is said why."""
    results = noted(ordered("a"), moves(start("a"), end("a", State.PENDING), start("a", 2, when=102.0)))
    info = results.report()["workers_info"]["a"]
    told = [info[key] for key in ("ended", "exitcode", "cpu_user", "cpu_system", "peak_memory", "unknown")]
    assert (info["status"], info["trials"], told) == ("running", 2, [None] * 5 + ["it has not ended"])


@pytest.mark.parametrize("state", [State.CANCELLED, State.FAILED])
def test_what_is_not_known_of_a_set_that_was_not_tried_again_is_explained(state):
    """It was settled between two trials, by who has no process to tell of."""
    settled = End(0, state, 102.0, unknown="it had no process then")
    results = noted(ordered("a"), moves(start("a"), end("a", State.PENDING, code=1), settled))
    info = results.report()["workers_info"]["a"]
    missing = [key for key in ("exitcode", "cpu_user", "cpu_system", "peak_memory") if info[key] is None]
    assert info["status"] == state and (not missing or info["unknown"])


def test_a_report_may_overtake_all_the_trials():
    """The movements of the first trial, too, may come after the report of the last."""
    results = ordered("a")
    noted(results, done("a", 1))
    noted(results, moves(start("a"), end("a", State.PENDING), start("a", trials=2)))
    assert not results.settled and not results.idle and results.reported == 1
    noted(results, moves(end("a")))
    assert results.settled and standing(results) == {State.DONE: [0]}
    assert results.report()["workers_info"]["a"]["trials"] == 2


def test_a_report_that_does_not_open_leaves_its_worker_failed():
    """The listener says that it is done; main knows better."""
    results = noted(ordered("a", "collect"), moves(start("a")), unloadable("a"), moves(end("a", State.DONE)))
    assert standing(results) == {State.FAILED: [0]} and results.settled
    assert results.report()["workers_info"]["a"]["status"] == State.FAILED


def test_what_comes_before_it_was_noted_as_ordered_is_not_lost():
    """A handler may have raised between the sending of sets and their note."""
    results = noted(Results(), moves(start("z"), end("z", State.FAILED)))
    assert standing(results) == {State.FAILED: [25]} and results.settled
    results.expect([25], [{"name": "z", "expected_time": 3.0}], 50.0)
    assert standing(results) == {State.FAILED: [25]} and results.settled
    assert results.report()["workers_info"]["z"]["submitted"] == 50.0 and results.views[25].expected == 3.0


def test_a_cancelled_worker_is_no_failure():
    """It has no error, and the status is that of a good end."""
    cancelled = moves(end("a", State.CANCELLED), start("b"), end("b", State.CANCELLED))
    results = noted(ordered("ab", "finish"), cancelled, over())
    assert (results.error, results.errors, results.status) == (None, {}, "finished")
    assert standing(results) == {State.CANCELLED: [0, 1]}


def test_views_come_in_the_order_of_the_state():
    """Not in that of the order."""
    results = noted(ordered("abc"), moves(start("c"), start("a"), end("c"), start("b"), end("a")))
    assert standing(results) == {State.DONE: [2, 0], State.RUNNING: [1]}


@pytest.mark.parametrize("last", [over(), None])
def test_when_all_is_over_all_is_settled(last):
    """Whatever was left, and even where the listener was killed."""
    results = noted(ordered("ab"), moves(start("a")))
    assert not results.settled and not results.idle
    if last is None:
        results.listener_died(None)
    else:
        noted(results, last)
    assert results.settled and results.idle


# -- what is known of each worker -------------------------------------------------------------------------


def test_all_that_is_known_of_a_worker():
    """With times, use, and how it ended."""
    results = noted(ordered("b"), moves(start("b", ticket=3)), done("b"), moves(end("b")))
    assert results.report()["workers_info"] == {
        "b": {
            "id": 1, "status": "done", "trials": 1, "pid": 4001, "exitcode": 0, "ticket": 3, "submitted": 99.0,
            "started": 100.0, "ended": 101.0, "cpu_user": 0.5, "cpu_system": 0.25, "peak_memory": 12.0,
            "unknown": "",
        }
    }


@pytest.mark.parametrize(
    ("frames", "label", "why"),
    [
        ([moves(End(0, State.CANCELLED, 101.0))], "#0", "it was never started"),
        ([moves(start("a"))], "a", "it has not ended"),
        ([done("a")], "#0", "it was never started"),
        ([moves(start("a"), End(0, State.DONE, 101.0, 0, 0.5, 0.5, None, "too short"))], "a", "too short"),
    ],
)
def test_what_is_not_known_is_none_with_a_reason(frames, label, why):
    """The reason stands beside it."""
    info = noted(ordered("a"), *frames).report()["workers_info"][label]
    assert info["peak_memory"] is None and info["unknown"] == why


def test_a_worker_whose_report_has_come_is_done_for_the_user():
    """That its process is still there is none of his business."""
    results = noted(ordered("a"), moves(start("a")), done("a"))
    info = results.report()["workers_info"]["a"]
    assert (info["status"], info["ended"], info["unknown"]) == ("done", None, "it has not ended")


def test_a_name_that_is_used_twice_is_told_with_the_number():
    """The first keeps its name alone; nothing is lost of the others."""
    results = Results("collect")
    results.expect([0, 1, 2], [{"name": "a"}] * 3, 99.0)
    for number, error in ((1, KeyError()), (0, ValueError()), (2, OSError())):
        told = moves(start("a", number=number), end("a", State.FAILED, number=number))
        noted(results, failed("a", error, stops=False, number=number), told)
    assert {name: type(error) for name, error in results.errors.items()} == {
        "a": ValueError, "a#1": KeyError, "a#2": OSError
    }
    infos = results.report()["workers_info"]
    assert {name: info["id"] for name, info in infos.items()} == {"a": 0, "a#1": 1, "a#2": 2}


def test_a_name_made_by_a_class_may_be_used_twice_too():
    """Who has it first is who was started first."""
    results = noted(ordered("ab"), moves(start("w", number=1), start("w", number=0)))
    assert {name: info["id"] for name, info in results.report()["workers_info"].items()} == {"w": 1, "w#0": 0}


def test_a_set_that_fails_without_a_worker_is_told_by_its_number():
    """Where no class was found it never gets a name."""
    results = noted(ordered("abc", "collect"), failed("#2", KeyError(), False, 2), moves(End(2, State.FAILED, 1.0)))
    assert set(results.errors) == {"#2"} == set(results.report()["workers_info"])


def test_every_failure_is_told_even_under_a_name_made_to_deceive():
    """A user may call his worker what another one is called for having no name of its own."""
    results = Results("finish")
    results.expect([0, 1, 2], [{"name": "a"}, {"name": "a"}, {"name": "a#1"}], 99.0)
    for number, name in enumerate(("a", "a", "a#1")):
        told = failed(name, KeyError(), False, number), moves(end(name, State.FAILED, number=number))
        noted(results, *told)
    assert len(results.errors) == 3 == len(results.report()["workers_info"])
    assert results.error is results.error


# -- on_error ---------------------------------------------------------------------------------------------


def ends_of_five(on_error):
    """Return the results of five workers of which three fail."""
    results = ordered("abcde", on_error)
    errors = {"b": KeyError("k"), "d": ValueError("v"), "e": OSError(2, "gone")}
    noted(results, moves(*map(start, "abcde")))
    for name in "abcde":
        if name in errors:
            noted(results, failed(name, errors[name], stops=False), moves(end(name, State.FAILED)))
        else:
            noted(results, done(name, name), moves(end(name)))
    return results


def test_collected_failures_are_never_raised():
    """They are in the report, beside the records, and the end is a good one."""
    results = ends_of_five("collect")
    assert results.settled and (results.error, results.fatal, results.status) == (None, None, "interim")
    noted(results, over())
    report = results.report()
    assert set(report) == ALWAYS and report["status"] == "finished" and names(report) == ["a", "c"]
    assert {name: error.args for name, error in report["errors"].items()} == {
        "b": ("k",), "d": ("v",), "e": (2, "gone")
    }


def test_at_the_end_all_failures_are_raised_as_one():
    """It holds them all, tells of each, and is the same each time."""
    results = ends_of_five("finish")
    error = results.error
    assert isinstance(error, WorkersFailed) and error is results.error and results.fatal is None
    assert error.errors == results.errors and set(error.errors) == {"b", "d", "e"}
    assert error.__cause__ is results.errors["b"]
    assert "3 of the workers failed" in str(error)
    assert all(line in str(error) for line in ("\n  b: KeyError: 'k'", "\n  d: ValueError: v", "\n  e: "))


@pytest.mark.parametrize("ended", [True, False])
def test_the_report_of_failures_that_are_raised_at_the_end(ended):
    """As of any failure: the exception, its traceback, and what was done."""
    results = ends_of_five("finish")
    if ended:
        noted(results, over())
    report, error = results.report(), results.error
    assert set(report) == ALWAYS | {"traceback"} and report["status"] == "workers exception"
    assert report["workers_report"] is error and error is results.error
    assert "WorkersFailed" in report["traceback"][-1] or "WorkersFailed" in "".join(report["traceback"])
    assert [record["name"] for record in report["workers_done"]] == ["a", "c"]


def test_failures_are_not_raised_before_all_is_settled():
    """And not while more work is under way; then the new ones count, too."""
    results = noted(ordered("ab", "finish"), failed("a", KeyError(), False), moves(end("a", State.FAILED)))
    assert (results.error, results.status) == (None, "interim") and set(results.errors) == {"a"}
    noted(results, done("b"), moves(start("b"), end("b")))
    first = results.error
    results.expect([2], [{}], 99.0)
    assert isinstance(first, WorkersFailed) and results.error is None
    noted(results, failed("c", ValueError(), False), moves(end("c", State.FAILED)))
    assert set(results.error.errors) == {"a", "c"} and set(first.errors) == {"a"}


def test_only_the_first_of_many_failures_are_quoted():
    """The message of ten thousand failures can be read."""
    results = Results("finish")
    results.expect(range(30), [{}] * 30, 99.0)
    for number in range(30):
        name = f"w{number}"
        noted(results, failed(name, KeyError(), False, number), moves(End(number, State.FAILED, 1.0)))
    text = str(results.error)
    assert len(results.error.errors) == 30 and "and 20 more" in text and "w9:" in text and "w10:" not in text


@pytest.mark.parametrize("on_error", ["finish", "collect"])
def test_what_was_left_is_named_beside_failures(on_error):
    """A batch that was stopped after a failure that stops nothing: the sets that never ran are not lost."""
    results = noted(ordered("a", on_error), failed("a", KeyError(), False), moves(end("a", State.FAILED)))
    noted(results, over({"x": 1}))
    assert results.report()["pending"] == [{"x": 1}] and results.report()["stopped"] == []


def test_workers_that_were_interrupted_are_named_beside_failures():
    """In the list of those that were stopped."""
    results = noted(ordered("ab", "finish"), failed("a", KeyError(), False), moves(end("a", State.FAILED)))
    noted(results, over(stopped=("b",)))
    assert results.report()["stopped"] == ["b"] and isinstance(results.error, WorkersFailed)


# -- noted twice, interrupted, looked at from another thread ----------------------------------------------


EVENTS = st.sampled_from([done("a", 1), done("b"), failed("w", KeyError("k")), Frame(Snapshot())])
LAST = st.sampled_from([[], [over()], [over({"x": 1}, stopped=("s",))]])


@given(st.lists(EVENTS, max_size=8), LAST, st.data())
def test_events_noted_twice_do_no_harm(events, last, data):
    """In any order, any event may come again under its number."""
    events = [*events, *last]
    once, twice = ordered("abw"), ordered("abw")
    for number, frame in enumerate(events):
        once.note(number, frame)
        twice.note(number, frame)
        for again in data.draw(st.lists(st.integers(0, number), max_size=2)):
            twice.note(again, events[again])
    assert seen(once) == seen(twice)


def seen(results):
    """Return all that can be seen of the results, in a form that compares."""
    report = results.report()
    report["workers_report"] = repr(report["workers_report"])
    report["errors"] = {name: repr(error) for name, error in report["errors"].items()}
    flags = results.over, results.snapshot, results.settled, results.idle, results.reported
    stand = {state: sorted(numbers) for state, numbers in standing(results).items()}
    return report, repr(results.error), flags, stand, dict(results.answers), results.mark


@st.composite
def lives(draw):
    """Make the events of some workers: each in its own order, all mixed, reports ahead of their movements."""
    on_error = draw(st.sampled_from(["finish", "collect"]))
    queues = [draw(life(name)) for name in "abcd"[: draw(st.integers(1, 4))]]
    mixed = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        mixed.append(queue.pop(0))
    return on_error, len(queues), draw(in_bunches(mixed))


@st.composite
def life(draw, name):
    """Make what happens to one worker: trials, then an end, with or without a process."""
    told = []
    trials = draw(st.integers(0, 3))
    for trial in range(1, trials + 1):
        told.append(start(name, trial))
        if trial < trials:
            told.append(end(name, State.PENDING, code=1))
    state = draw(st.sampled_from([State.DONE, State.FAILED, State.CANCELLED, State.STOPPED]))
    if state == State.DONE and trials:
        told.append(done(name, trials))
    if state == State.FAILED:
        told.append(failed(name, KeyError(name), stops=False))
    return [*told, end(name, state)]


@st.composite
def in_bunches(draw, mixed):
    """Send movements in bunches: a report passes those before it, all else comes after them."""
    frames, bunch = [], []
    for each in mixed:
        if isinstance(each, (Start, End)):
            bunch.append(each)
        elif isinstance(each.head, WorkerDone) and draw(st.booleans()):
            frames.append(each)
            continue
        if bunch and (not isinstance(each, (Start, End)) or draw(st.booleans())):
            frames.append(moves(*bunch))
            bunch = []
        if isinstance(each, Frame):
            frames.append(each)
    return [*frames, moves(*bunch)] if bunch else frames


@settings(deadline=None)
@given(lives(), st.data())
def test_workers_come_to_their_end_in_whatever_order_it_is_told(drawn, data):
    """Each event may be noted again before the next: counts, states and records are as if it had come once."""
    on_error, count, frames = drawn
    once, twice = ordered("abcd"[:count], on_error), ordered("abcd"[:count], on_error)
    for number, frame in enumerate(frames):
        once.note(number, frame)
        for _ in range(data.draw(st.integers(1, 3))):
            twice.note(number, frame)
        assert seen(once) == seen(twice)
        assert sum(map(len, standing(once).values())) == count
        assert once.settled == (ends_in(frames[: number + 1]) == count)
    assert once.settled and once.idle and (once.error is None) == (on_error == "collect" or not once.errors)
    assert set(once.errors) == {f.head.failure.name for f in frames if isinstance(f.head, WorkerFailed)}


def ends_in(frames):
    """Count the ends for good."""
    told = chain.from_iterable(f.head.moves for f in frames if isinstance(f.head, Movements))
    return sum(isinstance(move, End) and move.state != State.PENDING for move in told)


#: what happens to three workers, one of which is tried again: no event settles them before the last of its kind
STORY = [
    moves(start("a"), start("b")),
    done("a", 1),
    moves(end("b", State.PENDING), end("a"), start("b", 2)),
    done("c", 2),
    failed("b", KeyError("k"), stops=False),
    moves(start("c"), end("b", State.FAILED)),
    moves(end("c")),
    over({"x": 1}, stopped=("s",)),
]


@pytest.mark.parametrize("last", [len(STORY), 1, 2, 4])
@pytest.mark.parametrize("on_error", ["stop", "finish"])
def test_a_note_interrupted_at_any_instruction_is_made_good_by_the_next(on_error, last):
    """A handler that raises in the middle of a note leaves nothing that a second note does not mend."""
    events = STORY[:last]
    if on_error == "stop":
        events = [failed("b", KeyError("k")) if frame is STORY[4] else frame for frame in events]
    expected = seen(noted(ordered("abc", on_error), *events))

    def run(place, injector):
        results = ordered("abc", on_error)
        for number, frame in enumerate(events[:place]):
            results.note(number, frame)  # untraced, which takes a tenth of the time: each has its turn
        try:
            injector.run(lambda: results.note(place, events[place]))
        except Injected:
            results.report()
            results.note(place, events[place])
        for number, frame in enumerate(events[place + 1 :], place + 1):
            results.note(number, frame)
        return seen(results)

    for place in range(len(events)):
        counter = Injector(_results)
        assert run(place, counter) == expected and counter.count > 50
        wrong = [at for at in range(1, counter.count + 1) if run(place, Injector(_results, at)) != expected]
        assert not wrong, place


def test_who_looks_in_the_middle_of_a_note_never_finds_settled_what_is_not():
    """Another thread of main, or a signal handler, would otherwise stop waiting too early."""
    told = [moves(start("a"), end("a", State.PENDING)), moves(start("a", 2)), done("a")]

    def run(at):
        results, found = ordered("a", "finish"), []
        injector = Injector(_results, at, lambda: found.append((results.settled, results.error)))
        for number, frame in enumerate(told):
            injector.run(lambda number=number, frame=frame: results.note(number, frame))
        return injector.count, found

    count, _ = run(0)
    early = [at for at in range(1, count) if run(at)[1] != [(False, None)]]
    assert count > 50 and not early


def test_who_looks_in_the_middle_of_a_note_never_finds_idle_a_worker_that_runs():
    """A Boss that was halted would otherwise not wait for it."""

    def run(at):
        results, found = noted(ordered("a"), moves(start("a"))), []
        injector = Injector(_results, at, lambda: found.append(results.idle))
        injector.run(lambda: results.note(9, done("a")))
        return injector.count, found

    count, _ = run(0)
    early = [at for at in range(1, count) if run(at)[1] != [False]]
    assert count > 20 and not early


def test_what_is_noted_in_the_middle_of_a_look_does_not_make_it_settled():
    """A worker that goes back to the queue meanwhile is missed by nobody."""

    def run(at):
        results = noted(ordered("a"), moves(start("a")))
        again = moves(end("a", State.PENDING))
        injector = Injector(_results, at, lambda: results.note(1, again))
        return injector.run(lambda: results.settled), injector.count

    settled, count = run(0)
    assert not settled and count > 5
    early = [at for at in range(1, count) if run(at)[0]]
    assert not early
