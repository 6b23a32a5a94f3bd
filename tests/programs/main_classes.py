"""A main program with classes of its own: ``main_classes.py METHOD DEFAULT [brief]``; prints JSON."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import footprints
import numpy
import workers

import taylorism
import taylorism.util
from taylorism.schedulers import BaseScheduler


class Fault(Exception):
    """An exception of the main module."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Squarer(taylorism.Worker):
    """A worker of the main module."""

    _footprint = dict(
        attr=dict(
            number_to_square=dict(type=int),
            nothing=dict(type=object, optional=True, default=None),
            shared=dict(type=taylorism.util.SharedNumpyArray, optional=True, default=None),
        )
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mine = "set by init"

    def _task(self, **kwargs):
        if self.number_to_square < 0:
            raise Fault(3)
        if self.shared is not None:
            self.shared[self.number_to_square] = 7
        return [
            self.number_to_square**2,
            self.nothing,
            self.scheduler_ticket,
            self.mine,
            os.getcwd(),
            os.environ.get("CHANGED"),
        ]


class OneByOne(BaseScheduler):
    """A scheduler of the main module."""

    _footprint = dict(attr=dict(one_by_one=dict(type=bool)))

    def launchable(self, pending_instructions, workers, report):
        if workers:
            return [], pending_instructions
        return self._assign_tickets(workers, pending_instructions[:1]), pending_instructions[1:]


def found_by(boss):
    """Return the reports, or what was raised."""
    try:
        boss.wait_till_finished()
    except BaseException as error:
        return [type(error).__name__, list(error.args), getattr(error, "code", None)]
    return sorted(record["report"] for record in boss.get_report()["workers_report"])


def main(method, default, brief=""):
    """Try everything, or briefly that classes are found, in the first Boss and in one of a worker."""
    if default:
        multiprocessing.set_start_method(default)
    os.chdir("/")
    os.environ["CHANGED"] = "yes"
    option = {"start_method": method} if method else {}
    found = {}

    boss = taylorism.run_as_server({}, {"number_to_square": [2, 3]}, **option)
    boss.set_instructions({}, {"number_to_square": [4], "nothing": [None]})
    found["squares"] = found_by(boss)
    found["nested"] = found_by(taylorism.run_as_server(*workers.do("nested", 2), **option))
    if not brief:
        try_the_rest(found, option)
    print(json.dumps(found))
    globals()["left to the exit"] = taylorism.run_as_server(*workers.do("swallow_nothing", 1), **option)


def try_the_rest(found, option):
    """Try what a Boss does in many ways, once it was started in one of a few."""
    boss = taylorism.run_as_server(
        {}, {"number_to_square": [2, 3]}, scheduler=footprints.proxy.scheduler(one_by_one=True), **option
    )
    found["own scheduler"] = found_by(boss)

    found["fault"] = found_by(taylorism.run_as_server({}, {"number_to_square": [-1]}, **option))
    boss = taylorism.run_as_server(*workers.do("echo", 1, "two", None), **option)
    boss.wait_till_finished()
    found["module"] = sorted(repr(r["report"]) for r in boss.get_report()["workers_report"])

    array = taylorism.util.SharedNumpyArray(numpy.zeros(4))
    boss = taylorism.run_as_server(
        {}, {"number_to_square": [1, 2]}, sharedmemory_common_instructions={"shared": array}, **option
    )
    found_by(boss)
    found["shared"] = array[...].tolist()

    boss = taylorism.run_as_server(*workers.do("os_exit", 3), **option)
    found["death"] = found_by(boss)[0]
    boss = taylorism.Boss(**option)
    os.kill(boss._process.pid, 9)
    found["boss died"] = found_by(boss)[0]
    boss = taylorism.Boss(**option)
    boss._process.terminate()
    found["terminated"] = found_by(boss)[0]
    binded = footprints.proxy.scheduler(limit="threads", max_threads=1, binded=True)
    found["binded"] = len(found_by(taylorism.run_as_server(*workers.do("echo", 5), scheduler=binded, **option)))


@workers.deed
def swallow_nothing(value, worker):
    """Wait to be stopped."""
    import time

    time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
