"""Main and listener: what a Boss hands to its listener, and how it is carried where there is no fork.

Under a fork nothing is carried: the listener has it all. For a spawned listener the settings are pickled
while the process is started, with two cares:

* footprints marks what was not given by the one object `UNKNOWN`, which it recognises by identity; the pickler
  here keeps that identity (a Boss or a Worker is never pickled at all);
* the modules of every Worker and scheduler class that main knows are imported first, so that the same classes
  compete for each set of instructions.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import pickle
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import footprints

from taylorism._channel import Channel
from taylorism._hold import Hold
from taylorism._policy import Policy
from taylorism._queues import PendingQueue
from taylorism.schedulers import queue_of

__all__ = ["Setup"]

_log = logging.getLogger("taylorism")

#: whose levels decide whether a verbose Boss is heard: the root logger's, and ours
_LOGGERS = ("", "taylorism")

_MARKER = "footprints.UNKNOWN"


@dataclass
class Setup:
    """What the listener has to know.

    Attributes
    ----------
    channel : Channel
        Its end of the way to main.
    main_pid : int
        Whom to watch.
    scheduler : object
        Anything with a callable `launchable`.
    shared : mapping
        Instructions that are not copied: shared arrays.
    verbose : bool
        Whether starts and reports are logged.
    maxlenreport : int
        Characters of a report that are logged.
    policy : Policy
        What the caller wants on failure, time and output.
    hold : Hold
        Where big buffers cross.
    queue : PendingQueue or None
        That of the scheduler, if it has one.
    """

    channel: Channel
    main_pid: int
    scheduler: Any
    shared: Mapping[str, Any]
    verbose: bool
    maxlenreport: int
    policy: Policy
    forked: bool = field(default=True)
    hold: Hold = field(default_factory=Hold)
    queue: PendingQueue | None = field(init=False)

    def __post_init__(self) -> None:
        # Before the fork: after it, what making a queue touches would be copied, a fifth of what the start takes.
        self.queue = queue_of(self.scheduler)

    def __getstate__(self) -> dict[str, Any]:
        from multiprocessing.reduction import DupFd

        return {
            "modules": _modules_of_classes(),
            "levels": {name: logging.getLogger(name).level for name in _LOGGERS},
            "directory": _directory(),
            "environment": dict(os.environ),
            "fd": DupFd(self.channel.fd),
            "hold": list(map(DupFd, self.hold.descriptors)),
            "settings": _pickled(
                (
                    self.main_pid,
                    self.scheduler,
                    dict(self.shared),
                    self.verbose,
                    self.maxlenreport,
                    self.policy,
                )
            ),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The fork server was started by an earlier Boss, or by somebody else: its surroundings may be old.
        with suppress(OSError):  # removed meanwhile, or before: main can live with it, and so can we
            os.chdir(state["directory"])
        os.environ.clear()
        os.environ.update(state["environment"])
        for name in state["modules"]:
            _import_quietly(name)
        for name, level in state["levels"].items():
            logging.getLogger(name).setLevel(level)
        settings = _Unpickler(io.BytesIO(state["settings"])).load()
        self.main_pid, self.scheduler, self.shared, self.verbose, self.maxlenreport, self.policy = settings
        self.queue = queue_of(self.scheduler)
        self.channel = Channel(socket.socket(fileno=state["fd"].detach()))
        self.hold = Hold([_private(each.detach()) for each in state["hold"]])
        self.forked = False


def _private(descriptor: int) -> int:
    """Return a descriptor that the programs which workers start do not inherit."""
    os.set_inheritable(descriptor, False)
    return descriptor


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _modules_of_classes() -> list[str]:
    """Return the modules, `__main__` apart, of the Worker and scheduler classes that exist here."""
    found = {
        cls.__module__
        for tag in ("worker", "scheduler")
        for cls in footprints.collectors.get(tag=tag)
    }
    return sorted(found - {"__main__", "__mp_main__"})  # multiprocessing itself sees to the main module


def _import_quietly(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as trouble:
        _log.warning("the module %s of a Worker class cannot be imported: %s", name, trouble)


def _pickled(value: object) -> bytes:
    from multiprocessing.reduction import ForkingPickler

    class Pickler(ForkingPickler):
        def persistent_id(self, obj: object) -> str | None:
            return _MARKER if obj is footprints.UNKNOWN else None

    buffer = io.BytesIO()
    Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        if pid == _MARKER:
            return footprints.UNKNOWN
        raise pickle.UnpicklingError(f"unknown marker {pid!r}")
