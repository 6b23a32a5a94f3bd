"""Commands and functions as tasks: they arrive as given, report what they should, and leave nothing behind."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import footprints
import numpy as np
import pytest
from workers import alive, pid_in, slots

import taylorism
import taylorism.workers
from taylorism import _hiring
from taylorism.workers import CommandReport, FunctionWorker, ShellWorker


def run(sets, common, **options):
    """Run sets of instructions together; return the report of each, or its exception, in order."""
    named = [{"name": str(number), **each} for number, each in enumerate(sets)]
    with taylorism.Boss(**{"on_error": "collect", "scheduler": slots(4), **options}) as boss:
        boss.set_instructions(common, named)
    report = boss.get_report()
    found = {record["name"]: record["report"] for record in report["workers_done"]} | report["errors"]
    return [found[name] for name in map(str, range(len(named)))]


def shell(*commands, **common):
    """Run commands together; return their reports, or exceptions, in order."""
    return run([{"command": command} for command in commands], {"kind": "shell", **common})


def call(*sets, **common):
    """Call functions together; return their values, or exceptions, in order."""
    return run(sets, {"kind": "function", **common})


def given(*args, **kwargs):
    """Return what it was given."""
    return args, kwargs


def where():
    """Return the directory, having left a file there."""
    Path("was here").touch()
    return os.getcwd()


def fail(text):
    """Fail."""
    raise LookupError(text)


# ---------------------------------------------------------------------------------------------------------
# commands: what goes in
# ---------------------------------------------------------------------------------------------------------

ODD = ["[name]", "[kind]", "[unknown]", "%d %(x)s {0}", "None", "[name:upper]", "{glob:x:*}", "[ -f x ]"]


def test_a_str_goes_through_the_shell_and_a_list_is_executed():
    """So a variable is known to the one, and is a mere text to the other; paths and numbers become words."""
    through, executed = shell("echo $((1 + 1)) | cat", ("echo", "$HOME;", "x y", 3, Path("/a"), 2.5))
    assert (through.stdout, executed.stdout) == ("2\n", "$HOME; x y 3 /a 2.5\n")


def test_numbers_of_any_kind_become_words():
    """Those of numpy too, which are no int and mostly no float; also as variables."""
    numbers = [np.int64(3), np.float32(0.1), np.float64(2.5), np.uint8(7), Fraction(1, 3)]
    env = {f"N{place}": number for place, number in enumerate(numbers)}
    listed, through = shell(["echo", *numbers], "echo $N0 $N1 $N2 $N3 $N4", env=env)
    assert listed.stdout == through.stdout == "3 0.1 2.5 7 1/3\n"


@pytest.mark.parametrize("wrong", [dict(command=["a", None]), dict(env={"a": ["b"]})])
def test_what_is_accepted_names_numbers_and_paths(wrong):
    """Else somebody would turn them into str for nothing."""
    with pytest.raises(taylorism.BadInstructions, match="str, numbers(,| and) paths"):
        ShellWorker(**{"kind": "shell", "command": "true", **wrong})


def test_what_footprints_would_replace_arrives_untouched(tmp_path):
    """Brackets, percents and 'None': in a list, through the shell, in a directory, a variable and an input."""
    place = tmp_path / "[name]"
    place.mkdir()
    common = dict(env={"ODD": "[unknown]"}, stdin=b"[name]", cwd=place, stderr="[kind]")
    script = 'printf "[name] %s $ODD " "%d"; [ -d . ] && basename "$PWD"; cat; [ -f "[kind]" ]'
    listed, through = shell(["printf", "%s|", *ODD], script, **common)
    assert listed.stdout == "".join(f"{odd}|" for odd in ODD)
    assert through.stdout == "[name] %d [unknown] [name]\n[name]"


def test_a_worker_may_be_named_after_its_command():
    """The text goes into the name as it is; what stands in brackets there is not looked at again."""
    with taylorism.Boss() as boss:
        boss.set_instructions(
            dict(kind="shell", name="[kind]: [command]"), dict(command=["echo [name]", ["echo", "[kind]"]])
        )
    names = [record["name"] for record in boss.get_report()["workers_report"]]
    assert sorted(names) == ["shell: ['echo', '[kind]']", "shell: echo [name]"]


SHELL, FUNCTION = {"kind": "shell", "command": "echo"}, {"kind": "function", "function": os.getpid}


@pytest.mark.parametrize("kind", [SHELL, FUNCTION])
def test_a_name_that_stands_in_itself_is_refused(kind, monkeypatch):
    """As with any class; and two attributes that stand in each other are given up. Nobody else waits for that."""
    monkeypatch.setattr(_hiring, "PATIENCE", 0.2)
    sets = [{**kind, "name": "a[name]"}, {**kind, "name": "[memory]", "memory": "[name]"}, {**kind, "name": "fine"}]
    boss = taylorism.Boss(on_error="collect")
    boss.set_instructions(sets)
    boss.make_them_work()
    boss.wait_till_finished()
    assert [record["name"] for record in boss.get_report()["workers_report"]] == ["fine"]
    assert [type(error) for error in boss.errors.values()] == [footprints.FootprintMaxIter] * 2


def test_a_worker_made_by_hand_is_the_same():
    """With the class, or with footprints; the attributes read as they were given."""
    by_class = ShellWorker(kind="shell", command=["[name]", "%d"], env={"a": "[b]"})
    by_footprints = footprints.proxy.worker(kind="shell", command=["[name]", "%d"], env={"a": "[b]"})
    for worker in (by_class, by_footprints):
        assert (type(worker), worker.command, worker.env) == (ShellWorker, ["[name]", "%d"], {"a": "[b]"})
        assert worker.cwd is worker.stdout is None and worker.check is True
    worker = FunctionWorker(dict(kind="function", function=given, args=["[name]"]))
    assert (worker.function, worker.args, worker.kwargs) == (given, ["[name]"], None)


def test_the_environment_is_that_of_the_worker_with_some_changes(monkeypatch):
    """What is given is added, None takes away, the rest is as in main; the marks of the listener stay."""
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("GONE", "gone")
    script = 'echo "$KEPT $ADDED ${GONE-none}"; [ -n "$TAYLORISM_BOSS" ]'
    (report,) = shell(script, env={"ADDED": 3, "GONE": None})
    assert report.stdout == "kept 3 none\n"


def test_a_command_reads_nothing_or_a_file_or_bytes(tmp_path):
    """A relative path begins at `cwd`; nobody waits for a command that does not read."""
    (tmp_path / "in").write_text("from a file")
    many = b"x" * 1_000_000
    sources = [dict(stdin=each) for each in ("in", tmp_path / "in", b"bytes \xff")]
    sets = [{}, *sources, dict(stdin=many, command="true")]
    reports = run(sets, dict(kind="shell", command=["cat"], cwd=str(tmp_path)))
    assert [each.stdout for each in reports] == ["", "from a file", "from a file", "bytes \ufffd", ""]


WRONG = [
    dict(command=""),
    dict(command=[]),
    dict(command=b"true"),
    dict(command=3),
    dict(command=["a", None]),
    dict(command=["a", True]),
    dict(command=["a", np.True_]),
    dict(command=["a", 1j]),
    dict(command="a\0b"),
    dict(command={"a": 1}),
    dict(cwd=3),
    dict(cwd=""),
    dict(env=["a"]),
    dict(env={1: "a"}),
    dict(env={"a": ["b"]}),
    dict(stdin=3),
    dict(stdout=3.5),
    dict(stdout=subprocess.STDOUT),
    dict(stderr=["a"]),
]


def test_what_makes_no_sense_is_told_by_name():
    """Each attribute with its value, the worker, and what is accepted."""
    for wrong in WRONG:
        ((name, value),) = wrong.items()
        with pytest.raises(taylorism.BadInstructions, match=name) as caught:
            ShellWorker(**{"kind": "shell", "command": "true", "name": "w1", **wrong})
        assert repr(value) in str(caught.value) and "'w1'" in str(caught.value) and "give" in str(caught.value)


def test_who_makes_no_sense_fails_alone():
    """The others go on; a set without a command finds no class."""
    wrong, none, fine = run([dict(command=[]), {}, dict(command="true")], dict(kind="shell"))
    assert type(wrong) is taylorism.BadInstructions and type(none) is taylorism.NoAdequateWorker
    assert fine.returncode == 0


# ---------------------------------------------------------------------------------------------------------
# commands: what comes out
# ---------------------------------------------------------------------------------------------------------


def test_the_report_reads_as_a_dict_and_by_attributes():
    """And prints well, and survives pickling."""
    report = CommandReport(returncode=2, stdout="a\nb\n", stderr="")
    assert report == {"returncode": 2, "stdout": "a\nb\n", "stderr": ""}
    assert (report.returncode, report.stdout, report.stderr) == (2, "a\nb\n", "")
    copy = pickle.loads(pickle.dumps(report))
    assert type(copy) is CommandReport and copy == report
    assert str(report) == "returncode: 2\nstdout:\n    a\n    b"


def test_the_last_10_000_characters_are_kept():
    """Characters, not bytes, of both outputs; what is no UTF-8 is replaced."""
    code = "import sys; sys.stdout.write('a' + 'é' * 9_999 + 'z'); sys.stderr.write('\\U0001f600' * 30_000)"
    exact = "import os; os.write(1, b'\\xff' + b'b' * 9_999)"
    long, odd = shell(*([sys.executable, "-X", "utf8", "-c", each] for each in (code, exact)))
    assert long.stdout == "é" * 9_999 + "z" and long.stderr == "\U0001f600" * 10_000
    assert odd.stdout == "\ufffd" + "b" * 9_999


def test_a_command_that_writes_much_takes_little_memory():
    """Of 300 MB the end is kept; the peak of the worker is told in the report."""
    with taylorism.Boss() as boss:
        command = "head -c 300000000 /dev/zero | tr '\\0' x; echo end"
        boss.set_instructions(dict(kind="shell", name="w"), [dict(command=command)])
    report = boss.get_report()
    assert report["workers_report"][0]["report"].stdout == "x" * 9_996 + "end\n"
    assert report["workers_info"]["w"]["peak_memory"] < 50


def test_outputs_go_to_files(tmp_path):
    """Made anew, in `cwd`; the report has their ends."""
    (tmp_path / "out").write_text("older, and longer than what comes")
    script = "printf %0100000d 7; echo bad >&2"
    (report,) = shell(script, stdout="out", stderr=tmp_path / "err", cwd=str(tmp_path))
    assert (tmp_path / "out").read_text() == "7".rjust(100_000, "0") and (tmp_path / "err").read_text() == "bad\n"
    assert report.stdout == "7".rjust(10_000, "0") and report.stderr == "bad\n"


def test_outputs_go_where_subprocess_sends_them(tmp_path):
    """Both into one file or one report, or nowhere; a file that cannot be read again has no end."""
    both = tmp_path / "both"
    sets = [
        dict(stdout=str(both), stderr=str(both)),
        dict(stderr=subprocess.STDOUT),
        dict(stdout=subprocess.DEVNULL, stderr="/dev/null"),
        dict(stdout=subprocess.PIPE),
    ]
    reports = run(sets, dict(kind="shell", command="echo 1; echo 2 >&2; echo 3"))
    together = ("1\n2\n3\n", "")
    assert [(each.stdout, each.stderr) for each in reports] == [together, together, ("", ""), ("1\n3\n", "2\n")]
    assert both.read_text() == "1\n2\n3\n"


def test_a_program_that_outlives_its_shell_holds_up_nobody():
    """It holds the pipes, and lives on; what was written before the end of the shell is all there."""
    report, long = shell("sleep 30 & echo $!", "sleep 30 & echo $! >&2; printf %060000d 7")
    left = int(report.stdout), int(long.stderr)
    assert all(map(alive, left)) and long.stdout == "7".rjust(10_000, "0")
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def test_what_is_logged_is_captured_too(tmp_path):
    """With a log_dir, the log has all of it, and the report the end."""
    sets = [dict(command="printf %020000d 7; echo bad >&2"), dict(command="echo why; exit 3")]
    done, failed = run(sets, dict(kind="shell"), log_dir=tmp_path)
    assert done.stdout == "7".rjust(10_000, "0") and (tmp_path / "0.out").read_text() == "7".rjust(20_000, "0")
    assert done.stderr == (tmp_path / "0.err").read_text() == "bad\n"
    assert failed.stdout == (tmp_path / "1.out").read_text() == "why\n"
    assert "1.out" in str(failed.__cause__)


# ---------------------------------------------------------------------------------------------------------
# commands: failures
# ---------------------------------------------------------------------------------------------------------


def test_a_command_that_fails_says_all():
    """The worker, the command, the status, where, and what it has written; whole after pickling."""
    (error,) = shell("echo [out]; seq 30 >&2; exit 3", cwd="/")
    assert type(error) is taylorism.CommandFailed and isinstance(error, taylorism.TaylorismError)
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert (each.name, each.command, each.returncode) == ("0", "echo [out]; seq 30 >&2; exit 3", 3)
        assert (each.signal, each.stdout) == ("", "[out]\n")
        assert each.stderr.split() == [str(number) for number in range(1, 31)]
        text = str(each)
        assert "worker '0'" in text and repr(each.command) in text and "exited with status 3" in text
        assert "'/'" in text and "check=False" in text
        assert "stdout:\n    [out]" in text and "    10\n" not in text and text.endswith("    29\n    30")


def test_check_false_takes_every_status():
    """The status is in the report, the signal that killed it included."""
    reports = shell("exit 3", "kill -9 $$", ["false"], check=False)
    assert [each.returncode for each in reports] == [3, -9, 1]


@pytest.mark.parametrize(
    ("command", "returncode", "killer", "words"),
    [
        ("kill -9 $$", -9, "SIGKILL", "killed by SIGKILL"),
        ("sh -c 'kill -11 $$'; exit $?", 139, "SIGSEGV", "what it ran was killed by SIGSEGV"),
        ("nosuchprogram", 127, "", "a program was not found"),
        ("/etc/passwd", 126, "", "must not be executed"),
        ("exit 128", 128, "", "exited with status 128"),
        ("exit 255", 255, "", "exited with status 255"),
        (["sh", "-c", "exit 137"], 137, "", "exited with status 137"),
    ],
)
def test_how_it_ended_is_told_in_words(command, returncode, killer, words):
    """By the signal, or by the status with which a shell tells of one."""
    program = ShellWorker(kind="shell", command=command)
    with pytest.raises(taylorism.CommandFailed) as caught:
        program._task()
    assert (caught.value.returncode, caught.value.signal) == (returncode, killer)
    assert words in str(caught.value)


def test_a_command_that_cannot_be_started(tmp_path):
    """The error of the system, with the command, the directory and the remedy."""
    script = tmp_path / "script"
    script.write_text("echo no first line")
    script.chmod(0o755)
    cases = [
        (dict(command=["nosuchprogram"]), FileNotFoundError, "whole path"),
        (dict(command=["/etc/passwd"]), PermissionError, "chmod"),
        (dict(command=["/etc/passwd/x"]), NotADirectoryError, "no directory"),
        (dict(command=[str(script)]), OSError, "first line"),
        (dict(command=["echo", "x" * 3_000_000]), OSError, "too long"),
        (dict(command="echo", cwd="nowhere"), FileNotFoundError, "cwd"),
        (dict(command="echo", cwd="/etc/passwd"), NotADirectoryError, "cwd"),
    ]
    for instructions, kind, remedy in cases:
        with pytest.raises(kind, match=remedy) as caught:
            ShellWorker(kind="shell", **instructions)._task()
        assert repr(instructions["command"])[:100] in str(caught.value)
        assert repr(os.path.abspath(instructions.get("cwd", "."))) in str(caught.value)
    for wrong in (dict(stdout="nowhere/out"), dict(stderr="nowhere/err"), dict(stdin="nowhere/in")):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            ShellWorker(kind="shell", command="true", **wrong)._task()


# ---------------------------------------------------------------------------------------------------------
# commands: how they are stopped
# ---------------------------------------------------------------------------------------------------------

TREE = "sleep 100 & echo $! > {0}/inner; echo $$ > {0}/outer; wait"


@pytest.mark.parametrize("how", ["cancel", "timeout", "stop"])
def test_whoever_is_stopped_goes_with_all_that_it_has_started(how, tmp_path):
    """The shell, and the program that it left in the background."""
    limit = 0.3 if how == "timeout" else None
    boss = taylorism.Boss(on_error="collect", timeout=limit)
    boss.set_instructions(dict(kind="shell", name="w"), [dict(command=TREE.format(tmp_path))])
    boss.make_them_work()
    pids = [pid_in(tmp_path / name) for name in ("inner", "outer")]
    if how == "cancel":
        assert boss.cancel("w") == ["w"]
    elif how == "stop":
        boss.stop_them_working()
    boss.wait()
    boss.wait_till_finished()
    assert not any(map(alive, pids))
    state = {"cancel": "cancelled", "timeout": "failed", "stop": "stopped"}[how]
    assert getattr(boss.status(), state) == ("w",)


def test_a_command_may_say_its_last_words(tmp_path):
    """Somebody reads them, though they fill the pipe, until it has ended."""
    script = "trap 'seq 100000; echo done > {0}/last; exit' TERM; echo $$ > {0}/pid; while :; do sleep 0.01; done"
    boss = taylorism.Boss(stop_grace=30)
    boss.set_instructions(dict(kind="shell"), [dict(command=script.format(tmp_path))])
    boss.make_them_work()
    pid_in(tmp_path / "pid")
    boss.stop_them_working()
    boss.wait_till_finished()
    assert (tmp_path / "last").read_text() == "done\n"


def test_a_worker_without_a_boss_ends_its_command(tmp_path):
    """Nobody else would."""
    worker = ShellWorker(kind="shell", command=f"echo $$ > {tmp_path}/pid; exec sleep 100")
    worker.work()
    pid = pid_in(tmp_path / "pid")
    worker.stop_working()
    worker.bye()
    assert not alive(pid)


# ---------------------------------------------------------------------------------------------------------
# functions
# ---------------------------------------------------------------------------------------------------------


class Adder:
    """Adds a number."""

    def __init__(self, number):
        self.number = number

    def __call__(self, other):
        """Return the sum."""
        return self.number + other

    def add(self, other):
        """Return the sum."""
        return self.number + other


def test_functions_are_called_with_what_is_given():
    """Lists, dicts, brackets and all, untouched; any callable that can be pickled."""
    odd = ([*ODD, {"[name]": ["None", ("[kind]",)]}], {"a": "[name]", "b": {"c": "None"}})
    values = call(
        dict(function=given, args=odd[0], kwargs=odd[1]),
        dict(function=given),
        dict(function=given, args=range(2)),
        dict(function=pow, args=(2, 3)),
        dict(function=functools.partial(pow, 2), args=[5]),
        dict(function=Adder(1), args=[2]),
        dict(function=Adder(3).add, args=[4]),
        dict(function=dict, kwargs={"name": 1, "kind": "x", "self": 2}),
    )
    assert values[:3] == [(tuple(odd[0]), odd[1]), ((), {}), ((0, 1), {})]
    assert values[3:] == [8, 32, 3, 7, {"name": 1, "kind": "x", "self": 2}]


def test_a_function_is_called_in_its_directory(tmp_path):
    """Which is made if it does not exist; by default it is that of main."""
    here, there = call(dict(function=os.getcwd), dict(function=where, workdir=tmp_path / "a" / "[name]"))
    assert (here, there) == (os.getcwd(), str(tmp_path / "a" / "[name]"))
    assert (tmp_path / "a" / "[name]" / "was here").exists()


def test_the_exception_of_a_function_comes_out_as_it_is():
    """Same class, same arguments."""
    with pytest.raises(LookupError) as caught, taylorism.Boss() as boss:
        boss.set_instructions(dict(kind="function", function=fail), dict(args=[["[name]"]]))
    assert caught.value.args == ("[name]",)


def test_a_function_that_cannot_be_pickled_is_told_at_once():
    """In main, by name, with what to do."""
    with taylorism.Boss() as boss:
        with pytest.raises(taylorism.InstructionsNotPicklable, match="'function'"):
            boss.set_instructions(dict(kind="function"), dict(function=[lambda: 1]), fatal=False)
        boss.stop_them_working()


NO_CALLS = [
    dict(function="pow"),
    dict(args="ab"),
    dict(args=3),
    dict(args={"a": 1}),
    dict(kwargs=[1]),
    dict(kwargs={1: 2}),
    dict(workdir=3),
]


@pytest.mark.parametrize("wrong", NO_CALLS)
def test_a_call_that_makes_no_sense_is_told_by_name(wrong):
    """The attribute, its value, and what is accepted."""
    with pytest.raises(taylorism.BadInstructions, match=next(iter(wrong))):
        FunctionWorker(**{"kind": "function", "function": pow, **wrong})


# ---------------------------------------------------------------------------------------------------------
# among other classes
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def forgotten():
    """Forget the Worker classes that a test has made, so that they take part in no other choice."""
    collector = footprints.collectors.get(tag="worker")
    before = set(collector)
    yield
    for cls in set(collector) - before:
        collector.discard(cls)


@pytest.mark.usefixtures("forgotten")
def test_a_class_that_knows_the_kind_goes_first():
    """Nobody is displaced, however little of the instructions that class knows."""

    class Own(taylorism.Worker):
        _footprint = dict(attr=dict(kind=dict(values=["shell", "other"])))

        def _task(self, **kwargs):
            return "own"

    assert shell("echo", cwd="/", check=False) == ["own"]
    assert run([dict(kind="other")], {}) == ["own"]
    assert type(footprints.proxy.worker(kind="shell", command="echo")) is Own


@pytest.mark.usefixtures("forgotten")
def test_a_class_with_such_attributes_is_not_asked():
    """It has no `kind`, and would stumble over the brackets; without a kind it is chosen as ever."""

    class Runner(taylorism.Worker):
        _footprint = dict(attr=dict(command=dict(), function=dict(optional=True)))

        def _task(self, **kwargs):
            return "own"

    assert shell("echo [unknown]")[0].stdout == "[unknown]\n"
    assert run([dict(command="x")], {}) == ["own"]


_SPAWNED = """
import sys, taylorism, taylorism.workers
if __name__ == "__main__":
    report = taylorism.batch_main(
        common_instructions={"kind": "shell", "name": "[command]"},
        individual_instructions={"command": ["echo [name]"]},
        start_method=sys.argv[1],
    )
    boss = taylorism.Boss(start_method=sys.argv[1])
    boss.set_instructions({"kind": "function", "function": pow}, {"args": [(2, 3)]})
    boss.wait_till_finished()
    print(boss.get_report()["workers_report"][0]["report"])
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_kinds_are_known_whatever_the_start_method(method, tmp_path):
    """The script of a user has them, and prints as batch_main always does."""
    script = tmp_path / "script.py"
    script.write_text(_SPAWNED)
    done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rule, name, _, *rest = done.stdout.splitlines()
    assert (set(rule), name) == ({"="}, "WORKER NAME: echo [name]")
    assert rest == ["returncode: 0", "stdout:", "    [name]", "8"]


def test_they_are_imported_on_demand_only():
    """`import taylorism` knows no Worker class of ours."""
    code = (
        "import sys, taylorism, footprints; workers = footprints.collectors.get(tag='worker'); "
        "print(len(list(workers)), 'taylorism.workers' in sys.modules); taylorism.workers.ShellWorker; "
        "print(len(list(workers)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "0 False\n2\n"
