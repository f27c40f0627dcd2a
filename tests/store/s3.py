"""A small S3 server on loopback with faults: objects in memory, lists in pages, conditional writes.

It also serves the XML interface of GCS, whose conditions are generations and not entity tags. It
checks no signatures. `faults` maps a request to what goes wrong with it; see `Fault`.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

# What goes wrong: "503", "slow", "cut" (half of the answer), "lost" (done, but not answered).
Fault = str
PAGE = 20  # objects in a page of a listing


class Stored(NamedTuple):
    content: bytes
    tag: str
    time: float
    generation: str

    @property
    def headers(self) -> dict[str, str]:
        return {"ETag": self.tag, "x-goog-generation": self.generation}


class S3(ThreadingHTTPServer):
    """The server.

    Attributes:
        objects: objects by "BUCKET/KEY".
        requests: method and path of every request.
        fault: called with method and path; "" for none.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Stored] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], Fault] = lambda method, path: ""
        self.change = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Say nothing: tests kill clients."""

    def write(self, path: str, content: bytes) -> Stored:
        tag = f'"{hashlib.md5(content).hexdigest()}-{len(self.requests)}"'
        self.objects[path] = Stored(content, tag, time.time(), str(time.time_ns()))
        return self.objects[path]

    def damage(self, path: str) -> None:
        """Flip a bit in the middle of an object."""
        content = bytearray(self.objects[path].content)
        content[len(content) // 2] ^= 1
        self.write(path, bytes(content))

    def below(self, prefix: str) -> dict[str, bytes]:
        """Content of all objects below a prefix, by the rest of their keys."""
        return {
            path.removeprefix(prefix): stored.content
            for path, stored in sorted(self.objects.items())
            if path.startswith(prefix)
        }

    @contextmanager
    def failing(self, fault: Callable[[str, str], Fault]) -> Iterator[None]:
        self.fault = fault
        try:
            yield
        finally:
            self.fault = lambda method, path: ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        path = unquote(parts.path).strip("/")
        query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        self.server.requests.append((method, path))
        fault = self.server.fault(method, path)
        if fault == "503":
            return self._answer(503, b"<Error><Code>SlowDown</Code></Error>")
        if fault == "slow":
            time.sleep(0.2)
        status, content, headers = self._do(method, path, query, body)
        if fault == "lost":
            self.close_connection = True
            return self.connection.close()
        self._answer(status, content, headers, cut=fault == "cut")

    def _answer(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, cut: bool = False
    ) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(content)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True
            self.connection.close()

    def _do(
        self, method: str, path: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        with self.server.change:
            stored = self.server.objects.get(path)
            if "list-type" in query:
                return 200, self._list(path, query), {}
            if method == "PUT" and "partNumber" in query:
                self.server.parts[query["uploadId"]][int(query["partNumber"])] = body
                return 200, b"", {"ETag": f'"part-{query["partNumber"]}"'}
            if method == "POST" and "uploads" in query:
                number = str(len(self.server.parts))
                self.server.parts[number] = {}
                result = f"<UploadId>{number}</UploadId>"
                result = f"<InitiateMultipartUploadResult>{result}</InitiateMultipartUploadResult>"
                return 200, result.encode(), {}
            if method == "POST" and "delete" in query:
                keys = re.findall("<Key>(.*?)</Key>", body.decode())
                for key in keys:
                    self.server.objects.pop(f"{path}/{unescape(key)}", None)
                result = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
                return 200, f"<DeleteResult>{result}</DeleteResult>".encode(), {}
            if method == "POST":
                parts = self.server.parts.pop(query["uploadId"])
                tag = self.server.write(path, b"".join(parts[n] for n in sorted(parts))).tag
                result = f"<ETag>{escape(tag)}</ETag>"
                result = f"<CompleteMultipartUploadResult>{result}</CompleteMultipartUploadResult>"
                return 200, result.encode(), {}
            wrong = self._precondition(stored)
            if method == "PUT":
                if wrong:
                    return 412, b"<Error><Code>PreconditionFailed</Code></Error>", {}
                return 200, b"", self.server.write(path, body).headers
            if method == "DELETE":  # S3: of an upload in parts; GCS: of an object too
                self.server.parts.pop(query.get("uploadId", ""), None)
                if "uploadId" not in query:
                    self.server.objects.pop(path, None)
                return 204, b"", {}
            if stored is None:
                return 404, b"<Error><Code>NoSuchKey</Code></Error>", {}
            if wrong:
                return 412, b"<Error><Code>PreconditionFailed</Code></Error>", {}
            return self._read(method, stored)

    def _precondition(self, stored: Stored | None) -> bool:
        match, none = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        generation = self.headers.get("x-goog-if-generation-match")
        return (
            (match is not None and (stored is None or stored.tag != match))
            or (none == "*" and stored is not None)
            or generation not in (None, stored.generation if stored else "0")
        )

    def _read(self, method: str, stored: Stored) -> tuple[int, bytes, dict[str, str]]:
        headers = {**stored.headers, "Last-Modified": formatdate(stored.time, usegmt=True)}
        wanted = self.headers.get("Range")
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last or 2**62) + 1, len(stored.content))
            content = stored.content[int(first) : end]
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(stored.content)}"
            return 206, content, headers
        if method == "HEAD":
            return 200, b"", {**headers, "Content-Length": str(len(stored.content))}
        return 200, stored.content, headers

    def _list(self, bucket: str, query: dict[str, str]) -> bytes:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        keys = [k.partition("/")[2] for k in sorted(self.server.objects) if k.startswith(bucket)]
        keys = [k for k in keys if k.startswith(prefix) and k > after]
        page, more = keys[:PAGE], len(keys) > PAGE
        lines = [f"<IsTruncated>{str(more).lower()}</IsTruncated>"]
        if more:
            lines.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
        for key in page:
            stored = self.server.objects[f"{bucket}/{key}"]
            when = datetime.fromtimestamp(stored.time, UTC).strftime("%FT%T.000Z")
            lines.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(stored.content)}</Size>"
                f"<LastModified>{when}</LastModified><ETag>{escape(stored.tag)}</ETag></Contents>"
            )
        return f"<ListBucketResult>{''.join(lines)}</ListBucketResult>".encode()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
