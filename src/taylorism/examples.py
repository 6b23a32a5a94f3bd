"""Main and workers: small Worker classes, and programs that run them; public, imported on demand only.

Run one with, for instance, ``python -c "from taylorism import examples; examples.summer_example()"``. Whole
scripts on real data are in the directory ``examples`` of the project.

Every Worker class that a program has imported takes part in the choice of the class for a set of
instructions. That is why nothing else of the package imports this module.
"""

from __future__ import annotations

import time
from itertools import product
from typing import Any, ClassVar

import footprints

from taylorism._run import run_as_server
from taylorism._worker import Worker
from taylorism.util import SharedNumpyArray

__all__ = [
    "Logarithmer",
    "MatrixProducter",
    "Sleeper",
    "Summer",
    "logarithmer_example",
    "matrixproduct_example",
    "sleepers_example_bindedmemory",
    "sleepers_example_bindedthreads",
    "sleepers_example_laxist",
    "sleepers_example_memory",
    "sleepers_example_threads",
    "sleepers_generic_program",
    "summer_example",
]

#: seconds that the four Sleepers of `sleepers_generic_program` sleep
_NAPS = (4, 9, 2, 1)
#: seconds after which the interim report is asked for, when some have woken up and some have not
_GLANCE = 5
#: seconds that the Sleeper sleeps who is hired afterwards
_LATE_NAP = 3


# ---------------------------------------------------------------------------------------------------------
# workers
# ---------------------------------------------------------------------------------------------------------


class Sleeper(Worker):
    """Sleeps, and says so.

    Attributes
    ----------
    sleeping_time : float
        How long (s): 0.001, 0.01, 0.1, a whole number up to 10, or a multiple of 5 up to 60.
    wakeup_sentence : str
        How the report begins; by default ``Hello !``.
    """

    sleeping_time: float
    wakeup_sentence: str

    _footprint: ClassVar[Any] = {
        "info": "Sleeps.",
        "attr": {
            "sleeping_time": {
                "info": "How long to sleep (s).",
                "values": [0.001, 0.01, 0.1, *range(11), *range(15, 65, 5)],
                "type": float,
            },
            "wakeup_sentence": {
                "info": "How the report begins.",
                "optional": True,
                "access": "rwx",
                "default": "Hello !",
            },
        },
    }

    def _task(self, **kwargs: Any) -> str:
        time.sleep(self.sleeping_time)
        slept = f"Woke up after {self.sleeping_time} s sleep"
        return f"{self.wakeup_sentence} {slept} on cpu {self.binding()}"


class Logarithmer(Worker):
    """Replaces one row of a shared array by its logarithm.

    Attributes
    ----------
    row : int
        Which one.
    array : SharedNumpyArray of float, shape (rows, columns)
        The array.
    """

    row: int
    array: SharedNumpyArray

    _footprint: ClassVar[Any] = {
        "attr": {
            "row": {"info": "Index of the row to work on.", "type": int},
            "array": {
                "info": "The shared array.",
                "type": SharedNumpyArray,
                "access": "rwx",
            },
        },
    }

    def _task(self, **kwargs: Any) -> None:
        import numpy

        with numpy.errstate(divide="ignore"):  # the logarithm of 0 is -inf, and that is no surprise here
            self.array[self.row] = numpy.log(self.array[self.row])


class Summer(Worker):
    """Adds a value to a sum that all workers share.

    To add is to read, then to write: without the lock another worker may write in between, and what it added is
    lost.

    Attributes
    ----------
    value : int
        What to add.
    shared_sum : SharedNumpyArray of int, shape (1,)
        The sum.
    use_lock : bool
        Whether to hold the lock of the array meanwhile.
    """

    value: int
    shared_sum: SharedNumpyArray
    use_lock: bool

    _footprint: ClassVar[Any] = {
        "attr": {
            "value": {"info": "What to add.", "type": int},
            "shared_sum": {
                "info": "The shared array that holds the sum.",
                "type": SharedNumpyArray,
                "access": "rwx",
            },
            "use_lock": {
                "info": "Whether to hold the lock meanwhile; without it the sum may come out wrong.",
                "type": bool,
            },
        },
    }

    def _task(self, **kwargs: Any) -> None:
        if self.use_lock:
            with self.shared_sum.get_lock():
                self._add()
        else:
            self._add()

    def _add(self) -> None:
        self.shared_sum[0] += self.value


class MatrixProducter(Worker):
    """Computes one block of the matrix product C = A x B; the three matrices are shared.

    Attributes
    ----------
    A, B, C : SharedNumpyArray of float, shapes (n, p), (p, m), (n, m)
        The matrices.
    i1, i2, j1, j2 : int
        First and last row, first and last column of the block of C. The last ones belong to it.
    """

    A: SharedNumpyArray
    B: SharedNumpyArray
    C: SharedNumpyArray
    i1: int
    i2: int
    j1: int
    j2: int

    _footprint: ClassVar[Any] = {
        "attr": {
            "A": {"info": "The left matrix.", "type": SharedNumpyArray, "access": "rwx"},
            "B": {"info": "The right matrix.", "type": SharedNumpyArray, "access": "rwx"},
            "C": {"info": "The product.", "type": SharedNumpyArray, "access": "rwx"},
            "i1": {"info": "First row of the block.", "type": int},
            "i2": {"info": "Last row of the block.", "type": int},
            "j1": {"info": "First column of the block.", "type": int},
            "j2": {"info": "Last column of the block.", "type": int},
        },
    }

    def _task(self, **kwargs: Any) -> None:
        # By hand: a matrix product of numpy would start the threads of its BLAS library in each worker.
        for i, j in product(range(self.i1, self.i2 + 1), range(self.j1, self.j2 + 1)):
            self.C[i, j] = (self.A[i] * self.B[:, j]).sum()


# ---------------------------------------------------------------------------------------------------------
# programs
# ---------------------------------------------------------------------------------------------------------


def sleepers_generic_program(verbose: bool = True, scheduler: Any = None) -> None:
    """Run Sleepers, look at what is done meanwhile, hire one more, wait, print what they reported.

    Parameters
    ----------
    verbose : bool
        As in `Boss`.
    scheduler : object, optional
        As in `Boss`.
    """
    boss = run_as_server(
        common_instructions={"wakeup_sentence": "Hello Dolly !"},
        individual_instructions={"sleeping_time": _NAPS},
        scheduler=scheduler,
        verbose=verbose,
    )
    time.sleep(_GLANCE)
    report: Any = boss.get_report()
    print("Intermediate report:", {key: report[key] for key in ("workers_report", "status")})
    boss.set_instructions({}, {"sleeping_time": [_LATE_NAP]})
    boss.wait_till_finished()
    for record in _records(boss):
        print(record)


def _records(boss: Any) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = boss.get_report()["workers_report"]
    return records


def sleepers_example_laxist(verbose: bool = True) -> None:
    """Run the Sleepers all at once."""
    sleepers_generic_program(verbose, footprints.proxy.scheduler(nosort=True))


def sleepers_example_threads(verbose: bool = True) -> None:
    """Run the Sleepers three at a time."""
    scheduler = footprints.proxy.scheduler(limit="threads", max_threads=3)
    sleepers_generic_program(verbose, scheduler)


def sleepers_example_bindedthreads(verbose: bool = True) -> None:
    """Run the Sleepers three at a time, each bound to a cpu."""
    scheduler = footprints.proxy.scheduler(limit="threads", max_threads=3, binded=True)
    sleepers_generic_program(verbose, scheduler)


def sleepers_example_memory(verbose: bool = True) -> None:
    """Run as many Sleepers as three quarters of the memory can hold, at 1.8 MiB each."""
    scheduler = footprints.proxy.scheduler(limit="memory", memory_per_task=1.8)
    sleepers_generic_program(verbose, scheduler)


def sleepers_example_bindedmemory(verbose: bool = True) -> None:
    """Run as many Sleepers as three quarters of the memory can hold, each bound to a cpu."""
    # 1.1 left it at 2 GiB each, which a small machine does not have.
    scheduler = footprints.proxy.scheduler(limit="memory", memory_per_task=1.8, binded=True)
    sleepers_generic_program(verbose, scheduler)


def logarithmer_example(verbose: bool = True) -> None:
    """Replace a shared array by its logarithm, one row for each worker; print it before and after.

    Parameters
    ----------
    verbose : bool
        As in `Boss`.
    """
    import numpy

    array = SharedNumpyArray(numpy.add.outer(numpy.arange(2.0), numpy.arange(3.0)))
    print(array[...])
    boss = run_as_server(
        individual_instructions={"row": range(2)},
        scheduler=footprints.proxy.scheduler(limit="threads", max_threads=2),
        verbose=verbose,
        sharedmemory_common_instructions={"array": array},
    )
    boss.wait_till_finished()
    print(array[...])


def summer_example(verbose: bool = True, use_lock: bool = True) -> None:
    """Let ten workers add to one shared sum; print it, and what it should be.

    Parameters
    ----------
    verbose : bool
        As in `Boss`.
    use_lock : bool
        Whether the workers hold the lock while they add. Without it the sum may come out wrong.
    """
    import numpy

    values = range(10)
    shared_sum = SharedNumpyArray(numpy.zeros(1, dtype=int))
    boss = run_as_server(
        common_instructions={"use_lock": use_lock},
        individual_instructions={"value": values},
        # All at once, so that the lock matters.
        scheduler=footprints.proxy.scheduler(limit="threads", max_threads=len(values)),
        verbose=verbose,
        sharedmemory_common_instructions={"shared_sum": shared_sum},
    )
    boss.wait_till_finished()
    print(f"{shared_sum[0]}=={sum(values)}")


def matrixproduct_example(
    A_shape: tuple[int, int] = (6, 7),
    B_shape: tuple[int, int] = (7, 8),
    iblocks: int = 2,
    jblocks: int = 4,
    verbose: bool = True,
) -> None:
    """Multiply two random matrices, one block of the product for each worker; print time and product.

    Parameters
    ----------
    A_shape, B_shape : tuple of two int
        Shapes of the matrices; the columns of A are as many as the rows of B.
    iblocks, jblocks : int
        How many blocks the rows, and the columns, of the product are cut into; the numbers of rows and columns
        must be multiples of them.
    verbose : bool
        As in `Boss`.

    Raises
    ------
    AssertionError
        The shapes do not fit together, or the blocks do not fit the shapes.
    """
    import numpy

    _check_shapes(A_shape, B_shape, iblocks, jblocks)
    A = SharedNumpyArray(numpy.random.random(A_shape))
    B = SharedNumpyArray(numpy.random.random(B_shape))
    C = SharedNumpyArray(numpy.zeros((A_shape[0], B_shape[1])))
    start = time.monotonic()
    boss = run_as_server(
        individual_instructions=_blocks(C.shape, iblocks, jblocks),
        scheduler=footprints.proxy.scheduler(limit="threads", max_threads=4),
        verbose=verbose,
        sharedmemory_common_instructions={"A": A, "B": B, "C": C},
    )
    boss.wait_till_finished()
    print("Exec in:", time.monotonic() - start)
    print(C[:, :])


def _check_shapes(
    A_shape: tuple[int, int], B_shape: tuple[int, int], iblocks: int, jblocks: int
) -> None:
    if A_shape[1] != B_shape[0]:
        raise AssertionError(
            f"matrices of shapes {A_shape} and {B_shape} have no product: the columns of the first must be as "
            "many as the rows of the second."
        )
    for lines, blocks in ((A_shape[0], iblocks), (B_shape[1], jblocks)):
        if lines % blocks:
            raise AssertionError(f"{lines} rows or columns cannot be cut into {blocks} equal blocks.")


def _blocks(shape: tuple[int, int], iblocks: int, jblocks: int) -> dict[str, list[int]]:
    """Return the bounds of the blocks of a matrix, as individual instructions of `MatrixProducter`."""
    height, width = shape[0] // iblocks, shape[1] // jblocks
    corners = list(product(range(0, shape[0], height), range(0, shape[1], width)))
    return {
        "i1": [i for i, _ in corners],
        "i2": [i + height - 1 for i, _ in corners],
        "j1": [j for _, j in corners],
        "j2": [j + width - 1 for _, j in corners],
    }
