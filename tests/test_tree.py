"""The tree: who descends from whom, who adopts, and who is killed with his parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

import pytest
from forked import exit_code, fork, in_fork
from workers import until

from taylorism import _tree


def wait_for_ever():
    """Do nothing until the parent ends it."""
    while True:
        signal.pause()


def chain(depth, pids):
    """Be a process with a line of descendants, each of which tells its pid."""
    os.write(pids, f"{os.getpid()}\n".encode())
    if depth:
        fork(chain, depth - 1, pids)
    wait_for_ever()


def read_pids(fd, count):
    """Read that many pids."""
    data = b""
    while data.count(b"\n") < count:
        data += os.read(fd, 1000)
    return [int(line) for line in data.split()]


@pytest.fixture
def family():
    """Give the pids of a child, its child, and its child."""
    reader, writer = os.pipe()
    fork(chain, 2, writer)
    pids = read_pids(reader, 3)
    os.close(reader)
    os.close(writer)
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pids[0], 0)


def test_children_and_descendants_are_found(family):
    """Parents before their children."""
    assert family[0] in _tree.children(os.getpid())
    assert [_tree.children(pid) for pid in family] == [[family[1]], [family[2]], []]
    assert _tree.descendants(family[0]) == family[1:]
    assert [pid for pid in _tree.descendants(os.getpid()) if pid in family] == family


def test_psutil_says_the_same(family):
    """Where the kernel does not list the children of a thread."""
    assert _tree._children_by_psutil(family[0]) == [family[1]]


def test_a_child_that_was_not_reaped_is_still_a_child():
    """Somebody has to wait for it."""
    pid = fork(int)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert pid in _tree.children(os.getpid())
    assert exit_code(pid) == 0
    assert pid not in _tree.children(os.getpid())


def test_a_process_that_is_gone_has_no_children():
    """Nor descendants, and that is no error."""
    pid = fork(int)
    exit_code(pid)
    assert _tree.children(pid) == _tree.descendants(pid) == _tree._children_by_psutil(pid) == []


def test_children_of_all_threads_are_found():
    """A child belongs to the thread that forked it."""

    def check():
        import threading

        reader, writer = os.pipe()
        done = threading.Event()
        started = []

        def start():
            started.append(fork(os.read, reader, 1))
            done.wait()

        thread = threading.Thread(target=start)
        thread.start()
        while not started:
            time.sleep(0.001)
        found = _tree.children(os.getpid())
        done.set()
        thread.join()
        os.write(writer, b"!")
        exit_code(started[0])
        return found == started

    assert in_fork(check)


def test_signals_go_to_all_and_the_dead_are_passed_over(family):
    """Each signal to each process, also when one of them is not there any more."""
    pid = fork(int)
    exit_code(pid)
    _tree.send([pid, *reversed(family)], signal.SIGTERM, signal.SIGCONT)
    ended = os.waitid(os.P_PID, family[0], os.WEXITED | os.WNOWAIT)  # left for the fixture to reap
    assert (ended.si_code, ended.si_status) == (os.CLD_KILLED, signal.SIGTERM)


def test_nobody_is_sent_nothing():
    """No process, or no signal."""
    _tree.send([], signal.SIGKILL)
    _tree.send([os.getpid()])


def test_orphans_are_adopted():
    """A subreaper gets the children of its dead children."""

    def check():
        assert _tree.become_subreaper()
        reader, writer = os.pipe()

        def parent():
            pid = fork(wait_for_ever)
            os.write(writer, f"{pid}\n".encode())

        exit_code(fork(parent))
        (orphan,) = read_pids(reader, 1)
        adopted = _tree.children(os.getpid())
        os.kill(orphan, signal.SIGKILL)
        return adopted == [orphan] and exit_code(orphan) == -signal.SIGKILL

    assert in_fork(check)


def left_behind(child):
    """Return whether a process outlives its parent by more than a moment; `child` is called in it."""
    reader, writer = os.pipe()

    def parent():
        me = os.getpid()

        def life():
            child(me)
            os.write(writer, b"ready\n")
            wait_for_ever()

        fork(life)
        os.close(writer)
        os.read(reader, 6)

    exit_code(fork(parent))
    os.close(writer)
    ended = select.select([reader], [], [], 5.0)[0] and os.read(reader, 10) == b""
    os.close(reader)
    return not ended


def test_a_worker_dies_with_its_listener():
    """The system kills it, whatever it is doing."""
    assert not left_behind(_tree.die_with_parent)


def test_a_parent_that_was_dead_already_is_noticed():
    """The death signal comes too late then; the worker ends by itself."""

    def child():
        _tree.die_with_parent(os.getpid())  # which is not our parent

    assert exit_code(fork(child)) == -signal.SIGKILL


def marked(program):
    """Mark a fork, have it start something, kill it, and return whether `end_marked` ends that."""
    reader, writer = os.pipe()
    told, tell = os.pipe()

    def listener():
        os.close(reader)
        os.close(told)
        mark = _tree.mark_descendants()
        program(writer)
        os.write(tell, f"{mark}\n".encode())
        os._exit(0)

    exit_code(fork(listener))
    os.close(writer)
    mark = os.read(told, 100).decode().strip()
    alive = not select.select([reader], [], [], 0.05)[0]
    _tree.end_marked(mark)
    ended = bool(select.select([reader], [], [], 5.0)[0])
    for fd in (reader, told, tell):
        os.close(fd)
    return alive, ended


def test_programs_of_a_dead_listener_are_found_by_their_environment():
    """What its workers executed has the mark in the environment."""

    def program(writer):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(50)"], pass_fds=[writer])

    assert marked(program) == (True, True)


def test_forks_of_a_dead_listener_are_found_by_their_descriptors():
    """What executed nothing has the environment of main, but the pipe of the listener."""
    assert marked(lambda writer: fork(wait_for_ever)) == (True, True)


def test_without_a_mark_nobody_is_ended():
    """A listener that died before it said anything leaves nothing to look for."""
    _tree.end_marked("")


def test_the_mark_of_another_ends_nobody(family):
    """Only the very mark counts."""
    _tree.end_marked("1:1")
    assert [os.path.exists(f"/proc/{pid}") for pid in family] == [True] * 3


def test_the_mark_takes_no_standard_descriptor():
    """With the standard streams closed, the numbers 0, 1 and 2 stay free."""

    def check():
        for fd in range(3):
            os.close(fd)
        _tree.mark_descendants()
        taken = []
        for fd in range(3):
            try:
                os.fstat(fd)
                taken.append(fd)
            except OSError:
                pass
        return taken

    assert in_fork(check) == []


# -- whether it is busy -----------------------------------------------------------------------------------


def test_a_process_is_busy_unless_it_sleeps():
    """We are, right now; a child that waits is not, until it is halted; nor is one that is gone."""
    pid = fork(signal.pause)
    until(lambda: not _tree.is_busy(pid), "it sleeps")
    assert _tree.is_busy(os.getpid())
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    assert _tree.is_busy(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not _tree.is_busy(pid)


# -- births and families ----------------------------------------------------------------------------------


def ended(pid):
    """Wait until a child has ended, without reaping it."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_birth_is_the_same_at_each_look_and_another_for_each_process():
    """So that a number that is given out again is not taken for who had it before; the dead have none."""
    pid = fork(wait_for_ever)
    time.sleep(0.02)  # the clock of the births ticks a hundred times a second
    later = fork(wait_for_ever)
    assert _tree.birth(pid) == _tree.birth(pid) != ""
    assert _tree.birth(pid) != _tree.birth(later)
    assert int(_tree.birth(os.getpid())) <= int(_tree.birth(pid)) < int(_tree.birth(later))
    for each in (pid, later):
        os.kill(each, signal.SIGKILL)
        exit_code(each)
        assert _tree.birth(each) == ""


def test_a_birth_is_found_whatever_the_program_is_called(tmp_path):
    """The name of a program may have blanks and brackets, which are not those around it."""

    def check():
        program = tmp_path / "a) R 1 (b"
        program.symlink_to("/bin/sleep")
        process = subprocess.Popen([program, "50"])
        born = _tree.birth(process.pid)
        while "a) R" not in (stat := open(f"/proc/{process.pid}/stat").read()):
            assert process.poll() is None
        process.kill()
        process.wait()
        return born.isdigit(), stat.rpartition(")")[2].split()[19] == born

    assert in_fork(check) == (True, True)


def test_a_family_is_its_roots_and_all_below_them(family):
    """Parents before their children; nobody else's children."""
    other = fork(wait_for_ever)
    found = _tree.Family([family[1]])
    assert found.living() == family[1:]
    assert _tree.Family([family[0]]).living() == family
    assert _tree.Family([]).living() == []
    os.kill(other, signal.SIGKILL)
    exit_code(other)


def test_who_is_not_below_us_is_of_no_family():
    """Whatever their number: our parent, ourselves, process 1."""
    assert _tree.Family([os.getppid(), os.getpid(), 1]).living() == []


def test_the_dead_belong_to_a_family_until_they_are_reaped():
    """A worker is not gone before somebody has noted its end."""
    pid = fork(int)
    ended(pid)
    family = _tree.Family([pid])
    assert family.living() == [pid]
    exit_code(pid)
    assert family.living() == []


def test_the_adopted_stay_in_the_family_of_their_dead_parent():
    """They are ours then, like all others, and still known; so are the children that they have afterwards."""

    def check():
        _tree.become_subreaper()
        reader, writer = os.pipe()
        first = fork(chain, 2, writer)
        pids = read_pids(reader, 3)
        stranger = fork(wait_for_ever)
        family = _tree.Family([first])
        assert family.living() == pids
        os.kill(first, signal.SIGKILL)
        exit_code(first)
        assert set(_tree.children(os.getpid())) == {pids[1], stranger}
        assert family.living() == pids[1:]
        os.kill(pids[1], signal.SIGKILL)
        exit_code(pids[1])
        assert family.living() == pids[2:]
        os.kill(pids[2], signal.SIGKILL)
        exit_code(pids[2])
        return family.living() == [] and _tree.children(os.getpid()) == [stranger]

    assert in_fork(check)


def test_what_is_forked_between_two_looks_is_in_the_family():
    """Each look finds it anew; it is known from then on, also without its parent."""

    def check():
        _tree.become_subreaper()
        told, tell = os.pipe()
        go, send = os.pipe()

        def parent():
            os.read(go, 1)
            chain(1, tell)

        pid = fork(parent)
        family = _tree.Family([pid])
        assert family.living() == [pid]
        os.write(send, b"!")
        pids = read_pids(told, 2)
        assert family.living() == pids
        os.kill(pid, signal.SIGKILL)
        exit_code(pid)
        return family.living() == pids[1:]

    assert in_fork(check)


def test_some_more_are_counted_in():
    """Those that were there before stay as they were."""
    pids = [fork(wait_for_ever) for _ in range(3)]
    family = _tree.Family(pids[:1])
    family.add(pids[:2])
    assert family.living() == pids[:2]
    family.add([])
    family.add([pids[0]])
    assert family.living() == pids[:2]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        exit_code(pid)
    assert family.living() == []


def test_a_number_that_was_given_out_again_is_of_another_family(monkeypatch, family):
    """The system has few numbers; the birth tells who it is. Nobody of the new one's is stopped."""
    known = _tree.Family(family[:1])
    assert known.living() == family
    births = {pid: _tree.birth(pid) for pid in family}
    monkeypatch.setattr(_tree, "birth", lambda pid: births[pid] + ("0" if pid == family[1] else ""))
    assert sorted(known.living()) == sorted(family)  # it is below the first, hence one of them all the same
    monkeypatch.setattr(_tree, "birth", lambda pid: births[pid] + "1")
    assert known.living() == []
    monkeypatch.undo()
    assert known.living() == [], "once gone, for ever gone"


def test_who_is_counted_in_anew_is_known_by_the_new_birth(monkeypatch, family):
    """One who had its number before was seen, and has ended since the last look."""
    real = _tree.birth
    monkeypatch.setattr(_tree, "birth", lambda pid: "5")
    known = _tree.Family(family[:1])
    monkeypatch.setattr(_tree, "birth", real)
    known.add(family[:1])
    assert known.living() == family


def test_a_system_that_tells_no_births_has_families(monkeypatch, family):
    """macOS: numbers are taken for what they seem."""
    monkeypatch.setattr(_tree, "birth", lambda pid: "")
    known = _tree.Family(family[:1])
    assert known.living() == known.living() == family


# -- tokens: whose is what we have adopted ----------------------------------------------------------------


def with_token(life):
    """Mark a process as a worker, have it call `life`; return the tokens of what that tells, and those expected."""

    def check():
        told, tell = os.pipe()
        pipe = os.pipe()
        token = str(os.fstat(pipe[0]).st_ino)
        os.close(pipe[0])

        def worker():
            _tree.mark_worker(token)
            life(tell)
            wait_for_ever()

        pid = fork(worker)
        os.close(pipe[1])
        (seen,) = read_pids(told, 1)
        found = _tree.tokens(seen)
        _tree.send([*_tree.descendants(pid), pid], signal.SIGKILL)
        exit_code(pid)
        return token in found, len(found)

    return in_fork(check)


def tell_and_wait(tell):
    """Tell our number."""
    os.write(tell, f"{os.getpid()}\n".encode())
    wait_for_ever()


def run_and_tell(tell, **options):
    """Start a program that tells its number, with no descriptor but that."""
    program = f"import os, time; os.write({tell}, b'%d\\n' % os.getpid()); time.sleep(50)"
    subprocess.Popen([sys.executable, "-c", program], pass_fds=[tell], **options)


def test_a_fork_of_a_worker_carries_its_token():
    """In its descriptors: the pipe of the worker."""
    assert with_token(lambda tell: fork(tell_and_wait, tell))[0]


def test_a_program_of_a_worker_carries_its_token():
    """In its environment: it has none of the descriptors."""
    assert with_token(run_and_tell)[0]


def test_what_is_nobody_s_carries_no_token_of_a_worker(family):
    """Another's process, and one that is gone."""
    pid = fork(int)
    exit_code(pid)
    assert _tree.tokens(pid) == set()
    assert not with_token(lambda tell: run_and_tell(tell, env={}))[0]
    assert "" not in _tree.tokens(family[0])


@pytest.fixture
def restless():
    """Give the pid of a marked program that does nothing but become itself again, in the file system and out."""
    script = 'exec /bin/sh -c "$0" "$0"'
    environment = {"TAYLORISM_BOSS": "1:2", "TAYLORISM_WORKER": "34"}
    program = subprocess.Popen(["/bin/sh", "-c", script, script], env=environment)
    yield program.pid
    program.kill()
    program.wait()


def test_who_becomes_another_program_is_known_meanwhile(restless):
    """In the moment of its execve a process shows no environment, and is no stranger for that."""
    for _ in range(500):
        assert _tree._has_mark(restless, "1:2")
        assert "34" in _tree.tokens(restless)


def test_who_has_no_environment_is_not_waited_for(monkeypatch):
    """A program that was started with an empty one shows none for good."""
    monkeypatch.setattr("taylorism._tree._BECOMING", 60.0)
    program = subprocess.Popen(["/bin/sleep", "60"], env={})
    until(lambda: os.readlink(f"/proc/{program.pid}/exe").endswith("sleep") and _tree._stat(program.pid)[48] != "0")
    started = time.monotonic()
    assert not _tree._has_mark(program.pid, "1:2") and _tree.tokens(program.pid) == set()
    assert time.monotonic() - started < 30
    program.kill()
    program.wait()
