"""Protocols: the same name and digest mean the same rows, splits, sessions and columns."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.cli import main
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions, parse_spans
from ligr_jax.data.protocols import PROTOCOLS, find_protocol, has_published_digest, protocols_of
from ligr_jax.data.protocols.protocol import kept_rows
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.data.sources.formats import ADAPTERS, open_source
from ligr_jax.data.sources.source import Fault, LogBatch
from tests.data.logs import write_log
from tests.data.test_amazon2023 import write_json
from tests.data.test_kuairand import LOG, SLICE, needs_slice, write_csv_layout
from tests.data.test_movielens import REAL

SAMPLES = SLICE.parent / "samples"
# Samples of public layouts, by adapter.
PLACES = {
    "kuairand": "kuairand_csv",
    "recflow": "recflow",
    "ebnerd": "ebnerd",
    "movielens": "movielens_dat",
    "vk_lsvd": "vk_lsvd/subsamples/up0.001_ip0.001",
    "merrec": "merrec",
    "mind": "mind",
    "yambda": "yambda/flat/50m",
    "tencentgr": "tencentgr",
    "tenrec": "tenrec",
    "amazon2023": "amazon2023",
}


def test_every_data_set_with_protocols_has_a_sample() -> None:
    assert {protocol.adapter for protocol in PROTOCOLS.values()} == PLACES.keys()


@needs_slice
def test_the_slice_has_the_published_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", str(SLICE), "--out", str(tmp_path / "log")]
    assert main([*words, "--protocol", "kuairand-slice-log", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["protocol"], said["published"]) == ("kuairand-slice-log", True)
    manifest = load_manifest(tmp_path / "log")
    assert manifest.counts["context"] == 0
    assert manifest.counts["impressions"] == 193_964
    days = [s.start_ms + 8 * 3_600_000 for s in manifest.splits.values()][1:]
    assert [np.datetime64(d, "ms").astype(str) for d in days] == [
        "2022-05-05T00:00:00.000",
        "2022-05-06T00:00:00.000",
    ]
    whole = find_protocol("kuairand-slice-all")
    source = whole.apply(open_source(SLICE, whole.adapter))
    assert has_published_digest(prepare(source, tmp_path / "all", whole.options(PrepareOptions())))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no MovieLens in {REAL}")
def test_movielens_has_the_published_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("movielens-time", "movielens-next-item"):
        words = ["prepare", str(REAL), "--out", str(tmp_path / name), "--protocol", name]
        assert main(words) == 0
        assert "is the published one" in capsys.readouterr().out


def test_a_log_that_ends_before_a_split_of_the_protocol_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "log")
    words = ["prepare", str(tmp_path / "log"), "--out", str(tmp_path / "out")]
    assert main([*words, "--protocol", "amazon2023-timestamp"]) == 1
    message = capsys.readouterr().err
    assert "--protocol amazon2023-timestamp does not fit this log" in message
    assert "ligr sources amazon2023" in message
    assert "--test-until" not in message


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_complete(name: str) -> None:
    protocol = find_protocol(name)
    assert protocol.adapter in ADAPTERS
    rules = [protocol.train_until, protocol.last, protocol.fractions, protocol.leave_one_out]
    assert sum(map(bool, rules)) == 1
    options = protocol.options(PrepareOptions(on_bad_row="skip"))
    assert (options.splits is None) == bool(protocol.fractions or protocol.leave_one_out)
    assert options.on_bad_row == "skip"


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample of data sets in {SAMPLES}")
@pytest.mark.parametrize(("adapter", "sample"), PLACES.items())
def test_the_protocols_fit_the_columns_of_their_data_sets(adapter: str, sample: str) -> None:
    source = open_source(SAMPLES / sample, adapter)
    for protocol in protocols_of(adapter):
        whole = dataclasses.replace(protocol, files=())  # the samples have some of the files
        schema = whole.apply(source).schema
        assert set(protocol.actions) <= set(schema.actions)
        assert schema.columns.keys() <= source.schema.columns.keys()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--session-gap 30m", "--session-gap 30m contradicts .* has the session gap 6h"),
        ("--fractions .8,.1,.1", "--fractions .8,.1,.1 contradicts .* train until 2022-05-05"),
        ("--last 1d,1d", "--last 1d,1d contradicts"),
        ("--actions click", "--actions .* contradicts .* the columns of kuairand"),
        ("--train-on-context", "--train-on-context contradicts .* leaves out earlier"),
        ("--leave-one-out", "--leave-one-out contradicts"),
        ("--format movielens", "--format movielens contradicts .* is for kuairand"),
        ("--shard-rows 1000", "--shard-rows 1000 contradicts .* 2,000,000 rows"),
    ],
)
def test_an_option_that_contradicts_the_protocol_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    words = ["prepare", str(tmp_path), "--out", str(tmp_path / "out"), *option.split()]
    assert main([*words, "--protocol", "kuairand-slice-log"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line


def test_a_protocol_filters_rows_and_is_recorded(tmp_path: Path) -> None:
    write_csv_layout(tmp_path)
    pure = find_protocol("kuairand-pure-time")
    with pytest.raises(BadInput, match=r"needs a file log_standard_4_08_to_4_21_pure\*"):
        pure.apply(open_source(tmp_path))
    (tmp_path / "data" / "log_standard_4_08_to_4_21_pure.csv").write_text(LOG.split("\n")[0] + "\n")
    half = dataclasses.replace(pure, train_until="", fractions="0.5,0.5,0", version=7)
    options = half.options(PrepareOptions())
    assert options.session_gap_ms == 6 * 3_600_000
    manifest = prepare(half.apply(open_source(tmp_path)), tmp_path / "out", options)
    assert manifest.counts["impressions"] == 2  # three of the five rows are random
    assert manifest.source["protocol"] == {"name": "kuairand-pure-time", "version": 7}
    assert has_published_digest(manifest) is None
    (tmp_path / "data" / "user_features_pure.csv").unlink()
    with pytest.raises(BadInput, match=r"the feature 'user_active_degree', which .* lacks"):
        pure.apply(open_source(tmp_path))


def test_rows_that_a_protocol_keeps_have_their_numbers_and_faults() -> None:
    frame = pl.DataFrame({"timestamp_ms": [5, 20, None, 9, 30], "is_random": [0, 0, 0, 0, 1]})
    fault = Fault("timestamp_ms", np.array([0, 1, 0, 0, 0], bool), frame["timestamp_ms"], "is odd")
    protocol = dataclasses.replace(find_protocol("kuairand-1k-time"), since="10")
    kept = kept_rows(LogBatch("log.csv", 11, frame, faults=(fault,)), protocol)
    assert kept.frame["timestamp_ms"].to_list() == [20, None]
    assert [kept.row_number(r) for r in range(2)] == [12, 13]
    assert kept.faults[0].rows.tolist() == [True, False]
    assert kept.faults[0].values.to_list() == [20, None]


def test_the_last_splits_have_their_lengths(tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    options = PrepareOptions(splits=parse_spans("1d,12h"))
    splits = prepare(canonical_source(tmp_path / "log"), tmp_path / "out", options).splits
    assert splits["validation"].end_ms - splits["validation"].start_ms == 86_400_000
    assert splits["test"].end_ms - splits["test"].start_ms == 43_200_000
    options = PrepareOptions(splits=parse_spans("10d,10d"))
    with pytest.raises(BadInput, match=r"--last .* leaves no training rows"):
        prepare(canonical_source(tmp_path / "log"), tmp_path / "none", options)
    with pytest.raises(BadInput, match="give the lengths of validation and test"):
        parse_spans("1d")


def test_sources_shows_the_protocols(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "kuairand", "--json"]) == 0
    protocols = json.loads(capsys.readouterr().out)["kuairand"]["protocols"]
    assert protocols["kuairand-27k-time"]["session_gap"] == "30m"
    assert main(["sources", "kuairand"]) == 0
    assert "--protocol kuairand-slice-log: " in capsys.readouterr().out
    with pytest.raises(BadInput, match=r"no protocol 'kuairand-27-time'.*kuairand-27k-time"):
        find_protocol("kuairand-27-time")
