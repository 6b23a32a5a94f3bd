"""Listener and worker: the choice of a Worker class, remembered for instructions of one shape.

To choose, footprints resolves every class there is against the instructions, and logs what it tries: 20
microseconds where there is one class, more for each other, and in the listener a fifth of the pages that it touches
between two forks. Batches consist of sets that differ in their values alone, and for most of those the choice
cannot depend on them. So what footprints decided for one set is used for the next of the same *shape*: the same
names, the same types, and the same values of what discriminates (`values`, `outcast`, `remap` in any class).

That is done only where it is certain to be what footprints would say. A class is *excluded* when an attribute is
missing that it must have; it is *predictable* when each of its attributes is settled by the shape: it
discriminates, or its type is the one that is wanted, or the conversion cannot fail. All classes have to be one or
the other, and just one has to match. Whatever else footprints offers (substitution in strings, defaults of the
site, `only`, weak references, classes as values, ...) is left to footprints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import footprints

__all__ = ["CONSTANT", "Choices"]

#: what is compared and hashed in a way that we know
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, list, tuple, footprints.FPList})
#: of these, what may be kept for the next set: nobody can change it
CONSTANT = frozenset({type(None), bool, int, float, complex, str, bytes})
#: conversions that do not fail, or fail in footprints with what is not caught there: from, to
_SAFE = frozenset(
    {
        *((bool, int), (bool, float), (bool, str), (int, float), (int, str), (int, bool), (float, str)),
        *((float, bool), (list, tuple), (list, footprints.FPList), (tuple, footprints.FPList)),
    }
)
#: texts that footprints takes for something else
_SPECIAL = frozenset({"None", footprints.UNKNOWN})


class _Choice(NamedTuple):
    """What was decided for a shape.

    Attributes
    ----------
    cls : type
        The class.
    resolved : dict
        Its attributes, as they were resolved.
    names, sources : tuple of str
        What is taken from each set instead: the attributes, and their names in the instructions.
    converted : tuple of tuple
        Of these, the attributes that are converted, with the type.
    texts : tuple of str
        The names whose values are strings.
    hashed : tuple of str
        The names whose values footprints would hash, which may fail.
    """

    cls: type
    resolved: dict[str, Any]
    names: tuple[str, ...]
    sources: tuple[str, ...]
    converted: tuple[tuple[str, Any], ...]
    texts: tuple[str, ...]
    hashed: tuple[str, ...]


class Choices:
    """The choices that were made, as long as the classes are the same.

    Parameters
    ----------
    collector : footprints.collectors.Collector
        Where the classes are.
    """

    #: shapes that are remembered; a batch has few
    most = 256

    def __init__(self, collector: Any) -> None:
        self._collector = collector
        self._forget()

    def _forget(self) -> None:
        self._classes = set(self._collector._items)
        self._discriminating = tuple(sorted(set().union(*map(_discriminating, self._classes))))
        self._made: dict[Any, _Choice | None] = {}

    def _shape(self, attributes: Mapping[str, Any]) -> Any:
        values = tuple(map(attributes.get, self._discriminating))
        return tuple(attributes), tuple(map(type, attributes.values())), values

    def find(self, attributes: dict[str, Any]) -> tuple[type, dict[str, Any]] | None:
        """Return the class, and its attributes as footprints would resolve them; None where it has to be asked."""
        if footprints.setup.defaults:
            return None
        if self._collector._items != self._classes:
            self._forget()
        try:
            choice = self._made.get(self._shape(attributes))
        except TypeError:  # a value that cannot be hashed
            return None
        if choice is None or not _is_plain(choice, attributes):
            return None
        resolved = choice.resolved.copy()
        resolved.update(zip(choice.names, map(attributes.__getitem__, choice.sources), strict=True))
        for name, kind in choice.converted:
            resolved[name] = kind(resolved[name])
        return choice.cls, resolved

    def learn(self, attributes: dict[str, Any], cls: type, resolved: dict[str, Any]) -> None:
        """Remember that footprints chose `cls`, alone of all, if that holds for all sets of this shape."""
        if footprints.setup.defaults or len(self._made) >= self.most:
            return
        try:
            shape = self._shape(attributes)
            if shape not in self._made:
                self._made[shape] = self._general(attributes, cls, resolved)
        except TypeError:
            return

    def _general(self, attributes: dict[str, Any], cls: type, resolved: dict[str, Any]) -> _Choice | None:
        """Return a choice for all sets of the shape of this one, None where there is none."""
        rivals = [each for each in self._classes if not _excluded(each, attributes)]
        names = set().union(*map(_names, rivals))
        known = [(name, value) for name, value in attributes.items() if name in names]
        if not all(_is_tame(type(value)) for _, value in known):
            return None
        clear = all(self._predictable(each, attributes) for each in rivals)
        if not (clear and self._keepable(cls, attributes, resolved)):
            return None
        texts = tuple(name for name, value in known if isinstance(value, str))
        hashed = tuple(name for name, value in known if type(value) in (tuple, footprints.FPList))
        given = tuple(self._given(cls, attributes))
        taken, sources = tuple(name for name, _, _ in given), tuple(source for _, source, _ in given)
        converted = tuple((name, kind) for name, _, kind in given if kind is not None)
        kept = {**resolved, **dict.fromkeys(taken)}  # what is taken from each set may be big
        return _Choice(cls, kept, taken, sources, converted, texts, hashed)

    def _predictable(self, cls: Any, attributes: Mapping[str, Any]) -> bool:
        """Whether the shape alone decides if a class matches."""
        footprint = cls._footprint
        if footprint.only:
            return False
        return all(
            self._settled(name, definition, attributes) for name, definition in footprint.attr.items()
        )

    def _settled(self, name: str, definition: Mapping[str, Any], attributes: Mapping[str, Any]) -> bool:
        """Whether the shape alone decides if an attribute is accepted."""
        if definition.get("isclass") or "weak" in str(definition["access"]):
            return False
        source = _source(name, definition, attributes)
        if source is None:
            return _is_fixed(definition["default"])
        if source in self._discriminating:
            return type(attributes[source]) in CONSTANT
        return _fits(type(attributes[source]), definition)

    def _keepable(self, cls: Any, attributes: Mapping[str, Any], resolved: Mapping[str, Any]) -> bool:
        """Whether what was not given may be used again, and what was resolved from a value that is in the shape."""
        return all(
            self._source_of_value(name, definition, attributes) is not None
            or type(resolved[name]) in CONSTANT
            or resolved[name] is definition["default"]
            for name, definition in cls._footprint.attr.items()
        )

    def _source_of_value(
        self, name: str, definition: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> str | None:
        """Return where the value of an attribute is in a set, None where it is the same for the shape."""
        source = _source(name, definition, attributes)
        return None if source in self._discriminating else source

    def _given(self, cls: Any, attributes: Mapping[str, Any]) -> Iterable[tuple[str, str, Any]]:
        for name, definition in cls._footprint.attr.items():
            source = self._source_of_value(name, definition, attributes)
            if source is not None:
                kind = definition.get("type", str)
                yield name, source, None if isinstance(attributes[source], kind) else kind


def _names(cls: Any) -> set[str]:
    """Return the names of the attributes of a class, aliases included."""
    found: set[str] = set()
    for name, definition in cls._footprint.attr.items():
        found |= {name, *definition["alias"]}
    return found


def _discriminating(cls: Any) -> set[str]:
    """Return those whose values decide whether a class matches, or are replaced."""
    found: set[str] = set()
    for name, definition in cls._footprint.attr.items():
        if definition["values"] or definition["outcast"] or definition["remap"]:
            found |= {name, *definition["alias"]}
    return found


def _source(name: str, definition: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    """Return the name under which an attribute was given: its own, or an alias."""
    each: str
    for each in (name, *definition["alias"]):
        if each in attributes and not (definition["optional"] and attributes[each] is None):
            return each
    return None


def _excluded(cls: Any, attributes: Mapping[str, Any]) -> bool:
    """Whether an attribute is missing that a class must have."""
    for name, definition in cls._footprint.attr.items():
        if not definition["optional"]:
            source = _source(name, definition, attributes)
            if source is None or attributes[source] is None:
                return True
    return False


def _is_fixed(default: Any) -> bool:
    """Whether a default is the same for all."""
    return not (hasattr(default, "footprint_value") or (isinstance(default, str) and "[" in default))


def _fits(kind: type, definition: Mapping[str, Any]) -> bool:
    """Whether all values of that type are accepted by an attribute."""
    wanted = definition.get("type", str)
    if not isinstance(wanted, type) or definition.get("args"):
        return False
    return type.__subclasscheck__(wanted, kind) or (kind, wanted) in _SAFE


def _is_tame(kind: type) -> bool:
    """Whether values of that type are compared and hashed in a way that we know: plain ones, or by identity."""
    bases: tuple[Any, ...] = (object, int)
    alike = (kind.__eq__ is each.__eq__ and kind.__hash__ is each.__hash__ for each in bases)
    return kind in _PLAIN or any(alike)


def _is_plain(choice: _Choice, attributes: Mapping[str, Any]) -> bool:
    """Whether no value is one that footprints treats in a way of its own."""
    for name in choice.texts:
        text = attributes[name]
        if "[" in text or text in _SPECIAL:
            return False
    for name in choice.hashed:
        hash(attributes[name])  # as footprints does, which lets what this raises out
    return True
