"""Listener and worker: what calls a job in a process of its own, and what shares out the processors.

A job and its parameters travel as bytes, in a `Parcel`: footprints would replace ``[...]`` in any string that it
sees, and make lists and dicts of its own of the others.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import footprints

from taylorism._errors import TaylorismError, describe
from taylorism._queues import PendingQueue
from taylorism._ranked import Ranked
from taylorism._scheduler import Batch, Workers
from taylorism._worker import Worker
from taylorism.schedulers import MaxCpusScheduler

__all__ = ["JobRunner", "LargestFirstScheduler", "Order", "Parcel"]


class Parcel:
    """What a job is made of, pickled; opened in its process, and nowhere else.

    Parameters
    ----------
    label : str
        What error messages show of it.
    content : bytes
        Functional, parameters and directory.
    """

    def __init__(self, label: str, content: bytes) -> None:
        self.label = label
        self.content = content

    def open(self) -> tuple[Callable[..., Any], dict[str, Any], str]:
        """Return functional, parameters and directory.

        Raises
        ------
        TaylorismError
            They cannot be rebuilt here.
        """
        try:
            functional, params, outdir = pickle.loads(self.content)
        except Exception as trouble:
            raise TaylorismError(
                f"{self.label}, cannot be rebuilt in its process: {describe(trouble)}. Its functional and the "
                "classes of its parameters must be defined in modules, before start() is called."
            ) from trouble
        return functional, params, outdir

    def __repr__(self) -> str:
        return f"<{self.label}>"


class JobRunner(Worker):
    """Calls the functional of a job, in the directory of the job.

    Attributes
    ----------
    kind : str
        ``'jobfolder'``, by which it is told from all other Worker classes.
    jobfolder_task : Parcel
        The job.
    ncpus : int
        How many processors it has.
    """

    kind: str
    jobfolder_task: Parcel
    ncpus: int

    _footprint: ClassVar[Any] = {
        # A class of the user's may take any `kind`; it is not meant here.
        "priority": {"level": footprints.priorities.top.TOOLBOX},
        "attr": {
            "kind": {"info": "Which worker.", "values": ["jobfolder"]},
            "jobfolder_task": {"info": "The job.", "type": Parcel},
            "ncpus": {"info": "How many processors it has.", "type": int},
        },
    }

    def _task(self, **kwargs: Any) -> None:
        functional, params, outdir = self.jobfolder_task.open()
        sys.path[:] = map(_in_full, sys.path)  # what the functional imports later must be found from elsewhere, too
        os.makedirs(outdir, exist_ok=True)
        os.chdir(outdir)
        # What it returns stays here: pylada has no use for it, and it need not be picklable.
        functional(**{**params, "outdir": outdir, "comm": {"n": int(self.ncpus)}})


def _in_full(entry: str) -> str:
    """Return a relative directory of `sys.path` in full; other entries need not be directories at all."""
    return os.path.abspath(entry) if not os.path.isabs(entry) and os.path.isdir(entry or ".") else entry


class LargestFirstScheduler(MaxCpusScheduler):
    """Of what fits into the free cpus, the largest first; nothing is kept for what does not fit.

    Attributes
    ----------
    packing : str
        ``'largest first'``, by which it is told from all other schedulers.
    """

    packing: str

    _footprint: ClassVar[Any] = {
        "attr": {"packing": {"info": "How cpus are filled.", "values": ["largest first"]}},
    }

    def launchable(
        self, pending_instructions: Batch, workers: Workers, report: Sequence[Any]
    ) -> tuple[Batch, Batch]:
        """Launch the largest that fits, and so on; see `BaseScheduler.launchable`."""
        return super().launchable(sorted(pending_instructions, key=_smallness), workers, report)

    def queue(self) -> PendingQueue:
        """Return a queue that does the same."""
        return Ranked(replace(self._limits(), rank=_smallness, patient=False))


def _smallness(instructions: Mapping[str, Any]) -> int:
    return -int(instructions["ncpus"])


class Order:
    """A job as it is launched, of which its instructions are kept by the Boss alone.

    Parameters
    ----------
    parcel : Parcel
        The job.
    ncpus : int or None
        How many processors it asks for.
    """

    def __init__(self, parcel: Parcel, ncpus: int | None) -> None:
        self._parcel: Parcel | None = parcel
        self._ncpus = ncpus
        self._digest = hashlib.blake2b(parcel.content).digest()
        self.worker = ""

    def is_same(self, other: Order) -> bool:
        """Whether it is the same job."""
        return self._digest == other._digest and self._ncpus == other._ncpus

    def instructions(self) -> dict[str, Any]:
        """Return the instructions of its worker, once."""
        parcel, self._parcel = self._parcel, None
        asked = {} if self._ncpus is None else {"ncpus": self._ncpus}
        return {"kind": "jobfolder", "name": self.worker, "jobfolder_task": parcel, **asked}
