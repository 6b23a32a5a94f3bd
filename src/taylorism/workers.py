"""Worker: commands and functions as tasks, without a class of one's own; public, imported on demand only.

``kind='shell'`` runs a command (`ShellWorker`), ``kind='function'`` calls a function (`FunctionWorker`). A class of
the user's that knows these kinds itself goes before them.

What is to be run arrives as it was given. footprints would replace ``[name]`` in it, and take ``'None'`` for
nothing; so these attributes are sealed while a class is chosen.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

from taylorism import _commands, _hiring
from taylorism._child import NoticePipe
from taylorism._commands import KEPT
from taylorism._errors import BadInstructions, CommandFailed, quote
from taylorism._worker import Worker

__all__ = ["KEPT", "CommandReport", "FunctionWorker", "ShellWorker"]

#: lines of each output that the message of a failure quotes
_QUOTED_LINES = 20
#: stands for ``[`` while footprints makes a name that holds the text of a command: it would replace what follows
#: again, without end where that is ``[name]``. A character that no text has (Unicode: a noncharacter)
_BRACKET = "\ufdd0"


class _Sealed:
    """A value that footprints does not look into; in the name of a worker it shows as it is."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __str__(self) -> str:
        return str(self.value).replace("[", _BRACKET)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec).replace("[", _BRACKET)


def _sealed(info: str, optional: bool = True) -> dict[str, Any]:
    return dict(info=info, type=_Sealed, optional=optional, **(dict(default=None) if optional else {}))


class _Sealing(Worker):
    """A worker whose attributes arrive as they were given."""

    _abstract = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        sealed = [self._seal(each) if isinstance(each, Mapping) else each for each in args]
        super().__init__(*sealed, **self._seal(kwargs))
        for name, value in self._attributes.items():
            if isinstance(value, _Sealed):
                self._attributes[name] = value.value
        self.name = self.name.replace(_BRACKET, "[") if isinstance(self.name, str) else self.name
        self._check()

    @classmethod
    def _seal(cls, attributes: Mapping[str, Any]) -> dict[str, Any]:
        declared = cls.footprint_retrieve().attr
        names = [name for name in declared if declared[name].get("type") is _Sealed]
        given = {name: attributes[name] for name in names if attributes.get(name) is not None}
        sealed = {name: value if isinstance(value, _Sealed) else _Sealed(value) for name, value in given.items()}
        return {**attributes, **sealed}

    @classmethod
    def footprint_couldbe(cls, rd: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return what `rd` makes of the attributes of this class, or False; from footprints."""
        resolved, known = super().footprint_couldbe(cls._seal(rd), *args, **kwargs)
        return (resolved if resolved and not _hiring.is_taken(rd) else False), known

    def _check(self) -> None:
        """Raise what is wrong with the attributes."""

    def _demand(self, fine: bool, attribute: str, accepted: str) -> None:
        if not fine:
            value = quote(getattr(self, attribute), 200)
            raise BadInstructions(f"{attribute}={value} of worker {self.name!r} makes no sense: give {accepted}.")


class CommandReport(dict[str, Any]):
    """What became of a command: a dict whose values are also attributes.

    Attributes
    ----------
    returncode : int
        Its exit status; the negative number of the signal that killed it.
    stdout, stderr : str
        The last 10 000 characters of what it has written.

    Examples
    --------
    >>> CommandReport(returncode=0, stdout="hello", stderr="").stdout
    'hello'
    """

    @property
    def returncode(self) -> int:
        """Its exit status."""
        code: int = self["returncode"]
        return code

    @property
    def stdout(self) -> str:
        """The end of its standard output."""
        return str(self["stdout"])

    @property
    def stderr(self) -> str:
        """The end of its standard error."""
        return str(self["stderr"])

    def __str__(self) -> str:
        lines = [f"returncode: {self.returncode}"]
        for name in ("stdout", "stderr"):
            if self[name]:
                lines += [f"{name}:", *(f"    {line}" for line in self[name].splitlines())]
        return "\n".join(lines)


class ShellWorker(_Sealing):
    """Runs a command; its report is a `CommandReport`.

    Attributes
    ----------
    kind : {'shell'}
        What chooses this class.
    command : str or list of str
        A str is run by the shell, ``/bin/sh``. A list is executed as it is: the program, and its arguments. Paths
        and numbers in it become str.
    cwd : path, optional
        The directory that it runs in; by default that of the worker.
    env : dict, optional
        Variables that it has besides those of the worker; None as a value takes one away.
    stdin : path or bytes, optional
        The file that it reads, or what it reads; by default nothing.
    stdout, stderr : path, optional
        The file that it writes, which is made anew, in `cwd` if it is relative. By default nothing is written but
        the end of it in the report, and all of it in the log where there is a `log_dir`. `subprocess.DEVNULL` and,
        for `stderr`, `subprocess.STDOUT` mean what they do there; so does one path for both.
    check : bool
        Whether an exit status other than 0 is a failure (`CommandFailed`); by default it is.
    """

    kind: str
    command: Any
    cwd: Any
    env: Any
    stdin: Any
    stdout: Any
    stderr: Any
    check: bool

    _footprint: ClassVar[Any] = dict(
        attr=dict(
            kind=dict(info="What chooses this class.", values=["shell"]),
            command=_sealed("A str for the shell, or a list to be executed.", optional=False),
            cwd=_sealed("Directory that it runs in."),
            env=_sealed("Variables that it has besides those of the worker."),
            stdin=_sealed("File that it reads, or bytes."),
            stdout=_sealed("File that it writes."),
            stderr=_sealed("File that it writes its errors to."),
            check=dict(
                info="Whether an exit status other than 0 is a failure.", type=bool, optional=True, default=True
            ),
        )
    )

    def _check(self) -> None:
        accepted = "a str for the shell, or a list of str, numbers and paths to be executed"
        self._demand(_is_command(self.command), "command", accepted)
        self._demand(self.cwd is None or _is_path(self.cwd), "cwd", "the path of a directory")
        self._demand(self.env is None or _is_environment(self.env), "env", _ENVIRONMENT)
        source = self.stdin is None or isinstance(self.stdin, bytes) or _is_path(self.stdin)
        self._demand(source, "stdin", "the path of a file, or bytes")
        for name, special in (("stdout", (_PIPE, _NULL)), ("stderr", (_PIPE, _NULL, subprocess.STDOUT))):
            value = getattr(self, name)
            fine = value is None or _is_path(value) or (type(value) is int and value in special)
            self._demand(fine, name, "the path of a file")

    def _task(self, **kwargs: Any) -> CommandReport:
        command = self.command if isinstance(self.command, str) else [_text(each) for each in self.command]
        rest = (self.cwd, self.env, self.stdin, self.stdout, self.stderr)
        program = _commands.Program(command, *map(_told, rest))
        program.run(led=isinstance(self.messenger, NoticePipe))
        if program.returncode != 0 and self.check:
            raise self._failed(program)
        return CommandReport(returncode=program.returncode, stdout=program.stdout, stderr=program.stderr)

    def _failed(self, program: _commands.Program) -> CommandFailed:
        words, killer = _commands.told(program.command, program.returncode)
        place = os.path.abspath(self.cwd or ".")
        said = "".join(_last_lines(name, getattr(program, name)) for name in ("stdout", "stderr"))
        return CommandFailed(
            f"the command of worker {self.name!r} has failed, {words}: {quote(program.command)}, in {place!r}. "
            f"{'See what it has written' if said else 'It has written nothing here: look elsewhere'}, and mend it; "
            f"if this is no failure, give check=False.{said}",
            name=self.name,
            command=program.command,
            returncode=program.returncode,
            signal=killer,
            stdout=program.stdout,
            stderr=program.stderr,
        )


_ENVIRONMENT = "a dict whose keys are str, and whose values are str, numbers, paths or None"
_PIPE, _NULL = subprocess.PIPE, subprocess.DEVNULL


def _is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike)) and bool(os.fspath(value))


def _is_command(command: object) -> bool:
    if isinstance(command, str):
        return bool(command.strip()) and "\0" not in command
    if not isinstance(command, Sequence) or isinstance(command, (bytes, bytearray)) or not command:
        return False
    return all(_is_word(each) for each in command)


def _is_word(word: object) -> bool:
    if isinstance(word, Real) and not isinstance(word, bool):  # those of numpy, too
        return True
    return isinstance(word, (str, os.PathLike)) and "\0" not in _text(word)


def _is_environment(env: object) -> bool:
    if not isinstance(env, Mapping):
        return False
    return all(isinstance(name, str) and (value is None or _is_word(value)) for name, value in env.items())


def _text(word: Any) -> str:
    """Return a word of a command as it is executed."""
    return os.fsdecode(word) if isinstance(word, (str, os.PathLike)) else str(word)


def _told(value: Any) -> Any:
    """Return a value as `_commands.Program` takes it."""
    if isinstance(value, Mapping):
        return {name: None if each is None else _text(each) for name, each in value.items()}
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    return None if type(value) is int and value == _PIPE else value


def _last_lines(name: str, text: str) -> str:
    lines = text.splitlines()[-_QUOTED_LINES:]
    return f"\nthe last lines of its {name}:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""


class FunctionWorker(_Sealing):
    """Calls a function; its report is what that returns.

    Attributes
    ----------
    kind : {'function'}
        What chooses this class.
    function : callable
        Anything that can be called and pickled: it must be found by its name in a module, or in the script above
        the place where the Boss is made.
    args : sequence, optional
        Its arguments.
    kwargs : dict, optional
        Its arguments by name.
    workdir : path, optional
        The directory that it is called in, made if it does not exist; by default that of the worker.
    """

    kind: str
    function: Callable[..., Any]
    args: Any
    kwargs: Any
    workdir: Any

    _footprint: ClassVar[Any] = dict(
        attr=dict(
            kind=dict(info="What chooses this class.", values=["function"]),
            function=_sealed("What is called.", optional=False),
            args=_sealed("Its arguments."),
            kwargs=_sealed("Its arguments by name."),
            workdir=_sealed("Directory that it is called in."),
        )
    )

    def _check(self) -> None:
        self._demand(callable(self.function), "function", "a function, or anything else that can be called")
        several = isinstance(self.args, Iterable) and not isinstance(self.args, (str, bytes, Mapping))
        self._demand(self.args is None or several, "args", "a list or a tuple of its arguments")
        named = isinstance(self.kwargs, Mapping) and all(isinstance(name, str) for name in self.kwargs)
        self._demand(self.kwargs is None or named, "kwargs", "a dict of its arguments by name")
        self._demand(self.workdir is None or _is_path(self.workdir), "workdir", "the path of a directory")

    def _task(self, **kwargs: Any) -> Any:
        if self.workdir is not None:
            os.makedirs(self.workdir, exist_ok=True)
            os.chdir(self.workdir)
        return self.function(*(() if self.args is None else self.args), **(self.kwargs or {}))


_hiring.SPECIALISTS |= {"shell": ShellWorker, "function": FunctionWorker}
