"""The ledger, without a process: nothing is lost or repeated, and it knows when all is over."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taylorism import _ledger
from taylorism._errors import DuplicateName, SchedulerError
from taylorism._ledger import Flow, Intake, Job, Ledger, Sentence, Todo
from taylorism._messages import Failure, Signal
from taylorism._policy import Policy
from taylorism._queues import Fifo

FAILURE = Failure("w", "workers exception", ("Traceback\n",))


NEVER = float("inf")


def scheduler(answer):
    """Make a scheduler of a function of the pending sets."""
    return SimpleNamespace(launchable=lambda pending, workers, report: answer(pending))


def everything(pending):
    """Launch all, keep none."""
    return pending, []


def jobs_of(*sets):
    """Make a job of each set, whose number is its ``id`` where it has one."""
    return [Job(each.get("id", number), each) for number, each in enumerate(sets)]


def filled(*sets, flow=Flow.WORKING, **policy):
    """Make a ledger with sets pending."""
    ledger = Ledger(Policy(**policy))
    ledger.add(jobs_of(*sets))
    ledger.flow = flow
    return ledger


def numbers(jobs):
    """Return the numbers of jobs, in order."""
    return [job.number for job in jobs]


def ids(ledger):
    """Return the ``id`` of what is pending, in order."""
    return [each["id"] for each in ledger.pending]


class Chance:
    """A scheduler of a user's, as bad-mannered as is still legal."""

    def __init__(self, chance):
        self.chance = chance

    def launchable(self, pending, workers, report):
        """Launch some, keep the rest in any order; copy, mark, and spoil the list that was given."""
        self.seen = (Counter(each["id"] for each in pending), dict(workers), list(report))
        chosen = {each["id"] for each in pending if self.chance.random() < 0.4}
        launch = [self.maybe_copied(each, scheduler_ticket=1) for each in pending if each["id"] in chosen]
        keep = [self.maybe_copied(each) for each in pending if each["id"] not in chosen]
        self.chance.shuffle(keep)
        pending.clear()
        return self.chance.choice([(launch, keep), [launch, tuple(keep)], (iter(launch), keep)])

    def maybe_copied(self, instructions, **more):
        """Return a set or a copy of it."""
        if self.chance.random() < 0.5:
            return {**instructions, **more}
        instructions.update(more)
        return instructions


class First:
    """A scheduler of ours, which gets no copies: launches the first ones."""

    def __init__(self, chance):
        self.chance = chance

    def launchable(self, pending, workers, report):
        """Launch some from the head, with a ticket."""
        self.seen = (Counter(each["id"] for each in pending), dict(workers), list(report))
        count = self.chance.randint(0, len(pending))
        for each in pending[:count]:
            each["scheduler_ticket"] = 1
        return pending[:count], pending[count:]


class Life(RuleBasedStateMachine):
    """Orders, sets, schedulers, deaths, trials and cancellations in any order, against a model that only counts."""

    def __init__(self):
        super().__init__()
        self.next = 0
        self.now = 0.0
        self.accepted = Counter()
        self.launched = []
        self.waiting = {}
        self.gone = Counter()
        self.closed = self.stopped = False

    @initialize(
        max_trials=st.integers(1, 3),
        retry_delay=st.sampled_from([0.0, 1.0]),
        on_error=st.sampled_from(["stop", "finish", "collect"]),
    )
    def begin(self, **options):
        """Begin with what the caller wants."""
        self.policy = Policy(**options)
        self.ledger = Ledger(self.policy)

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
        self.note_stop(ends)
        wanted = {Signal.HALT: Flow.HALTED, Signal.RESUME: Flow.WORKING}.get(signal, flow)
        assert self.ledger.flow is (Flow.STOPPED if self.stopped else wanted)

    def note_stop(self, ends):
        """Once all is stopped, what waits for another trial is among what never will run."""
        self.stopped |= ends
        if ends:
            self.waiting.clear()

    @rule(count=st.integers(0, 4), name=st.sampled_from([None, "same"]))
    def add(self, count, name):
        """New sets, some under one name; they count only while the intake is open."""
        sets = [{"id": self.next + n} for n in range(count)]
        if name is not None:
            sets = [{**each, "name": name} for each in sets]
        self.next += count
        if not self.closed:
            self.accepted.update(each["id"] for each in sets)
        self.ledger.add(iter(jobs_of(*sets)))

    @precondition(lambda self: self.ledger.may_launch)
    @rule(chance=st.randoms(use_true_random=False), trusted=st.booleans())
    def decide(self, chance, trusted):
        """A scheduler chooses; what it chose is started by and by."""
        before = self.pending()
        asked = (First if trusted else Chance)(chance)
        chosen = self.ledger.decide(asked, trusted)
        assert asked.seen == (before, self.ledger.workers, self.ledger.records)
        assert before == self.pending() + Counter(job.instructions["id"] for job in chosen)
        assert all(job.number == job.instructions["id"] for job in chosen)
        position = chance.randint(0, len(chosen))
        for job in chosen[:position]:
            self.start(job)
        self.ledger.give_back(chosen[position:])
        assert ids(self.ledger)[: len(chosen) - position] == numbers(chosen[position:])
        assert not any("scheduler_ticket" in job.instructions for job in chosen[position:])

    def start(self, job):
        """Start the worker of that job."""
        worker = SimpleNamespace(name=f"w{job.number}", id=job.number, job=job)
        job.trials += 1
        assert job.trials <= self.policy.max_trials
        self.ledger.started(worker)
        assert self.ledger.workers[worker.name] is worker
        with pytest.raises(DuplicateName, match=worker.name):
            self.ledger.started(SimpleNamespace(name=worker.name))
        self.launched.append(worker)

    @precondition(lambda self: self.launched)
    @rule(data=st.data(), how=st.sampled_from(["done", "interrupted", "cancelled", "failed", "hopeless"]))
    def end(self, data, how):
        """A worker ends, in one way or another."""
        worker = self.launched.pop(data.draw(st.integers(0, len(self.launched) - 1)))
        self.ledger.left(worker.name)
        if how in ("failed", "hopeless"):
            self.fail(worker, how == "failed")
            return
        self.gone[worker.id] += 1
        if how == "done":
            self.ledger.done(worker.name, worker.id)
            assert self.ledger.records[-1] == {"name": worker.name, "report": worker.id}
        elif how == "interrupted":
            self.ledger.interrupted(worker.name)
            assert self.ledger.stopped[-1] == worker.name

    def fail(self, worker, again):
        """Do what a failure leads to."""
        sentence = self.ledger.judge(worker.job, again)
        if again and worker.job.trials < self.policy.max_trials and not self.stopped:
            assert sentence is Sentence.RETRY
            self.try_again(worker)
            return
        assert sentence is (Sentence.STOP if self.policy.on_error == "stop" else Sentence.GO_ON)
        self.gone[worker.id] += 1
        if sentence is Sentence.STOP:
            first = self.ledger.failure is None
            assert self.ledger.fail(Failure(worker.name, "", ())) is first
            if first:
                self.closed = True
                self.note_stop(True)

    def try_again(self, worker):
        """At once, at the head of the queue, or when its time has come."""
        before, delay = ids(self.ledger), self.ledger.try_again(worker.job, worker.name, self.now)
        assert delay == self.policy.retry_delay * 2 ** (worker.job.trials - 1)
        if delay > 0:
            self.waiting[worker.id] = self.now + delay
        assert ids(self.ledger) == ([] if delay else [worker.id]) + before
        assert delay or worker.job.instructions == {"id": worker.id, "name": worker.name}

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0]))
    def time_passes(self, seconds):
        """What has waited long enough is at the head of the queue, who was first first."""
        self.now += seconds
        before = ids(self.ledger)
        due = sorted((when, number) for number, when in self.waiting.items() if when <= self.now)
        assert self.ledger.end_of_waiting(self.now) is bool(due)
        assert ids(self.ledger) == [number for _, number in due] + before
        assert self.ledger.pending[: len(due)] == [{"id": number, "name": f"w{number}"} for _, number in due]
        for _, number in due:
            del self.waiting[number]

    @rule(data=st.data())
    def withdraw(self, data):
        """Take out of the queue what has that number or name; what runs, or is gone, is none of it."""
        asked = [*range(self.next), *(f"w{number}" for number in range(self.next)), "same", "nobody", -1]
        wanted = data.draw(st.sampled_from(asked))
        before, put_off = list(self.ledger.pending), dict(self.waiting)
        named = [each["id"] for each in before if wanted in (each["id"], each.get("name"))]
        late = [number for number in put_off if wanted in (number, f"w{number}")]
        found = self.ledger.withdraw({wanted})
        assert sorted(numbers(found)) == sorted(named + late)
        assert self.ledger.pending == [each for each in before if each["id"] not in named]
        self.gone.update(named + late)
        for number in late:
            del self.waiting[number]

    def pending(self):
        """Count the pending sets."""
        return Counter(each["id"] for each in self.ledger.pending)

    @invariant()
    def nothing_is_lost_or_repeated(self):
        """Each accepted set is pending, or runs, or waits, or is gone: in one place, once."""
        running = Counter(worker.id for worker in self.launched)
        everywhere = self.pending() + running + Counter(list(self.waiting)) + self.gone
        assert everywhere == self.accepted
        assert all(count == 1 for count in everywhere.values())
        assert self.ledger.next_trial == min(self.waiting.values(), default=NEVER)

    @invariant()
    def what_is_over_is_over(self):
        """The flags say what the orders have said."""
        assert (self.ledger.intake is Intake.CLOSED) == self.closed
        assert (self.ledger.flow is Flow.STOPPED) == self.stopped
        left = bool(self.ledger.pending or self.waiting) and not self.stopped
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
    ledger.add(jobs_of({"id": 2}))
    assert ledger.pending == [{"id": 1}] and not ledger.over and ledger.withdraw({2}) == []


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
    ledger.add(jobs_of({"id": 2}))
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
    assert numbers(ledger.decide(scheduler(everything))) == [1, 2]


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


def test_a_queue_is_asked_in_the_place_of_the_scheduler():
    """It is told what comes, starts, ends, is withdrawn and comes back."""
    queue = Fifo(lambda workers: 2 - len(workers), lambda workers, taken: None)
    ledger = Ledger(queue=queue)
    ledger.add([Job(number, {"id": number}) for number in range(5)])
    ledger.flow = Flow.WORKING
    jobs = ledger.decide(None, 1.0)
    assert numbers(jobs) == [0, 1] and ledger.pending == [{"id": 2}, {"id": 3}, {"id": 4}]
    ledger.started(SimpleNamespace(name="w"), jobs[0], 1.0)
    ledger.give_back(jobs[1:])
    assert numbers(ledger.withdraw({3})) == [3] and ledger.pending == [{"id": 1}, {"id": 2}, {"id": 4}]
    assert numbers(ledger.decide(None, 2.0)) == [1]
    ledger.left("w")
    assert numbers(ledger.decide(None, 3.0)) == [2, 4] and not ledger.pending


def test_what_could_not_be_started_goes_back_to_the_head():
    """The order of what is pending does not suffer from a refused process."""
    ledger = filled({"id": 1}, {"id": 2})
    chosen = ledger.decide(scheduler(everything))
    ledger.add(jobs_of({"id": 3}))
    ledger.give_back(chosen)
    assert ids(ledger) == [1, 2, 3] == numbers(ledger.decide(scheduler(everything)))


def test_what_goes_back_has_no_ticket_any_more():
    """Nor hooks: the scheduler gives it others, and it may be given back before it had any."""
    ledger = filled()
    ledger.give_back(jobs_of({"id": 1, "scheduler_ticket": 3, "scheduler_hooks": [print]}, {"id": 2}))
    assert ledger.pending == [{"id": 1}, {"id": 2}]


def test_a_name_may_be_worn_again_by_a_later_worker():
    """Only two at the same time are an error; it names the name and says what to do."""
    ledger = Ledger()
    ledger.started(SimpleNamespace(name="a"))
    with pytest.raises(ValueError, match="several workers wear the same name: a.*leave the name out"):
        ledger.started(SimpleNamespace(name="a"))
    ledger.left("a")
    ledger.started(SimpleNamespace(name="a"))


# -- jobs -------------------------------------------------------------------------------------------------


def test_a_job_is_called_by_its_name_or_its_number():
    """A name that is not given is none, and an empty one neither."""
    sets = ({"name": "a"}, {"name": None}, {"name": ""}, {})
    assert [Job(3, each).name for each in sets] == ["a", "#3", "#3", "#3"]


def test_a_job_answers_to_its_number_and_to_its_own_name():
    """Not to the name that it is called by for want of one, and a number is no name."""
    named, nameless, numeral = Job(1, {"name": "a"}), Job(2, {}), Job(3, {"name": "1"})
    asked = [1, 2, 3, "a", "1", "#2", "", "None"]
    answers = [[wanted for wanted in asked if wanted in job.callings] for job in (named, nameless, numeral)]
    assert answers == [[1, "a"], [2], [3, "1"]]


def test_copies_are_recognised_by_what_they_hold():
    """A scheduler may answer with copies, in any order, marked and stripped of a value."""
    ledger = filled({"id": 1, "x": "a", "y": 0}, {"id": 2, "x": "b", "y": 0}, {"id": 3, "x": "c", "y": 0})

    def copied(pending):
        first, second, third = (dict(each) for each in pending)
        del third["y"]
        return [third, {**first, "scheduler_ticket": 0}], [second]

    launched = ledger.decide(scheduler(copied))
    assert numbers(launched) == [3, 1] == [job.instructions["id"] for job in launched]
    assert numbers(ledger.withdraw({2})) == [2] and ledger.pending == []


def test_what_a_scheduler_did_to_its_copy_is_what_is_launched():
    """The worker is made of what was answered."""
    ledger = filled({"id": 1, "x": "a"})
    (job,) = ledger.decide(scheduler(lambda pending: ([{**pending[0], "scheduler_ticket": 5, "x": "b"}], [])))
    assert (job.number, job.instructions) == (1, {"id": 1, "x": "b", "scheduler_ticket": 5})


@pytest.mark.parametrize("more", [{"y": 2}, {"name": "w"}])
def test_the_copy_of_a_set_is_not_taken_for_a_larger_one(more):
    """A set that is tried again has a name more than its like: each keeps its number, and its trials."""
    large, small = Job(0, {"x": "a", **more}, trials=1), Job(1, {"x": "a"})
    ledger = filled()
    ledger.add([large, small])
    chosen = ledger.decide(scheduler(lambda pending: ([dict(pending[1])], [dict(pending[0])])))
    assert chosen == [small] and (small.trials, small.instructions) == (0, {"x": "a"})
    assert ledger.withdraw({0}) == [large] and large.instructions == {"x": "a", **more}


def test_sets_that_are_all_alike_are_launched_once_each():
    """Which is which does not matter where they do not differ."""
    ledger = filled()
    ledger.add([Job(number, {"x": "a"}) for number in range(5)])
    chosen = ledger.decide(scheduler(lambda pending: ([dict(each) for each in pending[:3]], pending[3:])))
    rest = ledger.decide(scheduler(everything))
    assert sorted(numbers(chosen + rest)) == [0, 1, 2, 3, 4] and ledger.pending == []


def changed_in(*keys):
    """Return a scheduler that keeps changed copies of all sets, in the order of their numbers, the last first."""
    return scheduler(lambda pending: ([], [{**each, **{key: object() for key in keys}} for each in pending[::-1]]))


@pytest.mark.parametrize("keys", [("x",), ("x", "y"), ("x", "y", "z"), ("more",), ()])
def test_a_changed_copy_is_known_by_what_nobody_else_has(keys):
    """Whatever else was changed."""
    ledger = filled(*({"id": 1000 + at, "x": at % 3, "y": "same", "z": object()} for at in range(40)))
    before = {job.number: job.instructions["id"] for job in ledger._jobs.values()}
    ledger.decide(changed_in(*keys))
    assert [each["id"] for each in ledger.pending] == list(range(1039, 999, -1))
    assert {job.number: job.instructions["id"] for job in ledger._jobs.values()} == before


def test_a_changed_copy_is_taken_for_the_most_similar_and_of_those_for_the_first():
    """Where what told it from others was changed: by what many have in common, too."""
    ledger = filled(*({"id": at, "kind": at % 2, "x": "same"} for at in range(30)))
    kinds = {job.number: job.instructions["kind"] for job in ledger._jobs.values()}
    answer = changed_in("id")
    jobs = ledger.decide(answer) or list(ledger._jobs.values())
    assert {job.number: job.instructions["kind"] for job in jobs} == kinds
    odd = [job.number for job in jobs if job.instructions["kind"] == 1]
    assert odd == sorted(odd)


@pytest.mark.parametrize("keys", [(), ("x",), ("id",), ("id", "x")])
def test_very_many_changed_copies_are_compared_with_a_few_each(monkeypatch, keys):
    """A scheduler that changes all its sets does not take a time that grows with their square."""
    compared = []
    plain = _ledger._Copies._likeness
    monkeypatch.setattr(
        _ledger._Copies, "_likeness", lambda *args: compared.append(args) or plain(*args)
    )
    ledger = filled(*({"id": 1000 + at, "x": at % 3, "y": "same"} for at in range(600)))
    ledger.decide(changed_in(*keys))
    assert len(compared) <= 4 * 600
    assert len(ledger.pending) == 600


# -- trials -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_error", "trials", "again", "stopped", "expected"),
    [
        ("stop", 1, True, False, Sentence.RETRY),
        ("finish", 2, True, False, Sentence.RETRY),
        ("stop", 3, True, False, Sentence.STOP),
        ("finish", 3, True, False, Sentence.GO_ON),
        ("collect", 3, True, False, Sentence.GO_ON),
        ("stop", 1, False, False, Sentence.STOP),
        ("collect", 1, False, False, Sentence.GO_ON),
        ("stop", 1, True, True, Sentence.STOP),
        ("collect", 1, True, True, Sentence.GO_ON),
    ],
)
def test_what_a_failure_leads_to(on_error, trials, again, stopped, expected):
    """Another trial while there are any and it makes sense; then what the caller wants."""
    ledger = filled(on_error=on_error, max_trials=3)
    if stopped:
        ledger.obey(Signal.STOP)
    assert ledger.judge(Job(0, {}, trials), again) is expected


@pytest.mark.parametrize("on_error", ["stop", "finish", "collect"])
def test_a_failure_that_no_set_is_to_blame_for_stops_everything(on_error):
    """Whatever the caller wants of workers that fail."""
    assert filled(on_error=on_error, max_trials=9).judge(None, True) is Sentence.STOP


@pytest.mark.parametrize("order", [Signal.HALT, Signal.END])
def test_there_are_trials_left_while_nothing_is_stopped(order):
    """A halt, or that no more will come, takes none away; it is not over before them."""
    ledger = filled({"id": 1}, max_trials=2)
    (job,) = ledger.decide(scheduler(everything))
    ledger.obey(order)
    assert ledger.judge(Job(1, {}, 1), True) is Sentence.RETRY
    ledger.try_again(job, "w", 0.0)
    assert ledger.pending == [{"id": 1, "name": "w"}] and not ledger.over


def test_another_trial_comes_first_under_the_same_name():
    """Ahead of what was never launched."""
    ledger = filled({"id": 1}, {"id": 2}, max_trials=2)
    job, _ = ledger.decide(scheduler(everything))
    ledger.add(jobs_of({"id": 3}))
    assert ledger.try_again(job, "w-1", 0.0) == 0.0
    assert ledger.pending == [{"id": 1, "name": "w-1"}, {"id": 3}] and ledger.next_trial == NEVER
    assert ledger.withdraw({"w-1"}) == [job]


def test_the_delay_is_doubled_each_time():
    """And what waits is not pending, nor is the work over."""
    ledger = filled(flow=Flow.WORKING, max_trials=9, retry_delay=0.5)
    ledger.obey(Signal.END)
    delays = []
    for trials in (1, 2, 3, 4):
        job = Job(0, {}, trials)
        delays.append(ledger.try_again(job, "w", 10.0))
        assert ledger.next_trial == 10.0 + delays[-1] and not ledger.over and not ledger.may_launch
        assert not ledger.end_of_waiting(10.0) and ledger.end_of_waiting(10.0 + delays[-1])
        assert ledger.withdraw({0}) == [job]
    assert delays == [0.5, 1.0, 2.0, 4.0] and ledger.over


def test_all_that_has_waited_long_enough_is_queued_in_the_order_of_its_time():
    """And of the numbers, where that is the same; what has not goes on waiting."""
    ledger = filled({"id": 9}, max_trials=9, retry_delay=1.0)
    for number, now in ((4, 2.0), (3, 1.0), (2, 1.0), (1, 5.0)):
        ledger.try_again(Job(number, {"id": number}, 1), f"w{number}", now)
    assert ledger.next_trial == 2.0
    assert ledger.end_of_waiting(3.5) and ids(ledger) == [2, 3, 4, 9] and ledger.next_trial == 6.0
    assert not ledger.end_of_waiting(5.9)


@pytest.mark.parametrize("how", [Signal.STOP, Signal.STOP_RIGHTNOW, Signal.STOP_LISTENING, "failure"])
def test_what_waits_when_all_is_stopped_is_told_among_what_did_not_run(how):
    """It will not have its next trial."""
    ledger = filled({"id": 9}, max_trials=9, retry_delay=1.0)
    for number, now in ((1, 5.0), (2, 1.0)):
        ledger.try_again(Job(number, {"id": number}, 1), f"w{number}", now)
    if how == "failure":
        ledger.fail(FAILURE)
    else:
        ledger.obey(how)
    assert ids(ledger) == [2, 1, 9] and ledger.next_trial == NEVER and ledger.over


# -- cancelling -------------------------------------------------------------------------------------------


def test_withdrawn_by_number_or_name_and_no_more():
    """The others keep their places."""
    ledger = filled({"id": 1}, {"id": 2, "name": "b"}, {"id": 3})
    assert numbers(ledger.withdraw({3})) == [3] and numbers(ledger.withdraw({"b"})) == [2]
    assert ledger.pending == [{"id": 1}] and ledger.withdraw({3}) == [] == ledger.withdraw({"b"})
    assert numbers(ledger.decide(scheduler(everything))) == [1] and ledger.withdraw({1}) == []


def test_all_that_share_a_name_are_withdrawn():
    """Pending, and waiting for another trial."""
    ledger = filled({"id": 1, "name": "w"}, {"id": 2, "name": "w"}, {"id": 3}, max_trials=2, retry_delay=1.0)
    (job,) = jobs_of({"id": 4})
    job.trials = 1
    ledger.try_again(job, "w", 0.0)
    assert sorted(numbers(ledger.withdraw({"w"}))) == [1, 2, 4]
    assert ids(ledger) == [3] and ledger.next_trial == NEVER and not ledger.end_of_waiting(9.0)


def test_those_that_go_on_waiting_do_so_in_order():
    """Whoever of them is withdrawn."""
    ledger = filled(max_trials=2, retry_delay=1.0)
    for number in range(8):
        ledger.try_again(Job(number, {"id": number}, 1), f"w{number}", float(number))
    assert [numbers(ledger.withdraw({each})) for each in (0, "w3", 7, 0)] == [[0], [3], [7], []]
    assert ledger.next_trial == 2.0 and ledger.end_of_waiting(99.0) and ids(ledger) == [1, 2, 4, 5, 6]


def test_the_work_is_over_when_all_the_rest_is_withdrawn():
    """Once no more will come."""
    ledger = filled({"id": 1})
    ledger.obey(Signal.END)
    assert not ledger.over
    ledger.withdraw({1})
    assert ledger.over and not ledger.may_launch
