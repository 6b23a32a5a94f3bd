"""The status: where everything stands, in a form that prints well."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taylorism._channel import Frame
from taylorism._messages import End, Movements, Over, Start, State, WorkerDone
from taylorism._results import Results
from taylorism._status import Status, status_of

#: in the order in which they are shown
STATES = ("pending", "running", "done", "failed", "cancelled", "stopped")


class Table(HTMLParser):
    """Reads a table: the tags, and the text of each cell."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.rows = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.rows[-1][-1] += data


def results_with(*moves, names=("a", "b", "c", "d", "e", "f"), report=None):
    """Make results of what was ordered, with some movements."""
    results = Results("collect")
    results.expect(range(len(names)), [{"name": name} for name in names], 1.0)
    if report is not None:
        results.note(0, Frame(WorkerDone(names[report] or "x", report), (b"\x80\x05N.",)))
    results.note(1, Frame(Movements(moves)))
    return results


def start(number, name):
    """Make a start."""
    return Start(number, name, 4000, None, 1, 2.0)


def end(number, state):
    """Make an end."""
    return End(number, state, 3.0)


# -- what it says -----------------------------------------------------------------------------------------


def test_nothing_was_ordered():
    """All is empty."""
    assert status_of(Results()) == Status() == Status((), (), (), (), (), ())


def test_each_is_told_by_its_name_in_its_state():
    """One of each."""
    moves = [start(n, name) for n, name in enumerate("abcde", 0) if name != "a"]
    moves += [end(2, State.DONE), end(3, State.FAILED), end(4, State.CANCELLED), end(5, State.STOPPED)]
    assert status_of(results_with(*moves)) == Status(("a",), ("b",), ("c",), ("d",), ("e",), ("f",))


def test_the_id_stands_where_no_name_is_known():
    """Until the class has made one; a name of digits is a name."""
    results = results_with(start(1, "w-1"), names=[None, None, "7", "x-[y]"])
    assert status_of(results) == Status(pending=(0, "7", 3), running=("w-1",))


def test_what_waits_for_its_next_trial_is_pending():
    """Under the name that it had."""
    assert status_of(results_with(start(0, "w"), end(0, State.PENDING), names=[None])).pending == ("w",)


def test_what_has_reported_is_done():
    """That its process is still leaving is not told."""
    assert status_of(results_with(start(0, "a"), report=0, names=["a"])) == Status(done=("a",))


def test_names_that_are_used_twice_are_both_told():
    """Each is a worker of its own."""
    assert status_of(results_with(names=["a", "a", "b"])).pending == ("a", "a", "b")


def test_a_status_stays_as_it_was():
    """What comes later changes the next one; nobody can change it, and it compares."""
    results = results_with(start(0, "a"), names=["a"])
    status = status_of(results)
    results.note(2, Frame(Over()))
    results.note(3, Frame(Movements((end(0, State.DONE),))))
    assert status == Status(running=("a",)) == copy.deepcopy(status) and status_of(results) == Status(done=("a",))
    with pytest.raises(AttributeError):
        status.running = ()


# -- as text ----------------------------------------------------------------------------------------------


def test_it_prints_a_line_for_each_state():
    """With how many, and which; an empty line has no blanks at its end."""
    status = Status(pending=("a", 3), done=("b",))
    assert str(status).splitlines() == [
        "pending        2  a, #3",
        "running        0",
        "done           1  b",
        "failed         0",
        "cancelled      0",
    ]


def test_what_was_stopped_is_shown_only_if_there_is_any():
    """It is not among what a user asks for."""
    assert "stopped" not in str(Status()) and "stopped" not in Status()._repr_html_()
    assert str(Status(stopped=("w",))).endswith("\nstopped        1  w")


def test_a_long_list_is_cut_with_how_many_more_there_are():
    """Ten thousand names are one line that can be read."""
    status = Status(pending=tuple(f"worker-{n}" for n in range(10_000)), running=("one",))
    lines = str(status).splitlines()
    assert len(lines) == 5 and max(map(len, lines)) < 150
    assert lines[0].startswith("pending    10000  worker-0, worker-1, ")
    shown = lines[0].count("worker-")
    assert lines[0].endswith(f", and {10_000 - shown} more") and shown > 5


def test_a_long_name_is_cut():
    """It is shown in part rather than not at all; the others are counted."""
    line = str(Status(pending=("x" * 5000, "y", "z"))).splitlines()[0]
    assert line.endswith("xxx..., and 2 more") and 100 < len(line) < 150


@given(st.lists(st.one_of(st.integers(0, 10**6), st.text("abc-", min_size=1, max_size=120)), max_size=60))
def test_whatever_is_shown_is_the_beginning_and_nothing_is_missed(names):
    """Shown and not shown make all."""
    line = str(Status(failed=tuple(names))).splitlines()[3]
    assert line.split()[:2] == ["failed", str(len(names))] and len(line) < 150
    told = line[18:]
    more = re.search(r", and (\d+) more$", told)
    shown = told[: more.start()] if more else told
    left = int(more.group(1)) if more else 0
    texts = [f"#{name}" if isinstance(name, int) else name for name in names]
    texts = [text if len(text) <= 100 else text[:100] + "..." for text in texts]
    assert shown == ", ".join(texts[: len(names) - left])
    assert left == 0 or shown


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "carriage\rreturn"])
def test_an_odd_name_does_not_break_the_lines(name):
    """A state is one line, whatever a worker is called."""
    lines = str(Status(running=(name, "b"))).splitlines()
    assert [line.split()[0] for line in lines] == list(STATES[:5]) and "\x1b" not in lines[1]


# -- in a notebook ----------------------------------------------------------------------------------------


def test_in_a_notebook_it_is_a_table():
    """A row for each state: its name, how many, and which."""
    table = Table(Status(pending=("a", 3), failed=("b",), stopped=("c",))._repr_html_())
    assert table.tags[0] == "table" and table.tags.count("tr") == 6
    assert table.rows == [
        ["pending", "2", "a, #3"],
        ["running", "0", ""],
        ["done", "0", ""],
        ["failed", "1", "b"],
        ["cancelled", "0", ""],
        ["stopped", "1", "c"],
    ]


def test_names_are_no_markup():
    """They come out as they are, and make no element of the page."""
    name = "<script>alert('x')</script>&amp;\"<b>"
    table = Table(Status(done=(name,))._repr_html_())
    assert table.rows[2][2] == name and set(table.tags) == {"table", "tr", "th", "td"}


def test_a_long_list_is_cut_in_a_notebook_too():
    """As it is in text."""
    status = Status(pending=tuple(range(10_000)))
    cell = Table(status._repr_html_()).rows[0][2]
    assert len(status._repr_html_()) < 2000 and str(status).splitlines()[0].endswith(cell)
    assert cell.endswith(" more")
