"""Main, pure: `JobFolder`, a tree of named jobs; nothing runs here but by `JobFolder.compute`.

It behaves as pylada's documentation says of the class of this name; its users import it from
`taylorism.compat.jobfolder`.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from taylorism._errors import BadInstructions, InstructionsNotPicklable, describe, quote

__all__ = ["JobFolder"]

#: what an instance has by itself; any other attribute is looked for among the parameters
_OWN = ("children", "params", "parent", "_functional", "_name", "_tagged")


class JobFolder:
    """A folder in a tree of jobs; it is executable, hence a job, when it has a functional.

    Folders are found and made by paths, as directories are: ``root['a/b']``, ``folder['../c']``, ``folder['/']``;
    ``root / 'a' / 0`` makes what does not exist. As a mapping, a folder has the jobs in it and below it, by their
    paths from there, sorted; its own path is ``''``. The parameters of a job can also be read and set as its
    attributes, once they are there.

    Attributes
    ----------
    params : dict
        What the functional is called with. Held as it is, without a copy.
    children : dict of str to JobFolder
        The folders right below this one, by name.
    parent : JobFolder or None
        The folder above this one; None for the root.

    Examples
    --------
    >>> from taylorism.compat.jobfolder import JobFolder
    >>> root = JobFolder()
    >>> job = root / 'sums' / 0
    >>> job.functional = sum
    >>> job.name, list(root), 'sums/0' in root
    ('/sums/0/', ['sums/0'], True)
    """

    # Users pickle their trees to files: this is where these say that the class is.
    __module__ = "taylorism.compat.jobfolder"

    def __init__(self) -> None:
        self.children: dict[str, JobFolder] = {}
        self.params: dict[str, Any] = {}
        self.parent: JobFolder | None = None
        self._name = ""
        self._functional: Callable[..., Any] | None = None
        self._tagged = False

    # -- where it is ----------------------------------------------------------------------------------

    @property
    def root(self) -> JobFolder:
        """The folder above all others."""
        folder = self
        while folder.parent is not None:
            folder = folder.parent
        return folder

    @property
    def name(self) -> str:
        """The path from the root, with a slash at each end: ``'/a/0/'``; that of the root is ``'/'``."""
        names: list[str] = []
        folder = self
        while folder.parent is not None:
            names.append(folder._name)
            folder = folder.parent
        return "/".join(["", *reversed(names), ""])

    def subfolders(self) -> list[str]:
        """Return the names of the folders right below this one, sorted."""
        return sorted(self.children)

    # -- paths ----------------------------------------------------------------------------------------

    def _steps(self, path: object) -> tuple[JobFolder, list[str]]:
        """Return where a path begins, and the names in it."""
        text = str(path)
        start = self.root if text.startswith("/") else self
        return start, [step for step in text.split("/") if step not in ("", ".")]

    def _walk(self, path: object, make: bool = False) -> JobFolder:
        """Follow a path, and make what is missing if that is wanted."""
        folder, steps = self._steps(path)
        for step in steps:
            if step == "..":
                folder = folder._above(path)
                continue
            if step not in folder.children:
                if not make:
                    raise KeyError(f"there is no folder {step!r} in {folder.name!r}, on the way to {str(path)!r}")
                folder._attach(step, JobFolder())
            folder = folder.children[step]
        return folder

    def _above(self, path: object) -> JobFolder:
        if self.parent is None:
            raise KeyError(f"{str(path)!r} leads above the root")
        return self.parent

    def _attach(self, name: str, child: JobFolder) -> None:
        self.children[name] = child
        child.parent, child._name = self, name

    def __truediv__(self, path: object) -> JobFolder:
        """Return the folder at a path; what does not exist is made, as by ``mkdir -p``."""
        return self._walk(path, make=True)

    def __getitem__(self, path: object) -> JobFolder:
        return self._walk(path)

    def __setitem__(self, path: object, folder: JobFolder) -> None:
        """Put a copy of a folder, with all that is below it, at a path; what was there is replaced."""
        if not isinstance(folder, JobFolder):
            raise BadInstructions(f"{str(path)!r} can be a JobFolder, and not {quote(folder, 200)}.")
        new = copy.deepcopy(folder)  # before the place is made: it may be below that folder
        place = self._walk(path, make=True)
        if place.parent is None:
            raise KeyError(f"{str(path)!r} is the root, which cannot be replaced: use update()")
        place.parent._attach(place._name, new)
        place.parent = None

    def __delitem__(self, path: object) -> None:
        folder = self._walk(path)
        if folder.parent is None:
            raise KeyError(f"{str(path)!r} is the root, which cannot be deleted")
        del folder.parent.children[folder._name]
        folder.parent = None

    def __contains__(self, path: object) -> bool:
        try:
            self._walk(path)
        except KeyError:
            return False
        return True

    # -- what is to be done ---------------------------------------------------------------------------

    @property
    def functional(self) -> Callable[..., Any] | None:
        """What is called for this job: any callable that can be pickled; None where the folder is no job.

        It is copied deeply when it is set. (To have it held as it is, set ``_functional``.)
        """
        return self._functional

    @functional.setter
    def functional(self, functional: Callable[..., Any] | None) -> None:
        self._functional = self._checked(functional)

    @functional.deleter
    def functional(self) -> None:
        """Make it a job no more."""
        self._functional = None

    def _checked(self, functional: Any) -> Any:
        if functional is None:
            return None
        if not callable(functional):
            raise BadInstructions(
                f"the functional of job {self.name!r} must be callable, and {quote(functional, 200)} is not."
            )
        try:
            pickle.dumps(functional, pickle.HIGHEST_PROTOCOL)
        except Exception as trouble:
            raise InstructionsNotPicklable(
                f"the functional of job {self.name!r}, {quote(functional, 200)}, cannot be pickled: "
                f"{describe(trouble)}. Use a function, or an instance of a class, that is defined in a module."
            ) from trouble
        return copy.deepcopy(functional)

    @property
    def is_executable(self) -> bool:
        """Whether it is a job: whether it has a functional."""
        return self._functional is not None

    def compute(self, **kwargs: Any) -> Any:
        """Call the functional, here and now.

        Parameters
        ----------
        **kwargs
            What it is called with beside `params`; these win.

        Returns
        -------
        object
            What it returns; None where the folder is no job.
        """
        return None if self._functional is None else self._functional(**{**self.params, **kwargs})

    def tag(self) -> None:
        """Switch this job off: `JobFolderProcess` leaves it out."""
        self._tagged = True

    def untag(self) -> None:
        """Switch this job on again."""
        self._tagged = False

    @property
    def is_tagged(self) -> bool:
        """Whether this job is switched off."""
        return self._tagged

    # -- a mapping of jobs ----------------------------------------------------------------------------

    def _jobs(self, path: str = "") -> Iterator[tuple[str, JobFolder]]:
        if self.is_executable:
            yield path, self
        for name, child in self.children.items():
            yield from child._jobs(f"{path}/{name}" if path else name)

    def items(self) -> list[tuple[str, JobFolder]]:
        """Return the jobs here and below, each with its path from here, sorted by path."""
        return sorted(self._jobs(), key=lambda item: item[0])

    def keys(self) -> list[str]:
        """Return the paths of the jobs here and below, sorted."""
        return [path for path, _ in self.items()]

    def values(self) -> list[JobFolder]:
        """Return the jobs here and below, sorted by path."""
        return [job for _, job in self.items()]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return sum(1 for _ in self._jobs())

    def update(self, other: JobFolder) -> None:
        """Take the jobs of another folder into this one, each at its path; what is here besides stays.

        Parameters
        ----------
        other : JobFolder
            Whose jobs; it is not modified, and shares no dict with this one afterwards.
        """
        for path, job in other.items():
            (self / path if path else self)._become(job)

    def _become(self, job: Any) -> None:
        """Have the functional, the parameters and the tag of another job."""
        self.functional = job.functional
        self.params = dict(job.params)
        self._tagged = bool(getattr(job, "is_tagged", False))

    # -- parameters as attributes ---------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not found here; copy and pickle ask an object that is still empty.
        params = self.__dict__.get("params", {})
        if name in params:
            return params[name]
        raise AttributeError(f"{type(self).__name__} has neither an attribute nor a parameter {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_parameter(name):
            self.params[name] = value
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if self._is_parameter(name):
            del self.params[name]
        else:
            super().__delattr__(name)

    def _is_parameter(self, name: str) -> bool:
        return name not in _OWN and not hasattr(type(self), name) and name in self.__dict__.get("params", {})

    # -- copies: of a folder and what is below it, never of what is above ----------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "parent": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for child in self.children.values():
            child.parent = self

    def __repr__(self) -> str:
        return f"<JobFolder {self.name!r}: {len(self)} jobs>"
