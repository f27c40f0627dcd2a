"""Laws of artifacts: they score as the model does, and what is damaged or expired is refused."""

import dataclasses
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jax
import numpy as np
import pytest

from ligr_jax.data.post_row import at_post_row
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.digests import write_json
from ligr_jax.errors import LigrError
from ligr_jax.serve import Artifact, Scorer, load_artifact
from ligr_jax.serve.golden import WrongScores, golden_scores, read_golden, require_golden_scores
from ligr_jax.serve.golden_check import check_artifact
from ligr_jax.serve.manifest import (
    ArtifactError,
    DamagedArtifact,
    ExpiredArtifact,
    read_manifest,
    write_manifest,
)
from ligr_jax.serve.replay import replay_metrics
from ligr_jax.serve.stablehlo import export_function
from ligr_jax.serve.write import ExportOptions, export_artifact
from ligr_jax.tables.versions import version_directory
from ligr_jax.train.evaluate import evaluate_run
from tests.train.random_run import random_run
from tests.train.runs import small_config
from tests.xla import flags

pytestmark = pytest.mark.slow

OPTIONS = ExportOptions(candidates=16)  # one size of arrays, as the runs have 16 impressions
# The dwell time in place of a display position: a number that is known only after scoring.
SHOWN = (
    "model.features.dwell_s.outcome=false",
    "model.features.dwell_s.post=true",
    "model.features.dwell_s.edges=10,40",
)
OTHER_KINDS = {
    "hstu": ("model.kind=hstu", "model.set_depth=0", "model.position=relative_time"),
    "wukong": ("model.kind=wukong", "model.set_depth=0", "model.head.calibration=true"),
    "positions": (
        "model.set_depth=1",
        "model.features.surface.late=true",
        "model.head.kind=mmoe",
        "model.head.cross_layers=1",
        *SHOWN,
    ),
    "lirank": (
        "preset=lirank-feed",
        "model.lirank.history=6",
        "model.lirank.history_width=4",
        "model.lirank.rank=4",
        "model.lirank.mlp=8",
        "model.lirank.experts=3",
        "model.head.widths=16",
    ),
}


@pytest.fixture
def artifact(artifact_of_finished: Path) -> Artifact:
    return load_artifact(artifact_of_finished)


@pytest.mark.parametrize("kind", ["ligr", *OTHER_KINDS])
def test_metrics_through_the_artifact_are_those_of_eval(
    kind: str, prepared: Path, finished: Path, artifact_of_finished: Path, tmp_path: Path
) -> None:
    """Histories are encoded, sessions scored as candidates, and appended, as a service does."""
    run, out = finished, artifact_of_finished
    if kind != "ligr":
        config = small_config(prepared, *OTHER_KINDS[kind], "mesh.data=1")
        run, out = random_run(config, tmp_path / "run"), tmp_path / "out"
        export_artifact(run, out, OPTIONS)
    artifact = load_artifact(out)
    served = replay_metrics(artifact, Records(prepared), artifact.config, "test")
    measured = evaluate_run(run, "test")
    measured = {name: value for name, value in measured.items() if "/shown" not in name}
    assert served.keys() == measured.keys()
    for name, value in measured.items():
        assert served[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name
    # The export changes nothing, bit by bit; 32 bits change no row.
    golden = artifact.manifest.golden
    assert ("positions" in golden["difference_from_model"]) == (kind == "positions")
    if kind == "positions":
        check_positions(artifact)
    assert set(golden["difference_from_model"].values()) == {0.0}
    assert set(golden["difference_from_run"].values()) == {0.0}


def check_positions(artifact: Artifact) -> None:
    """Candidates are scored at their position; those without one, at that of the settings."""
    golden = read_golden(artifact.directory / "golden.npz")
    cache, asked = artifact.encode(golden.history), golden.candidates
    at_all = artifact.score_positions(cache, asked)
    nowhere = asked._replace(ids={**asked.ids, "dwell_s": np.zeros_like(asked.ids["dwell_s"])})
    default = artifact.score(cache, nowhere)
    np.testing.assert_array_equal(default, at_all[:, :, artifact.scoring.position - 1])
    for row in range(1, 4):
        logits = artifact.score(cache, at_post_row(nowhere, artifact.model, row))
        np.testing.assert_array_equal(logits, at_all[:, :, row - 1])
        assert row == 1 or (logits != default).any()


def test_scores_are_those_of_the_scorer_of_the_run(finished: Path, artifact: Artifact) -> None:
    scorer = Scorer.from_run(finished)
    golden = read_golden(artifact.directory / "golden.npz")
    wanted = golden_scores(scorer, golden.history, golden.candidates)
    for name, scores in golden_scores(artifact, golden.history, golden.candidates).items():
        np.testing.assert_array_equal(scores, wanted[name], err_msg=name)
        np.testing.assert_array_equal(scores, golden.scores[name], err_msg=name)
    assert np.isfinite(wanted["pointwise"]).all()
    assert len(np.unique(wanted["session"])) > 8


FRESH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"flax", "optax", "orbax", "grain", "wandb"}:
            raise ImportError(name)
        if name.startswith(("ligr_jax.train", "ligr_jax.nn")) and name not in ALLOWED:
            raise ImportError(name)

# A package without code of its own, and the types of scores.
ALLOWED = {"ligr_jax.nn", "ligr_jax.nn.serving"}
sys.meta_path.insert(0, Blocked())
import jax
from ligr_jax.serve import load_artifact
from ligr_jax.serve.golden_check import check_artifact
checked = check_artifact(load_artifact(sys.argv[1]))
assert len(jax.devices()) == 3
assert checked.tolerance == 0, checked
print(checked.words())
"""


def test_a_fresh_process_without_the_models_code_gives_the_same_bits(
    artifact: Artifact, child_env: dict[str, str]
) -> None:
    """On another number of host devices."""
    out = artifact.directory.parents[1]
    env = {**child_env, "XLA_FLAGS": flags(devices=3)}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(out)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "4 golden requests are equal bit by bit" in done.stdout


@pytest.mark.usefixtures("copied_functions")
def test_quantized_tables_move_logits_within_their_bound(finished: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, bits=8)
    export_artifact(finished, tmp_path, options, assignments=["mesh.data=1"])
    golden = load_artifact(tmp_path).manifest.golden
    moved = golden["quantization"]
    assert 0 < moved["measured"] <= moved["bound"]
    assert moved["share"] <= 1
    # Half a step of 8 bits is small against the logits, which are near 1.
    assert moved["bound"] < 0.05
    assert 0 < golden["difference_from_run"]["session"] <= moved["bound"]
    assert set(golden["difference_from_model"].values()) == {0.0}


DAMAGED = (
    "manifest.json",
    "params.npz",
    "golden.npz",
    "functions/encode_16.bin",
    "tables/index.json",
    "tables/zarr.json",
    "tables/item_id/zarr.json",
    "tables/item_id/values/zarr.json",
    "tables/item_id/values/c/0/0",
)


@pytest.mark.parametrize("name", DAMAGED)
def test_one_flipped_bit_in_any_file_is_detected_and_named(
    artifact: Artifact, tmp_path: Path, name: str
) -> None:
    shutil.copytree(artifact.directory.parents[1], tmp_path / "out")
    path = version_directory(tmp_path / "out") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(LigrError, match=name.removesuffix("/c/0/0")):
        check_artifact(load_artifact(tmp_path / "out"))


def test_missing_and_foreign_files_are_detected(artifact: Artifact, tmp_path: Path) -> None:
    shutil.copytree(artifact.directory.parents[1], tmp_path / "out")
    version = version_directory(tmp_path / "out")
    (version / "functions" / "other.bin").write_bytes(b"")
    with pytest.raises(DamagedArtifact, match=r"other\.bin does not belong"):
        load_artifact(tmp_path / "out")
    (version / "functions" / "other.bin").unlink()
    (version / "functions" / "rank_16.bin").unlink()
    with pytest.raises(DamagedArtifact, match=r"rank_16\.bin is missing"):
        load_artifact(tmp_path / "out")


def test_expired_and_newer_artifacts_are_refused(artifact: Artifact, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(artifact.directory.parents[1], out)
    version = version_directory(out)
    manifest = read_manifest(version)
    expires = datetime.fromisoformat(manifest.expires)
    assert timedelta(days=180) < expires - datetime.now(UTC) < timedelta(days=184)
    assert not manifest.is_expired(expires - timedelta(seconds=1))
    assert manifest.is_expired(expires)
    write_manifest(version, dataclasses.replace(manifest, expires="2026-01-01T00:00:00+00:00"))
    with pytest.raises(ExpiredArtifact, match=r"expired on 2026-01-01.* export the run again"):
        load_artifact(out)
    assert load_artifact(out, allow_expired=True).manifest.expires.startswith("2026")
    content = json.loads((version / "manifest.json").read_text())
    del content["digest"]
    write_json(version / "manifest.json", {**content, "version": 2})
    with pytest.raises(ArtifactError, match=r"format version 2, .*reads version 1; install"):
        load_artifact(out)


def test_other_scores_are_refused(artifact: Artifact) -> None:
    golden = read_golden(artifact.directory / "golden.npz")
    changed = {**golden.scores, "session": golden.scores["session"] + np.float32(1e-3)}
    with pytest.raises(WrongScores, match=r"session of the golden requests differ by up to 0\.001"):
        require_golden_scores(artifact.directory, changed, golden.scores, 1e-4)
    nan = {**golden.scores, "session": golden.scores["session"] * np.nan}
    with pytest.raises(WrongScores, match="differ by up to inf"):
        require_golden_scores(artifact.directory, golden.scores, nan, 1e-4)
    assert max(require_golden_scores(artifact.directory, changed, golden.scores, 1).values()) > 0


def test_too_many_candidates_are_refused(artifact: Artifact) -> None:
    golden = read_golden(artifact.directory / "golden.npz")
    cache = artifact.encode(golden.history)
    many = jax.tree.map(lambda x: np.repeat(x, 40, axis=1), golden.candidates)
    assert many.member.shape[1] > 16
    with pytest.raises(BadInput, match=r"at most 16; send fewer, or export with --candidates"):
        artifact.rank(cache, many)


def test_a_custom_call_without_a_promise_is_not_exported() -> None:
    call = jax.ffi.ffi_call("triton_like", jax.ShapeDtypeStruct((2,), np.float32))
    with pytest.raises(ArtifactError, match="triton_like"):
        export_function("f", call, (jax.ShapeDtypeStruct((2,), np.float32),))
    args = (jax.ShapeDtypeStruct((2,), np.float32),)
    assert export_function("f", jax.numpy.negative, args).platforms
