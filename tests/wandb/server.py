"""A small W&B server on loopback, in a thread, with which the real client logs, resumes and sweeps.

It stores runs, their streamed history, files, grid sweeps and agents. It answers every other
operation with GraphQL's `errors`, as an older server would; clients would retry for minutes after a
dropped connection.
"""

import base64
import gzip
import itertools
import json
import re
import subprocess
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import yaml

Run = Callable[..., "subprocess.CompletedProcess[str]"]  # type of the fixture `run`
_OPERATION = re.compile(r"(?:query|mutation)\s+(\w+)")
ENTITY, PROJECT, KEY = "someone", "ligr", "0123456789abcdef" * 2 + "01234567"


@dataclass
class StoredRun:
    """What clients have sent of one run."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)  # of the last UpsertBucket
    lines: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    preempting: bool = False
    alerts: dict[str, str] = field(default_factory=dict)  # text by title

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows in the order of their line numbers."""
        return [json.loads(text) for _, text in sorted(self.lines["wandb-history.jsonl"].items())]

    @property
    def summary(self) -> dict[str, Any]:
        """The newest streamed summary."""
        lines = self.lines["wandb-summary.json"]
        return json.loads(lines[max(lines)]) if lines else {}

    @property
    def config(self) -> dict[str, Any]:
        """Values of the run's configuration."""
        raw = json.loads(self.fields.get("config") or "{}")
        return {k: v["value"] for k, v in raw.items() if isinstance(v, dict) and "value" in v}


@dataclass
class StoredArtifact:
    """Files that are kept together."""

    name: str
    type: str
    files: dict[str, bytes] = field(default_factory=dict)
    is_committed: bool = False


@dataclass
class StoredSweep:
    """A registered grid."""

    text: str
    points: list[dict[str, Any]]  # not yet assigned to an agent
    assigned: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name of the run


class WandbServer:
    """Everything that clients have sent, and the answers to them."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.sweeps: dict[str, StoredSweep] = {}
        self.artifacts: dict[str, StoredArtifact] = {}
        self.views: list[dict[str, Any]] = []
        self.unknown: list[str] = []  # operations answered with `errors`
        self.errors: list[str] = []  # of this server itself
        self.down = False  # whether every answer is 503
        # By operation, or for file_stream and storage: status and body of the answer, "hang", or a
        # GraphQL error.
        self.faults: dict[str, tuple[int, bytes] | str] = {}
        self.deleted: set[str] = set()  # names of deleted runs, which cannot be used again
        self.released = threading.Event()  # ends requests that hang
        self.url = ""
        self._agents: dict[str, str] = {}
        self._lock = threading.RLock()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which a client uses this server and no other."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ENTITY": ENTITY,
            "WANDB_PROJECT": PROJECT,
            "WANDB_ERROR_REPORTING": "false",  # to the vendor
        }

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one operation."""
        match = _OPERATION.search(query)
        name = match[1] if match else query[:40]
        answer: Callable[[dict[str, Any]], dict[str, Any]] | None
        answer = getattr(self, f"_{name}", None)
        if name in self.faults:
            return {"errors": [{"message": self.faults[name]}], "data": None}
        with self._lock:
            if name == "UpsertBucket" and variables["name"] in self.deleted:
                words = f"run {variables['name']} was previously created and deleted"
                return {"errors": [{"message": words}], "data": None}
            if answer is None:
                self.unknown.append(name)
                return {"errors": [{"message": f"no operation {name} here"}], "data": None}
            return {"data": answer(variables)}

    def stream(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Store streamed lines by their line numbers; a line sent twice is stored once."""
        with self._lock:
            run = self.runs[name]
            for file, chunk in (body.get("files") or {}).items():
                for i, text in enumerate(chunk["content"], chunk["offset"]):
                    run.lines[file][i] = text
            run.preempting = run.preempting or bool(body.get("preempting"))
            if body.get("complete"):
                run.exit_code = body["exitcode"]
        return {"exitcode": None, "limits": {}}

    def store(self, name: str, file: str, content: bytes) -> None:
        """Store a file of a run or of an artifact."""
        with self._lock:
            owner = self.artifacts[name] if name in self.artifacts else self.runs[name]
            owner.files[file] = content

    # Operations, with the client's names.

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        user = {"id": "VXNlcjox", "entity": ENTITY, "username": ENTITY, "email": "a@b.example"}
        more = {"flags": "{}", "teams": {"edges": []}, "name": ENTITY, "admin": False}
        return {"viewer": {**user, **more, "deletedAt": None, "apiKeys": None}}

    _GetViewer = _GetDefaultEntity = _Viewer

    def _ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _UpsertBucket(self, v: dict[str, Any]) -> dict[str, Any]:
        new = v["name"] not in self.runs
        run = self.runs.setdefault(v["name"], StoredRun(v["name"]))
        run.fields |= {k: x for k, x in v.items() if x is not None}
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": new}}

    def _RunResumeStatus(self, v: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(v["name"])
        return {"model": {**_project(), "bucket": self._bucket(run) if run else None}}

    def _CreateRunFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        urls = [{"name": f, "uploadUrl": f"{self.url}/storage/{v['run']}/{f}"} for f in v["files"]]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": urls}}

    def _UpsertSweep(self, v: dict[str, Any]) -> dict[str, Any]:
        raw = yaml.safe_load(v["config"])
        axes = [
            [(k, x) for x in (p["values"] if "values" in p else [p["value"]])]
            for k, p in raw["parameters"].items()
        ]
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = StoredSweep(v["config"], [dict(p) for p in itertools.product(*axes)])
        sweep = {"name": name, "project": _project()}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _SweepWithRuns(self, v: dict[str, Any]) -> dict[str, Any]:
        sweep = self.sweeps[v["sweep"]]
        rest = {"id": v["sweep"], "name": v["sweep"], "state": "RUNNING", "runs": {"edges": []}}
        return {"project": {"sweep": {"config": sweep.text, **rest}}}

    def _CreateAgent(self, v: dict[str, Any]) -> dict[str, Any]:
        agent = f"agent{len(self._agents)}"
        self._agents[agent] = v["sweep"]
        return {"createAgent": {"agent": {"id": agent}}}

    def _Heartbeat(self, v: dict[str, Any]) -> dict[str, Any]:
        """Assign a preempted run or the next point to an idle agent, or let it exit."""
        sweep = self.sweeps[self._agents[v["id"]]]
        command: dict[str, Any] = {}
        if not json.loads(v["runState"] or "{}"):
            runs = [self.runs[name] for name in sweep.assigned if name in self.runs]
            preempted = [run.name for run in runs if run.preempting and run.exit_code]
            if preempted:
                self.runs[preempted[0]].exit_code = None
                command = self._command("resume", preempted[0], sweep)
            elif sweep.points:
                name = f"agentrun{len(sweep.assigned)}"
                sweep.assigned[name] = sweep.points.pop(0)
                command = self._command("run", name, sweep)
            else:
                command = {"type": "exit"}
        commands = json.dumps([command] if command else [])
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": commands}}

    def _command(self, kind: str, name: str, sweep: StoredSweep) -> dict[str, Any]:
        arguments = {k: {"value": x} for k, x in sweep.assigned[name].items()}
        program = yaml.safe_load(sweep.text)["program"]
        return {"type": kind, "run_id": name, "program": program, "args": arguments}

    def _UpsertView2(self, v: dict[str, Any]) -> dict[str, Any]:
        self.views.append(v)
        return {"upsertView": {"view": {"id": "Vmlldzox", "name": v["name"]}, "inserted": True}}

    def _NotifyScriptableRunAlert(self, v: dict[str, Any]) -> dict[str, Any]:
        self.runs[v["runName"]].alerts[v["title"]] = v["text"]
        return {"notifyScriptableRunAlert": {"success": True}}

    def _CreateArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        names = v["input"]
        artifact = f"artifact{len(self.artifacts)}"
        self.artifacts[artifact] = StoredArtifact(
            names["artifactCollectionName"], names["artifactTypeName"]
        )
        sequence = {"latestArtifact": None}
        created = {"id": artifact, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": created}}

    def _CreateArtifactManifest(self, v: dict[str, Any]) -> dict[str, Any]:
        file = self._artifact_file(v["artifactID"], v["name"])
        manifest = {"id": v["artifactID"], "file": file}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def _CreateArtifactFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        files = [
            self._artifact_file(f["artifactID"], f["name"]) for f in v["input"]["artifactFiles"]
        ]
        edges = [{"node": file} for file in files]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _artifact_file(self, artifact: str, name: str) -> dict[str, Any]:
        url = f"{self.url}/storage/{artifact}/{name}"
        more = {"storagePath": name, "uploadMultipartUrls": None, "artifact": {"id": artifact}}
        return {"id": name, "uploadUrl": url, "uploadHeaders": [], **more}

    def _CommitArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[v["artifactID"]].is_committed = True
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": ""}}}

    def _Runs(self, v: dict[str, Any]) -> dict[str, Any]:
        """Return a page of a project's runs; filters are equalities of fields."""
        if (v["entity"], v["project"]) != (ENTITY, PROJECT):
            return {"project": None}
        filters = json.loads(v["filters"]).items()
        nodes = [self._node(run) for run in self.runs.values()]
        nodes = [n for n in nodes if all(n[key] == value for key, value in filters)]
        start = int(v["cursor"] or 0)
        page = nodes[start : start + v["perPage"]]
        edges = [{"node": node, "cursor": str(start + k)} for k, node in enumerate(page, 1)]
        more = start + len(page) < len(nodes)
        runs = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": more}}
        return {"project": {"internalId": "1", "runCount": len(nodes), "runs": runs}}

    def _node(self, run: StoredRun) -> dict[str, Any]:
        """Return a run as a query of runs has it."""
        states = {None: "running", 0: "finished"}
        more = {"state": states.get(run.exit_code, "crashed"), "projectId": "1", "group": None}
        more |= {"jobType": None, "commit": None, "readOnly": False, "systemMetrics": "{}"}
        more |= {"createdAt": "2026-01-01T00:00:00Z", "heartbeatAt": None, "historyKeys": {}}
        return {**self._bucket(run), **more, "user": {"name": ENTITY, "username": ENTITY}}

    def _bucket(self, run: StoredRun) -> dict[str, Any]:
        text = {k: list(lines.values()) for k, lines in run.lines.items()}
        history, events = text.get("wandb-history.jsonl", []), text.get("wandb-events.jsonl", [])
        return {
            "id": base64.b64encode(f"Run:v1:{run.name}".encode()).decode(),
            "name": run.name,
            "displayName": run.fields.get("displayName", run.name),
            "description": None,
            "config": run.fields.get("config", "{}"),
            "sweepName": run.fields.get("sweep"),
            "project": _project(run.fields.get("project", PROJECT)),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(history),
            "eventsLineCount": len(events),
            "logLineCount": len(text.get("output.log", [])),
            "historyTail": json.dumps(history[-1:]),
            "eventsTail": json.dumps(events[-1:]),
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }


def _project(name: str = PROJECT) -> dict[str, Any]:
    return {"id": "UHJvamVjdDox", "name": name, "entity": {"id": "RW50OjE=", "name": ENTITY}}


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Yield a server on a free port of loopback, which stops at the end of the block."""
    server = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _body(self) -> bytes:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw

        def _answer(self, value: Any) -> None:
            self._send(503 if server.down else 200, json.dumps(value).encode())

        def _send(self, status: int, text: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            body, parts = self._body(), unquote(self.path).strip("/").split("/")
            kind = parts[-1]
            if kind == "graphql" and (match := _OPERATION.search(json.loads(body)["query"])):
                kind = match[1]
            fault = server.faults.get(kind)
            if fault == "hang":
                server.released.wait(60)
            if server.down:
                self._answer({})
            elif isinstance(fault, tuple):
                self._send(*fault)
            elif parts[-1] == "graphql":
                request = json.loads(body)
                self._answer(server.graphql(request["query"], request.get("variables") or {}))
            elif parts[-1] == "file_stream":
                self._answer(server.stream(parts[-2], json.loads(body)))
            else:  # the client's telemetry, which is not JSON
                self._answer({})

        def do_PUT(self) -> None:
            _, run, file = unquote(self.path).strip("/").split("/", 2)
            fault = server.faults.get("storage")
            if isinstance(fault, tuple):
                self._body()
                self._send(*fault)
                return
            server.store(run, file, self._body())
            self._answer({})

        def log_message(self, *_: Any) -> None:
            """Print nothing: tests read what the server has stored."""

    class Listener(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Record errors of this server; a client that exits resets its idle connections."""
            if not isinstance(sys.exception(), ConnectionError):
                server.errors.append(traceback.format_exc())

    listener = Listener(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        listener.shutdown()
        listener.server_close()
        thread.join()
