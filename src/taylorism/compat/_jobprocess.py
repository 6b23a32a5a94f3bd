"""Main: the jobs of a folder, run side by side by a Boss, whether anybody attends to them or not.

`JobFolderProcess` behaves as pylada's documentation says of the class of this name; users import it from
`taylorism.compat.jobfolder`. Here the books are kept: which jobs there are, which are done, which
have failed. All else is the Boss's: its listener starts the jobs, tries them again and shares out the processors.
"""

from __future__ import annotations

import os
import pickle
import reprlib
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from taylorism import _tree
from taylorism._boss import Boss
from taylorism._errors import InstructionsNotPicklable, WaitTimeout, describe
from taylorism.compat._joberrors import (
    AlreadyStarted,
    MPISizeError,
    NotStarted,
    failure,
    processors,
    whole,
)
from taylorism.compat._joblist import JobList
from taylorism.compat._jobworker import Order, Parcel
from taylorism.schedulers import MaxCpusScheduler

__all__ = ["JobFolderProcess"]

#: seconds that main waits for what the listener has to tell about what it was just told to do
_NEWS = 5.0
#: seconds between two rounds of SIGKILL: what is killed may have forked meanwhile
_ROUND = 0.02

#: how error messages show what a job is made of, which may be large
_brief = reprlib.Repr()
_brief.maxdict, _brief.maxstring, _brief.maxother = 20, 100, 200


class JobFolderProcess:
    """Runs the jobs of a folder, some at a time, each in a process and a directory of its own.

    Which jobs there are is found out when this is made, and by `update`; jobs that are tagged are left out. Once
    started, the jobs go on by themselves; `poll` and `wait` tell what has come of them. A job has failed when its
    functional raises, or its process dies. The others go on; when all have run, one `Fail` is raised.

    Parameters
    ----------
    jobfolder : JobFolder, or anything with such a method ``items()``
        The jobs by name; each has a `functional`, a callable that can be pickled, and `params`, a dict.
    outdir : path
        Where the directories of the jobs are made: ``<outdir>/<name>``.
    maxtrials : int
        How many times a job is launched in all, until it does not fail.
    nbpools : int
        How many jobs run at the same time, at most. The free processors are shared out, as equally as can be, among
        those that start together: among ``min(nbpools, jobs left)`` at first.
    keepalive : bool
        Whether `update` may bring more jobs when all are done, without another `start`. Set it to False to have the
        process in the background end.
    **kwargs
        What each functional is called with, beside its `params`; these win.

    Attributes
    ----------
    outdir, maxtrials, nbpools
        As given; `outdir` in full.
    params : dict
        The further arguments of all functionals.

    Raises
    ------
    BadInstructions
        What should be a job has no functional, or no dict of parameters.
    BadOption
        An option has a value that it cannot have.

    Notes
    -----
    A functional is called as ``functional(outdir=<outdir>/<name>, comm={'n': share}, **params)``, in a process of
    its own, in that directory. The processes belong to a `Boss`, as those of any `Worker`.

    Examples
    --------
    >>> from taylorism.compat.jobfolder import JobFolder, JobFolderProcess
    >>> process = JobFolderProcess(JobFolder(), outdir="results", nbpools=2)
    >>> process.start(4)  # nothing to be done
    True
    """

    __module__ = "taylorism.compat.jobfolder"

    def __init__(
        self,
        jobfolder: Any,
        outdir: str | os.PathLike[str],
        maxtrials: int = 1,
        nbpools: int = 1,
        keepalive: bool = False,
        **kwargs: Any,
    ) -> None:
        self.outdir = os.path.abspath(os.path.expanduser(outdir))
        self.maxtrials = whole(maxtrials, "maxtrials")
        self.nbpools = whole(nbpools, "nbpools")
        self.params = kwargs
        self._keepalive = bool(keepalive)
        self._list = JobList(jobfolder)
        self._boss: Boss | None = None
        self._started = False
        self._end_known = False  # whether poll() or wait() has told of the end
        self._cpus = 0
        self._finished: set[Any] = set()
        self._errors: dict[Any, BaseException] = {}
        self._untold: set[Any] = set()  # jobs that have failed, and were in no `Fail`
        self._orders: dict[Any, Order] = {}  # as each job was launched last
        self._jobs_by_worker: dict[str, Any] = {}
        self._workers: set[str] = set()  # all names that workers ever had: in a Boss, no two should have the same

    # -- what it is like now --------------------------------------------------------------------------

    @property
    def jobfolder(self) -> Any:
        """The folder, with what `update` has brought."""
        return self._list.jobfolder

    @property
    def keepalive(self) -> bool:
        """Whether more jobs may follow by `update` when all are done."""
        return self._keepalive

    @keepalive.setter
    def keepalive(self, keepalive: bool) -> None:
        self._keepalive = bool(keepalive)
        if not keepalive and self._boss is not None and self._end_known and self.done:
            self._release()

    @property
    def done(self) -> bool:
        """Whether it was started, and all jobs have run."""
        return self._started and (self._boss is None or self._boss.poll())

    @property
    def nbjobsleft(self) -> int:
        """How many jobs are yet to be launched."""
        running = self._take_in()
        return sum(1 for name in self._left() if name not in running)

    @property
    def nbrunning_processes(self) -> int:
        """How many jobs run now."""
        return len(self._take_in())

    @property
    def errors(self) -> dict[Any, BaseException]:
        """The exceptions of the jobs that have failed, in this round and in earlier ones, by name."""
        self._take_in()
        return dict(self._errors)

    def _left(self) -> list[Any]:
        """Return the jobs that have not run to their end."""
        return [name for name in self._list.jobs if name not in self._finished and name not in self._errors]

    def _take_in(self) -> set[Any]:
        """Note what has come of the jobs, and return those that run."""
        boss = self._boss
        if boss is None:
            return set()
        status = boss.status()
        self._finished.update(self._named(status.done))
        for worker, error in boss.errors.items():
            for name in self._named([worker]):
                self._note_failure(name, error)
        return set(self._named(status.running))

    def _note_failure(self, name: Any, error: BaseException) -> None:
        if self._errors.get(name) is not error:
            self._untold.add(name)
            self._errors[name] = error

    def _named(self, workers: Iterable[str | int]) -> list[Any]:
        """Return the jobs of some workers; a job that was launched anew is no more that of its old worker."""
        return [self._jobs_by_worker[each] for each in workers if each in self._jobs_by_worker]

    # -- running --------------------------------------------------------------------------------------

    def start(self, comm: int | Mapping[str, Any]) -> bool:
        """Have the jobs run, in the background.

        Parameters
        ----------
        comm : int or dict
            How many processors there are, for all the jobs together; in a dict, under ``'n'``.

        Returns
        -------
        bool
            False when the jobs have been launched; True when all had been done already.

        Raises
        ------
        AlreadyStarted
            They are running.
        MPISizeError
            A job asks for more processors than there are (`PoolProcess`).
        InstructionsNotPicklable
            A functional or a parameter cannot be sent to another process.
        BadOption
            `comm` is no number of processors.
        """
        cpus = processors(comm)
        if self._boss is not None:
            if not self._boss.poll():
                raise AlreadyStarted("the jobs are running: wait() for them, or terminate() them first.")
            return True
        left = self._left()
        self._check_sizes(left, cpus)
        if left:
            self._begin({name: self._order(name, self._list.jobs[name]) for name in left}, cpus)
        else:
            self._started = self._end_known = True
        return not left

    def _begin(self, orders: dict[Any, Order], cpus: int) -> None:
        boss = Boss(self._scheduler(cpus), on_error="collect", max_trials=self.maxtrials)
        self._cpus, self._boss, self._started, self._end_known = cpus, boss, True, False
        try:
            self._launch(boss, orders)
        except BaseException:
            self.kill()
            raise

    def _launch(self, boss: Boss, orders: dict[Any, Order]) -> None:
        """Order jobs, and return when what can start now has started."""
        for name, order in orders.items():
            self._forget_launch(name)
            order.worker = self._unused(name)
            self._workers.add(order.worker)
            self._orders[name], self._jobs_by_worker[order.worker] = order, name
        boss.set_instructions([order.instructions() for order in orders.values()])
        boss.make_them_work()
        _await_news(boss)

    def _forget_launch(self, name: Any) -> None:
        former = self._orders.pop(name, None)
        if former is not None:
            del self._jobs_by_worker[former.worker]

    def _unused(self, name: Any) -> str:
        """Return a name for the worker of a job: footprints would replace what is in brackets."""
        plain = str(name).replace("[", "(").replace("]", ")") or "/"
        names = (plain if number == 1 else f"{plain}~{number}" for number in count(1))
        return next(each for each in names if each not in self._workers)

    def _scheduler(self, cpus: int) -> Any:
        return MaxCpusScheduler(limit="cpus", max_cpus=cpus, max_threads=self.nbpools)

    def _order(self, name: Any, job: Any) -> Order:
        """Pack a job as it is now."""
        functional, params = job.functional, {**job.params, **self.params}
        outdir = os.path.normpath(os.path.join(self.outdir, str(name).strip("/")))
        label = f"job {name!r}: {_brief.repr(functional)}, called with {_brief.repr(params)}"
        try:
            content = pickle.dumps((functional, params, outdir), pickle.HIGHEST_PROTOCOL)
        except Exception as trouble:
            raise InstructionsNotPicklable(
                f"{label}, cannot be sent to its process, because it cannot be pickled: {describe(trouble)}. "
                "Use functions and classes that are defined in modules."
            ) from trouble
        return Order(Parcel(label, content), self._demand(name))

    def _demand(self, name: Any) -> int | None:
        """Return how many processors a job asks for; None for an equal share."""
        return None

    def _check_sizes(self, names: Iterable[Any], cpus: int) -> None:
        sizes = {name: self._demand(name) or 1 for name in names}
        large = {name: size for name, size in sizes.items() if size > cpus}
        if large:
            told = ", ".join(f"{name!r}: {size}" for name, size in large.items())
            raise MPISizeError(
                f"these jobs ask for more than the {cpus} processors that there are: {told}. Start with more, or "
                "have processalloc ask for less.",
                jobs=large,
                available=cpus,
            )

    # -- what has come of it --------------------------------------------------------------------------

    def poll(self) -> bool:
        """Return whether all jobs have run; never waits.

        Raises
        ------
        NotStarted
            It was not started, or was stopped with jobs left.
        Fail
            All jobs have run, and some have failed; only raised once for each of them.
        BossDied
            The process in the background was killed.
        """
        boss = self._asked()
        if boss is not None and not boss.poll():
            return False
        self._conclude()
        return True

    def wait(self, sleep: float = 1) -> bool:
        """Wait until all jobs have run.

        Parameters
        ----------
        sleep : float
            Accepted for the sake of programs that give it: nothing is polled here.

        Returns
        -------
        bool
            False when they have just finished, True when this or `poll` had said so before.

        Raises
        ------
        NotStarted
            It was not started, or was stopped with jobs left.
        Fail
            All jobs have run, and some have failed; only raised once for each of them.
        BossDied
            The process in the background was killed.
        """
        boss = self._asked()
        known = self._end_known
        while boss is not None and not boss.wait():
            _await_news(boss)  # halted, for `update` is at work in another thread
        self._asked()
        self._conclude()
        return known

    def _asked(self) -> Boss | None:
        if not self._started:
            left = len(self._left())
            raise NotStarted(f"there are {left} jobs left, and nothing was started, or it was stopped: call start.")
        return self._boss

    def _conclude(self) -> None:
        """Tell of the end, once."""
        self._take_in()
        self._end_known = True
        if not self._keepalive:
            self._release()
        if self._untold:
            untold, self._untold = self._untold, set()
            raise failure({name: error for name, error in self._errors.items() if name in untold})

    def _release(self) -> None:
        """Have the process in the background end; nothing runs in it any more."""
        if self._boss is not None:
            self._boss.wait_till_finished()
            self._boss = None

    # -- stopping -------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """End the jobs that run (SIGTERM, after 5 seconds SIGKILL), and all that they have started.

        Returns when they are gone. What was not done is left, for another `start`.
        """
        self._stop(at_once=False)

    def kill(self) -> None:
        """End the jobs that run at once (SIGKILL), and all that they have started; else as `terminate`."""
        self._stop(at_once=True)

    def _stop(self, at_once: bool) -> None:
        boss = self._boss
        if boss is not None:
            self._started = False  # first: who waits, in another thread or below a signal handler, looks at it
            _stop(boss, at_once)
            self._take_in()
            self._boss = None
            self._started = not self._left()

    # -- other jobs -----------------------------------------------------------------------------------

    def update(self, jobfolder: Any, deleteold: bool = False) -> None:
        """Take in the jobs of another folder; when the process is running, or kept alive, they are launched.

        A job that is new is added. One that is there, and neither runs nor has run, is replaced. One that has
        failed is replaced, and launched again if it differs from what had failed. Those that run, and those that
        are done, stay as they are. What is not given stays, too. (Of a `JobFolder`, the whole tree is looked at,
        whichever folder of it is given.)

        Parameters
        ----------
        jobfolder : JobFolder, or anything with such a method ``items()``
            The other jobs; the attribute `jobfolder` takes them in, too.
        deleteold : bool
            First forget the jobs that are done: they leave `jobfolder`, and a new job may have the name of one.

        Raises
        ------
        MPISizeError, InstructionsNotPicklable, BadInstructions
            As `start`, and when this is made; then nothing is changed.
        """
        boss = self._boss
        if boss is None:
            self._change(jobfolder, deleteold, set())
            return
        boss.halt()  # so that nothing starts between the look and the change
        try:
            _await_news(boss)
            orders = self._change(jobfolder, deleteold, self._take_in())
            if orders:
                self._relaunch(boss, orders)
        finally:
            boss.make_them_work()

    def _relaunch(self, boss: Boss, orders: dict[Any, Order]) -> None:
        boss.cancel(*(self._orders[name].worker for name in orders if name in self._orders))
        self._end_known = False
        self._launch(boss, orders)

    def _change(self, jobfolder: Any, deleteold: bool, running: set[Any]) -> dict[Any, Order]:
        """Take in other jobs, all or none, and return those that are to be launched."""
        old = self._finished & self._list.jobs.keys() if deleteold else set()
        jobs = {
            name: job
            for name, job in self._list.given(jobfolder).items()
            if name not in running and self._is_open(name, job, name in old)
        }
        self._admit(jobs)
        orders = {name: self._order(name, job) for name, job in jobs.items()}
        for name in old:
            self._forget_launch(name)
            self._finished.discard(name)
            self._list.forget(name)
        for name, job in jobs.items():
            self._list.put(name, job)
        return {name: order for name, order in orders.items() if self._is_news(name, order)}

    def _is_open(self, name: Any, job: Any, forgotten: bool) -> bool:
        """Whether a job that is given is to be taken in: it is not done, or another one by that name."""
        return name not in self._finished or (forgotten and job is not self._list.jobs[name])

    def _admit(self, jobs: dict[Any, Any]) -> None:
        """Look at jobs before anything is changed; they may be refused."""

    def _is_news(self, name: Any, order: Order) -> bool:
        """Whether a job is to be launched; if it has failed, it is as if it had not."""
        former = self._orders.get(name)
        if former is not None and former.is_same(order):
            return False
        self._errors.pop(name, None)
        self._untold.discard(name)
        return True

    def __repr__(self) -> str:
        state = "running" if self._boss is not None else "started" if self._started else "not started"
        return f"<{type(self).__name__} of {len(self._list.jobs)} jobs in {self.outdir!r}, {state}>"


def _await_news(boss: Boss) -> None:
    """Wait until the listener has done what it was told, and has told what has come of it."""
    boss._link.cancel((), _NEWS)


def _stop(boss: Boss, at_once: bool = False) -> None:
    """Stop a Boss, and wait until nothing is left of it."""
    with suppress(Exception):  # the end of a Boss that has died already
        boss.stop_them_working()
        if at_once:
            _await_news(boss)  # from here on, what dies was stopped, and has not failed
            _kill_below(boss)
        boss.wait_till_finished()


def _kill_below(boss: Boss) -> None:
    while True:
        _tree.send(_tree.descendants(boss._process.pid), signal.SIGKILL)
        try:
            boss.wait_till_finished(_ROUND)
        except WaitTimeout:
            continue
        return
