"""Main, and the worker nodes of jobmon: a distributor of jobmon that runs its jobs with a Boss, and its other half.

`BossDistributor` lives in the process of jobmon's ``DistributorService``, `BossWorkerNode` in that of each job,
which is jobmon's ``worker_node_entry_point``. Both implement protocols of `jobmon.core.cluster_protocol`; jobmon
finds them by a module ``jobmon.plugins.<cluster type>``, a few lines of the site's own: docs/coming_from/jobmon.md.

What the service asks of a distributor, and where each answer comes from::

    submit_...()  -> _waiting -> start() -> JobBoss -> listener -> sh -> worker_node_entry_point -> the command
    get_submitted_or_running()  <- _waiting, _running less what JobBoss.ended() tells
    get_remote_exit_info()      <- _codes

The service has signal handlers that raise, so an exception may come between any two steps here. A job is taken out
of one place before it is put into the next: at worst it is forgotten, and jobmon, which then sees no heartbeat,
tries it again; it never runs twice. `stop` leaves nothing, wherever it was interrupted before.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from taylorism import _compat, _cpus, _memory
from taylorism._errors import BadOption, NeverStartable, quote
from taylorism._process import in_words
from taylorism.compat import _resources
from taylorism.compat._job_boss import CpusAndMemoryScheduler, JobBoss

try:
    from jobmon.core.cluster_protocol import ClusterDistributor, ClusterWorkerNode
    from jobmon.core.constants import TaskInstanceStatus
    from jobmon.core.exceptions import RemoteExitInfoNotAvailable
except ImportError as trouble:
    raise ImportError(
        f"taylorism.compat.jobmon works with jobmon_core, which is not there ({trouble}): pip install "
        "'taylorism[jobmon]'."
    ) from trouble

__all__ = ["BossDistributor", "BossWorkerNode"]

#: the program that jobmon runs for each job
_ENTRY_POINT = "worker_node_entry_point"
#: the share of the memory there is that jobs may declare together, where nothing else is said
_MEMORY_SHARE = 0.75

_JOB, _STEP = "JOB_ID", "ARRAY_STEP_ID"


class BossDistributor(ClusterDistributor):  # type: ignore[misc] # checked without jobmon
    """Runs the jobs of a jobmon workflow on this machine, by a Boss.

    All but the name of the cluster are what jobmon's database has as its ``connection_parameters``.

    Parameters
    ----------
    cluster_name : str
        The name by which jobmon knows the cluster.
    parallelism : int
        How many jobs run at the same time, at most.
    cpus : int, optional
        How many cpus all jobs may use together, as they request ``cores``. By default those that this process may
        use, and not less than `parallelism`: jobs that request nothing have one each.
    memory : float, optional
        How much memory all jobs may request together, in MiB. By default 3/4 of what there is.
    log_dir : path, optional
        Directory for what the worker nodes themselves write, ``<id>.out`` and ``<id>.err``; what the commands write
        goes where jobmon says. Without it, the former is dropped.
    stop_grace : float
        Seconds between SIGTERM and SIGKILL where a job is stopped.

    Raises
    ------
    ValueError
        An argument has a value that it cannot have (`BadOption`), or there is no ``worker_node_entry_point``.

    Notes
    -----
    Of ``requested_resources``, ``cores`` are cpus that nobody else gets and to which the threads of BLAS and OpenMP
    are capped; ``memory`` (GiB, or text such as ``'512M'``) is kept for the job, which is stopped when it uses more
    than 1.2 times that; ``runtime`` (seconds, or text such as ``'1h30m'``) is the time after which it is stopped.
    """

    def __init__(
        self,
        cluster_name: str,
        parallelism: int = 3,
        *,
        cpus: int | None = None,
        memory: float | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        stop_grace: float = 5.0,
    ) -> None:
        _compat.forget_console()  # or jobmon's own messages would stand on the standard error that jobmon reads
        self._cluster_name = cluster_name
        self._worker_node_entry_point = _entry_point()
        self._log_dir = log_dir
        self._stop_grace = stop_grace
        self._scheduler = _scheduler(parallelism, cpus, memory)
        self._last_id = 0
        self._boss: JobBoss | None = None
        self._started = False
        self._waiting: dict[str, dict[str, Any]] = {}
        self._running: dict[str, int] = {}
        self._codes: dict[str, int] = {}

    # -- what it is -----------------------------------------------------------------------------------

    @property
    def worker_node_entry_point(self) -> str:
        """The program that jobmon runs for each job."""
        return self._worker_node_entry_point

    @property
    def cluster_name(self) -> str:
        """The name by which jobmon knows the cluster."""
        return self._cluster_name

    # -- from start to stop ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start what was submitted, and from then on what is; nothing happens if it was started before.

        Jobs have the directory and the environment that this process has now.
        """
        self._started = True
        self._boss_at_work()
        self._hand_over()

    def stop(self) -> None:
        """Stop all that runs, with all that it has started, and forget what waits. It may be started again.

        Returns when nothing is left; an exception out of a signal handler has the rest killed at once.
        """
        self._started = False
        self._waiting.clear()
        if self._boss is not None:
            self._dismiss(self._boss)

    def _dismiss(self, boss: JobBoss) -> None:
        boss.dismiss()
        self._note_ended()
        self._running.clear()
        self._boss = None

    def _boss_at_work(self) -> JobBoss:
        """Return the Boss; another one where the listener of the last was killed, and its jobs with it."""
        if self._boss is not None and self._boss.killed:
            self._dismiss(self._boss)
        if self._boss is None:
            self._boss = JobBoss(self._scheduler, self._stop_grace, self._log_dir)
        return self._boss

    def _hand_over(self) -> None:
        """Give what waits to the Boss."""
        boss = self._boss_at_work()
        jobs, self._waiting = self._waiting, {}
        if jobs:
            numbers = boss.set_instructions(list(jobs.values()))
            self._running.update(zip(jobs, numbers, strict=True))

    # -- submitting -----------------------------------------------------------------------------------

    def submit_to_batch_distributor(
        self, command: str, name: str, requested_resources: Mapping[str, Any]
    ) -> str:
        """Submit one job.

        Parameters
        ----------
        command : str
            Arguments of ``worker_node_entry_point``, as `build_worker_node_command` makes them.
        name : str
            What jobmon calls it.
        requested_resources : dict
            ``cores``, ``memory`` and ``runtime``; the rest is ignored.

        Returns
        -------
        str
            Its id: ``'1'``, ``'2'``, ... The job finds it in its environment, as ``JOB_ID``.

        Raises
        ------
        ValueError
            A request makes no sense (`BadOption`), or will never be met (`NeverStartable`).
        """
        wanted = self._requested(name, requested_resources)
        number = str(self._next_id())
        self._submit({number: self._instructions(number, command, wanted, number, None)})
        return number

    def submit_array_to_batch_distributor(
        self, command: str, name: str, requested_resources: Mapping[str, Any], array_length: int
    ) -> dict[int, str]:
        """Submit an array of jobs, that have the same command and know their steps.

        Parameters
        ----------
        command, name, requested_resources
            As for one job; what is requested is for each step.
        array_length : int
            How many.

        Returns
        -------
        dict
            The id of each step: ``{0: '3_0', 1: '3_1'}``. The job finds the parts in its environment, as ``JOB_ID``
            and ``ARRAY_STEP_ID``.

        Raises
        ------
        ValueError
            As for one job.
        """
        wanted = self._requested(name, requested_resources)
        number = self._next_id()
        ids = {step: f"{number}_{step}" for step in range(array_length)}
        job = str(number)
        self._submit({each: self._instructions(each, command, wanted, job, step) for step, each in ids.items()})
        return ids

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _requested(self, name: str, resources: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is requested as instructions, if it can ever be had."""
        try:
            wanted = {
                "ncpus": _resources.cores(resources),
                "memory": _resources.memory(resources),
                "runtime": _resources.runtime(resources),
            }
            # What will have ended in time may pass a job that waits.
            wanted["expected_time"] = wanted["runtime"] or 0.0
        except BadOption as trouble:
            raise BadOption(f"job {name!r}: {trouble}") from None
        objection = self._scheduler.never_startable(wanted)
        if objection:
            raise NeverStartable(
                f"job {name!r} can never start on cluster {self._cluster_name!r}: {objection}. It requested "
                f"{quote(dict(resources))}; what there is for all are the cluster's parameters cpus and memory."
            )
        return wanted

    def _instructions(
        self, each: str, command: str, wanted: Mapping[str, Any], job: str, step: int | None
    ) -> dict[str, Any]:
        program = self.worker_node_entry_point
        program = shlex.quote(program) if os.path.exists(program) else program  # else a line of shell: a site's own
        return {
            "kind": "shell",
            "name": each,
            "command": f"{program} {command}",
            "env": {_JOB: job, _STEP: None if step is None else str(step)},
            # Nobody reads it: what the command writes is collected by its worker node.
            "stdout": subprocess.DEVNULL if self._log_dir is None else None,
            # When a worker node fails, what its command left is stopped: jobmon will have it run once more.
            "check": True,
            **wanted,
        }

    def _submit(self, jobs: Mapping[str, dict[str, Any]]) -> None:
        self._waiting.update(jobs)
        if self._started:
            self._hand_over()

    # -- what has become of them ----------------------------------------------------------------------

    def _note_ended(self) -> None:
        """Take note of what has ended."""
        if self._boss is None:
            return
        ended = self._boss.ended(self._running.values())
        for each, number in list(self._running.items()):
            if number in ended:
                self._note_code(each, ended[number])

    def _note_code(self, each: str, code: int | None) -> None:
        if code is not None:
            self._codes[each] = code
        self._running.pop(each, None)

    def get_submitted_or_running(self, distributor_ids: Iterable[str] | None = None) -> set[str]:
        """Return which jobs wait or run.

        Parameters
        ----------
        distributor_ids : list of str, optional
            Those that are asked about; all, where it is left out.

        Returns
        -------
        set of str
            Their ids.
        """
        self._note_ended()
        active = {*self._waiting, *self._running}
        return active if distributor_ids is None else active.intersection(map(str, distributor_ids))

    def get_queueing_errors(self, distributor_ids: Iterable[str]) -> dict[str, str]:
        """Return what went wrong in the queue: nothing, for what can never start is refused when submitted."""
        return {}

    def get_remote_exit_info(self, distributor_id: str) -> tuple[str, str]:
        """Return the status of a job that has ended, and a text.

        Returns
        -------
        status, text : tuple of two str
            ``('U', 'found <code>')``. The code is below 0 where a signal ended it: that with this number.

        Raises
        ------
        RemoteExitInfoNotAvailable
            It has not ended, was never started, or is not known.
        """
        self._note_ended()
        code = self._codes.get(str(distributor_id))
        if code is None:
            raise RemoteExitInfoNotAvailable(
                f"there is no exit code of job {distributor_id!r} on cluster {self._cluster_name!r}: "
                f"{self._why_not(str(distributor_id))}."
            )
        return TaskInstanceStatus.UNKNOWN_ERROR, f"found {code}"

    def _why_not(self, distributor_id: str) -> str:
        if distributor_id in self._waiting or distributor_id in self._running:
            return "it has not ended; ask again when get_submitted_or_running() has it no more"
        return "it was taken out of the queue, or was never submitted here"

    def terminate_task_instances(self, distributor_ids: Iterable[str]) -> None:
        """Take jobs out of the queue, and stop those that run, with all that they have started.

        Returns when nothing of them is left. Those that have ended, or are not known, are passed over.

        Raises
        ------
        WaitTimeout
            They could not be stopped in time; try again.
        """
        wanted = set(map(str, distributor_ids))
        for each in wanted:
            self._waiting.pop(each, None)
        self._note_ended()
        running = {each: number for each, number in self._running.items() if each in wanted}
        if self._boss is not None and running:
            self._boss.cancel(*running.values())
            self._note_ended()


class BossWorkerNode(ClusterWorkerNode):  # type: ignore[misc] # as above
    """What a job of a `BossDistributor` knows of itself; asked by jobmon, in the process of the job."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def distributor_id(self) -> str | None:
        """The id that the distributor gave it, None where there was none."""
        job, step = os.environ.get(_JOB), self.array_step_id
        if not job:
            return None
        return job if step is None else f"{job}_{step}"

    @property
    def array_step_id(self) -> int | None:
        """Its step, None where it is no part of an array."""
        step = os.environ.get(_STEP)
        return int(step) if step else None

    def initialize_logfile(self, log_type: str, log_dir: str, name: str) -> str:
        """Return the path for what the command writes; its directory is made.

        Parameters
        ----------
        log_type : {'stdout', 'stderr'}
            Which of the two.
        log_dir : str
            The directory; without one, what is written is dropped.
        name : str
            The name of the task.

        Returns
        -------
        str
            ``<log_dir>/<name>.o<id>``, or ``.e<id>``.

        Raises
        ------
        ValueError
            There is no such type (`BadOption`).
        OSError
            The directory cannot be made.
        """
        letters = {"stdout": "o", "stderr": "e"}
        if log_type not in letters:
            raise BadOption(f"log_type={log_type!r} of job {self.distributor_id!r}: give 'stdout' or 'stderr'.")
        if not log_dir:
            return os.devnull
        os.makedirs(log_dir, exist_ok=True)
        safe = name.replace(os.sep, "_")
        return os.path.join(log_dir, f"{safe}.{letters[log_type]}{self.distributor_id}")

    def get_exit_info(self, exit_code: int, error_msg: str) -> tuple[str, str]:
        """Return the status of a command that has failed, and a text.

        Parameters
        ----------
        exit_code : int
            Its exit code; below 0 where a signal ended it.
        error_msg : str
            The end of its standard error.

        Returns
        -------
        status, text : tuple of two str
            ``'E'``, and what happened in words.
        """
        how = in_words(exit_code)
        text = f"job {self.distributor_id}: {how}. The end of its standard error: {error_msg}"
        return TaskInstanceStatus.ERROR, text

    def get_usage_stats(self) -> dict[str, Any]:
        """Return what the command has used, after its end.

        Returns
        -------
        dict
            ``wallclock`` and ``cpu`` in seconds, ``maxrss`` in bytes: the peak of the largest process among those
            that the command was, which is never told as less than that of this process when it started it.
        """
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        unit = 1 if sys.platform == "darwin" else 1024
        return {
            "wallclock": time.monotonic() - self._begun,
            "cpu": used.ru_utime + used.ru_stime,
            "maxrss": used.ru_maxrss * unit,
        }


def _entry_point() -> str:
    """Return the path of jobmon's program: that of the PATH, or what was installed beside this Python."""
    beside = Path(sys.executable).with_name(_ENTRY_POINT)
    found = shutil.which(_ENTRY_POINT) or (str(beside) if os.access(beside, os.X_OK) else None)
    if found is None:
        raise BadOption(
            f"there is no {_ENTRY_POINT}, neither on the PATH nor beside {sys.executable}: jobmon_core installs "
            "it; put the directory of its programs on the PATH."
        )
    return found


def _scheduler(parallelism: int, cpus: int | None, memory: float | None) -> Any:
    """Return the scheduler, the limits of which are checked."""
    _demand(_is_whole(parallelism), "parallelism", parallelism, "a whole number from 1 on")
    _demand(cpus is None or _is_whole(cpus), "cpus", cpus, "a whole number from 1 on, or None")
    fine = memory is None or (isinstance(memory, Real) and not isinstance(memory, bool) and memory > 0)
    _demand(fine, "memory", memory, "MiB above 0, or None")
    return CpusAndMemoryScheduler(
        limit="cpus+memory",
        max_threads=int(parallelism),
        max_cpus=int(cpus or max(parallelism, _cpus.usable_cpus())),
        max_memory=float(memory or _MEMORY_SHARE * _memory.usable_memory()),
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _demand(fine: bool, option: str, value: object, accepted: str) -> None:
    if not fine:
        raise BadOption(f"BossDistributor: {option}={quote(value, 200)} makes no sense: give {accepted}.")
