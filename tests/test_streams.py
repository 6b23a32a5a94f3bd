"""Streams: what the past of a process holds, and readers that take nothing, block nobody."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import select
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest
from forked import exit_code, fork, in_fork

from taylorism import _streams


def text_stream(fd, **more):
    """Make a stream as the interpreter makes its own."""
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(fd, "w", closefd=False)), encoding="utf-8", **more)


def nonblocking_pipe():
    """Return a pipe whose read end does not wait."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return reader, writer


def fill(fd):
    """Fill a pipe until it takes nothing more."""
    os.set_blocking(fd, False)
    for size in (65536, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(fd, b"." * size)
    os.set_blocking(fd, True)


def drain(fd):
    """Read all that is there."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while more := os.read(fd, 65536):
            data += more
    return data


def output_of(write):
    """Return what a function writes in a fork whose standard output and error are a pipe."""
    reader, writer = os.pipe()

    def child():
        os.close(reader)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        sys.stdout = sys.__stdout__ = text_stream(1)
        sys.stderr = sys.__stderr__ = text_stream(2, line_buffering=True)
        write()

    pid = fork(child)
    os.close(writer)
    with open(reader, "rb") as file:
        data = file.read()
    assert exit_code(pid) == 0
    return data.decode()


@pytest.fixture(params=["made ahead", "made in the fork"])
def prepare(request):
    """Give what is called before a fork of main, and what is called where there was none (`spawn`)."""

    def clear():
        _streams._laid_out.clear()
        _streams._empty.clear()

    clear()
    yield _streams.lay_out if request.param == "made ahead" else clear
    clear()


def test_renewed_streams_are_new_objects_on_the_same_descriptors(prepare):
    """What is printed arrives; what the old object held does not come twice."""

    def write():
        sys.stdout.write("held by main|")
        prepare()
        old = sys.stdout
        _streams.renew()
        assert sys.stdout is not old and sys.stdout is sys.__stdout__ and sys.stdout.fileno() == 1
        print("printed", end="|")
        print("told", end="|", file=sys.stderr)
        _streams.flush_quietly()

    assert output_of(write) == "told|printed|" or output_of(write) == "printed|told|"


def test_a_stream_whose_lock_is_held_blocks_nobody():
    """A thread of main may have been in the middle of a print when the listener was forked."""

    def write():
        reader, writer = os.pipe()
        fill(writer)
        sys.stdout = text_stream(writer)
        sys.stdout.write("x")
        stuck = threading.Thread(target=sys.stdout.flush, daemon=True)  # holds the lock for ever
        stuck.start()

        def child():
            _streams.renew()
            os.dup2(2, sys.stdout.fileno())
            print("alive")
            _streams.flush_quietly()

        assert exit_code(fork(child)) == 0
        os.read(reader, 65536)
        stuck.join()

    assert output_of(write) == "alive\n"


def test_encoding_errors_and_buffering_are_kept(prepare):
    """A program that chose latin-1, or unbuffered lines, finds them in its workers."""

    def check():
        reader, writer = nonblocking_pipe()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(writer, "w")), encoding="latin-1", errors="replace", line_buffering=True
        )
        prepare()
        _streams.renew()
        sys.stdout.write("é€\n")
        return drain(reader)

    assert in_fork(check) == b"\xe9?\n"


def test_an_unbuffered_stream_stays_unbuffered(prepare):
    """Under ``python -u`` or PYTHONUNBUFFERED, what was printed is out before a worker is killed."""

    def check():
        reader, writer = nonblocking_pipe()
        sys.stdout = io.TextIOWrapper(io.FileIO(writer, "w"), encoding="utf-8", write_through=True)
        prepare()
        _streams.renew()
        sys.stdout.write("no newline, no flush")
        return drain(reader)

    assert in_fork(check) == b"no newline, no flush"


@pytest.mark.parametrize("stream", [None, io.StringIO(), "closed", "detached"])
def test_unusual_streams_are_left_alone(stream, prepare):
    """None (pythonw, daemons), a StringIO, a closed file: renewing them is no error."""

    def check():
        value = stream
        if isinstance(value, str):
            value = text_stream(os.open(os.devnull, os.O_WRONLY))
            getattr(value, "close" if stream == "closed" else "detach")()
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = value
        prepare()
        _streams.renew()
        assert sys.stdout is value and sys.stderr is value
        _streams.flush_quietly()

    in_fork(check)


def test_one_object_for_both_streams_stays_one(prepare):
    """``sys.stderr = sys.stdout`` keeps the order of what is written."""

    def check():
        reader, writer = nonblocking_pipe()
        sys.stdout = sys.stderr = text_stream(writer)
        prepare()
        _streams.renew()
        print("one", file=sys.stdout)
        print("two", file=sys.stderr)
        _streams.flush_quietly()
        return sys.stdout is sys.stderr, drain(reader)

    assert in_fork(check) == (True, b"one\ntwo\n")


def test_handlers_of_logging_get_the_new_streams(prepare):
    """Those on the standard error, and those on files; in every logger."""

    def check():
        reader, writer = nonblocking_pipe()
        sys.stderr = text_stream(writer)
        file_reader, file_writer = nonblocking_pipe()
        handlers = [logging.StreamHandler(), logging.FileHandler(f"/dev/fd/{file_writer}")]
        old = [handler.stream for handler in handlers]
        for handler, name in zip(handlers, (None, "some.logger"), strict=True):
            logging.getLogger(name).addHandler(handler)
        prepare()
        _streams.renew()
        assert handlers[0].stream is sys.stderr
        assert all(handler.stream is not before for handler, before in zip(handlers, old, strict=True))
        logging.getLogger("some.logger").error("message")
        return drain(reader), drain(file_reader)

    assert in_fork(check) == (b"message\n", b"message\n")


def test_a_handler_without_a_stream_is_no_trouble():
    """`logging.lastResort`, a FileHandler with a delay, one whose stream is None."""

    def check():
        late = logging.FileHandler(os.devnull, delay=True)
        handlers = [late, logging.StreamHandler(io.StringIO())]
        handlers[1].stream = None
        for handler in handlers:
            logging.getLogger().addHandler(handler)
        logging.getLogger().addHandler(logging.lastResort)
        _streams.renew()
        assert late.stream is None

    in_fork(check)


class Poll:
    """A `select.poll` that notes for how long it was asked to wait, in milliseconds."""

    def __init__(self, waits):
        self.waits = waits
        self.real = select.poll()
        self.register = self.real.register

    def poll(self, timeout):
        """Wait, and note it."""
        self.waits.append(timeout)
        return self.real.poll(timeout)


def test_a_reader_who_takes_nothing_is_given_up_and_taken_back(monkeypatch):
    """The listener drops what nobody takes, and writes again once there is room."""
    monkeypatch.setattr(_streams, "PATIENCE", 0.02)

    def check():
        reader, writer = nonblocking_pipe()
        sys.stderr = text_stream(writer, line_buffering=True)
        _streams.renew()
        fill(writer)
        waits = []
        _streams.select = SimpleNamespace(
            poll=lambda: Poll(waits), POLLOUT=select.POLLOUT, PIPE_BUF=select.PIPE_BUF
        )
        for _ in range(50):
            print("dropped " * 1000, file=sys.stderr)
        assert [wait for wait in waits if wait] == [20.0], "the patience is lost once and for all"
        assert b"dropped" not in drain(reader)
        print("written", file=sys.stderr)
        return drain(reader)

    assert in_fork(check) == b"written\n"


def test_more_than_a_pipe_holds_is_cut_not_waited_for(monkeypatch):
    """A long traceback to a stuck reader ends with what found room."""
    monkeypatch.setattr(_streams, "PATIENCE", 0.02)

    def check():
        reader, writer = nonblocking_pipe()
        sys.stderr = text_stream(writer)
        _streams.renew()
        sys.stderr.write("x" * 500_000)
        sys.stderr.flush()
        return len(drain(reader))

    assert 4096 <= in_fork(check) < 500_000


def test_a_worker_writes_as_any_program_does(monkeypatch):
    """After `wait_like_any_other`, a slow reader gets every byte."""
    monkeypatch.setattr(_streams, "PATIENCE", 0.001)

    def write():
        _streams.renew()
        _streams.wait_like_any_other()
        for number in range(20_000):
            print(f"line {number:06d}")
        _streams.flush_quietly()

    assert output_of(write) == "".join(f"line {number:06d}\n" for number in range(20_000))


@pytest.mark.parametrize("closed", [False, True])
def test_the_standard_input_is_empty(closed, prepare):
    """What main reads is not for its workers; also where main has none."""

    def check():
        if closed:
            os.close(0)
            sys.stdin = None
        prepare()
        before = len(os.listdir("/proc/self/fd"))
        _streams.empty_stdin()
        assert sys.stdin.read() == "" and os.read(0, 10) == b""
        assert os.readlink("/proc/self/fd/0") == "/dev/null" and os.get_inheritable(0)
        assert len(os.listdir("/proc/self/fd")) == before + closed

    in_fork(check)


def test_what_was_made_ahead_is_used_as_long_as_it_fits():
    """It is not made again for the next Boss; a stream that was replaced, or changed its manner, gets another."""

    def check():
        first = sys.stdout = text_stream(os.open(os.devnull, os.O_WRONLY))
        twins = []
        changes = [lambda: first.reconfigure(errors="replace"), lambda: setattr(sys, "stdout", other)]
        for change in (int, int, *changes):
            other = text_stream(os.open(os.devnull, os.O_WRONLY))
            change()
            _streams.lay_out()
            twins.append({id(stream()): twin for stream, twin in _streams._laid_out}[id(sys.stdout)])
        kept = [stream() for stream, _ in _streams._laid_out]
        _streams.renew()
        assert sys.stdout is twins[-1] and first not in kept
        return [twin is before for before, twin in itertools.pairwise(twins)]

    assert in_fork(check) == [True, False, False]


def test_what_was_made_ahead_keeps_no_stream_of_the_user_s():
    """One that is replaced is closed as it would be without us."""

    def check():
        sys.stdout = text_stream(os.open(os.devnull, os.O_WRONLY))
        gone = weakref.ref(sys.stdout)
        _streams.lay_out()
        sys.stdout = None
        return gone() is None

    assert in_fork(check)


def test_flush_is_quiet_whatever_has_become_of_the_streams():
    """Closed by the task, replaced by None, or without a reader."""

    def check():
        reader, writer = os.pipe()
        os.close(reader)
        broken = text_stream(writer)
        broken.write("nobody reads this")
        closed = text_stream(writer)
        closed.close()
        for stream in (None, closed, broken, object()):
            sys.stdout = sys.stderr = stream
            _streams.flush_quietly()
        os._exit(0)

    assert exit_code(fork(check)) == 0


def test_a_closed_standard_error_takes_everything():
    """What Python, compiled code and programs write there is gone; standard output is not touched."""

    def write():
        sys.stderr = text_stream(1)  # as under pytest, where it is no descriptor 2
        handler = logging.StreamHandler()
        logging.getLogger().addHandler(handler)
        _streams.close_stderr()
        _streams.renew()
        print("lost", file=sys.stderr, flush=True)
        logging.getLogger("lost").error("lost")
        os.system("echo lost >&2; echo kept")
        print("kept", flush=True)

    assert output_of(write) == "kept\nkept\n"


def test_a_standard_error_that_was_closed_can_be_closed():
    """By a daemon: no descriptor 2 is there, and the next file must not become it."""

    def check():
        os.close(2)
        _streams.close_stderr()
        reader, writer = os.pipe()
        os.write(2, b"lost")
        return os.readlink("/proc/self/fd/2"), 2 in (reader, writer)

    assert in_fork(check) == (os.devnull, False)
