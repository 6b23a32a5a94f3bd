"""The ledger, without a process: nothing is lost or repeated, and it knows when all is over."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taylorism import _ledger
from taylorism._errors import DuplicateName, SchedulerError
from taylorism._ledger import Flow, Intake, Ledger, Todo
from taylorism._messages import Failure, Signal

FAILURE = Failure("w", "workers exception", ("Traceback\n",))


def scheduler(answer):
    """Make a scheduler of a function of the pending sets."""
    return SimpleNamespace(launchable=lambda pending, workers, report: answer(pending))


def everything(pending):
    """Launch all, keep none."""
    return pending, []


def filled(*sets, flow=Flow.WORKING):
    """Make a ledger with sets pending."""
    ledger = Ledger()
    ledger.add(sets)
    ledger.flow = flow
    return ledger


class Chance:
    """A scheduler of a user's, as bad-mannered as is still legal."""

    def __init__(self, chance):
        self.chance = chance

    def launchable(self, pending, workers, report):
        """Launch some, keep the rest in any order; spoil the list that was given."""
        self.seen = (Counter(each["id"] for each in pending), dict(workers), list(report))
        chosen = {each["id"] for each in pending if self.chance.random() < 0.4}
        launch = [{**each, "scheduler_ticket": 1} for each in pending if each["id"] in chosen]
        keep = [each for each in pending if each["id"] not in chosen]
        self.chance.shuffle(keep)
        pending.clear()
        return self.chance.choice([(launch, keep), [launch, tuple(keep)], (iter(launch), keep)])


class Life(RuleBasedStateMachine):
    """Orders, sets, schedulers and deaths in any order, against a model that only counts."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger()
        self.next = 0
        self.accepted = Counter()
        self.launched = []
        self.gone = Counter()
        self.closed = self.stopped = False

    @rule(signal=st.sampled_from(Signal))
    def order(self, signal):
        """Any order, at any time."""
        flow, todo = self.ledger.flow, self.ledger.obey(signal)
        expected = {
            Signal.SEND_REPORT: Todo.SEND_SNAPSHOT,
            Signal.STOP_RIGHTNOW: Todo.STOP_WORKERS,
            Signal.STOP_LISTENING: Todo.GO_DEAF,
        }
        assert todo is expected.get(signal, Todo.NOTHING)
        ends = signal in (Signal.STOP, Signal.STOP_LISTENING, Signal.STOP_RIGHTNOW)
        self.closed |= ends or signal is Signal.END
        self.stopped |= ends
        wanted = {Signal.HALT: Flow.HALTED, Signal.RESUME: Flow.WORKING}.get(signal, flow)
        assert self.ledger.flow is (Flow.STOPPED if self.stopped else wanted)

    @rule(count=st.integers(0, 4))
    def add(self, count):
        """New sets; they count only while the intake is open."""
        sets = [{"id": self.next + n} for n in range(count)]
        self.next += count
        if not self.closed:
            self.accepted.update(each["id"] for each in sets)
        self.ledger.add(iter(sets))

    @precondition(lambda self: self.ledger.may_launch)
    @rule(chance=st.randoms(use_true_random=False))
    def decide(self, chance):
        """A scheduler chooses; what it chose is started by and by."""
        before = self.pending()
        asked = Chance(chance)
        chosen = self.ledger.decide(asked)
        assert asked.seen == (before, self.ledger.workers, self.ledger.records)
        assert before == self.pending() + Counter(each["id"] for each in chosen)
        position = chance.randint(0, len(chosen))
        for instructions in chosen[:position]:
            self.start(instructions)
        self.ledger.give_back(chosen[position:])
        head = [each["id"] for each in self.ledger.pending[: len(chosen) - position]]
        assert head == [each["id"] for each in chosen[position:]]

    def start(self, instructions):
        """Start the worker of that set."""
        worker = SimpleNamespace(name=f"w{instructions['id']}", id=instructions["id"])
        self.ledger.started(worker)
        assert self.ledger.workers[worker.name] is worker
        with pytest.raises(DuplicateName, match=worker.name):
            self.ledger.started(SimpleNamespace(name=worker.name))
        self.launched.append(worker)

    @precondition(lambda self: self.launched)
    @rule(data=st.data(), how=st.sampled_from(["done", "interrupted", "failed", "silent"]))
    def end(self, data, how):
        """A worker ends, in one way or another."""
        worker = self.launched.pop(data.draw(st.integers(0, len(self.launched) - 1)))
        self.ledger.left(worker.name)
        self.gone[worker.id] += 1
        if how == "done":
            self.ledger.done(worker.name, worker.id)
            assert self.ledger.records[-1] == {"name": worker.name, "report": worker.id}
        elif how == "interrupted":
            self.ledger.interrupted(worker.name)
            assert self.ledger.stopped[-1] == worker.name
        elif how == "failed":
            first = self.ledger.failure is None
            assert self.ledger.fail(Failure(worker.name, "", ())) is first
            self.closed = self.stopped = True

    def pending(self):
        """Count the pending sets."""
        return Counter(each["id"] for each in self.ledger.pending)

    @invariant()
    def nothing_is_lost_or_repeated(self):
        """Each accepted set is pending, or runs, or is gone: in one place, once."""
        everywhere = self.pending() + Counter(worker.id for worker in self.launched) + self.gone
        assert everywhere == self.accepted
        assert all(count == 1 for count in everywhere.values())

    @invariant()
    def what_is_over_is_over(self):
        """The flags say what the orders have said."""
        assert (self.ledger.intake is Intake.CLOSED) == self.closed
        assert (self.ledger.flow is Flow.STOPPED) == self.stopped
        left = bool(self.ledger.pending) and not self.stopped
        assert self.ledger.over == (self.closed and not self.launched and not left)
        assert self.ledger.may_launch == (self.ledger.flow is Flow.WORKING and bool(self.ledger.pending))


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_new_ledger_is_open_halted_and_not_over():
    """Nothing runs before the first RESUME, and nothing is over before an END."""
    ledger = Ledger()
    assert (ledger.intake, ledger.flow) == (Intake.OPEN, Flow.HALTED)
    assert not ledger.over and not ledger.may_launch


def test_every_signal_has_a_rule():
    """The table of orders is total."""
    assert set(_ledger._ORDERS) == set(Signal)


@pytest.mark.parametrize("order", ["HALT", None, Signal.HALT.value, 3])
def test_an_order_that_is_none_is_an_error(order):
    """An unknown order is an error, never silence."""
    with pytest.raises((KeyError, TypeError)):
        Ledger().obey(order)


def test_sets_after_the_end_are_ignored():
    """END closes the intake."""
    ledger = filled({"id": 1})
    ledger.obey(Signal.END)
    ledger.add([{"id": 2}])
    assert ledger.pending == [{"id": 1}] and not ledger.over


def test_pending_sets_of_a_halted_ledger_are_not_over():
    """After HALT and END, what is pending still waits for RESUME."""
    ledger = filled({"id": 1})
    ledger.obey(Signal.HALT)
    ledger.obey(Signal.END)
    assert not ledger.may_launch and not ledger.over
    ledger.obey(Signal.RESUME)
    assert ledger.may_launch


def test_the_first_failure_stops_everything_for_good():
    """A second failure changes nothing, and no order starts anything again."""
    ledger = filled({"id": 1})
    assert ledger.fail(FAILURE)
    assert not ledger.fail(Failure("other", "", ()))
    ledger.obey(Signal.RESUME)
    ledger.add([{"id": 2}])
    assert ledger.failure is FAILURE and ledger.over and not ledger.may_launch


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (None, "two lists"),
        (3, "two lists"),
        ([], "two lists"),
        (([], [], []), "two lists"),
        (([], None), "two lists"),
        (([{"id": 1}], []), "answered 1 to launch"),
        (([{"id": 1}, {"id": 2}], [{"id": 2}]), "exactly one"),
        ((["abc", "def"], []), "other things"),
        (([{"id": 1}], [None]), "other things"),
    ],
)
def test_nonsense_from_a_scheduler_is_an_error_that_names_it(answer, text):
    """The answer must be two lists that hold all the sets; nothing is lost when it is not."""
    ledger = filled({"id": 1}, {"id": 2})
    with pytest.raises(SchedulerError, match=text) as caught:
        ledger.decide(scheduler(lambda pending: answer))
    assert "SimpleNamespace" in str(caught.value)
    assert ledger.pending == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize("both", [True, False])
def test_a_scheduler_that_answers_one_set_twice_and_forgets_another_is_an_error(both):
    """The number of sets is right, but one would run twice and one never."""
    ledger = filled({"id": 1}, {"id": 2})
    twice = (lambda p: ([p[0]], [p[0]])) if both else (lambda p: ([p[0], p[0]], []))
    with pytest.raises(SchedulerError):
        ledger.decide(scheduler(twice))


def test_a_scheduler_that_raises_leaves_the_ledger_as_it_was():
    """What a scheduler raises comes out, and no set is lost."""
    ledger = filled({"id": 1})

    def fail(pending):
        pending.clear()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.decide(scheduler(fail))
    assert ledger.pending == [{"id": 1}]


def test_a_trusted_scheduler_is_asked_without_copies():
    """Ours get the very list, and their answer is taken as it is."""
    ledger = filled({"id": 1}, {"id": 2})
    seen = []

    def one(pending):
        seen.append(pending)
        return pending[:1], pending[1:]

    pending = ledger.pending
    assert ledger.decide(scheduler(one), trusted=True) == [{"id": 1}]
    assert seen[0] is pending and ledger.pending == [{"id": 2}]


def test_what_could_not_be_started_goes_back_to_the_head():
    """The order of what is pending does not suffer from a refused process."""
    ledger = filled({"id": 1}, {"id": 2})
    chosen = ledger.decide(scheduler(everything))
    ledger.add([{"id": 3}])
    ledger.give_back(chosen)
    assert [each["id"] for each in ledger.pending] == [1, 2, 3]


def test_a_name_may_be_worn_again_by_a_later_worker():
    """Only two at the same time are an error; it names the name and says what to do."""
    ledger = Ledger()
    ledger.started(SimpleNamespace(name="a"))
    with pytest.raises(ValueError, match="several workers wear the same name: a.*leave the name out"):
        ledger.started(SimpleNamespace(name="a"))
    ledger.left("a")
    ledger.started(SimpleNamespace(name="a"))
