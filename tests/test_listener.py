"""The listener's loop: what it waits for, whom it asks again, and what becomes of its own mistakes."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
import workers
from workers import Scheduler, do, pid_in, reports, until, working

import taylorism
from taylorism import _listener, _messages


def holding_back(until_there: Any) -> Scheduler:
    """Return a scheduler that launches nothing before a file is there: nothing that happens tells of that."""

    def decide(pending: Any, running: Any, report: Any) -> Any:
        return (pending, []) if os.path.exists(until_there) else ([], pending)

    return Scheduler(decide)


@pytest.fixture
def log(tmp_path):
    """Return the file that main, and hence its listener, logs to."""
    handler = logging.FileHandler(tmp_path / "log")
    logger = logging.getLogger("taylorism")
    logger.addHandler(handler)
    yield tmp_path / "log"
    logger.removeHandler(handler)
    handler.close()


def test_who_holds_work_back_is_asked_again(tmp_path):
    """A scheduler of the user's may watch a clock, or a file."""
    boss = working(*do("echo", 1, 2), scheduler=holding_back(tmp_path / "go"))
    assert not boss.wait(timeout=0.2)
    (tmp_path / "go").touch()
    assert reports(boss) == [1, 2]


def test_who_launches_nothing_is_spoken_of_and_asked_on(tmp_path, monkeypatch, log):
    """Which scheduler it is, how many sets wait, and for how long; the work goes on when it changes its mind."""
    monkeypatch.setattr(_listener, "PUZZLED", 0.05)
    boss = working(*do("echo", 1, 2), scheduler=holding_back(tmp_path / "go"))
    until(lambda: "has launched none" in log.read_text(), "the remark")
    (tmp_path / "go").touch()
    assert reports(boss) == [1, 2]
    assert log.read_text().count("the scheduler Scheduler has launched none of 2 pending sets for 0.05 s") == 1


def test_an_order_that_is_not_known_is_an_error():
    """It stops the work, and is named: silence would be a wait without end."""
    boss = taylorism.Boss()
    boss._link.send(_messages.Hello("not an order"))
    with pytest.raises(taylorism.TaylorismError, match="unknown order: Hello.*not an order"):
        boss.wait_till_finished()


def test_a_mistake_in_the_loop_stops_all_and_is_told(tmp_path, monkeypatch):
    """Main gets the exception itself, and what was done; no worker is left."""

    def mistaken(self: Any) -> None:
        if os.path.exists(tmp_path / "now"):
            os.remove(tmp_path / "now")
            raise LookupError("a mistake of the listener's")

    monkeypatch.setattr(_listener.Listener, "_answer_cancels", mistaken)
    boss = working(*do("wait", str(tmp_path), name="waits"))
    pid = pid_in(tmp_path / "waits.pid")
    (tmp_path / "now").touch()
    with pytest.raises(LookupError, match="a mistake of the listener's"):
        while True:
            boss.halt()  # any order has the loop turn
            boss.poll()
    with pytest.raises(LookupError):
        boss.wait_till_finished()
    assert boss.get_report()["stopped"] == ["waits"] and not workers.alive(pid)


@pytest.mark.parametrize("timeout", [1e6, 1e9])
def test_no_wait_is_too_long_for_the_system(timeout):
    """It counts milliseconds in 31 bits, which are 24 days."""
    assert reports(working(*do("echo", 1), timeout=timeout)) == [1]
