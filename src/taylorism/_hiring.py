"""Listener: a set of instructions -> a Worker; whatever goes wrong is charged to that set."""

from __future__ import annotations

import functools
import itertools
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import footprints

from taylorism import _calls, _compat, _moulds
from taylorism._choice import Choices
from taylorism._errors import BadOption, DuplicateName, NoAdequateWorker, TaylorismError, quote
from taylorism._worker import Worker

__all__ = ["HOPELESS", "SPECIALISTS", "hire", "is_remembered", "is_taken", "tell_instructions"]

#: what another trial would only say again
HOPELESS = (NoAdequateWorker, DuplicateName, BadOption)
#: the classes of `taylorism.workers`, by their `kind`; filled when that module is imported
SPECIALISTS: dict[str, Any] = {}

#: seconds of processor time for the choice of a class
PATIENCE = 10.0
#: characters of one attribute in the list of the instructions of a guilty worker
_SHOWN = 10_000


@functools.cache
def _collector() -> Any:
    return footprints.collectors.get(tag="worker")


@functools.cache
def _choices() -> Choices:
    return Choices(_collector())


#: how many were hired in this process, or in those that it was forked from: nothing is learnt for a batch of one
_hired = itertools.count()


def _chosen(attributes: dict[str, Any]) -> Any:
    """Do as `footprints.proxy.worker` does, with the choices that were made before (`_choice`)."""
    if not next(_hired):
        return _chosen_anew(attributes, learn=False)
    found = _choices().find(attributes)
    if found is None:
        return _chosen_anew(attributes)
    return _moulds.build(*found)


def _chosen_anew(attributes: dict[str, Any], learn: bool = True) -> Any:
    """Have footprints choose.

    Where just one class matches, which is nearly always, without what it does besides: for each look-up, it
    makes two texts for its debug log that name every class there is. In a notebook, a class whose cell was run
    again is still there, as a class of the same name: it has been replaced.
    """
    _refuse_endless(attributes)
    if any(name.startswith("_") or name == "worker" for name in attributes):
        # Footprints alone knows what these mean: all in one, the constructor too.
        return _bounded(partial(_collector().load, **attributes))
    candidates = _found(attributes)
    if learn and len(candidates) == 1:
        _choices().learn(attributes, *candidates[0][:2])
    if len(candidates) > 1:
        candidates = [each for each in candidates if not _replaced(each[0])] or candidates
    if len(candidates) == 1:
        cls, resolved, _ = candidates[0]
        return cls(resolved, checked=True)
    return _collector().load(**attributes)


def _found(attributes: dict[str, Any]) -> list[Any]:
    """Have footprints find the classes that match."""
    return list(_bounded(partial(_collector().find_all, attributes)))


def _bounded(choose: Callable[[], Any]) -> Any:
    """Have footprints choose, in a bounded time.

    Two attributes that stand in each other's value can keep it going for ever, and the listener would hear of
    nothing any more, the death of main included.
    """
    _compat.set_handler(signal.SIGVTALRM, _give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    try:
        return choose()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _give_up(*_: object) -> None:
    raise footprints.FootprintMaxIter(
        f"footprints finds no end in {PATIENCE:g} s of processor time: do attributes stand in each other's value, "
        "name='[a]' and a='[name]'? What is in brackets is replaced by the value of the attribute of that name."
    )


def _refuse_endless(attributes: Mapping[str, Any]) -> None:
    """Refuse an attribute that stands in its own value: footprints would replace it for ever."""
    for name, value in attributes.items():
        if isinstance(value, str) and "[" in value and re.search(rf"\[{re.escape(name)}[\]:#%]", value):
            raise footprints.FootprintMaxIter(
                f"the attribute {name!r} stands in its own value, {quote(value, 200)}: [{name}] is what footprints "
                "replaces by the value of that attribute. Give it another name, or a value without brackets."
            )


def _specialist(attributes: dict[str, Any]) -> Any:
    """Return a worker of the class of ours that these attributes name, or None.

    No other class is asked, since a command may hold what footprints would replace, ``[name]``, and another class
    may have an attribute `command`.
    """
    if "kind" not in attributes:
        return None
    kind = attributes["kind"]
    cls = SPECIALISTS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        return None
    _refuse_endless(_of_any_worker(attributes))
    resolved = _bounded(lambda: cls.footprint_couldbe(attributes)[0])
    return cls(resolved, checked=True) if resolved else None


def _caller(attributes: dict[str, Any]) -> Any:
    """Return the worker for a call, None where these attributes are of another kind."""
    if _calls.FUNCTION not in attributes:
        return None
    _refuse_endless(_of_any_worker(attributes))
    try:
        return _bounded(partial(_calls.caller, attributes))
    except footprints.FootprintMaxIter:
        raise
    except footprints.FootprintException as trouble:  # it names an attribute, but neither its value nor whose it is
        raise NoAdequateWorker(
            f"no adequate Worker was found with these instructions: {quote(attributes)}. A call accepts none of "
            f"them that is of another type: memory and expected_time are numbers. footprints says: {trouble}"
        ) from trouble


def _of_any_worker(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that every Worker has, in which footprints replaces whatever class it is."""
    return {name: value for name, value in attributes.items() if name in Worker.footprint_retrieve().attr}


def is_remembered(attributes: Mapping[str, Any]) -> bool:
    """Whether a Worker of these attributes is built without a step of the user's code, but for its constructor."""
    return _choices().find(dict(attributes)) is not None


def is_taken(attributes: Mapping[str, Any]) -> bool:
    """Whether a class of the user's knows the `kind` of these attributes, and hence goes before ours."""
    ours = SPECIALISTS.values()
    knowing = [cls for cls in _collector() if cls not in ours and "kind" in cls.footprint_retrieve().allkeys()]
    return any(cls.footprint_couldbe(attributes)[0] for cls in knowing if not _replaced(cls))


def _replaced(cls: type) -> bool:
    """Whether another Worker class has taken the name of this one, in the module where it was defined."""
    now = getattr(sys.modules.get(cls.__module__), cls.__qualname__, cls)
    return now is not cls and isinstance(now, type) and issubclass(now, footprints.FootprintBase)


def hire(instructions: Mapping[str, Any], shared: Mapping[str, Any]) -> Any:
    """Build the Worker that these instructions describe.

    Raises
    ------
    NoAdequateWorker
        No class matches.
    Exception
        Whatever footprints, or the ``__init__`` of the class, raises.
    """
    attributes = {**instructions, **shared}
    worker = _caller(attributes) or _specialist(attributes) or _chosen(attributes)
    if worker is None:
        raise NoAdequateWorker(
            "no adequate Worker was found with these instructions: "
            f"{quote(dict(instructions))}. Is the module of the Worker class imported before the Boss is made, "
            "and does each attribute have a value that the class accepts?"
        )
    if not isinstance(worker.name, str):
        raise TaylorismError(f"the name of a worker must be a string, not {worker.name!r}.")
    return worker


def tell_instructions(worker: Any, instructions: Mapping[str, Any]) -> list[str]:
    """Return one line for each attribute of `worker` (of `instructions`, where there is no worker)."""
    try:
        attributes = worker.footprint_as_shallow_dict() if worker is not None else dict(instructions)
        return list(_lines(attributes))
    except Exception:
        return list(_lines(instructions))


def _lines(attributes: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(attributes):
        yield f"({name!r}, {quote(attributes[name], _SHOWN)})\n"
