"""A loop written by hand: a process and a pipe for each task, and one wait on all the pipes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

import figures

fork = multiprocessing.get_context("fork")


def work(task: figures.Task, writer: Connection) -> None:
    """Perform one task in a process of its own and send what it returns."""
    writer.send(figures.perform(task))
    writer.close()


def start(target: Callable[..., None], *args: Any) -> tuple[Connection, ForkProcess]:
    """Start a process and return the end of a pipe where its result will come."""
    reader, writer = fork.Pipe(duplex=False)
    process = fork.Process(target=target, args=(*args, writer))
    process.start()
    writer.close()
    return reader, process


def start_task(task: figures.Task) -> tuple[Connection, ForkProcess]:
    """Start the process of one task."""
    return start(work, task)


def run(
    tasks: Sequence[figures.Task],
    slots: int,
    start: Callable[[figures.Task], tuple[Connection, ForkProcess]] = start_task,
) -> list[Any]:
    """Run the loop."""
    pending, running, returned = list(reversed(tasks)), {}, []
    while pending or running:
        while pending and len(running) < slots:
            reader, process = start(pending.pop())
            running[reader] = process
        for reader in wait(list(running)):
            returned.append(reader.recv())
            reader.close()
            running.pop(reader).join()
    return returned


if __name__ == "__main__":
    figures.main(run)
