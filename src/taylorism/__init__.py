"""Run hundreds of tasks in parallel: a Boss, its Workers, and a scheduler that knows cpus, memory and time.

A map of the package; each module says in its first line to which kind of process it belongs::

      main process            listener process                         worker process
      _run  _boss  _link ===> _listener  _ledger  _launcher  _hiring ==> _child  Worker._task
            _results  <======   _upstream  schedulers  _crew  <=========
            _status  _progress             _court  _ladder  _usage

      carried from one to another: _messages, over _channel; what is big: _freight, in the _hold, by _lease
      what the caller wants: _policy
      of all: _errors  _signals  _process  _instructions    leaves: _tree  _streams  _logs  _cpus  _memory
      on demand: util, which is _shared, over _segments  _robust  _pages

`docs/design.md` says why it is so.
"""

from __future__ import annotations

import importlib
import logging

from taylorism import _compat
from taylorism._worker import BindedWorker, Worker
from taylorism.schedulers import BaseScheduler, MaxThreadsScheduler, binding_setup

TYPE_CHECKING = False  # without `typing`, a fourth of the time of our import
if TYPE_CHECKING:
    from typing import Any

    from taylorism._boss import Boss
    from taylorism._errors import (
        BadInstructions,
        BadOption,
        BadScheduler,
        BossDied,
        DuplicateName,
        InstructionsNotPicklable,
        MemoryExceeded,
        NeverStartable,
        NoAdequateWorker,
        SchedulerError,
        TaylorismError,
        TransmissionError,
        UnequalLengths,
        UnknownOrder,
        UnknownWorker,
        WaitTimeout,
        WorkerDied,
        WorkerNotStarted,
        WorkersFailed,
        WorkerTimeout,
        WorkerTraceback,
    )
    from taylorism._run import batch_main, run_as_server

__all__ = [
    "BadInstructions",
    "BadOption",
    "BadScheduler",
    "BaseScheduler",
    "BindedWorker",
    "Boss",
    "BossDied",
    "BossEnded",
    "CommandFailed",
    "DuplicateName",
    "InstructionsNotPicklable",
    "MaxThreadsScheduler",
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
    "Worker",
    "WorkerDied",
    "WorkerNotStarted",
    "WorkerTimeout",
    "WorkerTraceback",
    "WorkersFailed",
    "__version__",
    "batch_main",
    "binding_setup",
    "communications_timeout",
    "run_as_server",
    "taylorism_log",
]

#: Kept here, and read by the build; asking `importlib.metadata` would double the time of the import.
__version__ = "2.0.0"

#: The logger of this package.
taylorism_log = logging.getLogger("taylorism")
taylorism_log.addHandler(logging.NullHandler())
_compat.announce_logger(taylorism_log)

#: Paced the polling of 1.1; kept because scripts assign it. Nothing here polls.
communications_timeout = 0.01


#: Where what is not needed to define a Worker comes from; any other name of `__all__` is an exception.
_ELSEWHERE = {"Boss": "_boss", "batch_main": "_run", "run_as_server": "_run"}


def __getattr__(name: str) -> Any:
    """Import when they are asked for what loads numpy, or defines workers, or makes the work.

    Much that imports us defines Workers and sets none to work. Schedulers are imported at once: whoever has
    imported us may ask ``footprints.proxy.scheduler`` for one. `Boss` brings what its listener needs: see there.
    """
    if name in ("compat", "examples", "util", "workers"):
        return importlib.import_module(f"taylorism.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'taylorism' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"taylorism.{_ELSEWHERE.get(name, '_errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
