"""Configurations as dotted names and values: overrides, comparison, digest, and JSON."""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

from ligr_jax.config.errors import ConfigError, require
from ligr_jax.config.lists import split_list
from ligr_jax.config.nearest import nearest_names
from ligr_jax.config.numbers import parse_integer, parse_number
from ligr_jax.config.renamed import check_field
from ligr_jax.config.run import Config

Path = tuple[str, ...]  # keys from the root of a configuration to one of its values
# Fields that do not change the numbers of a run.
_NOT_IN_DIGEST = (
    "data.dir",
    "data.workers",
    "mesh.",
    "track.",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.keep",
    "train.warm.run",
    "train.warm.cold_run",
)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a configuration by dotted name, in field order.

    Args:
        config: a configuration or a part of it.
        prefix: text in front of the names.
    """
    flat: dict[str, Any] = {}
    for name, value in _children(config):
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def digest(config: Config) -> str:
    """Return twelve hex digits over all fields that change the numbers of a run.

    Runs of a sweep have directories with this name.
    """
    flat = {k: v for k, v in flatten(config).items() if not k.startswith(_NOT_IN_DIGEST)}
    text = json.dumps(flat, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Return the values in which two configurations differ, by dotted name.

    Fields that do not change the numbers of a run are ignored. An absent field has the value None.
    """
    flat_a, flat_b = flatten(a), flatten(b)
    return {
        k: (flat_a.get(k), flat_b.get(k))
        for k in flat_a | flat_b
        if flat_a.get(k) != flat_b.get(k) and not k.startswith(_NOT_IN_DIGEST)
    }


def config_to_json(config: Config) -> str:
    """Return a configuration as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def config_from_json(text: str) -> Config:
    """Return a configuration from JSON text.

    Raises:
        ConfigError: as `config_from_plain`.
    """
    return config_from_plain(json.loads(text))


def config_from_plain(raw: Mapping[str, Any]) -> Config:
    """Return a configuration from nested dictionaries of plain values.

    Args:
        raw: result of `dataclasses.asdict` or of parsing JSON.

    Raises:
        ConfigError: a field is unknown or renamed, a value has a wrong type, or a combination of
            values cannot work.
    """
    config: Config = _build(Config, raw)
    return config


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Return a configuration with some values replaced.

    Values are parsed by the type of their field. Elements of a tuple are separated by commas; an
    element with a comma is quoted. A mapping is assigned a subset of its keys
    (`model.features=item_id,actor_id`), and fields of an entry are assigned by name
    (`model.features.tag.rows=9`). Keys can contain dots and equals signs, because the longest known
    name is used. `model.actions=SUBSET` selects the values of `model.prior`. The order of
    assignments does not matter, because the result is checked after all of them.

    Args:
        config: the configuration.
        assignments: `dotted.name=value`, optionally with leading dashes.

    Raises:
        ConfigError: a name is unknown (the message suggests names) or renamed, a value has a wrong
            type, or a combination of values cannot work.
    """
    tree = dataclasses.asdict(config)
    paths = _paths(tree)
    pairs = [split_assignment(assignment, paths) for assignment in assignments]
    # Deepest names first, so that a field of an entry is set before a subset removes the entry.
    for name, text in sorted(pairs, key=lambda pair: -len(paths.get(pair[0], ()))):
        if name not in paths:
            check_field(name)
            raise _unknown(name, config)
        _assign(config, tree, name, paths[name], text)
    assigned = {name for name, _ in pairs}
    actions_only = "model.actions" in assigned and "model.prior" not in assigned
    if actions_only and config.model.prior:
        rates = dict(zip(config.model.actions, config.model.prior))
        tree["model"]["prior"] = tuple(rates.get(a, 0.5) for a in tree["model"]["actions"])
    return config_from_plain(tree)


def split_assignment(assignment: str, names: Collection[str] = ()) -> tuple[str, str]:
    """Return the name and the value of `name=value`.

    Args:
        assignment: the assignment.
        names: known names, which can contain equals signs; the longest match is used.

    Raises:
        ConfigError: there is no equals sign.
    """
    text = assignment.lstrip("-")
    require("=" in text, f"'{assignment}' is not name=value, e.g. model.depth=4")
    ends = [i for i, sign in enumerate(text) if sign == "="]
    end = max((i for i in ends if text[:i] in names), default=ends[0])
    return text[:end], text[end + 1 :]


def _paths(tree: Mapping[str, Any]) -> dict[str, Path]:
    """Return the keys from the root of every node by dotted name; a leaf precedes a group."""
    nodes = sorted(_nodes(tree, ()), key=lambda node: node[1])
    return {".".join(path): path for path, _ in nodes}


def _nodes(
    tree: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield the keys of every node below `path`, and whether the node is a leaf."""
    for key, value in tree.items():
        inner = isinstance(value, dict)
        yield (*path, key), not inner
        if inner:
            yield from _nodes(value, (*path, key))


# Resolving the types of a class takes longer than parsing a value.
_type_hints: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)


def _assign(config: Config, tree: dict[str, Any], name: str, path: Path, text: str) -> None:
    """Parse a value and store it in the tree of plain values."""
    node: dict[str, Any] = tree
    owner: Any = config
    for part in path[:-1]:
        node = node[part]
        owner = owner[part] if isinstance(owner, Mapping) else getattr(owner, part)
    leaf = path[-1]
    if isinstance(owner, Mapping):
        raise _unknown(name, config)
    if isinstance(node[leaf], dict):  # a mapping keeps the named keys
        require(not dataclasses.is_dataclass(getattr(owner, leaf)), f"{name} is a group of fields")
        keys = split_list(text)
        missing = [k for k in keys if k not in node[leaf]]
        require(not missing, f"{name}={text}: no {missing}; choose from {list(node[leaf])}")
        node[leaf] = {k: node[leaf][k] for k in keys}
    else:
        node[leaf] = _parse(text, _type_hints(type(owner))[leaf], name)


def _unknown(name: str, config: Config) -> ConfigError:
    return ConfigError(f"unknown name '{name}'; {nearest_names(name, list(flatten(config)))}")


def _parse(text: str, kind: Any, name: str) -> Any:
    """Parse a value of a field of type `kind`."""
    origin = typing.get_origin(kind)
    if origin is Literal:
        choices = typing.get_args(kind)
        shown = ", ".join(c or "''" for c in choices)
        require(text in choices, f"{name}={text}: choose one of {shown}")
        return text
    if origin is tuple:
        item = typing.get_args(kind)[0]
        return tuple(_parse(part, item, name) for part in split_list(text))
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int:
            return parse_integer(text, name)
        return parse_number(text) if kind is float else kind(text)
    except (ValueError, KeyError, OverflowError) as e:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, kind)
        reason = "" if kind is bool or "convert" in str(e) or "literal" in str(e) else f" ({e})"
        raise ConfigError(f"{name}={text}: expected {expected}{reason}") from e


def _children(node: Any) -> Iterable[tuple[str, Any]]:
    """Return the names and values of a dataclass or a mapping."""
    if isinstance(node, Mapping):
        return node.items()
    return ((f.name, getattr(node, f.name)) for f in dataclasses.fields(node))


def _build(kind: Any, raw: Any, name: str = "") -> Any:
    """Return a value of type `kind` from plain values, of which lists become tuples."""
    # Dataclasses: every field is built by its type; unknown fields are an error.
    if dataclasses.is_dataclass(kind):
        _expect(isinstance(raw, Mapping), name, raw, "an object")
        hints = _type_hints(kind)
        unknown = [k for k in raw if k not in hints]
        for key in unknown:
            check_field(f"{name}.{key}" if name else key)
        near = difflib.get_close_matches(unknown[0], hints, n=3, cutoff=0.4) if unknown else []
        require(
            not unknown,
            f"{kind.__name__} has no fields {unknown}"  # type: ignore[union-attr]
            + (f"; nearest: {', '.join(near)}" if near else ""),
        )
        fields = {k: _build(hints[k], v, f"{name}.{k}" if name else k) for k, v in raw.items()}
        try:
            return kind(**fields)  # type: ignore[operator]
        except TypeError as e:  # a field without a default is missing
            raise ConfigError(f"{name or 'the configuration'}: {e}") from e
    # Containers and literals.
    origin = typing.get_origin(kind)
    if origin is tuple:
        _expect(isinstance(raw, list | tuple), name, raw, "a list")
        return tuple(_build(typing.get_args(kind)[0], v, name) for v in raw)
    if origin is Literal:
        choices = typing.get_args(kind)
        _expect(raw in choices, name, raw, f"one of {', '.join(c or repr('') for c in choices)}")
        return raw
    if origin is not None and not isinstance(origin, types.UnionType):
        _expect(isinstance(raw, Mapping), name, raw, "an object")
        item = typing.get_args(kind)[1]
        return {k: _build(item, v, f"{name}.{k}") for k, v in raw.items()}
    # Scalars. JSON has one type of number, and bool is a subclass of int in Python.
    if kind is bool or kind is str:
        _expect(isinstance(raw, kind), name, raw, {bool: "true or false", str: "a text"}[kind])
    if kind is int or kind is float:
        expected = {int: "a whole number", float: "a number"}[kind]
        number = isinstance(raw, int | (float if kind is float else int))
        finite = number and math.isfinite(raw)
        _expect(finite and not isinstance(raw, bool), name, raw, expected)
    return raw


def _expect(holds: bool, name: str, value: Any, expected: str) -> None:
    """Raise `ConfigError` if a value does not have the expected type."""
    require(holds, f"{name or 'the configuration'} is {value!r}, expected {expected}")
