"""The channel: frames come whole, once and in order, whatever sizes, buffers, deaths and signals do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import pickletools
import random
import resource
import select
import signal
import socket
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from forked import Injected, Injector, exit_code, fork, in_fork, storm
from hypothesis import given, settings
from hypothesis import strategies as st

from taylorism import _channel
from taylorism._channel import (
    LARGE,
    Channel,
    ChannelClosed,
    Frame,
    Inflow,
    Outflow,
    encode,
    is_inert,
    open_object,
    pack_object,
    write_all,
)
from taylorism._descriptors import above_stdio


def tiny_sockets():
    """Return two connected sockets with the smallest buffers that the system gives."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return pair


@contextlib.contextmanager
def flows(kind):
    """Give an Outflow and the Inflow at its other end, over a pipe or sockets of that kind."""
    if kind == "pipe":
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    else:
        pair = tiny_sockets() if kind == "tiny" else socket.socketpair()
        reader, writer = (sock.detach() for sock in pair)
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    try:
        yield Outflow(writer), Inflow(reader)
    finally:
        os.close(reader)
        os.close(writer)


def bytes_of(frames):
    """Return the stream that these frames make."""
    return b"".join(bytes(part) for head, segments in frames for part in encode(head, segments))


def told(inflow):
    """Take all frames that are ready, in a form that compares."""
    ready = [inflow.ready.pop(number) for number in sorted(inflow.ready)]
    return [(frame.head, [bytes(segment) for segment in frame.segments]) for frame in ready]


def carry(outflow, inflow):
    """Write and read in turns until all has come; return the frames."""
    got = []
    while not outflow.flush():
        inflow.pull()
        got += told(inflow)
    inflow.pull(to_the_end=True)
    return got + told(inflow)


SIZES = (0, 1, 7, 8, 4095, 4096, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE)
BODIES = st.lists(st.one_of(st.sampled_from(SIZES), st.integers(0, 300)), max_size=6)


@settings(max_examples=30, deadline=None)
@given(st.lists(BODIES, max_size=6), st.sampled_from(["pipe", "tiny", "wide"]), st.randoms(use_true_random=True))
def test_frames_of_all_sizes_come_whole_and_in_order(bodies, kind, chance):
    """What comes out is what went in, through pipes and sockets, with buffers tiny and wide."""
    frames = [
        (("head", number, "x" * chance.choice([0, 10, 5000])), [chance.randbytes(n) for n in body])
        for number, body in enumerate(bodies)
    ]
    with flows(kind) as (outflow, inflow):
        for head, segments in frames:
            outflow.push(encode(head, segments))
        assert carry(outflow, inflow) == frames
        assert outflow.empty and not inflow.ended


@pytest.mark.parametrize("count", [255, 256, 257, 1500])
def test_more_buffers_than_one_call_takes(count, monkeypatch):
    """A frame of more large segments than the system takes at once is written in several goes."""
    monkeypatch.setattr(_channel, "LARGE", 16)
    segments = [bytes([number % 256]) * (16 + number % 5) for number in range(count)]
    with flows("wide") as (outflow, inflow):
        outflow.push(encode("many", segments))
        assert carry(outflow, inflow) == [("many", segments)]


def test_thousands_of_small_frames_and_a_huge_one_between():
    """A frame of 40 MB among thousands of small ones disturbs neither order nor content."""
    huge = os.urandom(1 << 20) * 40
    frames = [(n, [b"s" * (n % 9)]) for n in range(2000)]
    frames.insert(1000, ("huge", [b"before", huge, b"after"]))
    with flows("wide") as (outflow, inflow):
        for head, segments in frames:
            outflow.push(encode(head, segments))
        assert carry(outflow, inflow) == frames


def test_a_writer_that_writes_byte_by_byte():
    """A frame is a message at its last byte, not before."""
    frames = [("one", [b"abc"]), ("two", []), ("three", [b"", b"x" * 100])]
    stream = bytes_of(frames)
    ends = [len(bytes_of(frames[: n + 1])) for n in range(3)]
    with flows("wide") as (outflow, inflow):
        for position, byte in enumerate(stream, start=1):
            os.write(outflow.fd, bytes([byte]))
            inflow.pull()
            assert told(inflow) == [frames[n] for n in range(3) if ends[n] == position]


@pytest.mark.parametrize("to_the_end", [False, True])
def test_a_writer_that_dies_at_any_byte(to_the_end):
    """Whole frames are messages, a torn one is none, and the end is noted."""
    frames = [("one", [b"abc", b"d"]), ("two", []), ("three", [b"x" * 50])]
    stream = bytes_of(frames)
    ends = [len(bytes_of(frames[: n + 1])) for n in range(3)]
    for length in range(len(stream) + 1):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.write(writer, stream[:length])
        os.close(writer)
        inflow = Inflow(reader)
        while not inflow.ended:
            inflow.pull(to_the_end)
        assert told(inflow) == [frames[n] for n in range(3) if ends[n] <= length]
        inflow.pull()  # nothing happens any more
        os.close(reader)


def test_a_torn_large_segment_is_no_message():
    """A peer that dies in the middle of a segment of its own leaves no frame."""
    stream = bytes_of([("whole", [b"1"]), ("torn", [os.urandom(2 * LARGE)])])
    with flows("wide") as (outflow, inflow):
        os.write(outflow.fd, stream[:-1])
        inflow.pull()
        assert told(inflow) == [("whole", [b"1"])]


def test_the_end_of_a_reader_with_unread_data_is_noted():
    """ECONNRESET is an end, after all that came before it."""
    one, other = Channel.pair()
    one.outflow.push(encode("last words"))
    one.outflow.flush()
    other.outflow.push(encode("never read"))
    other.outflow.flush()
    one.close()
    while not other.inflow.ended:
        other.inflow.pull()
    assert told(other.inflow) == [("last words", [])]
    other.close()


def test_a_writer_learns_that_its_reader_is_gone():
    """ChannelClosed, not OSError, and again at each further attempt."""
    one, other = Channel.pair()
    other.close()
    one.outflow.push(encode("who listens?"))
    for _ in range(2):
        with pytest.raises(ChannelClosed):
            one.outflow.flush()
    one.close()


def test_a_reader_that_is_gone_kills_no_writer_with_the_default_of_sigpipe():
    """Scripts that reset SIGPIPE, for ``| head``, get ChannelClosed like any other."""

    def write():
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        one, other = Channel.pair()
        other.close()
        one.outflow.push(encode("who listens?"))
        with contextlib.suppress(ChannelClosed):
            one.outflow.flush()

    assert exit_code(fork(write)) == 0


# -- objects ------------------------------------------------------------------------------------------


def through(value):
    """Send `value` as the workers do their reports."""
    with flows("wide") as (outflow, inflow):
        outflow.push(encode("report", pack_object(value)))
        frames = []
        while not frames:
            outflow.flush()
            inflow.pull()
            frames = list(inflow.ready.values())
    return open_object(frames[0].segments)


@pytest.mark.parametrize("dtype", ["?", "i1", ">f8", "f4", "c16", "M8[s]", "S5", "i4,f8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (300, 400), (200, 0)])
def test_arrays_come_equal_and_writable(dtype, shape):
    """Arrays of every kind keep dtype, shape and values, and may be written to."""
    array = np.zeros(shape, dtype=dtype)
    array.view("u1" if array.ndim else array.dtype)[...] = 1 if array.ndim else array
    came = through({"a": array})["a"]
    assert came.dtype == array.dtype and came.shape == array.shape
    assert came.tobytes() == array.tobytes()
    came[...] = array


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_travel_out_of_band_and_share_no_memory(order):
    """A large array is a segment of its own, uncopied before it is sent, and independent once it came."""
    array = np.asfortranarray(np.random.rand(300, 200)) if order == "F" else np.random.rand(300, 200)
    body, segment = pack_object(array)
    assert len(body) < 1000 and np.shares_memory(np.frombuffer(segment, "u1"), array)
    came = through([array, array.T, array[::2, ::3]])
    assert np.array_equal(came[0], array) and np.array_equal(came[2], array[::2, ::3])
    came[0][:] = 0
    assert array.any() and came[2].any()


def test_objects_of_mixed_sizes_come_equal():
    """Small and large arrays, bytes and text in one report."""
    value = {
        "small": np.arange(3), "large": np.arange(100_000), "bytes": bytes(200_000), "text": "é" * 99,
        "array": bytearray(100_000), "none": None, "edge": np.zeros(LARGE, "u1"),
    }  # fmt: skip
    came = through(value)
    assert came.keys() == value.keys()
    assert all(np.array_equal(came[key], value[key]) for key in value)


def test_what_cannot_be_pickled_is_told_before_anything_is_sent():
    """`pack_object` raises what pickle raises."""
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
        pack_object([np.zeros(100_000), threading.Lock()])


def test_segments_of_any_flat_buffer_type_are_taken():
    """Bytes, bytearrays and flat views of arrays, small, large and empty."""
    array = np.arange(20_000)
    segments = [b"", bytearray(b"ab"), memoryview(b"cd"), pickle.PickleBuffer(array).raw(), memoryview(b"")]
    with flows("wide") as (outflow, inflow):
        outflow.push(encode("all", segments))
        assert carry(outflow, inflow) == [("all", [b"", b"ab", b"cd", array.tobytes(), b""])]


def test_segments_are_writable_and_no_frame_sees_those_of_another():
    """Small or large, each frame is on a buffer of its own."""
    with flows("wide") as (outflow, inflow):
        for _ in range(3):
            outflow.push(encode("x", [b"small", b"", bytes(LARGE + 5)]))
            outflow.push(encode("x", [b"small", b"again"]))
        while len(inflow.ready) < 6:
            outflow.flush()
            inflow.pull()
        frames = [inflow.ready.pop(number) for number in range(6)]
    assert not any(segment.readonly for frame in frames for segment in frame.segments)
    for frame in frames[::2]:
        for segment in frame.segments:
            segment[:] = b"!" * len(segment)
    assert [bytes(frame.segments[0]) for frame in frames] == [b"!!!!!", b"small"] * 3


# -- a blocking writer --------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[0], [10, 20], [LARGE] * 5, [3 << 20], [1, 2 << 20, 1, 1 << 20, 5]])
@pytest.mark.parametrize("widened", [True, False])
def test_write_all_writes_all(sizes, widened):
    """A worker's report comes whole through its pipe, whether the system widens it or refuses."""
    segments = [bytes([n + 1]) * size for n, size in enumerate(sizes)]
    reader, writer = os.pipe()

    def refuse(*args):
        raise PermissionError("Operation not permitted")

    def write():
        os.close(reader)
        if not widened:
            _channel.fcntl.fcntl = refuse
        write_all(writer, encode("report", segments))

    pid = fork(write)
    os.close(writer)
    os.set_blocking(reader, False)
    inflow = Inflow(reader)
    while not inflow.ended:
        select.select([reader], [], [])
        inflow.pull()
    os.close(reader)
    assert exit_code(pid) == 0
    assert told(inflow) == [("report", segments)]


def test_write_all_to_nobody_is_an_error():
    """A worker whose listener is gone is told."""
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(OSError):
        write_all(writer, encode("report", [b"x" * 3_000_000]))
    os.close(writer)


# -- both ways ----------------------------------------------------------------------------------------


def test_two_ends_that_write_at_the_same_time_do_not_wait_for_each_other():
    """20 MB each way through small buffers, by one thread."""
    ends = [Channel(sock) for sock in tiny_sockets()]
    data = [os.urandom(1000) * 2_000, os.urandom(1000) * 2_000]
    for end, payload in zip(ends, data, strict=True):
        end.outflow.push(encode("x", [payload]))
    while not all(end.inflow.ready for end in ends):
        for end in ends:
            end.outflow.flush()
            end.inflow.pull()
    assert told(ends[0].inflow) == [("x", [data[1]])]
    assert told(ends[1].inflow) == [("x", [data[0]])]
    for end in ends:
        end.close()
        end.close()  # harmless


def test_wait_returns_for_each_reason():
    """There is something to read, room to write, another descriptor, or the time is over."""
    one, other = (Channel(sock) for sock in tiny_sockets())
    reader, writer = os.pipe()
    one.wait(0.0, reader)
    one.wait(0.001)
    one.outflow.push(encode("x", [b"y" * 100_000]))
    one.wait(None)  # there is room
    while not one.outflow.flush():
        one.wait(0.0)
        other.inflow.pull()
    other.outflow.push(encode("z"))
    other.outflow.flush()
    one.wait(None)  # there is something to read
    one.inflow.pull()
    assert told(one.inflow) == [("z", [])]
    os.write(writer, b"!")
    one.wait(None, reader)
    other.close()
    one.wait(None)  # the end of the other side
    one.inflow.pull()
    assert one.inflow.ended
    one.wait(0.0)  # and once that is known, only the time counts
    for fd in (reader, writer):
        os.close(fd)
    one.close()


def test_descriptors_stay_clear_of_the_standard_streams():
    """With the standard streams closed, the ends of a channel are still above 2, and not inherited."""

    def check():
        for fd in range(3):
            os.close(fd)
        ends = Channel.pair()
        fds = [end.fd for end in ends]
        assert all(fd > 2 and not os.get_inheritable(fd) for fd in fds)
        for fd in range(3):
            with pytest.raises(OSError):
                os.fstat(fd)

    in_fork(check)


def test_above_stdio_keeps_what_is_already_above():
    """A number above 2 is kept, and stays open."""
    fd = os.open(os.devnull, os.O_RDONLY)
    assert above_stdio(fd) == fd
    os.fstat(fd)
    os.close(fd)


def test_a_channel_needs_few_descriptors():
    """A pair is two descriptors: nothing else is opened, even at the limit."""

    def check():
        used = len(os.listdir("/proc/self/fd"))
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, highest + 3))
        ends = Channel.pair()
        ends[0].outflow.push(encode("x"))
        ends[0].outflow.flush()
        ends[1].inflow.pull()
        assert told(ends[1].inflow) == [("x", [])]
        return used

    in_fork(check)


# -- signals ------------------------------------------------------------------------------------------

FEW = [("a", [b"xyz"]), ("b", []), ("large", [bytes(range(256)) * 300, b"", b"tail"]), ("c", [b"1"])]


def insist(step):
    """Call `step` until it comes through without an exception out of a handler."""
    while True:
        try:
            return step()
        except Injected:
            pass


def every_step(run, stride=1):
    """Yield the result of `run`, with an injection at one instruction of the channel after another."""
    counter = Injector(_channel)
    yield run(counter)
    assert counter.count > 100
    for at in range(1, counter.count, stride):
        yield run(Injector(_channel, at))


def take(inflow, taken):
    """Take all frames that are ready, as main does: one that comes a second time has the same number."""
    for number in sorted(inflow.ready):
        frame = inflow.ready.pop(number)
        taken[number] = (frame.head, [bytes(segment) for segment in frame.segments])


def in_order(taken):
    """Return the frames by their numbers, of which none is missing."""
    assert sorted(taken) == [*range(len(taken))]
    return [taken[number] for number in sorted(taken)]


def read_with(injector):
    """Transfer some frames, in small pieces, to a reader that is interrupted once."""
    stream, taken = bytes_of(FEW), {}
    with flows("wide") as (outflow, inflow):
        sent = 0
        while sent < len(stream):
            step = 5 if sent < 300 else 30_000
            os.write(outflow.fd, stream[sent : sent + step])
            sent += step
            with contextlib.suppress(Injected):
                injector.run(inflow.pull)
            take(inflow, taken)
        inflow.pull(to_the_end=True)
        take(inflow, taken)
    return in_order(taken)


def test_a_reader_interrupted_at_any_instruction_loses_nothing():
    """An exception between any two instructions of the channel loses no byte and doubles none."""
    assert all(got == FEW for got in every_step(read_with, stride=41))


def test_a_reader_interrupted_at_any_instruction_of_a_small_frame_loses_nothing():
    """The same, at every single instruction, for the frames of an ordinary report."""

    def run(injector):
        with flows("wide") as (outflow, inflow):
            os.write(outflow.fd, bytes_of(FEW[:2]))
            with contextlib.suppress(Injected):
                injector.run(inflow.pull)
            taken = {}
            take(inflow, taken)
            inflow.pull(to_the_end=True)
            take(inflow, taken)
            return in_order(taken)

    assert all(got == FEW[:2] for got in every_step(run))


def test_a_reader_interrupted_at_the_end_of_the_stream_sees_it_all_the_same():
    """The end of the stream is noted, whenever the exception comes."""

    def run(injector):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.write(writer, bytes_of(FEW[:2]))
        os.close(writer)
        inflow = Inflow(reader)
        with contextlib.suppress(Injected):
            injector.run(lambda: inflow.pull(to_the_end=True))
        taken = {}
        take(inflow, taken)
        inflow.pull(to_the_end=True)
        take(inflow, taken)
        os.close(reader)
        assert inflow.ended
        return in_order(taken)

    assert all(got == FEW[:2] for got in every_step(run))


def test_a_writer_interrupted_at_any_instruction_loses_nothing():
    """The same for the writing side, with partial writes."""

    def run(injector):
        taken = {}
        with flows("tiny") as (outflow, inflow):
            for head, segments in FEW:
                outflow.push(encode(head, segments))

            def turns():
                while not outflow.flush():
                    inflow.pull()
                    take(inflow, taken)

            with contextlib.suppress(Injected):
                injector.run(turns)
            turns()
            inflow.pull(to_the_end=True)
            take(inflow, taken)
        return in_order(taken)

    assert all(got == FEW for got in every_step(run, stride=7))


def sample(number, chance):
    """Make the frame of that number: head and segments that prove themselves."""
    sizes = chance.choice([(0,), (3, 5), (900, 0, 40), (LARGE, 17), (LARGE - 1,), (150_000, 5), (2_000_000,)])
    segments = [chance.randbytes(size) for size in sizes]
    return (number, [zlib.crc32(segment) for segment in segments]), segments


def proven(frame):
    """Return the number of a frame whose segments are what its head says."""
    number, sums = frame.head
    assert sums == [zlib.crc32(segment) for segment in frame.segments]
    return number


def test_a_reader_under_a_storm_of_signals_loses_nothing():
    """A real signal raises hundreds of times while a forked writer sends; every frame comes once."""
    here, there = (Channel(sock) for sock in tiny_sockets())
    reader, enough = os.pipe()

    def write():
        here.close()
        os.close(enough)
        chance, number = random.Random(1), 0
        while not select.select([reader], [], [], 0)[0]:
            there.outflow.push(encode(*sample(number, chance)))
            number += 1
            while not there.outflow.flush():
                there.wait(None)
        there.outflow.push(encode((-number, []), []))
        while not there.outflow.flush():
            there.wait(None)

    pid = fork(write)
    there.close()
    os.close(reader)
    frames: dict[int, Frame] = {}
    with storm(_channel) as hits:
        while not here.inflow.ended:
            with contextlib.suppress(Injected):
                here.wait(1.0)
                here.inflow.pull()
            for number in sorted(here.inflow.ready):
                frames[number] = here.inflow.ready[number]
                here.inflow.ready.pop(number)
            if len(hits) > 400 and enough >= 0:
                os.close(enough)
                enough = -1
    here.close()
    assert exit_code(pid) == 0
    numbers = [proven(frames[position]) for position in sorted(frames)]
    assert numbers == [*range(len(numbers) - 1), -(len(numbers) - 1)]
    assert len(set(hits)) > 5, "the signals always came at the same place"


def test_a_writer_under_a_storm_of_signals_loses_nothing():
    """A real signal raises hundreds of times while frames are sent to a forked reader; every one comes once."""
    here, there = (Channel(sock) for sock in tiny_sockets())

    def read():
        here.close()
        numbers = []
        while not there.inflow.ended:
            there.wait(None)
            there.inflow.pull()
            for position in sorted(there.inflow.ready):
                numbers += [proven(there.inflow.ready.pop(position))]
        assert numbers == [*range(len(numbers) - 1), -(len(numbers) - 1)], numbers

    pid = fork(read)
    there.close()
    chance, number = random.Random(2), 0
    with storm(_channel) as hits:
        while len(hits) < 400:
            frame = insist(lambda: encode(*sample(number, chance)))
            here.outflow._waiting.append(frame)  # what `push` does, without a handler in between
            number = number + 1
            while not insist(here.outflow.flush):
                insist(lambda: here.wait(1.0))
    here.outflow.push(encode((-number, []), []))
    while not here.outflow.flush():
        here.wait(None)
    here.close()
    assert exit_code(pid) == 0
    assert len(set(hits)) > 5, "the signals always came at the same place"


# -- threads ------------------------------------------------------------------------------------------


def test_a_thread_that_asks_whether_all_is_written_does_not_disturb_the_one_that_writes(monkeypatch):
    """`empty` may be asked by any thread while another is writing: what it computes must not be kept."""
    counted = _channel._Packet.counted
    with flows("tiny") as (outflow, inflow):
        payload = bytes(60_000)
        outflow.push(encode("x", [payload]))
        outflow.flush()
        outflow._packet.noted.append(0)  # the writer is between its system call and the counting

        def interrupted(packet):
            answer = counted(packet)
            monkeypatch.setattr(_channel._Packet, "counted", counted)
            inflow.pull(to_the_end=True)
            outflow.flush()  # the other thread goes on here
            return answer

        monkeypatch.setattr(_channel._Packet, "counted", interrupted)
        assert not outflow.empty
        undisturbed = carry(outflow, inflow) == [("x", [payload])]
    assert undisturbed


def test_frames_pushed_from_many_threads_all_come():
    """`push` may be called from any thread while another one writes."""
    with flows("tiny") as (outflow, inflow):
        def push(name):
            for number in range(300):
                outflow.push(encode((name, number)))

        threads = [threading.Thread(target=push, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        got = []
        while any(thread.is_alive() for thread in threads) or not outflow.empty:
            outflow.flush()
            inflow.pull()
            got += told(inflow)
        for thread in threads:
            thread.join()
        got += carry(outflow, inflow)
    heads = [head for head, _ in got]
    assert all([n for name, n in heads if name == each] == [*range(300)] for each in range(4))
    assert len(heads) == 1200


@pytest.mark.parametrize("value", [None, True, -1, 1.5, 10**40, "text", b"bytes", [1, (2,)], {"a": {2}}, "\n\x93"])
def test_plain_values_are_inert_or_taken_for_more(value):
    """Nothing that is taken for inert looks up a name when it is loaded; most plain values are."""
    packed = pack_object(value)[0]
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(packed)}
    assert opcodes.isdisjoint({"STACK_GLOBAL", "GLOBAL", "EXT1"})
    assert (is_inert(packed) or value == "\n\x93")


@pytest.mark.parametrize("value", [print, OSError("x"), np.arange(3), Path("a"), range(3), complex(1, 2)])
def test_what_is_found_by_name_is_not_inert(value):
    """To load it may import, call and fail."""
    assert not is_inert(pack_object(value)[0])


@pytest.mark.parametrize("packed", [b"", b"?", b"Ncx", b"\x80\x04N", b"\x80\x04\x95"])
def test_what_is_no_pickle_is_not_inert(packed):
    """What does not load, the careful way says what is wrong with."""
    assert not is_inert(packed)
