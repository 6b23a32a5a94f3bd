"""The public examples: what they accept, what they print, and that they are imported on demand only."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable

import footprints
import numpy as np
import pytest

import taylorism
from taylorism import examples
from taylorism.util import SharedNumpyArray

#: what 1.1 has in this module, and how it is called
SIGNATURES = {
    "sleepers_generic_program": {"verbose": True, "scheduler": None},
    "sleepers_example_laxist": {"verbose": True},
    "sleepers_example_threads": {"verbose": True},
    "sleepers_example_bindedthreads": {"verbose": True},
    "sleepers_example_memory": {"verbose": True},
    "sleepers_example_bindedmemory": {"verbose": True},
    "logarithmer_example": {"verbose": True},
    "summer_example": {"verbose": True, "use_lock": True},
    "matrixproduct_example": {
        "A_shape": (6, 7),
        "B_shape": (7, 8),
        "iblocks": 2,
        "jblocks": 4,
        "verbose": True,
    },
}

SLEEPERS = [
    examples.sleepers_example_laxist,
    examples.sleepers_example_threads,
    examples.sleepers_example_memory,
    pytest.param(
        examples.sleepers_example_bindedthreads,
        marks=pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no binding here"),
    ),
    pytest.param(
        examples.sleepers_example_bindedmemory,
        marks=pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no binding here"),
    ),
]


@pytest.fixture
def short_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody sleep for seconds."""
    monkeypatch.setattr(examples, "_NAPS", (0.1, 0.1, 0.01, 0.001))
    monkeypatch.setattr(examples, "_GLANCE", 0.05)
    monkeypatch.setattr(examples, "_LATE_NAP", 0.01)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_programs_are_called_as_in_1_1(name: str) -> None:
    """Each program has the parameters and defaults of 1.1."""
    parameters = inspect.signature(getattr(examples, name)).parameters
    assert {key: each.default for key, each in parameters.items()} == SIGNATURES[name]


def test_importing_the_package_does_not_import_the_examples() -> None:
    """Their Worker classes must not compete with a user's unless he asked for them."""
    code = "import sys, taylorism; assert 'taylorism.examples' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.parametrize("seconds", [0.001, 0.01, 0.1, 0, 1, 9, 10, 15, 60])
def test_a_sleeper_accepts_the_naps_of_1_1(seconds: float) -> None:
    """A Sleeper is what footprints chooses for each nap that 1.1 accepts."""
    worker = footprints.proxy.worker(sleeping_time=seconds)
    assert isinstance(worker, examples.Sleeper)
    assert worker.sleeping_time == float(seconds)
    assert worker.wakeup_sentence == "Hello !"


@pytest.mark.parametrize("seconds", [0.5, 11, 65, -1])
def test_a_sleeper_refuses_other_naps(seconds: float) -> None:
    """Nobody is found for a nap that is not in the list."""
    assert footprints.proxy.worker(sleeping_time=seconds) is None


def test_a_sleeper_says_how_long_and_where() -> None:
    """The report is the sentence of 1.1, with the cpus of `binding()`."""
    worker = examples.Sleeper(sleeping_time=0.001, wakeup_sentence="Hey.")
    assert worker._task() == f"Hey. Woke up after 0.001 s sleep on cpu {worker.binding()}"


@pytest.mark.parametrize("program", SLEEPERS)
@pytest.mark.usefixtures("short_naps")
def test_the_sleepers_report(
    program: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    """An interim report is printed, then the record of each of the five workers."""
    program(verbose=False)
    interim, *records = capfd.readouterr().out.splitlines()
    assert re.match(r"Intermediate report: \{'workers_report': \[.*\], 'status': '\w+'\}$", interim)
    told = re.findall(r"'report': '(.*?) Woke up after (\S+) s sleep", "\n".join(records))
    dolly = [("Hello Dolly !", nap) for nap in ("0.1", "0.1", "0.01", "0.001")]
    assert Counter(told) == Counter([("Hello !", "0.01"), *dolly])
    assert len(records) == 5


@pytest.mark.usefixtures("short_naps")
def test_a_bound_sleeper_says_one_cpu(capfd: pytest.CaptureFixture[str]) -> None:
    """With `binded`, each report ends with the one cpu that the worker was bound to."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no binding here")
    examples.sleepers_example_bindedthreads(verbose=False)
    *_, records = capfd.readouterr().out.partition("\n")
    cpus = os.sched_getaffinity(0)
    expected = {"[None]"} if len(cpus) == 1 == os.cpu_count() else {f"[{cpu}]" for cpu in cpus}
    assert set(re.findall(r"on cpu (\[.*?\])", records)) <= expected


@pytest.mark.usefixtures("short_naps")
def test_verbose_is_handed_on(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program asks its Boss to be as verbose as it was told."""
    asked = []
    original = examples.run_as_server

    def spy(*args: object, **kwargs: object) -> taylorism.Boss:
        asked.append(kwargs["verbose"])
        return original(*args, **{**kwargs, "verbose": False})  # type: ignore[arg-type]

    monkeypatch.setattr(examples, "run_as_server", spy)
    examples.sleepers_example_laxist()
    examples.logarithmer_example(verbose=False)
    examples.summer_example()
    examples.matrixproduct_example(verbose=False)
    assert asked == [True, False, True, False]


def test_the_logarithms_are_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """The array is printed before and after, as by 1.1, and the logarithm of 0 is silent."""
    examples.logarithmer_example(verbose=False)
    out, err = capfd.readouterr()
    before = np.array([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    with np.errstate(divide="ignore"):
        assert out == f"{before}\n{np.log(before)}\n"
    assert err == ""


def test_the_sum_is_right(capfd: pytest.CaptureFixture[str]) -> None:
    """With the lock, the sum is what it should be."""
    examples.summer_example(verbose=False)
    assert capfd.readouterr().out == "45==45\n"


def test_the_sum_without_lock_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Without the lock something is lost now and then, but it is printed in the same way."""
    examples.summer_example(verbose=False, use_lock=False)
    assert re.fullmatch(r"\d+==45\n", capfd.readouterr().out)


@pytest.mark.parametrize("use_lock", [True, False])
def test_a_summer_holds_the_lock(monkeypatch: pytest.MonkeyPatch, use_lock: bool) -> None:
    """The lock of the array is held during the addition if that is wanted, and is free after it."""
    shared_sum = SharedNumpyArray(np.array([1]))
    free = []

    def look() -> None:
        free.append(shared_sum.acquire(False))
        if free[-1]:
            shared_sum.release()

    def look_from_outside(worker: object = None) -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    monkeypatch.setattr(examples.Summer, "_add", look_from_outside)
    examples.Summer(value=2, shared_sum=shared_sum, use_lock=use_lock)._task()
    look_from_outside()
    assert free == [not use_lock, True]


def test_a_summer_adds() -> None:
    """The value is added to the first element."""
    shared_sum = SharedNumpyArray(np.array([1]))
    examples.Summer(value=2, shared_sum=shared_sum, use_lock=True)._task()
    assert shared_sum[0] == 3


@pytest.mark.parametrize(
    ("a_shape", "b_shape", "iblocks", "jblocks"),
    [((6, 7), (7, 8), 2, 4), ((1, 1), (1, 1), 1, 1), ((3, 2), (2, 3), 3, 1)],
)
def test_the_product_is_right(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    a_shape: tuple[int, int],
    b_shape: tuple[int, int],
    iblocks: int,
    jblocks: int,
) -> None:
    """Time and product are printed, and the product is that of numpy."""
    drawn = []
    original = np.random.random

    def draw(shape: tuple[int, int]) -> np.ndarray:
        drawn.append(1 + original(shape))  # of small numbers, too few digits would be printed
        return drawn[-1]

    monkeypatch.setattr(np.random, "random", draw)
    examples.matrixproduct_example(a_shape, b_shape, iblocks, jblocks, verbose=False)
    first, rest = capfd.readouterr().out.split("\n", 1)
    assert re.fullmatch(r"Exec in: \d+\.\d+(e-\d+)?", first)
    left, right = drawn
    printed = np.array(rest.replace("[", " ").replace("]", " ").split(), dtype=float)
    np.testing.assert_allclose(printed.reshape(a_shape[0], b_shape[1]), left @ right, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"A_shape": (6, 5)}, "have no product"),
        ({"iblocks": 4}, "cannot be cut into 4"),
        ({"jblocks": 3}, "cannot be cut into 3"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(wrong: dict[str, object], told: str) -> None:
    """What 1.1 asserts is still an AssertionError, which now says what is wrong."""
    with pytest.raises(AssertionError, match=told):
        examples.matrixproduct_example(verbose=False, **wrong)  # type: ignore[arg-type]


def test_the_blocks_cover_the_product_once() -> None:
    """Each element of the product belongs to exactly one block."""
    count = np.zeros((6, 8), dtype=int)
    blocks = examples._blocks((6, 8), 2, 4)
    for i1, i2, j1, j2 in zip(*(blocks[key] for key in ("i1", "i2", "j1", "j2")), strict=True):
        count[i1 : i2 + 1, j1 : j2 + 1] += 1
    assert (count == 1).all()
