"""The least that a Boss can cost: the loop by hand in a listener, with footprints choosing the class of each task.

It asks no scheduler, looks after no failure, stops nothing. What taylorism takes beyond this is its own; what this
takes beyond the loop by hand is the price of a second process, of a second way for each result, and of footprints.
"""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Any

import by_hand
import figures
import footprints
from taylor import BenchmarkWorker


def work(worker: BenchmarkWorker, writer: Connection) -> None:
    """Perform the task of a worker in its process and send what it returns."""
    writer.send(worker._task())
    writer.close()


def start_task(task: figures.Task) -> tuple[Connection, ForkProcess]:
    """Choose the class of a task, and start its process."""
    return by_hand.start(work, footprints.proxy.worker(benchmark=task[0], size=task[1]))


def listen(tasks: Sequence[figures.Task], slots: int, writer: Connection) -> None:
    """Be the listener: run the loop and send what it returned."""
    writer.send(by_hand.run(tasks, slots, start_task))
    writer.close()


def run(tasks: Sequence[figures.Task], slots: int) -> list[Any]:
    """Run the loop in a process of its own."""
    reader, listener = by_hand.start(listen, tasks, slots)
    returned: list[Any] = reader.recv()
    reader.close()
    listener.join()
    return returned


if __name__ == "__main__":
    figures.main(run)
