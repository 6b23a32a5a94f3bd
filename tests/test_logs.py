"""The logs: a pair of files for each name, wherever the name would lead, and the lines that a failure quotes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import workers
from forked import in_fork
from hypothesis import example, given
from hypothesis import strategies as st

import taylorism
from taylorism import _logs

ODD = [
    "",
    ".",
    "..",
    "/",
    "../../etc/passwd",
    "a/b",
    "a%2Fb",
    "%",
    "%2E",
    ".hidden",
    "a.out",
    "a.err",
    "a\0b",
    "a\nb",
    "~",
    "é",
    "e\u0301",
    "日本語",
    "\U0001f600",
    "\ud800",
    "\udcc3\udca9",
    "x" * 200,
    "x" * 201,
    "x" * 5000,
    "é" * 5000,
    "/" * 5000,
    "[name]",
    " ",
]

#: any text that Python can hold, surrogates included, with the troublemakers more often than others
NAMES = st.text(st.one_of(st.characters(), st.sampled_from("./%~\0\ud800éÉ")), max_size=80)


@pytest.mark.parametrize("name", ODD)
def test_each_name_gives_two_files_in_the_directory(tmp_path, name):
    """Whatever it is: they can be made, are seen in a listing, and lie nowhere else."""
    files = _logs.paths(str(tmp_path), name)
    assert len({*files}) == 2
    for path, ending in zip(files, (".out", ".err"), strict=True):
        assert path.endswith(ending) and os.path.dirname(os.path.realpath(path)) == str(tmp_path.resolve())
        with open(path, "x"):
            pass
    names = {os.path.basename(path) for path in files}
    assert {*os.listdir(tmp_path)} == names
    assert not any(name.startswith(".") for name in names), "hidden"


def test_no_two_odd_names_share_a_file(tmp_path):
    """All of them at once, on a real file system."""
    for name in ODD:
        for path in _logs.paths(str(tmp_path), name):
            with open(path, "x"):
                pass
    assert len(os.listdir(tmp_path)) == 2 * len(ODD)


@given(NAMES, NAMES)
@example("a/b", "a%2Fb")
@example(".", "%2E")
@example("", ".")
@example("\udcc3\udca9", "é")
@example("x" * 200 + "a", "x" * 200 + "b")
def test_different_names_have_different_files(one, other):
    """And the same name has the same ones, in every process."""
    files = {*_logs.paths("d", one), *_logs.paths("d", other)}
    assert len(files) == (2 if one == other else 4)


@given(NAMES, st.integers(1, 100))
def test_file_names_are_plain_and_short(name, times):
    """One step, printable ASCII, and short enough for any file system."""
    for path in _logs.paths("d", name * times):
        directory, _, file = path.rpartition("/")
        assert directory == "d" and file.isascii() and file.isprintable() and "\\" not in file
        assert len(file) <= 255 and file not in ("", ".", "..")


@pytest.mark.parametrize("name", ["worker", "w-3_a", "lat=45.5,lon=-3", "run (2) [x]", "a@b+c"])
def test_plain_names_stay_as_they_are(name):
    """A user finds the log by the name of the worker."""
    assert _logs.paths("/logs", name) == (f"/logs/{name}.out", f"/logs/{name}.err")


def test_long_names_are_told_apart_by_more_than_their_beginning():
    """What was cut off counts; the beginning can still be read."""
    one, other = ("x" * 5000 + end for end in "ab")
    first, second = _logs.paths("d", one)[0], _logs.paths("d", other)[0]
    assert first != second and first.startswith("d/" + "x" * 100)
    assert first == _logs.paths("d", one)[0]


# -- redirection ----------------------------------------------------------------------------------------


def redirected(directory, act, name="w"):
    """Call `act` in a fork that writes to the files of `name`; return what is in them."""

    def check():
        _logs.redirect(str(directory), name)
        act()

    in_fork(check)
    return tuple(map(content, _logs.paths(str(directory), name)))


def content(path):
    """Return what a file holds."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_both_descriptors_lead_to_the_files(tmp_path):
    """What compiled code writes to 1 and 2 is there, each in its own."""

    def act():
        os.write(1, b"to the one\n")
        os.write(2, b"to the other\n")

    assert redirected(tmp_path, act) == ("to the one\n", "to the other\n")


def test_programs_write_to_the_files(tmp_path):
    """They inherit the descriptors; so do those that they start."""

    def act():
        subprocess.run(["sh", "-c", "echo program; echo trouble >&2; sh -c 'echo below'"], check=True)

    assert redirected(tmp_path, act) == ("program\nbelow\n", "trouble\n")


def test_python_s_own_streams_write_to_the_files(tmp_path):
    """`print`, a traceback, and the log; they are on the descriptors."""

    def act():
        with open(1, "w", closefd=False) as out, open(2, "w", closefd=False) as err:
            print("printed", file=out)
            print("logged", file=err)

    assert redirected(tmp_path, act) == ("printed\n", "logged\n")


def test_a_log_is_appended_to(tmp_path):
    """A further trial goes on where the last one ended, also from several processes at once."""
    for number in range(3):
        redirected(tmp_path, lambda: os.write(1, b"trial %d\n" % number))
    assert content(tmp_path / "w.out") == "trial 0\ntrial 1\ntrial 2\n"
    assert content(tmp_path / "w.err") == ""


def test_no_descriptor_is_left_open(tmp_path):
    """But 1 and 2 themselves, which programs inherit."""

    def check():
        before = os.listdir("/proc/self/fd")
        _logs.redirect(str(tmp_path), "w")
        return len(os.listdir("/proc/self/fd")) - len(before), [os.get_inheritable(fd) for fd in (1, 2)]

    assert in_fork(check) == (0, [True, True])


@pytest.mark.parametrize("closed", [[1], [2], [1, 2], [0, 1, 2], [0], [0, 1]])
def test_closed_standard_streams_are_no_obstacle(tmp_path, closed):
    """A main program without them gives the numbers to the files: they must not be closed again."""

    def act():
        for fd in (1, 2):
            os.write(fd, b"%d\n" % fd)
        subprocess.run(["sh", "-c", "echo program; echo trouble >&2"], check=True)

    def check():
        for fd in closed:
            os.close(fd)
        _logs.redirect(str(tmp_path), "w")
        act()

    in_fork(check)
    assert content(tmp_path / "w.out") == "1\nprogram\n"
    assert content(tmp_path / "w.err") == "2\ntrouble\n"


def test_a_directory_that_is_gone_is_an_error(tmp_path):
    """It is charged to the worker: nothing is written elsewhere, and nothing is left open."""

    def check():
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(FileNotFoundError):
            _logs.redirect(str(tmp_path / "gone"), "w")
        return len(os.listdir("/proc/self/fd")) - before

    assert in_fork(check) == 0


def without_waiting(function):
    """Call a function in a fork, which is killed if it does not come to its end."""

    def check():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        return function()

    return in_fork(check)


def test_a_pipe_that_nobody_reads_is_an_error(tmp_path):
    """It says which, why and what to do; it is not waited for, and nothing is left open."""
    os.mkfifo(tmp_path / "w.out")

    def check():
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match=r"worker 'w' .* nobody reads it.* Start its reader .*w\.out"):
            _logs.redirect(str(tmp_path), "w")
        return len(os.listdir("/proc/self/fd")) - before

    assert without_waiting(check) == 0


def test_a_pipe_that_somebody_reads_is_written_to(tmp_path):
    """As usual: a write waits until there is room."""
    os.mkfifo(tmp_path / "w.out")
    reader = os.open(tmp_path / "w.out", os.O_RDONLY | os.O_NONBLOCK)

    def check():
        _logs.redirect(str(tmp_path), "w")
        os.write(1, b"to the one\n")
        return os.get_blocking(1)

    try:
        assert without_waiting(check) and os.read(reader, 100) == b"to the one\n"
    finally:
        os.close(reader)


# -- what a failure quotes --------------------------------------------------------------------------------


def write(tmp_path, out=None, err=None, name="w"):
    """Write the two files, as far as they are given."""
    for path, data in zip(_logs.paths(str(tmp_path), name), (out, err), strict=True):
        if data is not None:
            with open(path, "wb") as file:
                file.write(data)


def test_the_tail_names_the_files_and_has_their_last_lines(tmp_path):
    """Ten of each, the standard output first."""
    write(tmp_path, b"".join(b"line %d\n" % n for n in range(1, 31)), b"trouble\n")
    told = _logs.tail(str(tmp_path), "w")
    assert told.index("w.out") < told.index("line 21") < told.index("line 30") < told.index("w.err")
    assert told.index("w.err") < told.index("trouble")
    assert "line 20" not in told and told.count("line ") == 10
    assert str(tmp_path) in told


def test_what_is_empty_or_missing_is_not_mentioned(tmp_path):
    """An empty text where there is nothing at all."""
    assert _logs.tail(str(tmp_path), "w") == ""
    write(tmp_path, b"", b"")
    assert _logs.tail(str(tmp_path), "w") == ""
    write(tmp_path, b"", b"trouble\n")
    told = _logs.tail(str(tmp_path), "w")
    assert "trouble" in told and "w.err" in told and "w.out" not in told


def test_only_what_the_last_trial_wrote_is_quoted(tmp_path):
    """What was in the files when it began was another's."""
    write(tmp_path, b"first trial\n", b"first trouble\n")
    since = _logs.sizes(str(tmp_path), "w")
    assert since == (12, 14)
    assert _logs.tail(str(tmp_path), "w", since) == ""
    with open(tmp_path / "w.out", "ab") as file:
        file.write(b"second trial\n")
    told = _logs.tail(str(tmp_path), "w", since)
    assert "second trial" in told and "first" not in told and "w.err" not in told


def test_a_file_without_an_end_of_line_is_quoted(tmp_path):
    """A worker that was killed seldom ends its line."""
    write(tmp_path, b"working... 30 %")
    assert "working... 30 %" in _logs.tail(str(tmp_path), "w")


def test_a_file_that_was_cut_meanwhile_is_no_error(tmp_path):
    """By the user, or by what rotates logs."""
    write(tmp_path, b"new\n")
    assert "new" not in _logs.tail(str(tmp_path), "w", (1000, 0))


def test_a_huge_log_is_read_from_its_end(tmp_path):
    """In one piece of a few kilobytes, however long its lines are."""
    with open(tmp_path / "w.out", "wb") as file:
        file.truncate(2**33)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"x" * 100_000 + b" the very end")
    told = _logs.tail(str(tmp_path), "w")
    assert told.rstrip().endswith("the very end") and len(told) < 6000


@given(st.binary(max_size=300), st.integers(0, 310))
def test_any_bytes_can_be_quoted(tmp_path_factory, data, start):
    """A log is no text: the quotation is, it can be sent and printed, and holds nothing from before the start."""
    directory = tmp_path_factory.mktemp("logs", numbered=True)
    write(directory, data)
    told = _logs.tail(str(directory), "w", (start, 0))
    expected = data[start:].decode("utf-8", "replace").splitlines()[-10:]
    head = f"the last lines of {directory / 'w.out'}:\n"
    told.encode("utf-8")
    assert told == (head + "".join(f"    {line}\n" for line in expected) if expected else "")


def test_sizes_of_files_that_do_not_exist_are_nothing(tmp_path):
    """Also where one of the two is there, or the directory is not."""
    assert _logs.sizes(str(tmp_path), "w") == _logs.sizes(str(tmp_path / "gone"), "w") == (0, 0)
    write(tmp_path, None, b"123")
    assert _logs.sizes(str(tmp_path), "w") == (0, 3)


def test_a_log_that_may_not_be_read_is_not_quoted(tmp_path, monkeypatch):
    """It is no second failure."""
    write(tmp_path, b"secret\n")

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert _logs.tail(str(tmp_path), "w") == ""


def test_what_is_no_file_is_not_quoted(tmp_path):
    """A pipe would be waited for, or what is in it taken from who reads it."""
    os.mkfifo(tmp_path / "w.out")
    write(tmp_path, None, b"trouble\n")
    sizes, told = without_waiting(lambda: (_logs.sizes(str(tmp_path), "w"), _logs.tail(str(tmp_path), "w")))
    assert sizes == (0, 8)
    assert "trouble" in told and "w.out" not in told


def test_what_becomes_a_pipe_meanwhile_is_not_waited_for(tmp_path, monkeypatch):
    """Between the look at it and the opening."""
    os.mkfifo(tmp_path / "w.out")
    monkeypatch.setattr(_logs, "is_regular", lambda path: True)
    assert without_waiting(lambda: _logs.tail(str(tmp_path), "w")) == ""


# -- the whole --------------------------------------------------------------------------------------------


@workers.deed
def say_all_and_fail(value, worker):
    """Write in each way that there is, then fail."""
    print("printed")
    print("an error", file=sys.stderr)
    os.write(1, b"by number\n")
    subprocess.run(["sh", "-c", "echo program; echo trouble >&2"], check=True)
    raise ZeroDivisionError("at the end")


def test_a_worker_writes_to_its_log_in_each_way_and_at_each_trial(tmp_path, capfd):
    """In order, nothing of it elsewhere; the failure quotes the last trial alone."""
    boss = taylorism.Boss(scheduler=workers.slots(1), on_error="collect", max_trials=3, log_dir=tmp_path / "logs")
    boss.set_instructions({}, [{"deed": "say_all_and_fail", "name": "a/b"}])
    boss.wait_till_finished()
    report = boss.get_report()
    out, err = (content(path) for path in _logs.paths(str(tmp_path / "logs"), "a/b"))
    assert out == "printed\nby number\nprogram\n" * 3 and err.count("an error\n") == err.count("trouble\n") == 3
    assert report["workers_info"]["a/b"]["trials"] == 3
    told = str(report["errors"]["a/b"].__cause__)
    assert told.count("printed") == told.count("trouble") == 1 and "a%2Fb.out" in told
    assert "printed" not in capfd.readouterr().out


@workers.deed
def say_and_fail(value, worker):
    """Write, then fail."""
    os.write(1, b"working\n")
    raise ZeroDivisionError("at the end")


@pytest.mark.parametrize("read", [True, False])
def test_a_log_that_is_a_pipe_holds_nobody_up(tmp_path, read):
    """Whether somebody follows it or nobody does, who fails is told of and the others are done."""
    os.mkfifo(tmp_path / "a.out")
    reader = os.open(tmp_path / "a.out", os.O_RDONLY | os.O_NONBLOCK) if read else None
    boss = taylorism.Boss(scheduler=workers.slots(1), on_error="collect", log_dir=tmp_path, stop_grace=0)
    try:
        boss.set_instructions([{"deed": "say_and_fail", "name": "a"}, {"deed": "say_and_fail", "name": "b"}])
        boss.wait_till_finished(20)
        said = os.read(reader, 100) if read else b""
    finally:
        boss.stop_them_working()
        os.kill(boss._process.pid, signal.SIGKILL) if boss._process.is_alive() else None
        os.close(reader) if read else None
    assert said == (b"working\n" if read else b"")
    assert isinstance(boss.errors["a"], ZeroDivisionError if read else OSError)
    assert isinstance(boss.errors["b"], ZeroDivisionError)
