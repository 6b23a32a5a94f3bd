"""Main, pure: where each set of instructions stands, in a form that prints well."""

from __future__ import annotations

from dataclasses import dataclass, fields

from taylorism._messages import State
from taylorism._results import Results, View

__all__ = ["Status", "status_of"]

#: characters of a line of names
_WIDTH = 100


@dataclass(frozen=True)
class Status:
    """The names of the workers in each state; the id where there is no name yet.

    Attributes
    ----------
    pending, running, done, failed, cancelled : tuple of str and int
        As they say. What waits for its next trial is pending.
    stopped : tuple of str and int
        Interrupted, because everything was.
    """

    pending: tuple[str | int, ...] = ()
    running: tuple[str | int, ...] = ()
    done: tuple[str | int, ...] = ()
    failed: tuple[str | int, ...] = ()
    cancelled: tuple[str | int, ...] = ()
    stopped: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return "\n".join(f"{state:<9} {len(names):>6}  {_shown(names)}".rstrip() for state, names in self._rows())

    def _rows(self) -> list[tuple[str, tuple[str | int, ...]]]:
        rows = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [row for row in rows if row[1] or row[0] != State.STOPPED]

    def _repr_html_(self) -> str:
        """Return a table, for a notebook."""
        import html  # here: it brings the names of all characters

        rows = (
            f"<tr><th>{state}</th><td>{len(names)}</td><td>{html.escape(_shown(names))}</td></tr>"
            for state, names in self._rows()
        )
        return f"<table>{''.join(rows)}</table>"


def _shown(names: tuple[str | int, ...]) -> str:
    """Return as many names as there is room for."""
    shown: list[str] = []
    room = _WIDTH
    for name in names:
        text = _printable(name) if isinstance(name, str) else f"#{name}"
        room -= len(text) + 2
        if room < 0 and shown:
            return ", ".join(shown) + f", and {len(names) - len(shown)} more"
        shown.append(text if len(text) <= _WIDTH else text[:_WIDTH] + "...")
    return ", ".join(shown)


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)


def status_of(results: Results) -> Status:
    """Return where everything stands."""
    return Status(**{field.name: _names(results.views_in(field.name)) for field in fields(Status)})


def _names(views: list[View]) -> tuple[str | int, ...]:
    return tuple(view.number if view.name is None else view.name for view in views)
