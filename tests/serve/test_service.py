"""Laws of the service: scores are those of the artifact, whoever asks and whatever is cached."""

import contextlib
import dataclasses
import io
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from ligr_jax.commands.serve import listening_socket
from ligr_jax.data.batch import Batch
from ligr_jax.digests import write_json
from ligr_jax.errors import LigrError
from ligr_jax.serve.activity import ActivityStore
from ligr_jax.serve.activity_build import build_store
from ligr_jax.serve.activity_file import ACTIVITY
from ligr_jax.serve.artifact import load_artifact
from ligr_jax.serve.cache import Cache
from ligr_jax.serve.manifest import PARAMS
from ligr_jax.serve.service.app import create_app
from ligr_jax.serve.service.bodies import ARROW
from ligr_jax.serve.service.engine import Engine
from ligr_jax.serve.service.histories import EncodedHistory, HistoryCache
from ligr_jax.serve.service.requests import (
    Window,
    assemble_requests,
    parse_request,
    window_of,
    window_start,
)
from ligr_jax.serve.service.service import Service, ServiceOptions
from ligr_jax.serve.split import Ranking
from ligr_jax.tables.versions import CURRENT, VERSIONS, listed_versions
from tests.train.runs import small_config

pytestmark = pytest.mark.slow

_JSON = "application/json"
NOW_MS = 1_700_000_000_000  # after the log
MEMBER, OTHER, UNKNOWN = 7, 8, 999_999


class Made(NamedTuple):
    artifact: Path
    store: Path


@pytest.fixture(scope="module")
def made(
    prepared: Path, artifact_of_finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    store = tmp_path_factory.mktemp("service") / "store"
    build_store(prepared, store)
    return Made(artifact_of_finished, store)


class Client(NamedTuple):
    """Requests to a server; an answer is its status and body."""

    url: str
    service: Service

    def send(
        self, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read()

    def post(self, path: str, content: Any) -> tuple[int, Any]:
        status, body = self.send(path, json.dumps(content).encode())
        return status, json.loads(body)

    def score(self, **content: Any) -> Any:
        status, answer = self.post("/v1/score", content)
        assert status == 200, answer
        return answer


@contextmanager
def serving(made: Made, store: Path, **options: Any) -> Iterator[Client]:
    service = Service(made.artifact, store, ServiceOptions(poll_s=0, **options))
    with listening_socket("127.0.0.1", 0) as listener:
        app = create_app(service, most_bytes=2**20)
        server = uvicorn.Server(uvicorn.Config(app, loop="asyncio", log_config=None))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield Client(f"http://127.0.0.1:{listener.getsockname()[1]}", service)
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    store = tmp_path_factory.mktemp("stores") / "store"
    shutil.copytree(made.store, store)
    with serving(made, store, timeout_ms=60_000) as client:
        yield client


def shown(count: int = 5, time_ms: int = NOW_MS) -> list[dict[str, Any]]:
    """Return candidates."""
    return [
        {
            "timestamp_ms": time_ms,
            "item_id": n,
            "surface": "feed",
            "age_days": n / 2,
            "actor_id": n % 3,
        }
        for n in range(count)
    ]


def acted(member: int, time_ms: int, item: int = 3) -> dict[str, Any]:
    """Return an impression with its actions."""
    return shown(item + 1, time_ms)[-1] | {
        "member_id": member, "click": 1, "like": 0, "dwell_s": 2.5
    }  # fmt: skip


def expected(made: Made, store: ActivityStore, member: int, candidates: Any) -> Any:
    """Return the artifact's own ranking, from a history that is encoded at once."""
    artifact = load_artifact(made.artifact)
    request = parse_request(store, member, None, candidates, None, most=16, model=artifact.model)
    window = window_of(store, request, artifact.capacity, artifact.restart)
    arrays = assemble_requests(store, artifact.model, [window], [request.candidates])
    row = np.array([0])
    return artifact.rank(artifact.encode(arrays.window(row)), arrays.candidates(row))


def test_scores_are_those_of_the_artifact_to_the_bit(made: Made, client: Client) -> None:
    answer = client.score(member_id=MEMBER, candidates=shown())
    ranking = expected(made, client.service.store, MEMBER, shown())
    assert answer["order"] == ranking.order_BC[0].tolist()
    assert answer["score"] == ranking.score_BC[0].tolist()
    logits = ranking.logits_BCA[0]
    np.testing.assert_allclose(
        answer["probabilities"]["click"], 1 / (1 + np.exp(-logits[:, 0])), rtol=1e-6
    )
    # A cached history gives the same bits, and so does an Arrow body.
    assert client.score(member_id=MEMBER, candidates=shown()) == answer
    table = pl.DataFrame(shown()).with_columns(member_id=pl.lit(MEMBER)).to_arrow()
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    status, body = client.send("/v1/score", sink.getvalue(), ARROW)
    assert status == 200
    arrow = pl.DataFrame(pa.ipc.open_stream(body).read_all())
    assert arrow["score"].to_list() == answer["score"]
    assert arrow["rank"].arg_sort().to_list() == answer["order"]


def test_an_extended_history_scores_as_one_encoded_at_once(made: Made, client: Client) -> None:
    for step in range(1, 4):
        status, counts = client.post("/v1/impressions", [acted(OTHER, NOW_MS + step)])
        assert (status, counts) == (200, {"added": 1, "repeated": 0, "late": 0})
        candidates = shown(time_ms=NOW_MS + 10**7 * step)
        extended = client.score(member_id=OTHER, candidates=candidates)
        ranking = expected(made, client.service.store, OTHER, candidates)
        np.testing.assert_allclose(extended["score"], ranking.score_BC[0], rtol=2e-6)
    status, counts = client.post("/v1/impressions", [acted(OTHER, NOW_MS + 1)])
    assert (status, counts) == (200, {"added": 0, "repeated": 1, "late": 0})
    assert b'ligr_histories_total{found="extended"}' in client.send("/metrics")[1]


def test_a_given_history_scores_as_the_stored_one(client: Client) -> None:
    rows = [acted(UNKNOWN, NOW_MS - 1000 * n, item=n) for n in range(4)]
    given = client.score(history=rows, candidates=shown())
    client.post("/v1/impressions", rows)
    stored = client.score(member_id=UNKNOWN, candidates=shown())
    assert stored == given
    assert given["impressions"] == 4


def test_members_do_not_affect_each_other(client: Client) -> None:
    """Requests of many members at once have the scores of each alone."""
    members = [*range(12), "somebody", -5]
    alone = [client.score(member_id=m, candidates=shown(1 + k % 5)) for k, m in enumerate(members)]
    requests = [{"member_id": m, "candidates": shown(1 + k % 5)} for k, m in enumerate(members)]
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda _: client.score(requests=requests)["results"], range(4)))
    for batch in batches:
        for one, other in zip(alone, batch, strict=True):
            np.testing.assert_allclose(one["score"], other["score"], rtol=2e-6)
    assert alone[-1]["impressions"] == alone[-2]["impressions"] == 0


def test_the_window_depends_on_the_length_of_the_history_alone() -> None:
    capacity, restart = 16, 8
    starts = [window_start(n, capacity, restart) for n in range(100)]
    lengths = [n - start for n, start in enumerate(starts)]
    assert starts[: capacity + 1] == [0] * (capacity + 1)
    assert all(restart < length <= capacity for length in lengths[capacity:])
    assert np.isin(np.diff(starts), (0, capacity - restart)).all()


def test_a_new_version_is_served_without_a_restart(
    made: Made, tmp_path: Path, said: list[str]
) -> None:
    artifact = tmp_path / "artifact"
    shutil.copytree(made.artifact, artifact)
    (old,) = listed_versions(artifact)

    def add(name: str) -> Path:
        version = artifact / VERSIONS / name
        shutil.copytree(artifact / VERSIONS / old, version)
        return version

    with serving(made._replace(artifact=artifact), made.store) as client:
        before = client.score(member_id=MEMBER, candidates=shown())
        assert before["version"] == old
        add("new")
        write_json(artifact / CURRENT, {"version": "new", "versions": ["new", old]})
        assert client.service.versions.refresh()
        after = client.score(member_id=MEMBER, candidates=shown())
        assert after == before | {"version": "new"}
        assert b'found="misses"} 2.0' in client.send("/metrics")[1]  # those of `old` are gone
        # A damaged version is refused once, and the current one stays.
        (add("damaged") / PARAMS).write_bytes(b"damaged")
        write_json(artifact / CURRENT, {"version": "damaged", "versions": ["damaged", "new", old]})
        assert not client.service.versions.refresh()
        assert f"damaged/{PARAMS}" in said[-1]
        assert not client.service.versions.refresh()
        assert client.score(member_id=MEMBER, candidates=shown()) == after


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"candidates": shown()}, "give either member_id, whose history is stored, or a history"),
        ({"member_id": 1, "history": [], "candidates": shown()}, "give either member_id"),
        ({"member_id": 1}, "the body has no candidates"),
        ({"member_id": 1, "candidates": []}, "a request has 0 candidates; give 1 to 16"),
        ({"member_id": 1, "candidates": shown(17)}, "a request has 17 candidates; give 1 to 16"),
        ({"member_id": [1], "candidates": shown()}, "give an integer or a string"),
        ({"member_id": 1, "candidates": shown(), "top": 3}, "unknown field 'top'"),
        ({"member_id": 1, "candidates": [{"timestamp_ms": 1}]}, "no column 'item_id'"),
        (
            {"member_id": 1, "candidates": [{**shown()[0], "age_days": "x"}]},
            "row 0, column 'age_days'",
        ),
        ({"member_id": 1, "candidates": shown() + shown(1, 5)}, "several values of timestamp_ms"),
        (
            {"member_id": 1, "candidates": shown(), "position": 2},
            "position is 2, and the model has no post feature",
        ),
        ({"member_id": 1, "candidates": shown(), "position": "top"}, "the number of a bucket"),
        ({"requests": []}, "there is no request"),
        ([1], "the body is not an object"),
    ],
)
def test_bad_input_is_refused_in_words(client: Client, content: Any, message: str) -> None:
    status, answer = client.post("/v1/score", content)
    assert status == 400
    assert message in answer["error"]


def test_a_damaged_history_fails_its_own_requests_only(
    made: Made, tmp_path: Path, said: list[str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(made.store, store)
    with contextlib.closing(sqlite3.connect(store / ACTIVITY)) as file, file:
        file.execute("UPDATE chunks SET digest = digest + 1 WHERE member = ?", (OTHER,))
    bodies = [{"member_id": member, "candidates": shown()} for member in (OTHER, MEMBER)]
    with (
        serving(made, store, wait_ms=200.0, timeout_ms=60_000) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        answers = pool.map(lambda body: client.post("/v1/score", body), bodies)
        (damaged, reason), (intact, answer) = answers
    assert (damaged, intact) == (500, 200)
    assert reason == {"error": "the service failed; its log has the cause"}
    assert len(answer["order"]) == 5
    assert "damaged" in said[-1]


def test_bodies_that_are_none(client: Client) -> None:
    assert client.send("/v1/score", b"{")[0] == 400
    assert client.send("/v1/score", b"[" * 100_000)[0] == 400
    assert client.send("/v1/score", b"nonsense", ARROW)[0] == 400
    assert client.send("/v1/score", b" " * (2**20 + 1))[0] == 413
    assert client.send("/v1/score")[0] == 405
    assert client.send("/v1/nothing", b"{}")[0] == 404


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*shown(1)[0], "member_id", "history", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    row=st.dictionaries(st.sampled_from(list(shown(1)[0])), _VALUES),
    member=_VALUES,
    history=_VALUES,
)
def test_no_body_crashes_the_service(client: Client, row: Any, member: Any, history: Any) -> None:
    """Whatever is sent, the answer is a score or a reason, and a good request still works."""
    for content in (
        {"member_id": member, "candidates": [{**shown(1)[0], **row}]},
        {"history": history, "candidates": shown(1)},
    ):
        status, answer = client.post("/v1/score", content)
        assert status in (200, 400), answer
        assert answer.get("error") or len(answer["score"]) == 1
    assert client.post("/v1/impressions", history)[0] in (200, 400)


def test_each_request_is_scored_at_its_position(made: Made, prepared: Path) -> None:
    artifact = load_artifact(made.artifact)
    model = small_config(
        prepared,
        "model.features.dwell_s.outcome=false",
        "model.features.dwell_s.post=true",
    ).model
    scored: list[Batch] = []

    class Stub:
        """The artifact, for a model with positions: its candidates are kept, and not scored."""

        capacity, restart = artifact.capacity, artifact.restart
        encode = staticmethod(artifact.encode)

        def __init__(self) -> None:
            self.model = model

        def rank(self, cache: Cache, candidates: Batch) -> Ranking:
            scored.append(candidates)
            shape = candidates.member.shape
            zeros = np.zeros(shape, np.float32)
            return Ranking(np.zeros((*shape, 2)), zeros, np.zeros(shape, np.int32))

    with ActivityStore(made.store) as store:
        requests = [
            parse_request(store, MEMBER, None, shown(2), position, most=16, model=model)
            for position in (3, None)
        ]
        Engine(store, 10**8).answer(Stub(), "v", requests)  # type: ignore[arg-type]
    np.testing.assert_array_equal(scored[0].ids["dwell_s"], [[3, 3], [0, 0]])


def test_encoded_histories_are_dropped_by_use_and_by_size(made: Made) -> None:
    artifact = load_artifact(made.artifact)
    with ActivityStore(made.store) as store:
        entries = []
        for member in range(4):
            window = Window(0, store.read(member, artifact.capacity))
            batch = store.batch([member], artifact.model, artifact.capacity)
            entries.append(EncodedHistory(window, artifact.encode(batch)))
    cache = HistoryCache(largest=sum(entry.size for entry in entries[:3]) + 10)
    for member, entry in enumerate(entries[:3]):
        cache.put(("v", member), entry)
    assert cache.get(("v", 0)) is entries[0]
    cache.put(("v", 3), entries[3])
    assert [cache.get(("v", member)) is not None for member in range(4)] == [
        True,
        False,
        True,
        True,
    ]
    assert cache.bytes <= cache.largest
    cache.keep_version("w")
    assert (len(cache), cache.bytes) == (0, 0)


def test_the_command_serves_until_it_is_asked_to_stop(
    made: Made, child_env: dict[str, str]
) -> None:
    words = ["serve", str(made.artifact), "--store", str(made.store), "--port", "0"]
    command = [sys.executable, "-m", "ligr_jax", *words]
    with subprocess.Popen(command, env=child_env, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        line = next(line for line in child.stderr if "is served on" in line)
        client = Client(line.split()[-1], None)  # type: ignore[arg-type]
        assert client.score(member_id=MEMBER, candidates=shown())["impressions"] > 0
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=60) == 0, child.stderr.read()


def test_a_store_of_other_data_is_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(directory: Path) -> ActivityStore:
        store = ActivityStore(directory)
        store.about = dataclasses.replace(store.about, data_digest="0" * 16)
        return store

    monkeypatch.setattr("ligr_jax.serve.service.service.ActivityStore", other)
    with pytest.raises(LigrError, match="build a store from the data of the run"):
        Service(made.artifact, made.store, ServiceOptions(poll_s=0))
