"""A Boss as a cluster of jobmon: each promise of its protocol, and a workflow run by jobmon's own service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from forked import Injected, Injector, in_fork
from workers import HERE, alive, until

import taylorism
from taylorism import BadOption, NeverStartable, _cpus

pytest.importorskip("jobmon.core.cluster_protocol", reason="the extra jobmon is not there")

from jobmon.core.cluster_protocol import ClusterDistributor, ClusterWorkerNode
from jobmon.core.exceptions import RemoteExitInfoNotAvailable

from taylorism.compat import jobmon
from taylorism.compat.jobmon import BossDistributor, BossWorkerNode


class Distributor(BossDistributor):
    """Runs lines of shell, where jobmon's program would be given them as arguments."""

    worker_node_entry_point = ""


@pytest.fixture
def distributor() -> Iterator[Distributor]:
    """Return a distributor that is not started, and is stopped after the test."""
    distributor = Distributor("here", 2, stop_grace=5.0)
    yield distributor
    distributor.stop()


def submit(distributor, *commands, **resources):
    """Submit each command as a job; return their ids."""
    return [distributor.submit_to_batch_distributor(each, "job", resources) for each in commands]


def idle(distributor):
    """Wait until nothing waits or runs."""
    until(lambda: not distributor.get_submitted_or_running(), "the end of the jobs")


def exit_info(distributor, *ids):
    """Return what is said of jobs, once they have ended."""
    until(lambda: not distributor.get_submitted_or_running(ids), f"the end of {ids}")
    return [distributor.get_remote_exit_info(each) for each in ids]


def pid_in(path):
    """Return the number that a job writes into a file, once it is there."""
    return int(until(lambda: path.exists() and path.read_text().strip(), str(path)))


# -- the protocol ---------------------------------------------------------------------------------------


def test_it_has_all_of_the_protocols():
    """Nothing that is abstract is left, and what is inherited builds the command that jobmon expects."""
    distributor = BossDistributor("here")
    assert ClusterDistributor in BossDistributor.__mro__ and ClusterWorkerNode in BossWorkerNode.__mro__
    assert not BossDistributor.__abstractmethods__ | BossWorkerNode.__abstractmethods__
    assert distributor.cluster_name == "here"
    assert Path(distributor.worker_node_entry_point).name == "worker_node_entry_point"
    command = distributor.build_worker_node_command(array_id=3, batch_number=1)
    assert command.startswith("worker_node_array --array_id 3 --batch_number 1")


def test_the_program_is_found_beside_python(monkeypatch, tmp_path):
    """Where the PATH has none; where there is none at all, the error says who installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert BossDistributor("here").worker_node_entry_point == str(
        Path(sys.executable).with_name("worker_node_entry_point")
    )
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ValueError, match="jobmon_core installs it"):
        BossDistributor("here")


def test_the_program_may_be_in_any_directory(tmp_path, monkeypatch):
    """Spaces and quotes in its path are no piece of shell; it is given the command as arguments."""
    place = tmp_path / "it's a place"
    place.mkdir()
    program = place / "worker_node_entry_point"
    program.write_text('#!/bin/sh\necho "$#:$2" > told\nexit 4\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    distributor = BossDistributor("here")
    distributor.start()
    [number] = submit(distributor, "worker_node_job --task_instance_id 7")
    assert exit_info(distributor, number) == [("U", "found 4")]
    distributor.stop()
    assert (tmp_path / "told").read_text() == "3:--task_instance_id\n"


def test_ids_count_jobs_and_arrays(distributor, tmp_path):
    """'1', '2', then an array of '3_0' and '3_1'; each finds its own in its environment."""
    tell = f'echo "$JOB_ID/${{ARRAY_STEP_ID-none}}" > {tmp_path}/$JOB_ID.$ARRAY_STEP_ID'
    assert submit(distributor, tell, tell) == ["1", "2"]
    array = distributor.submit_array_to_batch_distributor(tell, "array", {}, 2)
    assert array == {0: "3_0", 1: "3_1"}
    assert submit(distributor, tell) == ["4"]
    distributor.start()
    idle(distributor)
    told = {path.name: path.read_text().strip() for path in tmp_path.iterdir()}
    assert told == {"1.": "1/none", "2.": "2/none", "3.0": "3/0", "3.1": "3/1", "4.": "4/none"}


def test_the_surroundings_are_no_part_of_an_id(monkeypatch, tmp_path):
    """A service that is itself a step of an array has jobs that are none."""
    monkeypatch.setenv("ARRAY_STEP_ID", "8")
    monkeypatch.setenv("JOB_ID", "99")
    distributor = Distributor("here")
    distributor.start()
    submit(distributor, f'echo "$JOB_ID/${{ARRAY_STEP_ID-none}}" > {tmp_path}/told')
    idle(distributor)
    distributor.stop()
    assert (tmp_path / "told").read_text() == "1/none\n"


def test_what_is_submitted_waits_for_the_start(distributor, tmp_path):
    """It counts as submitted; nothing runs; starting twice starts it once."""
    ids = submit(distributor, f"echo x >> {tmp_path}/told")
    assert distributor.get_submitted_or_running() == {"1"}
    assert psutil.Process().children() == []
    distributor.start()
    distributor.start()
    assert exit_info(distributor, *ids) == [("U", "found 0")]
    assert (tmp_path / "told").read_text() == "x\n"
    assert len(psutil.Process().children()) == 1  # one listener


def test_who_is_asked_about_is_told(distributor):
    """All without a filter; with one, those in it that are there, also if they are numbers."""
    distributor.submit_array_to_batch_distributor("sleep 60", "array", {}, 3)
    for _ in range(2):  # before the start, and after
        assert distributor.get_submitted_or_running() == {"1_0", "1_1", "1_2"}
        assert distributor.get_submitted_or_running(["1_1", "7", "1_9"]) == {"1_1"}
        assert distributor.get_submitted_or_running([]) == set()
        distributor.start()


def test_parallelism_is_how_many_run(distributor, tmp_path):
    """Not more, though there may be more cpus; and not fewer, though there may be fewer."""
    distributor.start()
    wide = Distributor("wide", _cpus.usable_cpus() + 1)
    wide.start()
    for each, width in ((distributor, 2), (wide, _cpus.usable_cpus() + 1)):
        submit(each, *["sleep 60"] * (width + 1))
        until(lambda each=each, width=width: len(each._boss.status().running) == width)
        assert len(each._boss.status().pending) == 1
    wide.stop()


def test_terminating_spares_the_others(distributor, tmp_path):
    """The queued one never runs, the running one goes with its tree, unknown ones are passed over."""
    tree = f"sleep 600 & echo $! > {tmp_path}/child; sleep 601"
    running, other, queued, last = submit(distributor, tree, "sleep 60", f"touch {tmp_path}/ran", "exit 5")
    distributor.start()
    child = pid_in(tmp_path / "child")
    distributor.terminate_task_instances([running, queued, "77", "9_9"])
    assert not alive(child)
    assert distributor.get_submitted_or_running([running, queued, other]) == {other}
    assert distributor.get_remote_exit_info(running) == ("U", "found -15")
    with pytest.raises(RemoteExitInfoNotAvailable, match="taken out of the queue"):
        distributor.get_remote_exit_info(queued)
    assert exit_info(distributor, last) == [("U", "found 5")]
    assert not (tmp_path / "ran").exists()
    distributor.terminate_task_instances([running, last])  # which have ended
    distributor.terminate_task_instances([])


def test_terminating_before_the_start(distributor, tmp_path):
    """What is taken out then never runs."""
    first, second = submit(distributor, f"touch {tmp_path}/first", f"touch {tmp_path}/second")
    distributor.terminate_task_instances([first])
    assert distributor.get_submitted_or_running() == {second}
    distributor.start()
    idle(distributor)
    assert [path.name for path in tmp_path.iterdir()] == ["second"]


def test_exit_info_is_of_what_has_ended(distributor):
    """The code of a success, of a failure and of a signal; before that, and of strangers, there is none."""
    ids = submit(distributor, "exit 0", "exit 3", "kill -9 $$", "sleep 60")
    with pytest.raises(RemoteExitInfoNotAvailable, match="has not ended"):
        distributor.get_remote_exit_info(ids[0])
    distributor.start()
    assert exit_info(distributor, *ids[:3]) == [("U", "found 0"), ("U", "found 3"), ("U", "found -9")]
    for each in (ids[3], "88", "1_0"):
        with pytest.raises(RemoteExitInfoNotAvailable):
            distributor.get_remote_exit_info(each)
    assert distributor.get_queueing_errors([*ids, "88"]) == {}


def test_stopping_is_prompt_and_not_for_ever(distributor, tmp_path):
    """What runs is gone, what waits is forgotten; then it starts again, and counts on."""
    distributor.stop()
    distributor.start()
    submit(distributor, f"sleep 600 & echo $! > {tmp_path}/child; sleep 601", "sleep 60", f"touch {tmp_path}/ran")
    child, before = pid_in(tmp_path / "child"), time.monotonic()
    distributor.stop()
    assert time.monotonic() - before < 5.0
    assert not alive(child) and psutil.Process().children() == []
    assert distributor.get_submitted_or_running() == set()
    assert distributor.get_remote_exit_info("1") == ("U", "found -15")
    assert submit(distributor, "exit 6") == ["4"]
    assert distributor.get_submitted_or_running() == {"4"}
    distributor.start()
    assert exit_info(distributor, "4", "1") == [("U", "found 6"), ("U", "found -15")]
    assert not (tmp_path / "ran").exists()


def test_stopping_what_was_never_started(distributor):
    """Forgets what waits, at once, and as often as one likes."""
    submit(distributor, "exit 0")
    for _ in range(2):
        distributor.stop()
        assert distributor.get_submitted_or_running() == set()
    distributor.start()
    assert distributor.get_submitted_or_running() == set()


# -- what is requested ----------------------------------------------------------------------------------


def test_runtime_is_a_limit(distributor):
    """The job is stopped when its time is over, and the others go on."""
    distributor.start()
    [slow] = submit(distributor, "sleep 60", runtime="0.2s")
    [other] = submit(distributor, "sleep 0.3; exit 3", runtime=60)
    assert exit_info(distributor, slow, other) == [("U", "found -15"), ("U", "found 3")]


def test_cores_are_cpus():
    """Two jobs of two cores do not run on three cpus together; the threads of libraries are capped."""
    distributor = Distributor("here", 3, cpus=3)
    distributor.start()
    submit(distributor, "sleep 60", "sleep 60", cores=2)
    until(lambda: distributor._boss.status().running == ("1",))
    [capped] = submit(distributor, "exit $OMP_NUM_THREADS", cores=1)
    assert exit_info(distributor, capped) == [("U", "found 1")]
    assert distributor.get_submitted_or_running() == {"1", "2"}
    distributor.stop()


def test_memory_is_kept_and_watched(tmp_path):
    """Two jobs that have not room together run one by one; one that uses more than it requested is stopped."""
    distributor = Distributor("here", 3, memory=300)
    distributor.start()
    greedy = f'"{sys.executable}" -c "held = b\'x\' * 250_000_000; import time; time.sleep(60)"'
    [first] = submit(distributor, greedy, memory="100M")
    [second] = submit(distributor, f"touch {tmp_path}/ran", memory="0.25")
    assert distributor.get_submitted_or_running() == {first, second}
    assert not (tmp_path / "ran").exists()
    assert exit_info(distributor, first, second) == [("U", "found -15"), ("U", "found 0")]
    distributor.stop()


@pytest.mark.parametrize(
    ("resources", "error", "told"),
    [
        ({"cores": 99}, NeverStartable, "'job' can never start on cluster 'here': it asks for ncpus=99"),
        ({"memory": "1T"}, NeverStartable, "1.04858e+06 MiB of memory, and there are 500 MiB"),
        ({"cores": "two"}, BadOption, "job 'job': requested_resources: cores='two' makes no sense"),
        ({"runtime": -1}, BadOption, "seconds above 0"),
    ],
)
def test_what_can_never_be_is_refused_at_once(resources, error, told):
    """Jobmon then notes that the job was not submitted, and why; nothing waits for ever."""
    distributor = Distributor("here", cpus=4, memory=500)
    with pytest.raises(error) as caught:
        submit(distributor, "exit 0", **resources)
    assert told in str(caught.value) and isinstance(caught.value, ValueError)
    with pytest.raises(error):
        distributor.submit_array_to_batch_distributor("exit 0", "job", resources, 2)
    assert distributor.get_submitted_or_running() == set()
    assert submit(distributor, "exit 0", queue="all.q", project="odd", cores=None) == ["1"]


@pytest.mark.parametrize(
    "options",
    [{"parallelism": 0}, {"parallelism": "many"}, {"parallelism": True}, {"cpus": 0}, {"cpus": 1.5}, {"memory": 0},
     {"memory": "1G"}, {"memory": float("nan")}],
)  # fmt: skip
def test_nonsense_of_the_cluster_is_refused(options):
    """By the name of the parameter."""
    with pytest.raises(BadOption, match=f"BossDistributor: {next(iter(options))}="):
        BossDistributor("here", **options)


def test_what_worker_nodes_write_is_in_the_logs(tmp_path):
    """Where there is a directory for it."""
    distributor = Distributor("here", log_dir=tmp_path / "logs")
    distributor.start()
    submit(distributor, "echo out; echo err >&2; exit 1")
    idle(distributor)
    distributor.stop()
    assert [(tmp_path / f"logs/1.{kind}").read_text() for kind in ("out", "err")] == ["out\n", "err\n"]


# -- trouble --------------------------------------------------------------------------------------------


def test_a_killed_listener_costs_its_jobs_only(distributor):
    """They have ended; what waits is forgotten; the next job runs."""
    distributor.start()
    ids = submit(distributor, "sleep 60", "sleep 60", "sleep 60")
    until(lambda: len(distributor._boss.status().running) == 2)
    distributor._boss._process.kill()
    idle(distributor)
    assert distributor.get_remote_exit_info(ids[0]) == ("U", "found -9")
    with pytest.raises(RemoteExitInfoNotAvailable):
        distributor.get_remote_exit_info(ids[2])
    distributor.terminate_task_instances(ids)
    [number] = submit(distributor, "exit 7")
    assert exit_info(distributor, number) == [("U", "found 7")]


def interrupted(at):
    """Have an exception come at the n-th instruction of a whole life; return whether it came, and what was left."""
    distributor = Distributor("here", 2, cpus=2, memory=100, stop_grace=1.0)
    injector = Injector(jobmon, at)

    def life():
        submit(distributor, "sleep 60")
        distributor.start()
        submit(distributor, "sleep 61", "sleep 62")
        distributor.terminate_task_instances(["1"])
        distributor.get_submitted_or_running()
        distributor.stop()

    came = False
    try:
        injector.run(life)
    except Injected:
        came = True
    distributor.stop()
    left = distributor.get_submitted_or_running(), psutil.Process().children(recursive=True)
    distributor.start()
    [number] = submit(distributor, "exit 5")
    told = exit_info(distributor, number)
    distributor.stop()
    return came, left, told, injector.count


def test_it_survives_an_exception_anywhere():
    """Out of a handler that raises, at any step: `stop` leaves nothing, and it starts again."""
    steps = in_fork(interrupted, 0)[3]
    assert steps > 300
    for at in range(1, steps, steps // 9):
        came, left, told, _ = in_fork(interrupted, at)
        # The number of steps is not quite the same each time.
        assert (came or at > 0.8 * steps) and left == (set(), []) and told == [("U", "found 5")], at


SERVICE = """
import os, signal, sys, threading
from test_compat_jobmon import Distributor, submit, until

class Interrupted(Exception):
    pass

def handler(signum, frame):
    raise Interrupted(signum)

signal.signal(signal.SIGTERM, handler)
signal.signal(signal.SIGHUP, handler)
signal.signal(signal.SIGINT, lambda signum, frame: None)
distributor = Distributor("here", 2, stop_grace=30.0)
distributor.start()
submit(distributor, "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done", "sleep 60")
until(lambda: os.path.exists("pid") and open("pid").read())
os.kill(os.getpid(), signal.SIGINT)
try:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
except Interrupted:
    print("interrupted")
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGHUP)).start()
try:
    distributor.stop()
except Interrupted:
    distributor.stop()
print("stopped", distributor.get_submitted_or_running())
"""


def test_handlers_that_raise(tmp_path):
    """They are main's: workers and listener are stopped all the same, and another one cuts the grace short."""
    done = subprocess.run(
        [sys.executable, "-c", SERVICE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{Path(taylorism.__file__).parents[1]}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert (done.stdout, done.stderr) == ("interrupted\nstopped set()\n", "")
    assert not alive(int((tmp_path / "pid").read_text()))


def test_without_jobmon_the_error_says_what_to_install():
    """The module is imported on demand; the extra has a name."""
    code = "import sys; sys.modules['jobmon.core'] = None; import taylorism.compat.jobmon"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError" in done.stderr and "pip install 'taylorism[jobmon]'" in done.stderr


# -- the worker node ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (None, None)),
        ({"JOB_ID": "4"}, ("4", None)),
        ({"JOB_ID": "3", "ARRAY_STEP_ID": "0"}, ("3_0", 0)),
        ({"JOB_ID": "3", "ARRAY_STEP_ID": ""}, ("3", None)),
    ],
)
def test_a_worker_node_knows_who_it_is(monkeypatch, environment, expected):
    """The same id that the distributor has given out."""
    for name in ("JOB_ID", "ARRAY_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    node = BossWorkerNode()
    assert (node.distributor_id, node.array_step_id) == expected


def test_log_files_are_named_after_task_and_job(monkeypatch, tmp_path):
    """In a directory that is made; nowhere without one; one file, whatever the name."""
    monkeypatch.setenv("JOB_ID", "3")
    monkeypatch.setenv("ARRAY_STEP_ID", "1")
    node, place = BossWorkerNode(), tmp_path / "new" / "logs"
    assert node.initialize_logfile("stdout", str(place), "task") == f"{place}/task.o3_1"
    assert node.initialize_logfile("stderr", str(place), "a/b") == f"{place}/a_b.e3_1"
    assert place.is_dir()
    assert node.initialize_logfile("stdout", "", "task") == os.devnull
    with pytest.raises(ValueError, match="'3_1'.*'stdout' or 'stderr'"):
        node.initialize_logfile("stdlog", str(place), "task")


@pytest.mark.parametrize(("code", "words"), [(3, "exited with status 3"), (-11, "killed by SIGSEGV")])
def test_exit_information_is_in_words(code, words):
    """An error, with its code and the end of what was said."""
    status, text = BossWorkerNode().get_exit_info(code, "no such thing")
    assert status == "E" and words in text and "no such thing" in text


def test_usage_is_that_of_the_command():
    """Seconds and bytes, of what was waited for."""
    node = BossWorkerNode()
    code = "import time; held = b'x' * 150_000_000\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    used = node.get_usage_stats()
    assert used["wallclock"] > 0.1 and used["cpu"] > 0.1 and used["maxrss"] > 150_000_000


# -- a workflow, run by jobmon's own service --------------------------------------------------------------

PLUGIN = """
def get_cluster_distributor_class():
    from taylorism.compat.jobmon import BossDistributor
    return BossDistributor

def get_cluster_worker_node_class():
    from taylorism.compat.jobmon import BossWorkerNode
    return BossWorkerNode

def get_cluster_queue_class():
    from jobmon.plugins.multiprocess.multiproc_queue import MultiprocessQueue
    return MultiprocessQueue
"""


class Server:
    """Stands in for jobmon's server: a workflow run with one array, in memory, and the answers about it.

    Parameters
    ----------
    commands : list of str
        What each task runs.
    logs : path
        Directory for what they write.
    """

    def __init__(self, commands: list[str], logs: Path) -> None:
        self.commands = commands
        self.logs = str(logs)
        self.status = dict.fromkeys(range(len(commands)), "Q")
        self.told: dict[int, dict[str, Any]] = {}
        self.ids: dict[int, str] = {}
        self.heartbeats: set[int] = set()
        self.asked = time.monotonic()

    def answer(self, route: str, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request: the method that is called like the last word of its route."""
        self.asked = time.monotonic()
        words = route.strip("/").split("/")
        if words[0] == "cluster":
            options = {"parallelism": 4, "cpus": 4, "log_dir": f"{self.logs}/nodes"}
            return {"cluster": [1, "here", "boss", json.dumps(options)]}
        if words[0] == "task_resources":
            return {"requested_resources": "{'cores': 1, 'memory': '200M'}", "queue_name": "all.q"}
        if words[0] == "get_array_task_instance_id":
            return {"task_instance_id": int(words[3])}
        numbers = [int(word) for word in words if word.isdigit()]
        return getattr(self, words[-1])(*numbers, **message) or {}

    def update_status(self, run: int, status: str) -> None:
        """Of the workflow run."""

    def sync_status(self, run: int, task_instance_ids: list[int], status: str) -> dict[str, Any]:
        """Tell the service what has changed, and what is new to it."""
        updates: dict[str, list[int]] = {}
        for number, now in self.status.items():
            if (number in task_instance_ids) != (now == status):
                updates.setdefault(now, []).append(number)
        return {"status_updates": updates}

    def instantiate_task_instances(self, task_instance_ids: list[int]) -> dict[str, Any]:
        """Make a batch of them."""
        self.status.update(dict.fromkeys(task_instance_ids, "I"))
        return {"task_instance_batches": [[5, "array", 1, 9, task_instance_ids]]}

    def transition_to_launched(self, array: int, **message: Any) -> None:
        """They were submitted."""
        self.status = {number: "O" if now == "I" else now for number, now in self.status.items()}

    def log_distributor_id(self, array: int, **message: str) -> None:
        """Their ids."""
        self.ids = {int(number): each for number, each in message.items()}

    def batch(self, task_instance_ids: list[int], **message: Any) -> None:
        """Take note of heartbeats of what was launched."""
        self.heartbeats.update(task_instance_ids)

    def log_running(self, number: int, **message: Any) -> dict[str, Any]:
        """Take note of a worker node that has begun, and tell it its command."""
        self.status[number], self.told[number] = "R", message
        task = [number, "R", 7, number, f"task{number}", self.commands[number], 1, self.logs, self.logs]
        return {"task_instance": task}

    def log_done(self, number: int, **message: Any) -> dict[str, Any]:
        """Take note of a success."""
        return self._settled(number, "D", message)

    def log_error_worker_node(self, number: int, **message: Any) -> dict[str, Any]:
        """Take note of a failure that a worker node tells of."""
        return self._settled(number, message["error_state"], message)

    def log_unknown_error(self, number: int, **message: Any) -> dict[str, Any]:
        """Take note of a failure that the service has found out about."""
        return self._settled(number, message["error_state"], message)

    def transition_to_killed(self, array: int, batch_number: int) -> None:
        """Take note that all that was to be killed is."""
        self.status = {number: "F" if now == "K" else now for number, now in self.status.items()}

    def _settled(self, number: int, status: str, message: dict[str, Any]) -> dict[str, Any]:
        self.status[number], self.told[number] = status, message
        return {"status": status}


@pytest.fixture
def serve() -> Iterator[Any]:
    """Return what makes a server for a `Server`, and returns its address; it is shut down after the test."""
    servers: list[ThreadingHTTPServer] = []

    def make(server: Server) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                message = json.loads(self.rfile.read(length) or b"{}")
                body = json.dumps(server.answer(urlsplit(self.path).path, message)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _answer

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(http)
        threading.Thread(target=http.serve_forever, args=(0.02,)).start()
        return f"http://127.0.0.1:{http.server_address[1]}"

    yield make
    for http in servers:
        http.shutdown()
        http.server_close()


def test_jobmon_runs_a_workflow(serve, tmp_path):
    """Its service and its worker nodes, as it starts them: a success, a failure, a death, a kill.

    The standard error of the service is jobmon's alone: its client waits for the first word and the last.
    """
    site = tmp_path / "site" / "jobmon" / "plugins"
    site.mkdir(parents=True)
    (site / "boss.py").write_text(PLUGIN)
    client = tmp_path / "site" / "jobmon" / "client"
    client.mkdir()
    for module, name in {"api": "Tool", "task": "Task", "workflow": "Workflow"}.items():
        (client / f"{module}.py").write_text(f"{name} = None")  # all that a worker node imports of the client
    server = Server(
        [
            "echo out $JOBMON_TASK_ID; echo $JOB_ID.$ARRAY_STEP_ID >&2",
            "echo no >&2; exit 3",
            f"echo $$ > {tmp_path}/orphan; kill -9 $PPID; sleep 600",
            f"echo $$ > {tmp_path}/pid; sleep 600",
        ],
        tmp_path / "logs",
    )
    arguments = ["--cluster_name", "here", "--workflow_run_id", "7"]
    service = subprocess.Popen(
        [sys.executable, "-m", "jobmon.distributor.cli", "start", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path / 'site'}:{Path(taylorism.__file__).parents[1]}",
            "JOBMON__HTTP__SERVICE_URL": serve(server),
            "JOBMON__HEARTBEAT__WORKFLOW_RUN_INTERVAL": "1",
        },
        stderr=subprocess.PIPE,
    )
    try:
        assert service.stderr.read(5) == b"ALIVE"
        try:
            until(lambda: list(server.status.values()) == ["D", "E", "R", "R"], "the worker nodes", 30.0)
        finally:  # shown where the test fails
            print(server.status, *(path.read_text() for path in (tmp_path / "logs" / "nodes").iterdir()))
        orphan = pid_in(tmp_path / "orphan")
        until(lambda: not alive(orphan), "the end of what the dead worker node has left")
        server.status[2] = "T"  # as its heartbeats stay away
        until(lambda: server.status[2] == "U", "the triage")
        pid = pid_in(tmp_path / "pid")
        server.status[3] = "K"
        until(lambda: server.status[3] == "F", "the kill")
        assert not alive(pid)
        # It sleeps between two rounds. In a request, it takes the exception of its handler for one of the network.
        until(lambda: time.monotonic() - server.asked > 0.2)
        service.send_signal(signal.SIGTERM)
        told = service.communicate(timeout=20)[1]
    finally:
        service.kill()
        service.communicate()
    assert (told, service.returncode) == (b"SHUTDOWN", 0)
    assert server.ids == {0: "1_0", 1: "1_1", 2: "1_2", 3: "1_3"}
    assert {number: each.get("distributor_id") for number, each in server.told.items()} == server.ids
    assert server.told[0]["stdout_log"] == "out 0\n" and server.told[0]["stderr_log"] == "1.0\n"
    assert (tmp_path / "logs" / "task0.o1_0").read_text() == "out 0\n"
    assert "job 1_1: exited with status 3" in server.told[1]["error_description"]
    assert server.told[2]["error_message"] in ("found -9", "found 137")  # a shell of jobmon's, or none
