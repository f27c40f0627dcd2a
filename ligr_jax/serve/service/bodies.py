"""Bodies of requests and answers: JSON and Arrow.

JSON, one request or several:

    {"member_id": 7, "candidates": [{"timestamp_ms": ..., "item_id": 3}, ...]}
    {"history": [{"timestamp_ms": ..., "item_id": 5, "click": 1}, ...], "candidates": [...]}
    {"requests": [{...}, {...}]}

A request to a model with a post feature can have the `position` to score for: the number of the
bucket of the display position, from 1. Without it, and in Arrow, that of the artifact is scored.

Arrow (an IPC stream): a table of candidates in which consecutive rows with the same `member_id` are
a request. The answer has the same rows in the same order.
"""

import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from ligr_jax.data.schema import MEMBER, BadInput
from ligr_jax.ops.segments import segments
from ligr_jax.serve.service.engine import Result

ARROW = "application/vnd.apache.arrow.stream"
_FIELDS = ("member_id", "history", "candidates", "position")


class RawRequest(NamedTuple):
    """A request before its rows are parsed; see `parse_request`."""

    member: int | str | None
    history: Any
    candidates: Any
    position: int | None = None


def json_content(body: bytes) -> Any:
    """Parse a JSON body.

    Raises:
        BadInput: it is not JSON.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as e:
        raise BadInput(f"the body is not JSON ({e}); see /docs for the fields") from e


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number; leave the field out, or use null")


class RawRequests(NamedTuple):
    """Requests of a body.

    requests: the requests.
    is_list: whether the answer is a list too.
    """

    requests: list[RawRequest]
    is_list: bool


def requests_from_json(body: bytes) -> RawRequests:
    """Return the requests of a JSON body.

    Raises:
        BadInput: the body is not JSON, or a field is unknown or has a wrong type.
    """
    content = json_content(body)
    if isinstance(content, dict) and "requests" in content:
        _require_fields(content, ("requests",), "the body")
        if not isinstance(content["requests"], list):
            raise BadInput("requests is not a list; give a list of requests")
        requests = [_request(r, f"requests[{n}]") for n, r in enumerate(content["requests"])]
        return RawRequests(requests, is_list=True)
    return RawRequests([_request(content, "the body")], is_list=False)


def _request(content: Any, where: str) -> RawRequest:
    if not isinstance(content, dict):
        raise BadInput(f"{where} is not an object; give {', '.join(_FIELDS)}")
    _require_fields(content, _FIELDS, where)
    member = content.get("member_id")
    if isinstance(member, bool) or not isinstance(member, int | str | None):
        raise BadInput(f"member_id of {where} is {member!r}; give an integer or a string")
    if "candidates" not in content:
        raise BadInput(f"{where} has no candidates; give at least one")
    position = content.get("position")
    if isinstance(position, bool) or not isinstance(position, int | None):
        raise BadInput(f"position of {where} is {position!r}; give the number of a bucket")
    history = content.get("history")
    return RawRequest(
        member=member,
        history=None if history is None else impression_rows(history, "history"),
        candidates=impression_rows(content["candidates"], "candidates"),
        position=position,
    )


def impression_rows(value: Any, name: str) -> list[dict[str, Any]]:
    """Return the rows of a JSON value.

    Args:
        value: a list of objects.
        name: its name, for messages.

    Raises:
        BadInput: the value is something else.
    """
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise BadInput(f"{name} is not a list of objects; give one object per impression")
    return value


def _require_fields(content: dict[str, Any], known: Sequence[str], where: str) -> None:
    unknown = [name for name in content if name not in known]
    if unknown:
        raise BadInput(f"{where} has an unknown field {unknown[0]!r}; it has {', '.join(known)}")


def arrow_content(body: bytes) -> pl.DataFrame:
    """Parse an Arrow IPC stream.

    Raises:
        BadInput: it is not one.
    """
    try:
        with pa.ipc.open_stream(io.BytesIO(body)) as reader:
            table = reader.read_all()
        table.validate(full=True)
        return pl.DataFrame(table)
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError, ValueError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise BadInput(f"the body is not an Arrow IPC stream ({reason}); send {ARROW}") from e


def requests_from_arrow(body: bytes) -> RawRequests:
    """Return the requests of an Arrow body.

    Raises:
        BadInput: the body is not Arrow, or has no `member_id`.
    """
    table = arrow_content(body)
    if MEMBER not in table.columns or table[MEMBER].null_count():
        raise BadInput(f"the table has no {MEMBER}, or rows without one; give each row its member")
    members = table[MEMBER]
    if not (members.dtype.is_integer() or members.dtype == pl.String):
        raise BadInput(f"{MEMBER} has type {members.dtype}; give integers or strings")
    runs = segments(members.to_physical().rank("dense").to_numpy())
    requests = [
        RawRequest(members[int(first)], None, table.slice(int(first), int(length)))
        for first, length in zip(*runs)
    ]
    return RawRequests(requests, is_list=True)


def results_to_json(results: Sequence[Result], actions: Sequence[str], is_list: bool) -> bytes:
    """Return the JSON answer to a request or to a list of them."""
    answers = [
        {
            "version": result.version,
            "impressions": result.impressions,
            "order": result.order.tolist(),
            "score": result.score.tolist(),
            "probabilities": {
                name: result.probabilities[:, a].tolist() for a, name in enumerate(actions)
            },
        }
        for result in results
    ]
    return json.dumps({"results": answers} if is_list else answers[0]).encode()


def results_to_arrow(results: Sequence[Result], actions: Sequence[str]) -> bytes:
    """Return the Arrow answer: `rank` (from 0), `score`, and a probability for each action."""

    def rank(result: Result) -> np.ndarray:
        places = np.empty(len(result.order), np.int32)
        places[result.order] = np.arange(len(result.order), dtype=np.int32)
        return places

    probabilities = np.concatenate([result.probabilities for result in results])
    table = pa.table(
        {
            "rank": np.concatenate([rank(result) for result in results]),
            "score": np.concatenate([result.score for result in results]),
            **{name: probabilities[:, a] for a, name in enumerate(actions)},
        },
        metadata={"version": results[0].version},
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
