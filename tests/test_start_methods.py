"""All start methods, as default and asked for, with classes of the main program and of modules."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import workers
from test_main_programs import Program
from workers import reports, until

import taylorism

PROGRAM = workers.HERE / "programs" / "main_classes.py"


def check_briefly(found: dict, directory: str = "/") -> None:
    """Compare what the program always looks for."""
    assert [each[:2] + each[3:] for each in found["squares"]] == [
        [n * n, None, "set by init", directory, "yes"] for n in (2, 3, 4)
    ]
    assert found["nested"] == [[0, 1]]


def check(found: dict, directory: str = "/") -> None:
    """Compare what the program found with what is right."""
    where = [directory, "yes"]
    check_briefly(found, directory)
    assert found["own scheduler"] == [[n * n, None, None, "set by init", *where] for n in (2, 3)]
    assert found["fault"] == ["Fault", ["code 3"], 3]
    assert found["module"] == ["'two'", "1", "None"]
    assert found["shared"] == [0.0, 7.0, 7.0, 0.0]
    assert found["binded"] == 1
    assert (found["death"], found["boss died"]) == ("WorkerDied", "BossDied")
    assert found["terminated"] == "SignalInterruptError"


@pytest.mark.parametrize(
    ("method", "default", "variable"),
    [
        ("", "fork", ""),
        ("", "spawn", ""),
        ("", "forkserver", ""),
        ("fork", "", ""),
        ("spawn", "", ""),
        ("forkserver", "", ""),
        ("fork", "spawn", "forkserver"),
    ],
)
def test_start_methods(method, default, variable, tmp_path):
    """Everything works under every method, and nothing is left."""
    check(found(tmp_path, method, default, TAYLORISM_START_METHOD=variable))


def test_a_start_method_that_the_environment_tells(tmp_path):
    """It holds for the Boss of a worker, too; all else is as where the method is an argument."""
    check_briefly(found(tmp_path, "", "", "brief", TAYLORISM_START_METHOD="spawn"))


def found(tmp_path: Path, *arguments: str, **variables: str) -> dict:
    """Return what the program found."""
    program = Program(tmp_path, str(PROGRAM), *arguments, env=variables)
    try:
        code, out, err = program.end(50)
        assert code == 0, err
        program.leaves_nothing()
        return json.loads(out)
    finally:
        program.close()


_WAITING = """
import sys; sys.path.insert(0, {here!r})
import taylorism, workers
if __name__ == "__main__":
    boss = taylorism.Boss(start_method={method!r})
    boss.set_instructions(*workers.do("wait", {place!r}, name="w"))
    boss.wait_till_finished()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_main_is_killed(method, signum, tmp_path):
    """Nothing is left when main is killed or interrupted, where its listener is not its fork."""
    script = tmp_path / "script.py"
    script.write_text(_WAITING.format(here=str(workers.HERE), method=method, place=str(tmp_path)))
    program = Program(tmp_path, str(script))
    try:
        workers.pid_in(tmp_path / "w.pid")
        os.killpg(program.process.pid, signum) if signum == signal.SIGINT else program.process.kill()
        program.end()
        program.leaves_nothing()
        assert (tmp_path / "w.cleaned").exists()
    finally:
        program.close()


def test_variable_is_checked(monkeypatch):
    """A wrong value of the environment variable is an error that names it."""
    monkeypatch.setenv("TAYLORISM_START_METHOD", "spoon")
    with pytest.raises(ValueError, match="TAYLORISM_START_METHOD"):
        taylorism.Boss()


def test_local_classes_and_hooks_work_by_default(tmp_path):
    """Under the default method, classes and schedulers that are defined in a function work."""

    class Local(taylorism.Worker):
        _footprint = dict(attr=dict(local_class_of_a_test=dict(type=int)))

        def _task(self, **kwargs):
            return self.local_class_of_a_test + 1

    class Mine:
        def launchable(self, pending_instructions, workers, report):
            return pending_instructions, []

    boss = taylorism.Boss(scheduler=Mine())
    boss.set_instructions({}, {"local_class_of_a_test": [1]})
    assert reports(boss) == [2]


def test_boss_that_cannot_be_spawned_leaves_nothing(tmp_path):
    """What cannot be pickled for a spawned listener raises in main, and leaves no listener."""
    script = (
        f"import sys; sys.path.insert(0, {str(workers.HERE)!r})\n"
        "import psutil, taylorism, workers\n"
        "try:\n"
        "    taylorism.Boss(scheduler=workers.Scheduler(lambda *a: a), start_method='spawn')\n"
        "except Exception as error:\n"
        "    names = [' '.join(child.cmdline()) for child in psutil.Process().children()]\n"
        "    print(type(error).__name__, [name for name in names if 'resource_tracker' not in name])\n"
    )
    program = Program(tmp_path, "-c", script)
    code, out, err = program.end()
    program.close()
    assert code == 0 and out.rstrip().endswith("[]"), (out, err)
    until(lambda: not program.left())


_OPTIONS = """
import sys; sys.path.insert(0, {here!r})
import taylorism, workers

if __name__ == "__main__":
    options = dict(on_error="collect", max_trials=2, timeout=50, log_dir={logs!r}, start_method={method!r})
    boss = taylorism.Boss(**options)
    boss.set_instructions([dict(name="bad", deed="say", value="fail"), dict(name="good", deed="echo", value=1)])
    boss.wait_till_finished()
    print(boss.get_report()["workers_info"]["bad"]["trials"], *boss.errors)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_options_reach_every_kind_of_listener(method, tmp_path):
    """They are carried where there is no fork."""
    path = tmp_path / "program.py"
    path.write_text(_OPTIONS.format(here=str(workers.HERE), logs=str(tmp_path), method=method))
    program = Program(tmp_path, str(path))
    try:
        code, out, err = program.end(50)
        assert (code, out) == (0, "2 bad\n"), err
        assert (tmp_path / "bad.out").read_text().count("bad says fail") == 2
        program.leaves_nothing()
    finally:
        program.close()
