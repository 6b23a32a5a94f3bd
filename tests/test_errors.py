"""The errors: ours say all and pickle; those of users come out of `pack` and `unpack` as they went in."""

from __future__ import annotations

import builtins
import copy
import inspect
import json
import pickle
import subprocess
import sys
import threading
import traceback

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import taylorism
from taylorism import _boss, _errors, _policy
from taylorism._errors import TaylorismError, TransmissionError, WorkerTraceback

LINES = ("Traceback (most recent call last):\n", "  File ...\n", "SomeError: text\n")


def travelled(error):
    """Send `error` from a worker to main."""
    packed = _errors.pack(error, "worker 'w'")
    return _errors.unpack(memoryview(packed), "worker 'w'", LINES)


# -- odd exceptions -------------------------------------------------------------------------------------


class KeywordOnly(Exception):
    """Its `__init__` takes no positional argument."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class TwoArguments(Exception):
    """Hands to its parent another number of arguments than it takes."""

    def __init__(self, path, line):
        super().__init__(f"{path}:{line}")
        self.path, self.line = path, line


class Embellished(Exception):
    """Hands to its parent another text than it takes: pickle alone would embellish it twice."""

    def __init__(self, value):
        super().__init__(f"bad value: {value}")
        self.value = value


class EmbellishedValue(ValueError):
    """The same, with a built-in parent and no attribute."""

    def __init__(self, value="nothing"):
        super().__init__(f"bad value: {value}")


class Slotted(Exception):
    """Keeps its state in slots."""

    __slots__ = ("state",)

    def __init__(self, message):
        super().__init__(message)
        self.state = "slot"


class NoArguments(Exception):
    """Takes nothing, hands nothing to its parent."""

    def __init__(self):
        self.detail = "x"


class OddNew(Exception):
    """Its `__new__` wants what its `args` do not have."""

    def __new__(cls, one, two):
        return super().__new__(cls, one)

    def __init__(self, one, two):
        super().__init__(one)


class OwnReduce(Exception):
    """Knows by itself how it is pickled."""

    def __init__(self, one, two):
        super().__init__(one)
        self.two = two

    def __reduce__(self):
        return OwnReduce, (self.args[0], self.two)


class WithHandle(Exception):
    """Holds something that no other process can have."""

    def __init__(self, message):
        super().__init__(message)
        self.handle = threading.Lock()
        self.path = "/some/path"


class BadStr(Exception):
    """Cannot be shown."""

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class BadReduce(Exception):
    """Fails while it is pickled."""

    def __reduce__(self):
        raise OSError("disk")


class Liar(Exception):
    """Comes out of pickle as something else."""

    def __reduce__(self):
        return str, ("liar",)


class OddOSError(OSError):
    """An OSError with an `__init__` of its own."""

    def __init__(self, path, *, attempts):
        super().__init__(5, f"cannot read after {attempts} attempts", path)
        self.attempts = attempts


class Interrupt(KeyboardInterrupt):
    """A BaseException that is no Exception."""


class Multi(KeywordOnly, ValueError):
    """Two parents."""


def unicode_error():
    """Make an error whose state is outside of `args`' reach."""
    try:
        b"abc\xff".decode("ascii")
    except UnicodeDecodeError as error:
        return error


def chained():
    """Make an error with cause and context."""
    try:
        try:
            {}["key"]
        except KeyError as error:
            raise ValueError("the outer one") from error
    except ValueError as error:
        return error


def with_state(error, **state):
    """Give attributes to an error."""
    error.__dict__.update(state)
    return error


SENT = [
    ValueError(),
    ValueError("text", 3, None, [1]),
    KeyError("key"),
    OSError(2, "No such file", "/some/file"),
    FileNotFoundError("text alone"),
    ConnectionResetError(104, "reset"),
    OddOSError("/some/file", attempts=3),
    unicode_error(),
    UnicodeEncodeError("ascii", "é", 0, 1, "ordinal"),
    SyntaxError("bad", ("file.py", 3, 4, "text")),
    ImportError("no", name="module", path="/path"),
    StopIteration(3),
    SystemExit(3),
    SystemExit("text"),
    KeyboardInterrupt(),
    Interrupt("x"),
    GeneratorExit(),
    MemoryError(),
    RecursionError("deep"),
    AttributeError("no attribute"),
    json.JSONDecodeError("bad", "doc", 2),
    subprocess.CalledProcessError(3, ["cmd", "arg"], b"out", b"err"),
    subprocess.TimeoutExpired("cmd", 3.0),
    np.linalg.LinAlgError("singular"),
    KeywordOnly(code=3),
    Multi(code=4),
    TwoArguments("f", 3),
    Embellished(3),
    EmbellishedValue("x"),
    Slotted("text"),
    NoArguments(),
    OwnReduce(1, "two"),
    with_state(ValueError("x"), extra=[1, 2]),
    chained(),
]


def facts(error):
    """Return what may be compared of an exception."""
    known = ("errno", "strerror", "filename", "start", "end", "reason", "object", "name", "path", "code", "value",
             "lineno", "returncode", "cmd", "stderr", "timeout", "pos")  # fmt: skip
    found = {name: getattr(error, name) for name in known if hasattr(error, name)}
    return type(error), error.args, dict(error.__dict__), found, str(error)


@pytest.mark.parametrize("error", SENT, ids=lambda error: type(error).__name__)
def test_an_exception_comes_as_it_went(error):
    """Same class, same arguments, same attributes, same text; the traceback is the cause."""
    came = travelled(error)
    assert facts(came) == facts(error)
    assert isinstance(came.__cause__, WorkerTraceback)
    assert "worker 'w'" in str(came.__cause__) and "".join(LINES) in str(came.__cause__)


def test_it_comes_as_it_went_a_second_time():
    """From a nested Boss to its own, and on to main: nothing is lost or embellished on the way."""
    for error in SENT:
        assert facts(travelled(travelled(error))) == facts(error)


def test_an_argument_that_compares_like_an_array_travels():
    """Arguments whose comparison has no truth value are no obstacle."""
    came = travelled(ValueError("bad", np.arange(3)))
    assert came.args[0] == "bad" and list(came.args[1]) == [0, 1, 2]


def test_an_argument_that_is_not_equal_to_itself_travels():
    """NaN, and objects without `__eq__`."""
    came = travelled(ValueError("bad", float("nan"), KeyError("k")))
    assert type(came) is ValueError and came.args[1] != came.args[1] and type(came.args[2]) is KeyError


def test_attributes_that_cannot_be_pickled_do_not_cost_the_exception():
    """An open file or a lock on the instance stays behind; class, arguments and the rest come."""
    came = travelled(WithHandle("text"))
    assert (type(came), came.args, came.path) == (WithHandle, ("text",), "/some/path")


@pytest.mark.parametrize(
    "error",
    [ValueError(threading.Lock()), OddNew(1, 2), BadReduce("x"), Liar("x"), type("Local", (Exception,), {})("x")],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_travel_is_replaced_or_rebuilt(error):
    """The substitute names the worker, the class and the message, and its cause is the traceback."""
    came = travelled(error)
    if type(came) is type(error):
        assert came.args == error.args
        return
    assert isinstance(came, TransmissionError) and isinstance(came, pickle.PicklingError)
    assert "worker 'w'" in str(came) and type(error).__name__ in str(came)
    assert isinstance(came.__cause__, WorkerTraceback)


def test_an_exception_that_cannot_be_shown_travels():
    """Its `__str__` is not our trouble."""
    came = travelled(BadStr("x"))
    assert type(came) is BadStr and came.args == ("x",)
    hopeless = BadStr(threading.Lock())
    assert "cannot be shown" in str(travelled(hopeless))
    assert _errors.traceback_lines(hopeless)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no groups, no notes")
def test_groups_and_notes_travel():
    """Groups keep their members, notes stay; for subclasses as well."""
    group = builtins.ExceptionGroup("many", [ValueError(1), KeyError("k"), Embellished(3)])
    group.add_note("a note")
    came = travelled(group)
    assert (type(came), came.message, came.__notes__) == (type(group), "many", ["a note"])
    assert [type(each) for each in came.exceptions] == [ValueError, KeyError, Embellished]
    base = builtins.BaseExceptionGroup("base", [KeyboardInterrupt()])
    assert type(travelled(base).exceptions[0]) is KeyboardInterrupt


@pytest.mark.parametrize(
    ("packed", "lines"),
    [(b"", LINES), (b"garbage", LINES), (b"cno_such_module\nX\n.", ()), (pickle.dumps("text"), LINES)],
)
def test_what_cannot_be_rebuilt_in_main_becomes_an_error_that_names_the_worker(packed, lines):
    """Main gets an exception whatever came."""
    came = _errors.unpack(packed, "worker 'w'", lines)
    assert isinstance(came, TransmissionError) and "worker 'w'" in str(came)
    assert isinstance(came.__cause__, WorkerTraceback)


PLAIN = st.one_of(st.integers(), st.text(), st.binary(), st.none(), st.floats(allow_nan=False))


@given(st.lists(PLAIN, max_size=4))
def test_arguments_of_any_plain_kind_travel(arguments):
    """What went in comes out."""
    came = travelled(Exception(*arguments))
    assert came.args == tuple(arguments)


# -- ours -----------------------------------------------------------------------------------------------

OURS = sorted(
    {
        value
        for module in (_errors, _policy, taylorism, _boss, taylorism.schedulers)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, TaylorismError)
    },
    key=lambda cls: cls.__name__,
)

OLD = {
    "WorkerNotStarted": OSError,
    "TransmissionError": pickle.PicklingError,
    "NoAdequateWorker": AttributeError,
    "DuplicateName": ValueError,
    "UnequalLengths": AssertionError,
    "BadInstructions": TypeError,
    "InstructionsNotPicklable": (pickle.PicklingError,),
    "NeverStartable": ValueError,
}


def test_all_of_ours_are_there():
    """The list of classes under test is not empty by mistake, and all public errors are in it."""
    assert len(OURS) >= 12
    assert {*_errors.__all__} - {"WorkerTraceback"} <= {cls.__name__ for cls in OURS}
    assert all(getattr(taylorism, name) is getattr(_errors, name) for name in _errors.__all__)


@pytest.mark.parametrize("cls", OURS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ours_pickle_with_their_facts(cls, protocol):
    """By every protocol, copied, and through `pack`: message, facts and notes stay."""
    error = cls("what happened", attempts=3, told=["x"])
    error.__dict__["__notes__"] = ["note"]
    for came in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), travelled(error)):
        assert type(came) is cls and str(came) == "what happened" and came.args == ("what happened",)
        assert (came.attempts, came.told, came.__notes__) == (3, ["x"], ["note"])


@pytest.mark.parametrize("cls", OURS)
def test_a_fact_called_name_is_read_as_it_was_given(cls):
    """Some built-in parents have an attribute `name` of their own, which must not stand before ours."""
    error = cls("what happened", name="worker a")
    assert error.name == "worker a"
    assert pickle.loads(pickle.dumps(error)).name == "worker a"


@pytest.mark.parametrize("cls", OURS)
def test_ours_can_be_raised_without_anything(cls):
    """As users do in tests of their own."""
    with pytest.raises(cls):
        raise cls
    assert str(cls()) == ""


@pytest.mark.parametrize(("name", "parents"), OLD.items())
def test_ours_are_caught_by_old_except_clauses(name, parents):
    """Those that take the place of a built-in inherit from it."""
    cls = getattr(taylorism, name)
    assert issubclass(cls, TaylorismError)
    assert all(issubclass(cls, parent) for parent in (parents if isinstance(parents, tuple) else (parents,)))


@pytest.mark.parametrize("cls", [*OURS, WorkerTraceback])
def test_the_docstring_of_each_is_its_own(cls):
    """Each says what happened, and what the user should do."""
    assert cls.__doc__ and cls.__doc__ != TaylorismError.__bases__[0].__doc__


def test_a_worker_traceback_shows_its_text_and_pickles():
    """It is what Python prints above the error."""
    cause = WorkerTraceback("in worker 'w':\n\nTraceback ...\n")
    assert str(pickle.loads(pickle.dumps(cause))) == str(cause) == cause.text
    error = travelled(ValueError("x"))
    printed = "".join(traceback.format_exception(type(error), error, None))
    assert "SomeError: text" in printed and "direct cause" in printed


# -- texts ----------------------------------------------------------------------------------------------


class BadRepr:
    """Cannot be shown."""

    def __repr__(self):
        raise KeyError("no")


def test_quote_is_short_and_never_fails():
    """A long text is cut, a bad one is named."""
    assert _errors.quote("abc") == "'abc'"
    assert _errors.quote([1] * 100, 10) == "[1, 1, 1, " + " ..."
    assert "BadRepr" in _errors.quote({"a": BadRepr()}) or "dict" in _errors.quote({"a": BadRepr()})


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("x"), "ValueError: x"), (ValueError(), "ValueError"), (KeyError("k"), "KeyError: 'k'")],
)
def test_describe_says_class_and_message(error, text):
    """In one line, with no colon where there is no message."""
    assert _errors.describe(error) == text


def test_traceback_lines_hold_the_whole_chain():
    """Cause and error, as Python prints them."""
    text = "".join(_errors.traceback_lines(chained()))
    assert "KeyError: 'key'" in text and "ValueError: the outer one" in text and "direct cause" in text


def test_traceback_lines_never_fail():
    """Whatever the exception is made of."""

    class Cursed(Exception):
        @property
        def __class__(self):
            raise RuntimeError

        def __str__(self):
            raise RuntimeError

    assert _errors.traceback_lines(Cursed("x"))


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_what_fails_again_cannot_be_loaded_and_what_fails_once_was_somebody_else(kind):
    """A signal handler raises once; a script that ends when it is imported does so each time."""
    raised = [kind("once")]

    def load():
        if raised:
            raise raised.pop()
        return 3

    with pytest.raises(kind, match="once"):
        _errors.load_surely(load)
    assert _errors.load_surely(load) == 3
    raised += [kind("again"), kind("first")]
    with pytest.raises(_errors.NotLoadable) as caught:
        _errors.load_surely(load)
    assert "first" in str(caught.value.__cause__)
