"""Main, pure: the jobs that a process has to run, and the folder that they came from, kept in step."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from taylorism._errors import BadInstructions, quote
from taylorism.compat._jobtree import JobFolder

__all__ = ["JobList"]


class JobList:
    """The jobs of a folder, as it was when this was made, and those that were taken in since.

    Parameters
    ----------
    jobfolder : JobFolder, or anything with such a method ``items()``
        Where they come from. What is taken in later is put there, too; if that cannot be, a dict takes its place.

    Attributes
    ----------
    jobfolder : object
        The same.
    jobs : dict
        The jobs by name.
    """

    def __init__(self, jobfolder: Any) -> None:
        self.jobfolder = jobfolder
        self.jobs = _jobs_of(jobfolder)

    def given(self, jobfolder: Any) -> dict[Any, Any]:
        """Return the jobs of another folder; of a tree, those of the counterpart of our own folder."""
        if isinstance(jobfolder, JobFolder) and isinstance(self.jobfolder, JobFolder):
            root, place = jobfolder.root, self.jobfolder.name
            return _jobs_of(root[place]) if place in root else {}
        return _jobs_of(jobfolder)

    def put(self, name: Any, job: Any) -> None:
        """Take one job in."""
        if isinstance(self.jobfolder, JobFolder):
            place = self.jobfolder / str(name).strip("/")
            if place is not job:
                place._become(job)
            job = place
        elif isinstance(self.jobfolder, MutableMapping):
            self.jobfolder[name] = job
        else:
            self.jobfolder = {**self.jobs, name: job}
        self.jobs[name] = job

    def forget(self, name: Any) -> None:
        """Forget a job that is done."""
        del self.jobs[name]
        if isinstance(self.jobfolder, JobFolder):
            _remove(self.jobfolder, str(name).strip("/"))
        elif isinstance(self.jobfolder, MutableMapping):
            self.jobfolder.pop(name, None)
        else:
            self.jobfolder = dict(self.jobs)


def _jobs_of(jobfolder: Any) -> dict[Any, Any]:
    """Return the jobs of a folder, but for those that are switched off."""
    if not callable(getattr(jobfolder, "items", None)):
        raise BadInstructions(f"a jobfolder must have a method items(), and {quote(jobfolder, 200)} has none.")
    jobs = {name: job for name, job in jobfolder.items() if not getattr(job, "is_tagged", False)}
    for name, job in jobs.items():
        fine = callable(getattr(job, "functional", None)) and isinstance(getattr(job, "params", None), Mapping)
        if not fine:
            raise BadInstructions(
                f"{name!r}, {quote(job, 200)}, is no job: it needs a functional to be called, and params, a dict."
            )
    return jobs


def _remove(folder: JobFolder, path: str) -> None:
    """Make a job none, and remove its folder where there is nothing below it."""
    if path not in folder:
        return
    job = folder[path]
    del job.functional
    job.params = {}
    if not job.children and job.parent is not None:
        del folder[path]
