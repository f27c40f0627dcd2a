"""HTTP in front of the service (FastAPI).

FastAPI on uvicorn is the most used pair for HTTP in Python, and `/docs` describes the interface. A
body is validated by the rules of `ligr prepare` and not by a second schema.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from ligr_jax.data.schema import BadInput
from ligr_jax.errors import LigrError
from ligr_jax.lock import Busy
from ligr_jax.serve.service.batcher import Overloaded
from ligr_jax.serve.service.bodies import (
    ARROW,
    arrow_content,
    impression_rows,
    json_content,
    requests_from_arrow,
    requests_from_json,
    results_to_arrow,
    results_to_json,
)
from ligr_jax.serve.service.service import Service

_log = logging.getLogger(__name__)
_ROWS = {"type": "array", "items": {"type": "object"}}
_SCORE_SCHEMA = {
    "type": "object",
    "properties": {
        "member_id": {"type": ["integer", "string"], "description": "whose history is stored"},
        "history": {**_ROWS, "description": "impressions with their actions, if no member_id"},
        "candidates": {**_ROWS, "description": "impressions without actions, of one timestamp_ms"},
        "position": {"type": "integer", "description": "bucket of the display position to score"},
    },
    "required": ["candidates"],
}


def create_app(service: Service, most_bytes: int) -> FastAPI:
    """Return the application.

    Args:
        service: answers requests; the application closes it when it stops.
        most_bytes: largest body.
    """
    ready = True

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal ready
        yield
        ready = False
        await run_in_threadpool(service.close)

    app = FastAPI(title="ligr serve", lifespan=lifespan)

    @app.middleware("http")
    async def measured(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Answer errors in words, and count requests."""
        begin = time.perf_counter()
        try:
            response = await call_next(request)
        except (Overloaded, Busy) as e:
            response = JSONResponse({"error": str(e)}, 503, headers={"Retry-After": "1"})
        except TooLarge as e:
            response = JSONResponse({"error": str(e)}, 413)
        except BadInput as e:
            response = JSONResponse({"error": str(e)}, 400)
        except LigrError as e:  # of the service: a damaged file, a full disk
            _log.warning("a request failed: %s", e)
            response = JSONResponse({"error": "the service failed; its log has the cause"}, 500)
        except Exception:
            _log.exception("a request failed")
            response = JSONResponse({"error": "a bug of the service; its log has the cause"}, 500)
        route = request.scope.get("route")
        path = getattr(route, "path", "other")  # not the client's text, which has no end of values
        service.metrics.requests.labels(path, str(response.status_code)).inc()
        service.metrics.seconds.labels(path).observe(time.perf_counter() - begin)
        return response

    @app.post("/v1/score", openapi_extra=_body(_SCORE_SCHEMA))
    async def score(request: Request) -> Response:
        """Rank candidates. JSON or Arrow; the answer has the form of the body."""
        body = await _read(request, most_bytes)
        is_arrow = _is_arrow(request)
        parse = requests_from_arrow if is_arrow else requests_from_json
        raw = await run_in_threadpool(parse, body)
        futures = await run_in_threadpool(service.submit, raw.requests)
        results = await asyncio.gather(*map(asyncio.wrap_future, futures))
        actions = service.artifact.model.actions
        if is_arrow:
            content = await run_in_threadpool(results_to_arrow, results, actions)
            return Response(content, media_type=ARROW)
        content = await run_in_threadpool(results_to_json, results, actions, raw.is_list)
        return Response(content, media_type="application/json")

    @app.post("/v1/impressions", openapi_extra=_body({**_ROWS, "description": "impressions"}))
    async def impressions(request: Request) -> dict[str, int]:
        """Add impressions with their actions to the histories of members; can be repeated."""
        body = await _read(request, most_bytes)

        def append() -> dict[str, int]:
            rows = (
                arrow_content(body)
                if _is_arrow(request)
                else impression_rows(json_content(body), "the body")
            )
            return service.append(rows)._asdict()

        return await run_in_threadpool(append)

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readiness() -> Response:
        """Whether requests are accepted, and the version that is served."""
        version = service.versions.name
        return JSONResponse({"ready": ready, "version": version}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return app


class TooLarge(LigrError):
    """A body is larger than the service accepts."""


async def _read(request: Request, most_bytes: int) -> bytes:
    """Return the body; it is read in parts, so that its length need not be believed."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            raise TooLarge(f"the body has more than {most_bytes:,} bytes; send fewer requests")
    return bytes(body)


def _is_arrow(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip() == ARROW


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a body for `/docs`."""
    content = {"application/json": {"schema": schema}, ARROW: {}}
    return {"requestBody": {"content": content, "required": True}}
