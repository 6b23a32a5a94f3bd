"""Results: what events make of the report; an event that is noted twice counts once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from forked import Injected, Injector
from hypothesis import given
from hypothesis import strategies as st

from taylorism import _errors, _messages, _results
from taylorism._channel import Frame, pack_object
from taylorism._errors import BossDied, TransmissionError, WorkerTraceback
from taylorism._messages import Failure, Over, Snapshot, WorkerDone, WorkerFailed
from taylorism._results import Results


def done(name, report=None):
    """Make the event of a report."""
    return Frame(WorkerDone(name), tuple(memoryview(bytes(part)) for part in pack_object(report)))


def failed(name, error, instructions="('a', 1)\n"):
    """Make the event of a failure."""
    failure = Failure(name, "workers exception", ("Traceback\n", f"{error!r}\n"), instructions)
    return Frame(WorkerFailed(failure), (memoryview(_errors.pack(error, name)),))


def over(*pending, stopped=()):
    """Make the last event."""
    return Frame(Over(stopped), tuple(pickle.dumps(each) for each in pending))


def results_of(*frames):
    """Note events in order."""
    results = Results()
    for number, frame in enumerate(frames):
        results.note(number, frame)
    return results


def names(report):
    """Return the names of the records, in order."""
    return [record["name"] for record in report["workers_report"]]


def test_nothing_yet():
    """The report of a Boss that has heard nothing is an empty interim one."""
    results = Results()
    assert results.report() == {"workers_report": [], "status": "interim"}
    assert (results.error, results.over, results.snapshot, results.traceback) == (None, False, False, ())


def test_records_have_name_and_report_alone():
    """In order of completion, and nothing else in a record."""
    results = results_of(done("b", 2), done("a", {"x": [1]}))
    assert results.report() == {
        "workers_report": [{"name": "b", "report": 2}, {"name": "a", "report": {"x": [1]}}],
        "status": "interim",
    }


@pytest.mark.parametrize(
    ("frames", "status", "keys"),
    [
        ([], "interim", set()),
        ([over()], "finished", set()),
        ([over({"a": 1})], "pending", {"pending", "stopped"}),
        ([over(stopped=("w",))], "pending", {"pending", "stopped"}),
        ([failed("w", ValueError())], "workers exception", {"pending", "stopped", "traceback", "workers_done"}),
        (
            [failed("w", ValueError()), over({"a": 1})],
            "workers exception",
            {"pending", "stopped", "traceback", "workers_done"},
        ),
        (
            [Frame(WorkerDone("w"), (b"garbage",))],
            "transmission exception",
            {"pending", "stopped", "traceback", "workers_done"},
        ),
    ],
)
def test_every_status_has_its_keys(frames, status, keys):
    """The status says how it is; the keys say what there is to know."""
    report = results_of(done("first", 1), *frames).report()
    assert report["status"] == status and set(report) == {"workers_report", "status"} | keys


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
    assert report["traceback"] == ["Traceback\n", "KeyError('k')\n"] == list(results.traceback)
    assert [record["name"] for record in report["workers_done"]] == ["a", "b"]
    assert report["pending"] == [{"x": 1}]
    assert isinstance(results.error.__cause__, WorkerTraceback)
    assert "Its instructions:\n('a', 1)" in str(results.error.__cause__)


def test_the_first_failure_is_the_one():
    """What fails afterwards changes nothing."""
    results = results_of(failed("w", KeyError("k")), failed("v", ValueError()))
    results.listener_died(-9)
    assert type(results.error) is KeyError and results.over


def test_a_report_that_does_not_open_names_its_worker():
    """And the class of the trouble; the reports of the others stay."""
    results = results_of(done("a", 1), Frame(WorkerDone("w"), (b"cno_such_module\nX\n.",)), done("b", 2))
    assert isinstance(results.error, TransmissionError) and results.error.name == "w"
    assert "'w'" in str(results.error) and "no_such_module" in str(results.error)
    assert isinstance(results.error.__cause__, WorkerTraceback)
    assert results.report()["status"] == "transmission exception"
    assert len(results.report()["workers_done"]) == 2


def test_an_exception_that_was_returned_is_a_report():
    """Like any other object."""
    results = results_of(done("w", ValueError("x")), over())
    assert results.error is None and results.report()["status"] == "finished"
    assert results.report()["workers_report"][0]["report"].args == ("x",)


def test_a_listener_that_died_is_an_error_that_says_how():
    """All is over, and what was done is told."""
    results = results_of(done("a", 1))
    results.listener_died(-9)
    assert isinstance(results.error, BossDied) and "died, killed by SIGKILL" in str(results.error)
    assert results.over and results.report()["status"] == "workers exception"
    assert results.report()["workers_done"] == [{"name": "a", "report": 1}]


def test_a_snapshot_is_noted():
    """And taken back by who reads it."""
    assert results_of(Frame(Snapshot())).snapshot


def test_a_pending_set_that_does_not_open_does_not_cost_the_report():
    """The end is noted all the same: otherwise every call to come would raise, and none would ever tell."""
    results = Results()
    results.note(0, done("a", 1))
    results.note(1, Frame(Over(), (pickle.dumps({"x": 1}), b"cno_such_module\nX\n.")))
    assert results.over and len(results.report()["pending"]) == 2


def test_every_event_is_known():
    """No type of `_messages` is forgotten: each changes something."""
    events = {each.__name__ for each in _messages.Event.__args__}
    assert events == {"Hello", "WorkerDone", "WorkerFailed", "Snapshot", "Over"}
    results = results_of(Frame(_messages.Hello("1:2")))
    assert results.mark == "1:2"


def test_what_the_caller_does_to_a_report_stays_with_him():
    """Lists are his own."""
    results = results_of(done("a"), over({"x": 1}, stopped=("b",)))
    report = results.report()
    for key in ("workers_report", "pending", "stopped"):
        report[key].clear()
    assert names(results.report()) == ["a"] and results.report()["pending"] == [{"x": 1}]


def test_a_large_array_is_given_without_a_copy():
    """It lies in the segment that came, and may be written to."""
    segment = bytearray(800_000)
    body, _ = pack_object(np.zeros(100_000))
    results = results_of(Frame(WorkerDone("a"), (memoryview(body), memoryview(segment))))
    array = results.report()["workers_report"][0]["report"]
    array[0] = 1.0
    assert any(segment)


EVENTS = st.sampled_from([done("a", 1), done("b"), failed("w", KeyError("k")), Frame(Snapshot())])
LAST = st.sampled_from([[], [over()], [over({"x": 1}, stopped=("s",))]])


@given(st.lists(EVENTS, max_size=8), LAST, st.data())
def test_events_noted_twice_do_no_harm(events, last, data):
    """In any order, any event may come again under its number."""
    events = [*events, *last]
    once, twice = results_of(*events), Results()
    for number, frame in enumerate(events):
        twice.note(number, frame)
        for again in data.draw(st.lists(st.integers(0, number), max_size=2)):
            twice.note(again, events[again])
    assert seen(once) == seen(twice)


def seen(results):
    """Return all that can be seen of the results, in a form that compares."""
    report = results.report()
    report["workers_report"] = repr(report["workers_report"])
    return report, repr(results.error), results.over, results.snapshot


def test_a_note_interrupted_at_any_instruction_is_made_good_by_the_next():
    """A handler that raises in the middle of a note leaves nothing that a second note does not mend."""
    events = [done("a", 1), failed("w", KeyError("k")), done("b", 2), over({"x": 1}, stopped=("s",))]
    expected = seen(results_of(*events))

    def run(injector):
        results = Results()
        for number, frame in enumerate(events):
            try:
                injector.run(lambda number=number, frame=frame: results.note(number, frame))
            except Injected:
                results.report()
                results.note(number, frame)
        return seen(results)

    counter = Injector(_results)
    assert run(counter) == expected and counter.count > 50
    for at in range(1, counter.count):
        assert run(Injector(_results, at)) == expected
