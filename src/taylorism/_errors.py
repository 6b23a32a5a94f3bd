"""Vocabulary, any process: the exceptions, and how a failure travels whole from one process to another.

Every message says what happened, to whom, and what to do. Ours that take the place of an old
built-in exception inherit from it, so that `except` clauses written for 1.1 still work.

A failure is packed once, in the process where it happened, and rebuilt in main:

1. the exception is pickled, and loaded again on the spot to see whether it comes out the same;
2. if not, its class, arguments and attributes are, and it is rebuilt without its `__init__`
   (an exception whose `__init__` wants other arguments than it hands to its parent);
3. if that fails too, a `TransmissionError` names the class and the message.

The traceback always travels as text and becomes the `__cause__`, a `WorkerTraceback`.
"""

from __future__ import annotations

import reprlib
import traceback
import types
from collections.abc import Callable
from contextlib import suppress

from taylorism._compat import PicklingError

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

__all__ = [
    "BadInstructions",
    "BadOption",
    "BadScheduler",
    "BossDied",
    "BossEnded",
    "CommandFailed",
    "DuplicateName",
    "InstructionsNotPicklable",
    "MemoryExceeded",
    "NeverStartable",
    "NoAdequateWorker",
    "SchedulerError",
    "TaylorismError",
    "TransmissionError",
    "UnequalLengths",
    "UnknownOrder",
    "UnknownWorker",
    "WaitTimeout",
    "WorkerDied",
    "WorkerNotStarted",
    "WorkerTimeout",
    "WorkerTraceback",
    "WorkersFailed",
]

#: characters of a text of instructions that an error message quotes
QUOTED = 2000


class TaylorismError(Exception):
    """Root of the errors of this package.

    Parameters
    ----------
    message : str
        What happened, to whom, what to do.
    **facts
        What a program may want to read without parsing the message; each becomes an attribute.
    """

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        for name, value in facts.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with `args` alone, and lose what a built-in parent keeps for itself.
        return _rebuild, _parts(self)


class WorkerDied(TaylorismError):
    """A worker's process ended without a report: look for its end in its log, or give it more memory.

    Attributes
    ----------
    name : str
        The worker's name.
    exitcode : int or None
        Exit status; the negative number of the signal that killed it.
    instructions : str
        Its instructions, as text.
    """

    name: str
    exitcode: int | None
    instructions: str


class CommandFailed(TaylorismError):
    """A command (``kind='shell'``) has failed: read what it wrote, mend it, or give ``check=False``.

    Attributes
    ----------
    name : str
        The worker's name.
    command : str or list of str
        What was run.
    returncode : int
        Its exit status; the negative number of the signal that killed it.
    signal : str
        The signal that killed it in words, ``'SIGKILL'``; empty where none did. It may be the shell that says so.
    stdout, stderr : str
        The last 10 000 characters of what it wrote.
    """

    name: str
    command: str | list[str]
    returncode: int
    signal: str
    stdout: str
    stderr: str


class WorkerTimeout(TaylorismError, TimeoutError):
    """A worker took longer than its `timeout`, and was stopped with all that it had started: allow it more.

    Attributes
    ----------
    name : str
        The worker's name.
    seconds : float
        What it was allowed.
    instructions : str
        Its instructions, as text.
    """

    name: str
    seconds: float
    instructions: str


class MemoryExceeded(TaylorismError, MemoryError):
    """A worker used far more memory than it had declared, and was stopped for it: declare more.

    Attributes
    ----------
    name : str
        The worker's name.
    declared, used : float
        What it had declared, and was seen to use with all that it had started, in MiB.
    instructions : str
        Its instructions, as text.
    """

    name: str
    declared: float
    used: float
    instructions: str


class WorkersFailed(TaylorismError):
    """Some workers failed, and all the others are done (``on_error='finish'``): look at each of `errors`.

    Attributes
    ----------
    errors : dict
        The exception of each, by the name of the worker.
    """

    errors: dict[str, BaseException]


class WaitTimeout(TaylorismError, TimeoutError):
    """What was waited for has not come in time; the work goes on: wait again, or stop it."""


class UnknownWorker(TaylorismError, LookupError):
    """No set of instructions has that name or id: take one that `Boss.status` shows."""


class WorkerNotStarted(TaylorismError, OSError):
    """The system refused a process or a pipe for a worker while no other was running: raise the limit."""


class TransmissionError(TaylorismError, PicklingError):
    """A report or an exception cannot be pickled, or cannot be unpickled: return something simpler."""


class BossDied(TaylorismError):
    """The listener of a Boss was killed: its workers were stopped, what was not reported is lost."""


class BossEnded(TaylorismError, RuntimeError):
    """A Boss whose end was ordered takes no more calls: make another, or call `Boss.end` later."""


class NoAdequateWorker(TaylorismError, AttributeError):
    """No Worker class matches a set of instructions: import the class, or mend the instructions."""


class DuplicateName(TaylorismError, ValueError):
    """Two workers of one name would run at the same time: give each its own, or none."""


class UnequalLengths(TaylorismError, AssertionError):
    """The individual instructions are not all of one length."""


class BadInstructions(TaylorismError, TypeError):
    """Instructions of a kind that cannot be dealt out to workers."""


class BadOption(TaylorismError, ValueError):
    """An option has a value that it cannot have: use one of those that the message names."""


class BadScheduler(TaylorismError, AssertionError, TypeError):
    """What was given as a scheduler has no callable `launchable`: give one that has."""


class UnknownOrder(TaylorismError, ValueError):
    """Something was sent to the listener that is no order: send a value of `Boss.control_signals`."""


class InstructionsNotPicklable(
    TaylorismError, PicklingError, TypeError, ValueError, AttributeError
):
    """A value of the instructions cannot be sent to another process.

    1.1 let out whatever `pickle` raised, which is any of these built-ins.
    """


class SchedulerError(TaylorismError):
    """A scheduler failed, answered nonsense, or will never launch what is pending."""


class NeverStartable(TaylorismError, ValueError):
    """A set of instructions asks for more than its scheduler will ever have to give."""


class WorkerTraceback(Exception):
    """The traceback of a failure as it was in its own process, as text: the `__cause__` of the error."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


# ---------------------------------------------------------------------------------------------------------
# taking exceptions apart
# ---------------------------------------------------------------------------------------------------------

def _parts(error: BaseException) -> tuple[type[BaseException], tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """Return class, arguments, attributes, and what is kept in slots (``errno`` of an OSError)."""
    return type(error), error.args, dict(error.__dict__), _slots(error)


def _slots(error: BaseException) -> dict[str, Any]:
    kinds = (types.MemberDescriptorType, types.GetSetDescriptorType)
    names = {
        name
        for cls in type(error).__mro__
        if cls not in (BaseException, Exception, object)
        for name, member in vars(cls).items()
        if isinstance(member, kinds) and not name.startswith("__")
    }
    values = {name: getattr(error, name, None) for name in sorted(names)}
    return {name: value for name, value in values.items() if value is not None}


def _rebuild(
    cls: type[BaseException],
    args: tuple[Any, ...],
    state: dict[str, Any],
    slots: dict[str, Any],
) -> BaseException:
    """Make an exception out of its parts, without calling its `__init__`."""
    # Not the `__new__` of the class itself either: it may want other arguments, as its `__init__` may. Of several
    # built-in parents only the one whose layout the class has can make it.
    builtin: Any = cls
    while builtin.__module__ != "builtins":
        builtin = builtin.__base__
    error: BaseException = builtin.__new__(cls, *args)
    error.args = args
    for name, value in slots.items():
        with suppress(AttributeError, TypeError):  # read-only
            setattr(error, name, value)
    error.__dict__.update(state)
    return error


class _InParts:
    """Pickles as what `_rebuild` needs; attributes that cannot be pickled stay behind."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        cls, args, state, slots = _parts(self.error)
        return _rebuild, (cls, args, _picklable(state), _picklable(slots))


def _picklable(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if _travels(value)}


def _travels(value: Any) -> bool:
    import pickle

    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True


def _of_one_class(one: BaseException, other: object) -> bool:
    return type(other) is type(one)


def _alike(one: BaseException, other: object) -> bool:
    """Whether `other`, which has travelled, says the same as `one`."""
    if not (_of_one_class(one, other) and isinstance(other, BaseException)):
        return False
    before, after = (*one.args, *_slots(one).values()), (*other.args, *_slots(other).values())
    return len(before) == len(after) and all(map(_equal, before, after))


def _equal(one: object, other: object) -> bool:
    # What has no equality of its own differs from its copy, and says nothing: then the type must do.
    if isinstance(one, (str, bytes, int, float, tuple, type(None))):
        return quote(one) == quote(other)
    return type(one) is type(other)


def describe(error: BaseException) -> str:
    """Return class and message of `error` in one line, whatever its `__str__` does."""
    try:
        text = str(error)
    except Exception as trouble:
        text = f"<its message cannot be shown: {type(trouble).__name__}>"
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def quote(value: object, limit: int = QUOTED) -> str:
    """Return `repr(value)`, cut to `limit` characters, whatever its `__repr__` does."""
    try:
        text = repr(value)
    except Exception as trouble:
        text = f"<{type(value).__name__}: its repr raised {type(trouble).__name__}>"
    return text if len(text) <= limit else text[:limit] + " ..."


def traceback_lines(error: BaseException) -> tuple[str, ...]:
    """Return the lines of the traceback of `error`; never raises."""
    try:
        return tuple(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as trouble:
        return (f"{describe(error)} (its traceback cannot be shown: {describe(trouble)})\n",)


def pack(error: BaseException, whose: str) -> bytes:
    """Pickle `error` in such a way that main can load it; never raises an `Exception`.

    Parameters
    ----------
    error : BaseException
        What was raised.
    whose : str
        ``"worker 'a'"``: for the message of the substitute.
    """
    import pickle

    for form, same in ((error, _alike), (_InParts(error), _of_one_class)):
        packed = _packed_if_it_loads(form, error, same)
        if packed is not None:
            return packed
    substitute = TransmissionError(
        f"{whose} raised an exception that cannot be sent to the main process: {describe(error)}. "
        "Its class must be importable there, and its arguments picklable."
    )
    return pickle.dumps(substitute)


def _packed_if_it_loads(
    form: object, error: BaseException, same: Callable[[BaseException, object], bool]
) -> bytes | None:
    """Return `form` pickled, or None where loading it does not give back the `same` as `error`."""
    import pickle

    try:
        packed = pickle.dumps(form, protocol=pickle.HIGHEST_PROTOCOL)
        return packed if same(error, pickle.loads(packed)) else None
    except Exception:
        return None


class NotLoadable(Exception):
    """Something that came from another process cannot be loaded here; the cause says why."""


def load_surely(load: Callable[[], T]) -> T:
    """Return what `load` returns, telling its own failures from what a signal handler raises meanwhile.

    Raises
    ------
    NotLoadable
        It fails, and fails again.
    Exception
        What it raised once only, and hence did not come from it.
    """
    try:
        return load()
    except (Exception, SystemExit) as first:  # the latter of a script that is imported, and ends itself
        try:
            load()
        except (Exception, SystemExit):
            raise NotLoadable from first
        raise


def unpack(
    packed: Any, whose: str, lines: tuple[str, ...], instructions: str = "", output: str = ""
) -> BaseException:
    """Rebuild in main what `pack` packed; what cannot be loaded here becomes a `TransmissionError`."""
    import pickle

    try:
        error: Any = load_surely(lambda: pickle.loads(packed))
    except NotLoadable as trouble:
        last = lines[-1].strip() if lines else "unknown"
        error = TransmissionError(
            f"{whose} failed ({last}), and its exception cannot be rebuilt here: "
            f"{describe(trouble.__cause__ or trouble)}. Its class must be importable in the main process."
        )
    if not isinstance(error, BaseException):
        error = TransmissionError(f"{whose} failed with {reprlib.repr(error)}")
    rebuilt: BaseException = error
    told = f"\nIts instructions:\n{instructions}" if instructions else ""
    said = f"\n{output}" if output else ""
    rebuilt.__cause__ = WorkerTraceback(f"in {whose}:\n\n{''.join(lines)}{told}{said}")
    return rebuilt
