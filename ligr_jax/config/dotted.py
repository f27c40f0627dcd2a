"""A configuration as dotted names: flat, overridden, compared, saved, told apart."""

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

from ligr_jax.config.errors import ConfigError, require
from ligr_jax.config.lists import split_list
from ligr_jax.config.nearest import nearest_names
from ligr_jax.config.numbers import parse_integer, parse_number
from ligr_jax.config.renamed import check_field
from ligr_jax.config.run import Config

Path = tuple[str, ...]  # keys from the root of a configuration to one of its values
# Where a run computes and how it is watched does not change what it computes.
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
    """Dotted name -> plain value, in field order; tuples stay tuples."""
    flat: dict[str, Any] = {}
    for name, value in _children(config):
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def digest(config: Config) -> str:
    """Twelve hex digits over all that changes a run's numbers: the name of its directory."""
    flat = {k: v for k, v in flatten(config).items() if not k.startswith(_NOT_IN_DIGEST)}
    text = json.dumps(flat, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted names whose values differ and matter, with both values (None where absent)."""
    flat_a, flat_b = flatten(a), flatten(b)
    return {
        k: (flat_a.get(k), flat_b.get(k))
        for k in flat_a | flat_b
        if flat_a.get(k) != flat_b.get(k) and not k.startswith(_NOT_IN_DIGEST)
    }


def config_to_json(config: Config) -> str:
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def config_from_json(text: str) -> Config:
    """The inverse of `config_to_json`."""
    return config_from_plain(json.loads(text))


def config_from_plain(raw: Mapping[str, Any]) -> Config:
    """A configuration from nested plain values, as JSON holds them.

    Raises:
        ConfigError: an unknown field, a value of another type, or an impossible combination.
    """
    config: Config = _build(Config, raw)
    return config


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Applies `dotted.name=value` assignments.

    Values are read by the field's type; tuples are comma-separated, a value with a comma in double
    quotes. A mapping takes a subset of its keys (`model.features=item_id,actor_id`), or one field
    of one (`model.features.tag.rows=9`). Keys may have dots and equals signs: the longest known
    name counts. `model.actions=SUBSET` keeps the rates of `model.prior` that belong to it.
    All assignments are applied before the result is checked, so their order does not matter.

    Raises:
        ConfigError: unknown name (the nearest are shown), ill-typed value, impossible combination.
    """
    tree = dataclasses.asdict(config)
    paths = _paths(tree)
    pairs = [split_assignment(assignment, paths) for assignment in assignments]
    # Deepest names first: a field of an entry is set before a subset may leave the entry out.
    for name, text in sorted(pairs, key=lambda pair: -len(paths.get(pair[0], ()))):
        if name not in paths:
            check_field(name)
            raise _unknown(name, config)
        _assign(config, tree, name, paths[name], text)
    given = {name for name, _ in pairs}
    if "model.actions" in given and "model.prior" not in given and config.model.prior:
        rates = dict(zip(config.model.actions, config.model.prior))
        tree["model"]["prior"] = tuple(rates.get(a, 0.5) for a in tree["model"]["actions"])
    return config_from_plain(tree)


def split_assignment(assignment: str, names: Collection[str] = ()) -> tuple[str, str]:
    """The name and the value of `name=value`.

    names: the longest of these that fits is the name; it may have equals signs.

    Raises:
        ConfigError: no equals sign.
    """
    text = assignment.lstrip("-")
    require("=" in text, f"'{assignment}' is not name=value, e.g. model.depth=4")
    ends = [i for i, sign in enumerate(text) if sign == "="]
    end = max((i for i in ends if text[:i] in names), default=ends[0])
    return text[:end], text[end + 1 :]


def _paths(tree: Mapping[str, Any]) -> dict[str, Path]:
    """Dotted name -> keys from the root, of every node; a leaf wins over a group of its name."""
    nodes = sorted(_nodes(tree, ()), key=lambda node: node[1])
    return {".".join(path): path for path, _ in nodes}


def _nodes(
    tree: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The keys of every node below `path`, and whether it is a leaf."""
    for key, value in tree.items():
        inner = isinstance(value, dict)
        yield (*path, key), not inner
        if inner:
            yield from _nodes(value, (*path, key))


def _assign(config: Config, tree: dict[str, Any], name: str, path: Path, text: str) -> None:
    node: dict[str, Any] = tree
    owner: Any = config
    for part in path[:-1]:
        node = node[part]
        owner = owner[part] if isinstance(owner, Mapping) else getattr(owner, part)
    leaf = path[-1]
    if isinstance(owner, Mapping):
        raise _unknown(name, config)
    if isinstance(node[leaf], dict):  # a mapping: keep the named keys
        require(not dataclasses.is_dataclass(getattr(owner, leaf)), f"{name} is a group of fields")
        keys = split_list(text)
        missing = [k for k in keys if k not in node[leaf]]
        require(not missing, f"{name}={text}: no {missing}; there are {list(node[leaf])}")
        node[leaf] = {k: node[leaf][k] for k in keys}
    else:
        node[leaf] = _parse(text, typing.get_type_hints(type(owner))[leaf], name)


def _unknown(name: str, config: Config) -> ConfigError:
    return ConfigError(f"unknown name '{name}'; {nearest_names(name, list(flatten(config)))}")


def _parse(text: str, kind: Any, name: str) -> Any:
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
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, kind)
        reason = "" if kind is bool or "convert" in str(e) or "literal" in str(e) else f" ({e})"
        raise ConfigError(f"{name}={text}: expected {wanted}{reason}") from e


def _children(node: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(node, Mapping):
        return node.items()
    return ((f.name, getattr(node, f.name)) for f in dataclasses.fields(node))


def _build(kind: Any, raw: Any, name: str = "") -> Any:
    """Nested plain values (from `asdict` or JSON) -> the dataclass, tuples restored."""
    if dataclasses.is_dataclass(kind):
        _expect(isinstance(raw, Mapping), name, raw, "an object")
        hints = typing.get_type_hints(kind)
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
    if kind is bool or kind is str:
        _expect(isinstance(raw, kind), name, raw, {bool: "true or false", str: "a text"}[kind])
    if kind is int or kind is float:
        wanted = {int: "a whole number", float: "a number"}[kind]
        number = isinstance(raw, int | (float if kind is float else int))
        finite = number and math.isfinite(raw)
        _expect(finite and not isinstance(raw, bool), name, raw, wanted)
    return raw


def _expect(holds: bool, name: str, value: Any, wanted: str) -> None:
    require(holds, f"{name or 'the configuration'} is {value!r}, expected {wanted}")
