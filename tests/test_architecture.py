"""The architecture, read from the sources: imports go one way, functions are short, modules say where they live."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import taylorism

SOURCE = Path(taylorism.__file__).parent


def named(path):
    """Return how a module is called here: by its path below the package, with dots; a package by its own."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {named(path): path for path in sorted(SOURCE.rglob("*.py"))}
#: what each says, while this file is tested: at any other time, each fork of the tests would carry it along
TREES: dict[str, ast.Module] = {}

#: from below to above: a module may import what is below it, and its own layer where that makes no circle
LAYERS = {
    "leaves": {
        "_caps",
        "_compat",
        "_cpus",
        "_descriptors",
        "_exits",
        "_forest",
        "_gates",
        "_handles",
        "_hold",
        "_lease",
        "_libc",
        "_late",
        "_logs",
        "_memory",
        "_oom",
        "_pages",
        "_robust",
        "_segments",
        "_streams",
        "_tree",
    },
    "vocabulary": {"_errors", "_instructions", "_messages", "_policy", "_signals"},
    "transport": {"_channel", "_freight", "_process"},
    "people": {
        "_asked",
        "_binding",
        "_by_cpus",
        "_by_memory",
        "_by_threads",
        "_calls",
        "_child",
        "_commands",
        "_deprecated",
        "_lanes",
        "_limited",
        "_queues",
        "_ranked",
        "_scheduler",
        "_shares",
        "_worker",
        "schedulers",
    },
    "session": {
        "_arrivals",
        "_batches",
        "_blame",
        "_choice",
        "_court",
        "_crew",
        "_hands",
        "_hiring",
        "_ladder",
        "_launcher",
        "_ledger",
        "_listener",
        "_member",
        "_moulds",
        "_reserve",
        "_series",
        "_setup",
        "_stowage",
        "_upstream",
        "_usage",
    },
    "main": {"_boss", "_futures", "_link", "_progress", "_results", "_run", "_status"},
    "door": {"__init__", "_shared", "compat", "examples", "util", "workers"},
    "neighbours": {
        "compat._job_boss",
        "compat._joberrors",
        "compat._joblist",
        "compat._jobpool",
        "compat._jobprocess",
        "compat._jobtree",
        "compat._jobworker",
        "compat._resources",
        "compat.jobfolder",
        "compat.jobmon",
        "compat.parallel",
    },
}
LEVEL = {module: level for level, modules in enumerate(LAYERS.values()) for module in modules}

#: who may import what is not ours and not of the standard library
FOREIGN = {
    "footprints": {
        *("_binding", "_boss", "_choice", "_hiring", "_limited", "_moulds", "_scheduler"),
        *("_setup", "_worker", "compat._jobworker", "examples"),
    },
    "psutil": {"_cpus", "_memory", "_tree"},
    "numpy": {"_shared", "examples"},
    "bronx": {"_compat"},
    "jobmon": {"compat.jobmon"},
}

#: lines of a function, its docstring apart
LONGEST = 40
DEEPEST = 3
WORLDS = re.compile(r"\b(main|listener|worker|any|none)\b", re.IGNORECASE)


@pytest.fixture(scope="module", autouse=True)
def trees() -> Iterator[None]:
    """Read all modules, once."""
    TREES.update({module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()})
    yield
    TREES.clear()


def functions(module):
    """Return the functions of a module, methods and nested ones included."""
    return [node for node in ast.walk(TREES[module]) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def imported(tree, ours):
    """Yield the modules that a module imports: the names of ours, or the first part of the others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _named(alias.name, None, ours)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            full = f"taylorism.{module}".rstrip(".") if node.level else module
            for alias in node.names:
                yield from _named(full, alias.name, ours)


def _named(full, name, ours):
    parts = full.split(".")
    if parts[0] != "taylorism":
        if not ours:
            yield parts[0]
    elif ours:
        below = [*parts[1:], *([name] if name else [])]
        known = (".".join(below[:end]) for end in range(len(below), 0, -1))
        yield next((each for each in known if each in MODULES), parts[1] if len(parts) > 1 else "__init__")


def checked_only(tree):
    """Return the modules that are imported for the type checker alone."""
    return {
        module
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for module in imported(ast.Module(node.body, []), ours=True)
    }


def test_every_module_has_its_layer():
    """A new module is put into the table with a thought."""
    assert set(LEVEL) == set(MODULES)


def test_the_check_sees_imports():
    """Those in functions, and those of a module of the package, too."""
    code = "from taylorism import _boss, Boss\nfrom taylorism._link import x\ndef f():\n import psutil.y"
    tree = ast.parse(f"{code}\nimport taylorism.compat.parallel\nfrom taylorism.compat import parallel, nothing")
    assert set(imported(tree, ours=True)) == {"__init__", "_boss", "_link", "compat", "compat.parallel"}
    assert set(imported(tree, ours=False)) == {"psutil"}
    assert "_channel" in set(imported(TREES["_crew"], ours=True))


#: a deprecated class binds itself by a function of the schedulers, in its own process
EXCEPTIONS = {("_worker", "schedulers")}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    """Leaves < vocabulary < transport < people < session < main < door < neighbours."""
    found = set(imported(TREES[module], ours=True)) - checked_only(TREES[module])
    wrong = {each for each in found if LEVEL[each] > LEVEL[module] and (module, each) not in EXCEPTIONS}
    assert not wrong, f"{module} imports what is above it: {wrong}"


def test_no_import_makes_a_circle():
    """Within a layer neither."""
    graph = {
        module: set(imported(tree, ours=True)) - checked_only(tree) - {module} for module, tree in TREES.items()
    }
    done = set()
    while left := [module for module in graph if module not in done]:
        free = [module for module in left if graph[module] <= done]
        assert free, f"a circle of imports among {left}"
        done.update(free)


@pytest.mark.parametrize("package", FOREIGN)
def test_foreign_packages_are_imported_only_where_named(package):
    """One place knows each of them."""
    found = {module for module, tree in TREES.items() if package in imported(tree, ours=False)}
    assert found <= FOREIGN[package], f"{found - FOREIGN[package]} import {package}"


def test_nothing_else_is_imported():
    """The dependencies are footprints, numpy and psutil; bronx comes with the first."""
    import sys

    found = {each for tree in TREES.values() for each in imported(tree, ours=False)}
    assert found - sys.stdlib_module_names <= set(FOREIGN)


def body_without_docstring(node):
    """Return the statements of a function that do something."""
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module):
    """At most 40 lines, the docstring and the signature apart."""
    bodies = {f"{node.name}, line {node.lineno}": body_without_docstring(node) for node in functions(module)}
    lines = {name: body[-1].end_lineno - body[0].lineno + 1 for name, body in bodies.items() if body}
    assert not {name: count for name, count in lines.items() if count > LONGEST}


def test_the_measure_of_length_measures():
    """One line more than allowed is seen; so are the functions of ours."""
    assert any(len(functions(module)) > 10 for module in TREES)
    long = ast.parse("def f():\n" + "    x = 1\n" * (LONGEST + 1)).body[0]
    assert len(body_without_docstring(long)) == LONGEST + 1


BLOCKS = (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith)


def depth(statements):
    """Return how deep blocks are nested; ``elif`` and nested functions count anew."""
    return max((_depth(each) for each in statements), default=0)


def _depth(node):
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return 0
    if not isinstance(node, BLOCKS):
        return 0
    inner = list(node.body)
    orelse = getattr(node, "orelse", [])
    is_elif = isinstance(node, ast.If) and len(orelse) == 1 and isinstance(orelse[0], ast.If)
    inner += getattr(node, "finalbody", [])
    for handler in getattr(node, "handlers", []):
        inner += handler.body
    deepest = 1 + depth(inner + ([] if is_elif else orelse))
    return max(deepest, _depth(orelse[0])) if is_elif else deepest


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_flat(module):
    """Blocks are nested 3 deep at most."""
    depths = {f"{node.name}, line {node.lineno}": depth(node.body) for node in functions(module)}
    assert not {name: found for name, found in depths.items() if found > DEEPEST}


def test_the_measure_of_depth_measures():
    """Four blocks in one another are four; a chain of elif is one."""
    deep = ast.parse("for a in b:\n if a:\n  with c:\n   try:\n    pass\n   except E:\n    if d: pass\n")
    chain = ast.parse("if a:\n pass\nelif b:\n pass\nelif c:\n if d: pass\n")
    assert (depth(deep.body), depth(chain.body)) == (5, 2)


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_where_they_live(module):
    """The first line of each names its world; that of the package is its door."""
    text = ast.get_docstring(TREES[module])
    assert text, f"{module} has no docstring"
    if module != "__init__":
        assert WORLDS.search(text.splitlines()[0]), f"{module}: {text.splitlines()[0]}"


def public(tree, prefix=""):
    """Yield the public functions, classes and methods of a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{prefix}{node.name}.")


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_has_a_docstring(module):
    """Every function, class and method whose name has no underscore, but setters and inherited ones."""
    missing = [name for name, node in public(TREES[module]) if not ast.get_docstring(node) and not _excused(node)]
    assert not missing, f"without a docstring in {module}: {missing}"


def _excused(node):
    decorators = [ast.unparse(each) for each in node.decorator_list]
    return any(each.endswith((".setter", "overload")) for each in decorators)


@pytest.mark.parametrize("module", MODULES)
def test_every_function_says_what_it_returns(module):
    """Annotations are whole: mypy is strict, and so is the reader."""
    missing = [
        node.name
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.FunctionDef) and node.returns is None
    ]
    assert not missing, f"without a returned type in {module}: {missing}"


def test_there_is_no_queue_of_multiprocessing():
    """Its feeder thread swallows what cannot be pickled, and its lock dies with a killed writer."""
    names = {"Queue", "SimpleQueue", "JoinableQueue", "Manager"}
    for module, tree in TREES.items():
        used = set(_of_multiprocessing(tree)) & names
        assert not used, f"{module} uses {used}"


def _of_multiprocessing(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in {"multiprocessing", "context"}:
            yield node.attr
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("multiprocessing"):
            yield from (alias.name for alias in node.names)


def test_nothing_sleeps_but_where_nothing_can_be_waited_for():
    """One tick, for processes without a descriptor and for what becomes another program: nothing tells of these."""
    sleepers = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep")
    }
    assert sleepers <= {"_process", "_tree", "examples"}


def test_the_ledger_is_pure():
    """No process, no pipe, no clock."""
    assert not {"os", "time", "signal", "select", "socket"} & set(imported(TREES["_ledger"], ours=False))


def test_everything_that_crosses_is_frozen():
    """The messages are frozen dataclasses, tuples and enums; the states are words."""
    from taylorism import _messages

    own = [value for value in vars(_messages).values() if getattr(value, "__module__", "") == _messages.__name__]
    classes = [value for value in own if inspect.isclass(value)]
    assert classes
    fixed = [cls for cls in classes if hasattr(cls, "__members__") or issubclass(cls, tuple)]
    others = set(classes) - {*fixed, _messages.State}
    assert fixed and others and all(cls.__dataclass_params__.frozen for cls in others)
