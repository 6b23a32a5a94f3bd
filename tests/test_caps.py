"""The caps on the threads of compiled libraries: who set what, and what is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from taylorism import _caps

NAMES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
OTHERS = ("GOTO_NUM_THREADS", "NUMEXPR_MAX_THREADS")


@pytest.fixture
def environment(monkeypatch):
    """The environment without any of these variables, and nothing set by us; both restored afterwards."""
    for name in (*NAMES, *OTHERS):
        monkeypatch.setenv(name, "")  # so that it is restored, even if it was not there
        monkeypatch.delenv(name)
    monkeypatch.setattr(_caps, "_ours", {})
    return monkeypatch


@pytest.fixture
def nothing_loaded(environment):
    """No library is looked for; the variables only."""
    environment.setattr(_caps, "_is_any_loaded", lambda: False)
    return environment


def ours():
    """Return what is set, of those that we may set."""
    return {name: os.environ[name] for name in NAMES if name in os.environ}


def test_all_are_set_when_none_is(nothing_loaded):
    """What a program started by the worker sees."""
    _caps.cap_threads(3)
    assert ours() == dict.fromkeys(NAMES, "3")
    seen = subprocess.run(
        [sys.executable, "-S", "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert seen.stdout.strip() == "3"


@pytest.mark.parametrize("count", [1, 0, -2])
def test_one_thread_is_the_least(nothing_loaded, count):
    """No library understands less."""
    _caps.cap_threads(count)
    assert set(ours().values()) == {"1"}


@pytest.mark.parametrize(
    ("users", "left_unset"),
    [
        ("OPENBLAS_NUM_THREADS", set()),
        ("MKL_NUM_THREADS", set()),
        ("VECLIB_MAXIMUM_THREADS", set()),
        ("NUMEXPR_NUM_THREADS", set()),
        ("BLIS_NUM_THREADS", set()),
        ("GOTO_NUM_THREADS", {"OPENBLAS_NUM_THREADS"}),
        (
            "OMP_NUM_THREADS",
            {"OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"},
        ),
    ],
)
def test_what_the_user_has_set_stays(nothing_loaded, users, left_unset):
    """And holds for the libraries that follow it as long as nothing else is set."""
    nothing_loaded.setenv(users, "7")
    _caps.cap_threads(2)
    assert os.environ[users] == "7"
    assert {name: value for name, value in ours().items() if name != users} == dict.fromkeys(
        set(NAMES) - {users} - left_unset, "2"
    )


def test_a_list_of_levels_is_the_users_too(nothing_loaded):
    """OMP_NUM_THREADS may have one number for each level."""
    nothing_loaded.setenv("OMP_NUM_THREADS", "4,2")
    _caps.cap_threads(1)
    assert os.environ["OMP_NUM_THREADS"] == "4,2"


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_variable_is_none(nothing_loaded, empty):
    """That is how scripts unset one."""
    nothing_loaded.setenv("OMP_NUM_THREADS", empty)
    _caps.cap_threads(2)
    assert ours() == dict.fromkeys(NAMES, "2")


def test_a_cap_of_ours_is_only_lowered(nothing_loaded):
    """A Boss within a task lowers what was set for that task, and nothing raises it."""
    _caps.cap_threads(4)
    _caps.cap_threads(2)
    assert set(ours().values()) == {"2"}
    _caps.cap_threads(3)
    assert set(ours().values()) == {"2"}


def test_what_the_task_has_set_since_is_the_users(nothing_loaded):
    """It is no longer ours."""
    _caps.cap_threads(4)
    nothing_loaded.setenv("OMP_NUM_THREADS", "8")
    _caps.cap_threads(2)
    assert os.environ["OMP_NUM_THREADS"] == "8"


@pytest.mark.parametrize(("most", "expected"), [(None, "16"), ("4", "4"), ("64", "40"), ("many", "16"), ("0", "1")])
def test_numexpr_is_not_asked_for_more_than_it_takes(nothing_loaded, most, expected):
    """It would complain, and run in a single thread."""
    if most is not None:
        nothing_loaded.setenv("NUMEXPR_MAX_THREADS", most)
    _caps.cap_threads(40)
    assert os.environ["NUMEXPR_NUM_THREADS"] == expected
    assert os.environ["OMP_NUM_THREADS"] == "40"


# -- libraries that are loaded -------------------------------------------------------------------------------------


class Library:
    """A library as threadpoolctl shows it."""

    def __init__(self, api, threads):
        self.internal_api = api
        self.threads = threads
        self.calls = []

    @property
    def num_threads(self):
        if isinstance(self.threads, Exception):
            raise self.threads
        return self.threads

    def set_num_threads(self, count):
        self.calls.append(count)


@pytest.fixture
def loaded(environment):
    """Return a function that has threadpoolctl show some libraries."""

    def show(*libraries):
        environment.setattr(_caps, "_is_any_loaded", lambda: True)
        module = SimpleNamespace(ThreadpoolController=lambda: SimpleNamespace(lib_controllers=libraries))
        environment.setitem(sys.modules, "threadpoolctl", module)
        return libraries

    return show


def test_a_loaded_library_is_lowered(loaded):
    """Each one that would use more."""
    libraries = loaded(Library("openblas", 8), Library("openmp", 3), Library("new", 4))
    _caps.cap_threads(2)
    assert [library.calls for library in libraries] == [[2], [2], [2]]


def test_a_loaded_library_is_not_raised(loaded):
    """Somebody had a reason."""
    libraries = loaded(Library("openblas", 1), Library("openmp", 2), Library("mkl", None))
    _caps.cap_threads(2)
    assert [library.calls for library in libraries] == [[], [], []]


@pytest.mark.parametrize(
    ("users", "lowered"),
    [
        ("OMP_NUM_THREADS", set()),
        ("GOTO_NUM_THREADS", {"mkl", "blis", "openmp", "flexiblas"}),
        ("OPENBLAS_NUM_THREADS", {"mkl", "blis", "openmp", "flexiblas"}),
        ("MKL_NUM_THREADS", {"openblas", "blis", "openmp", "flexiblas"}),
        ("BLIS_NUM_THREADS", {"openblas", "mkl", "openmp", "flexiblas"}),
    ],
)
def test_a_loaded_library_that_the_user_has_set_stays(environment, loaded, users, lowered):
    """It has followed that variable when it was loaded."""
    environment.setenv(users, "8")
    libraries = loaded(*(Library(api, 8) for api in ("openblas", "mkl", "blis", "openmp", "flexiblas")))
    _caps.cap_threads(2)
    assert {library.internal_api for library in libraries if library.calls} == lowered


def test_a_cap_of_ours_does_not_protect_a_library(loaded):
    """The second cap is as good as the first."""
    (library,) = loaded(Library("openblas", 8))
    _caps.cap_threads(4)
    _caps.cap_threads(2)
    assert library.calls == [4, 2]


def test_one_library_that_fails_does_not_stop_the_others(loaded):
    """Nor the task."""
    libraries = loaded(Library("openblas", OSError("odd")), Library("openmp", 8))
    _caps.cap_threads(2)
    assert libraries[1].calls == [2]


def _broken():
    raise RuntimeError("no libc here")


def _warning():
    import warnings

    warnings.warn("two OpenMP libraries", RuntimeWarning, stacklevel=1)
    return SimpleNamespace(lib_controllers=[])


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(None, id="not installed"),
        pytest.param(SimpleNamespace(), id="too old"),
        pytest.param(SimpleNamespace(ThreadpoolController=_broken), id="failing"),
        pytest.param(SimpleNamespace(ThreadpoolController=_warning), id="warning"),
    ],
)
def test_a_threadpoolctl_that_does_not_work_is_ignored(environment, module):
    """The variables are set all the same, and nothing is said."""
    environment.setattr(_caps, "_is_any_loaded", lambda: True)
    environment.setitem(sys.modules, "threadpoolctl", module)
    _caps.cap_threads(2)
    assert os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/usr/lib/x86_64-linux-gnu/libgomp.so.1.0.0", True),
        ("/opt/venv/numpy.libs/libscipy_openblas64_-32a4b2a6.so", True),
        ("/opt/intel/libmkl_rt.so.2", True),
        ("/opt/intel/libiomp5.so", True),
        ("/usr/lib/libomp.so.5", True),
        ("/usr/lib/libblis.so.4", True),
        ("/usr/lib/libflexiblas.so.3", True),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", False),
        ("/home/blas/venv/lib/libpython3.11.so.1.0", False),
        ("/home/user/openblas-notes.txt", False),
    ],
)
def test_files_of_libraries_are_known_by_name(path, found):
    """By that of the file, not of a directory."""
    line = f"7f0000000000-7f0000001000 r-xp 00000000 08:01 1234                       {path}\n"
    assert bool(_caps._FILES.search(line.encode())) is found


def test_without_proc_numpy_is_the_sign(environment):
    """Where the system does not say what is loaded."""

    def refuse(*args, **kwargs):
        raise FileNotFoundError(args[0])

    environment.setattr("builtins.open", refuse)
    environment.setitem(sys.modules, "numpy", SimpleNamespace())
    assert _caps._is_any_loaded()
    environment.delitem(sys.modules, "numpy")
    assert not _caps._is_any_loaded()


# -- whole programs ------------------------------------------------------------------------------------------------


#: not importorskip: to import it here would leave its variable in the environment
needs_threadpoolctl = pytest.mark.skipif(find_spec("threadpoolctl") is None, reason="no threadpoolctl here")

HEAD = """
import json, sys
from taylorism._caps import cap_threads
show = lambda value: print(json.dumps(value))
"""


def run(program, **variables):
    """Run a program that ends with ``show(value)`` in a process of its own, and return that value."""
    clean = {name: value for name, value in os.environ.items() if name not in (*NAMES, *OTHERS)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + textwrap.dedent(program)],
        env={**clean, **variables}, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def test_a_worker_without_libraries_imports_nothing_more():
    """Neither threadpoolctl nor numpy: a worker may be born for a task of a millisecond."""
    new = run("""
        before = set(sys.modules)
        cap_threads(1)
        show(sorted(set(sys.modules) - before))
    """)
    assert new == []


#: a library with the interface of OpenBLAS or OpenMP, as the real ones say how many threads they use
LOADED = """
    import numpy, threadpoolctl
    def threads():
        return [each["num_threads"] for each in threadpoolctl.threadpool_info()]
    def set_all(count):
        for each in threadpoolctl.ThreadpoolController().lib_controllers:
            each.set_num_threads(count)
"""


def has_library():
    """Tell whether numpy comes with a library that threadpoolctl knows."""
    return bool(run(LOADED + "    show(threads())"))


@needs_threadpoolctl
def test_a_real_library_is_lowered_and_not_raised():
    """As numpy comes with one."""
    if not has_library():
        pytest.skip("numpy has no library here whose threads threadpoolctl could set")
    program = LOADED + """
    set_all(3)
    seen = [threads()]
    for count in (4, 2, 3, 1):
        cap_threads(count)
        seen.append(threads())
    show([set(each) == {number} for each, number in zip(seen, (3, 3, 2, 2, 1))])
    """
    assert run(program) == [True] * 5


@needs_threadpoolctl
@pytest.mark.parametrize("before", [None, "FALSE"])
def test_nothing_else_is_left_in_the_environment(before):
    """The import of threadpoolctl would allow OpenMP libraries in pairs, which may give wrong results."""
    program = """
    import os, numpy
    before = dict(os.environ)
    cap_threads(1)
    show([sorted(name for name in os.environ if os.environ[name] != before.get(name)), os.environ.get("%s")])
    """
    variables = {} if before is None else {_caps._ALLOWING: before}
    assert run(program % _caps._ALLOWING, **variables) == [sorted(NAMES), before]


@needs_threadpoolctl
def test_a_real_library_that_the_user_has_set_stays():
    """It was loaded with that variable."""
    program = LOADED + """
    before = threads()
    cap_threads(1)
    show([before == threads(), before])
    """
    same, before = run(program, OMP_NUM_THREADS="2")
    assert same and set(before) <= {1, 2}


@needs_threadpoolctl
def test_a_real_library_that_is_loaded_later_follows_the_variable():
    """threadpoolctl has no part in it."""
    program = """
    cap_threads(1)
    assert "threadpoolctl" not in sys.modules
    """
    assert set(run(program + LOADED + "    show(threads())")) <= {1}


def test_a_real_library_without_threadpoolctl_is_no_error():
    """Its extra may not be installed."""
    program = """
        import os, numpy
        sys.modules["threadpoolctl"] = None
        cap_threads(1)
        show([os.environ["OPENBLAS_NUM_THREADS"], float(numpy.ones((4, 4)).dot(numpy.ones(4)).sum())])
    """
    assert run(program) == ["1", 16.0]


@needs_threadpoolctl
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_lowers_its_own_only():
    """Main, where the library was loaded, keeps its threads, and the library works in both."""
    program = LOADED + """
    import os, warnings
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    set_all(2)
    numpy.ones((300, 300)) @ numpy.ones((300, 300))
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        cap_threads(1)
        result = float((numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum())
        os.write(write, json.dumps([threads(), result, os.environ["OMP_NUM_THREADS"]]).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    show([json.loads(os.read(read, 1000)), threads(), os.environ.get("OMP_NUM_THREADS")])
    """
    (inside, result, variable), outside, untouched = run(program)
    assert set(inside) <= {1} and result == 300.0**3 and variable == "1"
    assert set(outside) <= {2} and untouched is None
