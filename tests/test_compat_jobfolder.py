"""Job folders, as pylada has them: the tree, and the processes that run its jobs over a Boss."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jobs as work
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import Callable, add, calls, die, fail, fail_first, folder, hold, note, stubborn, tidy

import taylorism
from taylorism.compat import _jobprocess
from taylorism.compat._jobworker import LargestFirstScheduler, Parcel
from taylorism.compat.jobfolder import (
    AlreadyStarted,
    Fail,
    JobFolder,
    JobFolderProcess,
    MPISizeError,
    NotStarted,
    PoolProcess,
)


def held(directory, *names):
    """Return a tree of jobs that wait at their gates."""
    for name in names:
        (Path(directory) / name).mkdir()
        os.mkfifo(Path(directory) / name / "gate")
    return folder(**dict.fromkeys(names, hold))


def let_go(directory, *names):
    """Open the gates of some jobs."""
    for name in names:
        with open(Path(directory) / name / "gate", "wb"):
            pass


def until(condition):
    """Wait for what comes by itself."""
    while not condition():
        time.sleep(0.005)


def made(directory, root, **options):
    """Return a process for a tree."""
    return JobFolderProcess(root, directory, **options)


# ---------------------------------------------------------------------------------------------------------
# the tree
# ---------------------------------------------------------------------------------------------------------


def test_a_path_is_made_as_by_mkdir():
    """What is missing is made, by names and numbers; what is there is found."""
    root = JobFolder()
    job = root / "a" / 0
    assert job.name == "/a/0/" and root / "a/0" is job and root["a"] / "0" is job and root["a"][0] is job
    assert root.name == "/" and root["a"].subfolders() == ["0"] and root.subfolders() == ["a"]
    assert job.parent is root["a"] and job.root is root and root.parent is None


def test_folders_are_found_by_paths():
    """From the root, from above, from below; with and without a slash at the end."""
    root = JobFolder()
    job_a, job_b = root / "jobA", root / "another" / "jobB"
    prime = job_b / "prime"
    assert job_a["/"] is root and job_a["../another/jobB"] is job_b and job_b["prime/"] is prime
    assert prime["../.."] is root["another"] and prime["./"] is prime and root[""] is root
    assert "prime" in job_b and "/jobA" in prime and prime.name in root and "jobA" not in prime and ".." not in root
    assert prime["/another/jobB/prime"] is prime


@pytest.mark.parametrize("path", ["..", "a/../..", "nowhere", "a/nowhere"])
def test_what_is_not_there_is_a_key_error(path):
    """Nothing is above the root, and nothing is made by looking."""
    root = folder(a=add)
    with pytest.raises(KeyError):
        root[path]
    assert root.subfolders() == ["a"] and root["a"].subfolders() == []


names = st.sampled_from(["a", "b", "b-c", "0", "10", "2"])
paths = st.lists(names, min_size=1, max_size=4).map(tuple)


@given(made=st.lists(paths, max_size=12), jobs=st.sets(st.integers(0, 11)), gone=st.lists(paths, max_size=3))
def test_the_tree_is_like_a_file_system(made, jobs, gone):
    """Whatever is made and deleted: what is there, what the jobs are, and what everything is called."""
    root, there, executable = JobFolder(), set(), set()
    for number, path in enumerate(made):
        job = root / "/".join(path)
        there |= {path[: length + 1] for length in range(len(path))}
        if number in jobs:
            job.functional = add
            executable.add(path)
    for path in gone:
        if path in there:
            del root["/".join(path)]
            there = {each for each in there if each[: len(path)] != path}
        else:
            with pytest.raises(KeyError):
                del root["/".join(path)]
    executable &= there
    expected = sorted("/".join(path) for path in executable)
    assert list(root) == root.keys() == [path for path, _ in root.items()] == expected
    assert [job.name for job in root.values()] == [f"/{path}/" for path in expected] and len(root) == len(expected)
    for path in there:
        job = root["/".join(path)]
        assert job.name == f"/{'/'.join(path)}/" and job[job.name] is job and job.root is root
        assert job["../" + path[-1]] is job and job.is_executable == (path in executable)
        inner = sorted("/".join(each[len(path) :]) for each in executable if each[: len(path)] == path)
        assert list(job) == inner and len(job) == len(inner)
        below = {each[len(path)] for each in there if each[: len(path)] == path and len(each) > len(path)}
        assert job.subfolders() == sorted(below)


def test_children_are_listed():
    """`subfolders` gives the names right below, jobs or not, sorted."""
    root = folder(b=add, a__x=add)
    assert root.subfolders() == ["a", "b"] and set(root.children) == {"a", "b"} and not root["a"].is_executable


def test_a_job_may_have_jobs_below_it():
    """Its own path is empty."""
    root = folder(a=add, a__b=add)
    assert list(root) == ["a", "a/b"] and list(root["a"]) == ["", "b"] and root["a"].items()[0][1] is root["a"]


def test_a_functional_is_copied():
    """The folder has one of its own, unless it is set by its private name."""
    job, functional = JobFolder(), Callable(2)
    job.functional = functional
    functional.factor = 3
    assert job.functional.factor == 2 and job.is_executable
    job._functional = functional
    assert job.functional is functional
    del job.functional
    assert job.functional is None and not job.is_executable


@pytest.mark.parametrize("functional", [1, "text", lambda outdir, comm: None])
def test_a_functional_is_a_callable_that_can_be_pickled(functional):
    """Anything else is refused at once, and names the job."""
    job = JobFolder() / "a"
    with pytest.raises(TypeError, match="'/a/'"):
        job.functional = functional
    assert job.functional is None


def test_compute_calls_the_functional():
    """Here, with the parameters; what is given on the spot wins. A folder that is no job gives None."""
    job = JobFolder()
    assert job.compute(a=1) is None
    job.functional = add
    job.params.update(a=1, b=2)
    assert (job.compute(), job.compute(b=5, outdir="x"), job.params) == (3, 6, {"a": 1, "b": 2})


def test_parameters_are_attributes():
    """They are read, set and deleted; what is no parameter is an ordinary attribute."""
    job = JobFolder()
    job.params["sleep"] = 1
    job.sleep = 2
    assert job.params == {"sleep": 2} and job.sleep == 2
    del job.sleep
    assert not hasattr(job, "sleep")
    job.other = 3
    assert job.params == {} and job.other == 3
    job.params["functional"] = 4
    job.functional = add
    assert job.params == {"functional": 4} and job.functional is add


def test_tags():
    """A job is switched off and on again."""
    job = JobFolder()
    assert not job.is_tagged
    job.tag()
    assert job.is_tagged
    job.untag()
    assert not job.is_tagged


def test_a_folder_is_put_elsewhere_as_a_copy():
    """Also into itself, and in the place of another."""
    root, other = folder(a=add), folder(x__y=add)
    root["a"] = root
    root["b/c"] = other
    assert list(root) == ["a/a", "b/c/x/y"] and root["b/c"].name == "/b/c/"
    assert list(other) == ["x/y"] and other.parent is None
    with pytest.raises(KeyError):
        root["/"] = other
    with pytest.raises(TypeError):
        root["d"] = {}
    with pytest.raises(KeyError):
        del root["/"]


def test_jobs_are_taken_from_another_folder():
    """Each at its path; the others stay."""
    root, other = folder(a=add, b=add), folder(a=note, c__d=add)
    other["a"].params["x"] = 1
    other["c/d"].tag()
    root.update(other)
    assert list(root) == ["a", "b", "c/d"] and root["a"].functional is note
    assert root["a"].params == {"x": 1} and root["a"].params is not other["a"].params and root["c/d"].is_tagged


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))])
def test_a_copy_has_what_is_below_and_nothing_above(copied):
    """A copied folder is a root."""
    root = folder(a__b=add, c=add)
    root["a/b"].params["x"] = [1]
    tree, part = copied(root), copied(root["a"])
    assert list(tree) == ["a/b", "c"] and tree["a/b"].params == {"x": [1]} and tree["a/b"].root is tree
    assert tree["a/b"].params["x"] is not root["a/b"].params["x"]
    assert part.name == "/" and part.parent is None and list(part) == ["b"] and part["b"].parent is part
    assert b"_jobtree" not in pickle.dumps(root)  # users keep these in files


# ---------------------------------------------------------------------------------------------------------
# how processors are shared out: no process is needed for that
# ---------------------------------------------------------------------------------------------------------


class Machine:
    """What a listener does with a scheduler that has a queue."""

    def __init__(self, scheduler):
        self.queue = scheduler.queue()
        self.running = {}
        self.number = 0

    def add(self, *sets):
        self.queue.add([dict(each) for each in sets])

    def turn(self):
        taken = self.queue.take(self.running, 0.0)
        for each in taken:
            self.number += 1
            self.running[str(self.number)] = SimpleNamespace(**each)
        return [int(each["ncpus"]) for each in taken]

    def used(self):
        return sum(int(each.ncpus) for each in self.running.values())

    def end(self, which):
        self.running.pop(sorted(self.running)[which % len(self.running)])


@given(
    cpus=st.integers(1, 20),
    nbpools=st.integers(1, 6),
    jobs=st.integers(1, 12),
    ends=st.lists(st.integers(0, 9)),
)
def test_processors_are_split_equally(cpus, nbpools, jobs, ends):
    """Those that are free, among as many jobs as may start and are left; all of them, and never more."""
    machine = Machine(made("x", {}, nbpools=nbpools)._scheduler(cpus))
    machine.add(*[{}] * jobs)
    left = jobs
    for end in [None, *ends]:
        if end is not None and machine.running:
            machine.end(end)
        free, slots = cpus - machine.used(), nbpools - len(machine.running)
        shares = machine.turn()
        starting = min(slots, left, free)
        left -= starting
        assert shares == [free // starting + (place < free % starting) for place in range(starting)]


@given(
    cpus=st.integers(1, 9),
    steps=st.lists(st.one_of(st.integers(0, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4)), max_size=12),
)
def test_a_pool_is_packed_first_fit_largest_first(cpus, steps):
    """At each turn the largest job that fits starts, and so on; the sum is never above what there is."""
    machine = Machine(PoolProcess({}, "x", 1)._scheduler(cpus))
    waiting = []
    for step in steps:
        if isinstance(step, list):
            new = [size for size in step if size <= cpus]
            machine.add(*[{"ncpus": size} for size in new])
            waiting = sorted(waiting + new, reverse=True)
        elif machine.running:
            machine.end(step)
        free, expected = cpus - machine.used(), []
        for size in list(waiting):
            if size <= free:
                free -= size
                expected.append(size)
                waiting.remove(size)
        assert machine.turn() == expected and machine.used() <= cpus


def test_the_scheduler_of_a_pool_does_the_same_where_it_is_asked_for_lists():
    """`launchable` is for those who call it."""
    scheduler = LargestFirstScheduler(limit="cpus", packing="largest first", max_cpus=5)
    launch, keep = scheduler.launchable([{"ncpus": 2}, {"ncpus": 4}, {"ncpus": 1}], {}, [])
    assert [each["ncpus"] for each in launch] == [4, 1] and [each["ncpus"] for each in keep] == [2]


# ---------------------------------------------------------------------------------------------------------
# the processes
# ---------------------------------------------------------------------------------------------------------


class Thing:
    """A parameter of a class of the user's."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is Thing and other.value == self.value

    __hash__ = None


def test_a_job_is_called_in_its_directory(tmp_path):
    """With outdir, its share, and its parameters, over which those of the process win; nothing alters them."""
    params = {
        "text": "[name] $HOME",
        "nested": {"[kind]": ["[ncpus]", ("x",), {1, 2}], "none": None},
        "thing": Thing("[memory]"),
        "over": 1,
    }
    root = folder(a__0=note)
    root["a/0"].params.update(params)
    process = made(tmp_path / "out", root, over=2, kind="[x]")
    assert process.start(3) is False
    assert process.wait() is False
    (call,) = calls(tmp_path / "out/a/0")
    where = str(tmp_path / "out/a/0")
    assert call == {**params, "over": 2, "kind": "[x]", "outdir": where, "cwd": where, "comm": {"n": 3}}
    assert root["a/0"].params == params and type(call["nested"]["[kind]"]) is list


def test_comm_is_a_number_or_a_dict(tmp_path, monkeypatch):
    """A dict says it under 'n'; outdir may be relative, and is that of the time when it is given."""
    monkeypatch.chdir(tmp_path)
    process = made("out", folder(a=note))
    monkeypatch.chdir("/")
    process.start({"n": 4, "ppn": 2})
    process.wait()
    assert calls(tmp_path / "out/a")[0]["comm"] == {"n": 4} and process.outdir == str(tmp_path / "out")


@pytest.mark.parametrize("comm", [0, -1, 1.5, "4", True, None, {}, {"n": 0}])
def test_comm_has_to_say_how_many(tmp_path, comm):
    """Anything else is refused, and nothing is started."""
    process = made(tmp_path, folder(a=note))
    with pytest.raises(ValueError, match="comm"):
        process.start(comm)
    with pytest.raises(NotStarted):
        process.poll()


def test_start_returns_at_once_and_the_work_goes_on_by_itself(tmp_path):
    """Nobody has to poll for the next job to start."""
    process = made(tmp_path, held(tmp_path, "a", "b"))
    assert process.start(1) is False
    assert (process.nbrunning_processes, process.nbjobsleft, process.done) == (1, 1, False)
    assert process.poll() is False
    with pytest.raises(AlreadyStarted):
        process.start(1)
    let_go(tmp_path, "a", "b")  # the second one blocks until b has been started
    assert process.wait(sleep=60) is False
    assert (process.nbrunning_processes, process.nbjobsleft, process.done) == (0, 0, True)
    assert (process.wait(), process.poll(), process.start(1), process.errors) == (True, True, True, {})


def test_what_was_not_started_is_not_waited_for(tmp_path):
    """Neither by poll nor by wait; and it is not done."""
    process = made(tmp_path, folder(a=note))
    for ask in (process.poll, process.wait):
        with pytest.raises(NotStarted):
            ask()
    assert (process.done, process.nbjobsleft, process.nbrunning_processes) == (False, 1, 0)
    process.terminate()
    process.kill()


def test_a_folder_without_jobs_is_done_when_it_is_started(tmp_path):
    """There is nothing to wait for."""
    process = made(tmp_path, JobFolder())
    assert (process.start(1), process.poll(), process.wait(), process.done) == (True, True, True, True)


def test_wait_says_false_when_it_brings_the_news(tmp_path):
    """Also when the jobs had ended before it was called."""
    process = made(tmp_path, folder(a=note))
    process.start(1)
    until(lambda: process.done)
    assert (process.start(1), process.wait(), process.wait()) == (True, False, True)


def test_as_many_jobs_run_as_there_are_pools(tmp_path):
    """Each with an equal share; who starts later has what is free then."""
    process = made(tmp_path, held(tmp_path, "a", "b", "c"), nbpools=2)
    process.start(5)
    assert (process.nbrunning_processes, process.nbjobsleft) == (2, 1)
    let_go(tmp_path, "b", "c", "a")
    process.wait()
    assert [calls(tmp_path / name)[0]["comm"]["n"] for name in "abc"] == [3, 2, 2]


def test_a_pool_gives_each_job_what_it_asks_for(tmp_path):
    """processalloc is called with the job, once; and the jobs run side by side as far as there is room."""
    asked = []

    def processalloc(job):
        asked.append(job.name)
        return {"/a/": 1, "/b/": 3, "/c/": 2}[job.name]

    process = PoolProcess(held(tmp_path, "a", "b", "c"), outdir=tmp_path, processalloc=processalloc)
    assert process.start(4) is False
    assert process.nbrunning_processes == 2
    let_go(tmp_path, "b", "c", "a")
    process.wait()
    assert [calls(tmp_path / name)[0]["comm"]["n"] for name in "abc"] == [1, 3, 2]
    assert sorted(asked) == ["/a/", "/b/", "/c/"]


def test_a_job_that_never_fits_is_refused_at_the_start(tmp_path):
    """By name, before anything runs; with more processors it runs."""
    root = folder(small=note, large=note)
    process = PoolProcess(root, tmp_path, lambda job: 5 if job.name == "/large/" else 1)
    with pytest.raises(MPISizeError, match="'large': 5") as caught:
        process.start(4)
    assert (caught.value.jobs, caught.value.available) == ({"large": 5}, 4) and isinstance(caught.value, ValueError)
    assert calls(tmp_path / "small") == []
    process.start(5)
    process.wait()
    assert calls(tmp_path / "large")[0]["comm"] == {"n": 5}


def test_a_pool_may_be_of_one_size_and_have_a_number_of_pools(tmp_path):
    """processalloc may be a number; nbpools is a limit beside the processors."""
    process = PoolProcess(held(tmp_path, "a", "b"), tmp_path, 1, nbpools=1)
    process.start(4)
    assert process.nbrunning_processes == 1
    process.kill()


@pytest.mark.parametrize(
    "options",
    [{"maxtrials": 0}, {"nbpools": 0}, {"nbpools": "2"}, {"processalloc": 0}, {"processalloc": lambda job: 1.5}],
)
def test_options_that_make_no_sense(tmp_path, options):
    """They are refused when the process is made."""
    cls = PoolProcess if "processalloc" in options else JobFolderProcess
    with pytest.raises(ValueError, match=next(iter(options))):
        cls(folder(a=note), tmp_path, **options)


def test_failures_are_raised_once_when_all_have_run(tmp_path):
    """The others go on; the Fail names those that failed, and their exceptions are kept."""
    process = made(tmp_path, folder(a=fail, b=note, c=die), maxtrials=1)
    process.start(1)
    with pytest.raises(Fail, match="'a': ValueError: bad") as caught:
        process.wait()
    assert calls(tmp_path / "b") and set(process.errors) == set(caught.value.errors) == {"a", "c"}
    assert isinstance(process.errors["a"], ValueError) and isinstance(process.errors["c"], taylorism.WorkerDied)
    assert (process.poll(), process.wait(), process.done, process.nbjobsleft) == (True, True, True, 0)
    assert set(process.errors) == {"a", "c"} and process.start(1) is True


def test_errors_are_seen_before_the_end(tmp_path):
    """But nothing is raised while jobs run."""
    root = held(tmp_path, "b")
    (root / "a").functional = fail
    process = made(tmp_path, root)
    process.start(1)
    until(lambda: process.errors)
    assert list(process.errors) == ["a"] and process.poll() is False
    let_go(tmp_path, "b")
    until(lambda: process.done)
    with pytest.raises(Fail):
        process.poll()
    assert process.poll() is True


def test_a_job_is_launched_as_often_as_it_may_be(tmp_path):
    """Until it does not fail, maxtrials times at most."""
    root = folder(a=fail_first, b=fail_first)
    root["a"].params["times"], root["b"].params["times"] = 2, 3
    process = made(tmp_path, root, maxtrials=3, nbpools=2)
    process.start(2)
    with pytest.raises(Fail):
        process.wait()
    assert list(process.errors) == ["b"] and len(calls(tmp_path / "a")) == len(calls(tmp_path / "b")) == 3


def test_errors_are_kept_over_the_rounds(tmp_path):
    """Each round has its own Fail; what has failed and comes again, mended, is forgiven."""
    process = made(tmp_path, folder(a=fail, b=note), keepalive=True)
    process.start(1)
    with pytest.raises(Fail):
        process.wait()
    process.update(folder(c=fail))
    with pytest.raises(Fail) as caught:
        process.wait()
    assert set(caught.value.errors) == {"c"} and set(process.errors) == {"a", "c"}
    process.update(folder(d=note))
    assert process.wait() is False
    process.update(folder(a=note, c=fail))  # c is as it was: it has had its trials
    assert process.wait() is False
    assert set(process.errors) == {"c"} and len(calls(tmp_path / "a")) == 2 and len(calls(tmp_path / "c")) == 1
    process.keepalive = False
    assert process.poll() is True and process._boss is None


def test_update_brings_jobs_while_others_run(tmp_path):
    """What runs and what is done stays, what waits is replaced, what is new is added."""
    first = held(tmp_path, "a", "b", "c")
    process = made(tmp_path, first)
    process.start(1)
    let_go(tmp_path, "a")
    until(lambda: process.nbjobsleft == 1)
    other = folder(a=fail, b=fail, c=note, d__e=note)
    other["c"].params["new"] = True
    process.update(other["d"])  # the whole tree counts
    assert (process.nbjobsleft, process.nbrunning_processes) == (2, 1)
    assert list(process.jobfolder) == ["a", "b", "c", "d/e"] and process.jobfolder is first
    let_go(tmp_path, "b")
    assert process.wait() is False
    assert process.errors == {} and [len(calls(tmp_path / each)) for each in ("a", "b", "c", "d/e")] == [1] * 4
    assert calls(tmp_path / "c")[0]["new"] is True


def test_update_of_what_has_not_changed_does_nothing(tmp_path):
    """What waits keeps its place."""
    root = held(tmp_path, "a", "b")
    process = made(tmp_path, root)
    process.start(1)
    process.update(root)
    process.update(copy.deepcopy(root))
    let_go(tmp_path, "a", "b")
    process.wait()
    assert len(calls(tmp_path / "b")) == 1 and len(process._workers) == 2


def test_update_may_forget_what_is_done(tmp_path):
    """Then it leaves the folder, with what is below it kept, and its name may come again."""
    process = made(tmp_path, folder(a=note, a__b=fail, c=note), keepalive=True)
    process.start(1)
    with pytest.raises(Fail):
        process.wait()
    process.update(folder(c=note, d=note), deleteold=True)
    assert process.wait() is False
    assert list(process.jobfolder) == ["a/b", "c", "d"] and len(calls(tmp_path / "c")) == 2
    process.update(process.jobfolder, deleteold=True)
    assert list(process.jobfolder) == ["a/b"] and process.poll() and len(calls(tmp_path / "c")) == 2
    process.terminate()
    assert process.poll() is True


def test_update_before_the_start_and_after_the_end(tmp_path):
    """It changes what the next start does."""
    process = made(tmp_path, folder(a=note))
    process.update(folder(b=note))
    process.start(1)
    process.wait()
    process.update(folder(c=note))
    assert process.nbjobsleft == 1 and process.start(1) is False
    process.wait()
    assert [len(calls(tmp_path / name)) for name in "abc"] == [1, 1, 1]


def test_update_is_done_wholly_or_not_at_all(tmp_path):
    """A job that is too large, or cannot be sent, changes nothing."""
    root = held(tmp_path, "a")
    process = PoolProcess(root, tmp_path, lambda job: job.params.get("size", 1))
    process.start(2)
    other = folder(b=note, c=note)
    other["c"].params["size"] = 3
    with pytest.raises(MPISizeError):
        process.update(other)
    other["c"].params["size"] = threading.Lock()
    with pytest.raises(ValueError):
        process.update(other)
    other["c"].params.update(size=1, lock=threading.Lock())
    with pytest.raises(taylorism.InstructionsNotPicklable, match="job 'c'"):
        process.update(other)
    let_go(tmp_path, "a")
    process.wait()
    assert list(root) == ["a"] and calls(tmp_path / "b") == []


class Items:
    """Something with items, and no more."""

    def __init__(self, **jobs):
        self.jobs = jobs

    def items(self):
        return self.jobs.items()


@pytest.mark.parametrize("kind", [dict, Items])
def test_anything_with_items_is_a_jobfolder(tmp_path, kind):
    """Its jobs have a functional and params."""
    job = SimpleNamespace(functional=Callable(3), params={"value": 2})
    process = made(tmp_path, kind(a=job), keepalive=True)
    process.start(1)
    process.wait()
    process.update(kind(b=job))
    process.wait()
    process.update(kind(), deleteold=True)
    process.keepalive = False
    assert [calls(tmp_path / name)[0]["product"] for name in "ab"] == [6, 6]
    assert list(process.jobfolder) == []


@pytest.mark.parametrize("wrong", [None, [1], {"a": None}, {"a": SimpleNamespace(functional=add)}])
def test_what_is_no_jobfolder_is_refused(tmp_path, wrong):
    """When the process is made."""
    with pytest.raises(TypeError, match="item|'a'"):
        made(tmp_path, wrong)


def test_jobs_that_are_tagged_are_left_out(tmp_path):
    """Until they are untagged, and brought again."""
    root = folder(a=note, b=note)
    root["a"].tag()
    process = made(tmp_path, root, keepalive=True)
    process.start(2)
    process.wait()
    assert calls(tmp_path / "a") == []
    root["a"].untag()
    process.update(root)
    process.wait()
    process.keepalive = False
    assert [len(calls(tmp_path / name)) for name in "ab"] == [1, 1]


def test_jobs_with_the_strangest_names(tmp_path):
    """Brackets are no footprint attributes; the folder itself may be a job."""
    root = folder(**{"a[name]": note, "a(name)": note, "b c": fail})
    root.functional = note
    process = made(tmp_path, root, nbpools=4)
    process.start(4)
    with pytest.raises(Fail):
        process.wait()
    assert list(process.errors) == ["b c"]
    assert [len(calls(tmp_path / name)) for name in ("a[name]", "a(name)", "b c", "")] == [1, 1, 1, 1]


def test_what_a_functional_returns_does_not_matter(tmp_path):
    """It need not even be picklable."""
    process = made(tmp_path, folder(a=work.return_what_cannot_be_sent))
    process.start(1)
    assert process.wait() is False


def test_a_job_imports_what_the_program_could(tmp_path, monkeypatch):
    """Though it is somewhere else, and the module in a directory that was given from where the program is."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/imported_late_by_a_job.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["lib", *sys.path])
    root = folder(a=work.import_late)
    root["a"].params["module"] = "imported_late_by_a_job"
    process = made(tmp_path, root)
    process.start(1)
    assert process.wait() is False


def test_what_cannot_be_sent_is_an_error_of_start(tmp_path):
    """It names the job; and nothing is started."""
    root = folder(a=note)
    root["a"].params["lock"] = threading.Lock()
    process = made(tmp_path, root)
    with pytest.raises(taylorism.InstructionsNotPicklable, match="job 'a'"):
        process.start(1)
    del root["a"].params["lock"]
    process.start(1)
    assert process.wait() is False


def test_what_cannot_be_rebuilt_is_a_failure_of_its_job(tmp_path):
    """The error names it, and says what to do."""
    with pytest.raises(taylorism.TaylorismError, match="job 'a', cannot be rebuilt.*modules"):
        Parcel("job 'a'", b"nonsense").open()
    assert "job 'a'" in repr(Parcel("job 'a'", b""))


# -- stopping -----------------------------------------------------------------------------------------------


def test_terminate_lets_a_job_clean_up(tmp_path):
    """It gets a SIGTERM; what is left is for another start."""
    root = held(tmp_path, "b")
    (root / "a").functional = tidy
    process = made(tmp_path, root, keepalive=True)
    process.start(1)
    until(lambda: calls(tmp_path / "a"))
    process.terminate()
    assert calls(tmp_path / "a")[-1].get("cleaned")
    with pytest.raises(NotStarted, match="2 jobs"):
        process.poll()
    assert (process.errors, process.done, process.nbjobsleft, process.nbrunning_processes) == ({}, False, 2, 0)
    process.update(folder(a=note))
    process.start(2)
    let_go(tmp_path, "b")
    process.wait()
    process.keepalive = False
    assert process.done and process.errors == {}


@pytest.mark.parametrize("cls", [JobFolderProcess, functools.partial(PoolProcess, processalloc=1)])
def test_kill_gives_no_grace(tmp_path, monkeypatch, cls):
    """A job that ignores SIGTERM, and the program that it has started, are gone when it returns."""
    monkeypatch.setattr(_jobprocess, "Boss", functools.partial(taylorism.Boss, stop_grace=1000.0))
    held(tmp_path, "a")
    process = cls(folder(a=stubborn, b=note), tmp_path)
    process.start(1)
    until(lambda: calls(tmp_path / "a"))
    process.kill()
    assert process.errors == {} and process.nbjobsleft == 2  # conftest looks for what is left


def test_a_wait_is_over_when_another_thread_stops_the_process(tmp_path):
    """It raises, since the jobs are not done."""
    process = made(tmp_path, held(tmp_path, "a"))
    process.start(1)
    timer = threading.Timer(0.05, process.terminate)
    timer.start()
    with pytest.raises(NotStarted):
        process.wait()
    timer.join()


def test_a_wait_is_over_when_a_signal_handler_stops_the_process(tmp_path):
    """The handler interrupts the very wait."""
    process = made(tmp_path, held(tmp_path, "a"))
    process.start(1)
    before = signal.signal(signal.SIGALRM, lambda *args: process.terminate())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(NotStarted):
            process.wait()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_wait_outlasts_an_update_from_another_thread(tmp_path):
    """What the update has brought is waited for, too."""
    process = made(tmp_path, held(tmp_path, "a"))
    process.start(1)

    def bring():
        for number in range(3):
            process.update(folder(**{f"b{number}": note}))
        let_go(tmp_path, "a")

    timer = threading.Timer(0.02, bring)
    timer.start()
    assert process.wait() is False
    timer.join()
    assert process.nbjobsleft == 0 and all(calls(tmp_path / f"b{number}") for number in range(3))


def test_a_wait_is_not_over_while_the_listener_is_halted(tmp_path):
    """An update in another thread halts it for a moment."""
    process = made(tmp_path, held(tmp_path, "a", "b"))
    process.start(1)
    process._boss.halt()
    let_go(tmp_path, "a")
    until(lambda: process.nbrunning_processes == 0)
    timer = threading.Timer(0.05, lambda: (process._boss.make_them_work(), let_go(tmp_path, "b")))
    timer.start()
    assert process.wait() is False
    timer.join()
    assert calls(tmp_path / "b") and process.nbjobsleft == 0


def test_the_death_of_the_listener_is_told(tmp_path):
    """As a BossDied; what was not done can be started again."""
    process = made(tmp_path, held(tmp_path, "a"))
    process.start(1)
    process._boss._process.kill()
    with pytest.raises(taylorism.BossDied):
        process.wait()
    process.terminate()
    process.start(1)
    let_go(tmp_path, "a")
    assert process.wait() is False


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from jobs import folder, hold_a_pipe
from taylorism.compat.jobfolder import JobFolderProcess

if __name__ == "__main__":
    process = JobFolderProcess(folder(a=hold_a_pipe), {outdir!r})
    process.start(1)
    process.wait()
"""


def test_a_program_that_is_killed_leaves_nothing(tmp_path):
    """Its jobs end with it."""
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a/pipe")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=str(Path(__file__).parent), outdir=str(tmp_path)), encoding="utf-8")
    main = subprocess.Popen([sys.executable, str(program)])
    with open(tmp_path / "a/pipe", "rb") as pipe:
        assert pipe.read(4) == b"here"
        main.kill()
        main.wait()
        assert pipe.read() == b""  # the job has let go of its end


# -- surroundings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_start_methods(tmp_path, method):
    """Jobs run however the listener is started."""
    program = tmp_path / "program.py"
    program.write_text(SHARES.format(tests=str(Path(__file__).parent), outdir=str(tmp_path)), encoding="utf-8")
    environment = {**os.environ, "TAYLORISM_START_METHOD": method}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout == "False [2, 1]\nFalse [1, 2]\n", done.stderr


SHARES = """
import sys
sys.path.insert(0, {tests!r})
from jobs import calls, folder, note
from taylorism.compat.jobfolder import JobFolderProcess, PoolProcess


def own(outdir, comm):
    note(outdir, comm)


if __name__ == "__main__":
    for process in (
        JobFolderProcess(folder(a=own, b=own), {outdir!r}, nbpools=2),
        PoolProcess(folder(a=own, b=own), {outdir!r}, lambda job: 1 if job.name == "/a/" else 2),
    ):
        process.start(3)
        news = process.wait()
        print(news, [calls({outdir!r} + "/" + name)[-1]["comm"]["n"] for name in "ab"])
"""


def test_several_at_once_and_in_threads(tmp_path):
    """They do not know of each other."""
    results = []

    def run(number):
        process = made(tmp_path / str(number), folder(a=note, b=fail), nbpools=2)
        process.start(2)
        try:
            process.wait()
        except Fail as failure:
            results.append(list(failure.errors))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [["b"]] * 3


def test_a_process_that_is_forgotten_leaves_nothing(tmp_path):
    """Its jobs are stopped."""
    process = made(tmp_path, held(tmp_path, "a"))
    process.start(1)
    until(lambda: calls(tmp_path / "a"))
    del process  # conftest looks for what is left


GREEDY = """
import sys
import taylorism
print([name for name in sys.modules if "compat." in name])
sys.path.insert(0, {tests!r})


attributes = dict(kind=dict(), name=dict(optional=False), ncpus=dict(type=int), jobfolder_task=dict())
body = dict(_footprint=dict(attr=attributes), _task=lambda self: "greedy", __module__=__name__)
greedy = [type(f"Greedy{{number}}", (taylorism.Worker,), dict(body)) for number in range(10)]

from jobs import folder, note
from taylorism.compat.jobfolder import JobFolderProcess

process = JobFolderProcess(folder(a=note), {outdir!r})
process.start(1)
process.wait()
taylorism.batch_main(dict(kind="shell", jobfolder_task=1, ncpus=1), dict(name=["b"]))
"""


def test_it_takes_no_work_of_others_nor_they_its_own(tmp_path):
    """Though classes of the user's accept any attributes, and any might be chosen; and it is imported on demand."""
    program = GREEDY.format(tests=str(Path(__file__).parent), outdir=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "[]" and done.stdout.endswith("greedy\n")
    assert calls(tmp_path / "a")


@pytest.mark.parametrize(
    "error",
    [
        Fail("text", errors={"a": ValueError(1)}),
        NotStarted("text"),
        AlreadyStarted("text"),
        MPISizeError("text", jobs={"a": 2}, available=1),
    ],
)
def test_exceptions_can_be_pickled(error):
    """With what they hold; and all are errors of this package."""
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error) and str(copied) == "text" and vars(copied).keys() == vars(error).keys()
    assert isinstance(error, taylorism.TaylorismError)


def test_a_fail_names_all_the_jobs():
    """The exceptions of the first ones are quoted."""
    from taylorism.compat._joberrors import failure

    error = failure({f"job{number}": ValueError(number) for number in range(30)})
    assert all(f"'job{number}'" in str(error) for number in range(30)) and "ValueError: 3" in str(error)
    assert "ValueError: 20" not in str(error) and isinstance(error.__cause__, ValueError)
