"""The package: the names that it promises, the signatures, and an import that does nothing else."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import taylorism
from taylorism import schedulers

NAMES = [
    "Boss", "Worker", "BindedWorker", "run_as_server", "batch_main", "BaseScheduler", "MaxThreadsScheduler",
    "binding_setup", "taylorism_log", "communications_timeout", "__version__", "TaylorismError", "WorkerDied",
    "BossDied",
]  # fmt: skip
SCHEDULERS = [
    "BaseScheduler", "NewLaxistScheduler", "NewLimitedScheduler", "NewMaxThreadsScheduler",
    "NewMaxMemoryScheduler", "LongerFirstScheduler", "NewSingleOpenFileScheduler", "BindingAwareScheduler",
    "binding_setup", "MAX_NUMBER_PROCESSES", "LaxistScheduler", "MaxThreadsScheduler", "MaxMemoryScheduler",
    "SingleOpenFileScheduler",
]  # fmt: skip
EXAMPLES = [
    "Sleeper", "Logarithmer", "Summer", "MatrixProducter", "sleepers_generic_program", "sleepers_example_laxist",
    "sleepers_example_threads", "sleepers_example_bindedthreads", "sleepers_example_memory",
    "sleepers_example_bindedmemory", "logarithmer_example", "summer_example", "matrixproduct_example",
]  # fmt: skip


def python(code, **options):
    """Run a program in a fresh interpreter; return what it printed."""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, **options
    )
    assert run.stderr == "", run.stderr
    return run.stdout


# -- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_names_of_the_package(name):
    """All that 1.1 had, and the additions."""
    assert hasattr(taylorism, name)
    assert name in taylorism.__all__


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_names_of_the_schedulers(name):
    """All that 1.1 had, the deprecated ones included."""
    assert hasattr(schedulers, name)


def test_the_names_of_util():
    """That of 1.1, and its error."""
    assert importlib.import_module("taylorism.util").__all__ == ["SharedNumpyArray", "UnsharableError"]


def test_the_names_of_the_examples():
    """In an interpreter of their own: their workers would compete with those of the tests."""
    missing = python(f"from taylorism import examples; print([n for n in {EXAMPLES} if not hasattr(examples, n)])")
    assert missing == "[]\n"


def test_all_public_names_exist():
    """`__all__` says the truth, in every module."""
    for path in Path(taylorism.__file__).parent.glob("*.py"):
        if path.stem not in ("__init__", "examples"):
            module = importlib.import_module(f"taylorism.{path.stem}")
            assert all(hasattr(module, name) for name in module.__all__)
    assert len(set(taylorism.__all__)) == len(taylorism.__all__)
    assert all(hasattr(taylorism, name) for name in taylorism.__all__)


def test_one_object_has_one_name():
    """The same by both ways."""
    assert taylorism.BaseScheduler is schedulers.BaseScheduler
    assert taylorism.MaxThreadsScheduler is schedulers.MaxThreadsScheduler
    assert taylorism.binding_setup is schedulers.binding_setup
    assert schedulers.MAX_NUMBER_PROCESSES == 512


def test_classes_say_that_they_are_the_packages():
    """footprints derives tags and permissions of it, and users read it in messages."""
    assert taylorism.Worker.__module__ == taylorism.BindedWorker.__module__ == "taylorism"


def test_the_version_is_that_of_the_distribution():
    """And one of the second generation."""
    assert taylorism.__version__ == metadata.version("taylorism")
    assert re.match(r"2\.\d+\.\d+", taylorism.__version__)


def test_the_distribution_says_what_it_is():
    """Dependencies, versions of Python, licence."""
    told = metadata.metadata("taylorism")
    plain = [each for each in told.get_all("Requires-Dist") if "extra ==" not in each]
    assert sorted(plain) == ["footprints", "numpy", "psutil"]
    assert told["Requires-Python"] == ">=3.10"
    assert {"test", "docs", "dev"} <= set(told.get_all("Provides-Extra"))


def test_the_package_is_typed():
    """mypy reads our annotations."""
    assert (Path(taylorism.__file__).parent / "py.typed").exists()


def test_the_old_timeout_may_be_assigned():
    """It paces nothing any more."""
    told = python("import taylorism; print(taylorism.communications_timeout); taylorism.communications_timeout = 1")
    assert told == "0.01\n"


def test_the_import_brings_what_defines_workers_and_no_more():
    """Neither the listener nor what it needs; that comes with the first Boss, and nothing after its fork."""
    code = (
        "import sys, footprints; before = set(sys.modules); import taylorism; found = set(sys.modules) - before\n"
        "print(sorted(found & {'socket', 'uuid', 'pathlib', 'pickle', 'taylorism._listener', 'taylorism._boss'}))\n"
        "class Looker(taylorism.Worker):\n"
        "    _footprint = dict(attr=dict(looked_at=dict(type=int)))\n"
        "    def _task(self, **kwargs):\n"
        "        return set(sys.modules)\n"
        "boss = taylorism.Boss()\n"
        "before = set(sys.modules)\n"
        "boss.set_instructions({}, {'looked_at': [1]})\n"
        "boss.wait_till_finished()\n"
        "print(sorted(boss.get_report()['workers_report'][0]['report'] - before))\n"
    )
    assert python(code) == "[]\n[]\n"


def test_what_is_imported_on_demand_is_there():
    """By a star, by its name, in dir(), and pickled by its name; what is not there is an AttributeError."""
    names = "{'Boss', 'batch_main', 'WorkerDied', 'Worker', '__version__'}"
    code = (
        f"import taylorism; assert {names} <= set(dir(taylorism)) and 'Boss' not in vars(taylorism)\n"
        "import pickle; assert pickle.loads(b'ctaylorism\\nWorkerDied\\n.') is taylorism.WorkerDied\n"
        "from taylorism import *; assert Boss is taylorism.Boss and taylorism.Boss is vars(taylorism)['Boss']\n"
        "print(hasattr(taylorism, 'nothing'), issubclass(WorkerDied, TaylorismError))"
    )
    assert python(code) == "False True\n"


# -- signatures -----------------------------------------------------------------------------------------

EMPTY = inspect.Parameter.empty
COMMON = [
    ("common_instructions", {}),
    ("individual_instructions", {}),
    ("scheduler", None),
    ("verbose", False),
    ("maxlenreport", 1024),
]
SHARED = [("sharedmemory_common_instructions", {})]
SIGNATURES = {
    "run_as_server": [*COMMON, *SHARED],
    "batch_main": [*COMMON, ("print_report", print), *SHARED],
    "Boss": [("scheduler", None), ("name", None), ("verbose", False), ("maxlenreport", 1024), *SHARED],
    "Boss.set_instructions": [
        ("self", EMPTY),
        ("common_instructions", {}),
        ("individual_instructions", {}),
        ("fatal", True),
    ],
    "Boss.make_them_work": [("self", EMPTY), ("terminate", False), ("stop_listening", False)],
    "Boss.stop_them_working": [("self", EMPTY), ("right_now", True)],
    "Boss.end": [("self", EMPTY)],
    "Boss.wait_till_finished": [("self", EMPTY), ("timeout", None)],
    "Boss.get_report": [("self", EMPTY), ("interim", True), ("block", False), ("timeout", None)],
    "Worker.work": [("self", EMPTY)],
    "Worker.bye": [("self", EMPTY)],
    "Worker.stop_working": [("self", EMPTY)],
    "Worker.binding": [("self", EMPTY)],
}


def parameters(name):
    """Return the parameters of something public."""
    target = taylorism
    for part in name.split("."):
        target = getattr(target, part)
    return list(inspect.signature(target).parameters.values())


@pytest.mark.parametrize(("name", "expected"), SIGNATURES.items())
def test_old_signatures_are_kept(name, expected):
    """Names, order and defaults of 1.1."""
    positional = [each for each in parameters(name) if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert [(each.name, each.default) for each in positional] == expected


def test_additions_are_keywords_and_the_same_everywhere():
    """On Boss and on both functions, after the old ones."""
    added = {
        name: [(each.name, each.default) for each in parameters(name) if each.kind is each.KEYWORD_ONLY]
        for name in ("Boss", "run_as_server", "batch_main")
    }
    assert added["Boss"] == added["run_as_server"] == added["batch_main"]
    assert ("start_method", None) in added["Boss"]


def test_the_default_instructions_are_not_shared_with_anybody():
    """Nobody can write into the default of the next caller."""
    from taylorism import _boss

    assert _boss.NOTHING == {}


def test_the_signals_of_a_boss():
    """A dict at the level of the class, with values of one kind, all different."""
    signals = taylorism.Boss.control_signals
    assert set(signals) == {"HALT", "RESUME", "SEND_REPORT", "END", "STOP", "STOP_LISTENING", "STOP_RIGHTNOW"}
    assert len(set(signals.values())) == 7


def test_the_footprint_of_a_worker_is_what_it_was():
    """Nothing may be added: a user's class may use any other name."""
    attributes = taylorism.Worker.footprint_retrieve().attr
    assert set(attributes) == {"name", "memory", "expected_time", "scheduler_ticket", "scheduler_hooks"}
    assert all(each["optional"] for each in attributes.values())
    assert [attributes[name]["default"] for name in ("name", "memory", "expected_time", "scheduler_ticket")] == [
        None, 0.0, 0.0, None,
    ]  # fmt: skip
    assert attributes["name"]["access"] == "rwx"


# -- the import -----------------------------------------------------------------------------------------

LOOK = """
import json, logging, os, signal, sys, threading

def look():
    import gc
    loggers = {"root": logging.getLogger(), **logging.Logger.manager.loggerDict}
    return {
        "threads": threading.active_count(),
        "children": sorted(os.listdir("/proc/self/task")),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "signals": [str(signal.getsignal(each)) for each in sorted(signal.valid_signals())],
        "wakeup": signal.set_wakeup_fd(-1),
        "handlers": {
            name: [type(each).__name__ for each in logger.handlers]
            for name, logger in loggers.items() if getattr(logger, "handlers", None)
        },
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "switch": sys.getswitchinterval(),
        "gc": gc.get_threshold(),
        "excepthook": str(sys.excepthook),
        "recursion": sys.getrecursionlimit(),
    }
"""


def test_the_import_does_nothing_but_import():
    """No thread, process, descriptor, signal handler; no handler of logging but a NullHandler on our own logger."""
    code = LOOK + (
        "import footprints, bronx.fancies.loggers, bronx.system.interrupt\n"  # they do as they like
        "before = look()\nimport taylorism, taylorism.schedulers\nprint(json.dumps([before, look()]))"
    )
    before, after = json.loads(python(code))
    assert after["handlers"].pop("taylorism") == ["NullHandler"]
    assert before == after


def test_the_import_is_silent():
    """Nothing on standard output, nothing on standard error, no warning."""
    assert python("import warnings; warnings.simplefilter('error'); import taylorism, taylorism.schedulers") == ""


@pytest.mark.parametrize(
    "module", ["numpy", "matplotlib", "psutil", "taylorism.examples", "taylorism._pages", "taylorism._shared"]
)
def test_the_import_does_not_load(module):
    """What is slow to import, or would compete with the classes of users, comes on demand."""
    assert python(f"import sys, taylorism, taylorism.schedulers; print({module!r} in sys.modules)") == "False\n"


def test_no_class_of_ours_is_chosen_in_place_of_a_users():
    """Without the examples, there is no worker class that is not abstract."""
    code = "import footprints, taylorism; print(footprints.proxy.worker(sleeping_time=1))"
    assert "None" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_package_can_be_imported_without_standard_streams():
    """By daemons, and under a scheduler of batch jobs."""
    code = "import sys, os\nsys.stdout = sys.stderr = sys.stdin = None\nimport taylorism\nos._exit(7)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


def test_star_imports_give_the_public_names():
    """As in old scripts."""
    told = python("from taylorism import *; print(sorted(n for n in dir() if 'oss' in n or n == 'Worker'))")
    assert "Boss" in told and "Worker" in told and "BossDied" in told


def test_no_file_of_the_package_knows_this_machine():
    """No absolute path of where it was written."""
    here = str(Path(os.path.realpath(taylorism.__file__)).parents[2])
    for path in Path(taylorism.__file__).parent.glob("*.py"):
        assert here not in path.read_text(encoding="utf-8")
