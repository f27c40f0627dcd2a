"""metrics.jsonl has complete lines, no step twice, and one set of names for all releases."""

import json
from pathlib import Path

from ligr_jax.config import Config, TrackConfig
from ligr_jax.runs.rows import line_of, read_rows
from ligr_jax.runs.tracker import Tracker


def test_a_resumed_run_writes_later_rows_again(tmp_path: Path) -> None:
    config = Config(track=TrackConfig(wandb="off"))
    first = Tracker(tmp_path, config, resume_step=0)
    for step in (5, 10, 15):
        first.log({"step": step, "x": float("nan") if step == 5 else step})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 20, "x"')  # cut short by a kill
    assert [r["step"] for r in read_rows(tmp_path / "metrics.jsonl")] == [5, 10, 15]
    second = Tracker(tmp_path, config, resume_step=10)
    second.log({"step": 15, "x": 16})
    second.close()
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows == [{"step": 5, "x": None}, {"step": 10, "x": 10}, {"step": 15, "x": 16}]


def test_rows_of_earlier_releases_have_the_names_of_this_one(tmp_path: Path) -> None:
    """Also after a resumed run has written them again."""
    old = {"step": 5, "train/loss": 0.5, "flops_model": 1e9, "mfu": 0.2, "time_s": 3.0}
    names = {"flops_model": "compute/flops_model", "mfu": "throughput/mfu"}
    new = {names.get(k, k).replace("time_s", "compute/seconds"): v for k, v in old.items()}
    for line in (json.dumps(old) + "\n", line_of(old)):
        (tmp_path / "metrics.jsonl").write_text(line)
        assert read_rows(tmp_path / "metrics.jsonl") == [new]
        Tracker(tmp_path, Config(track=TrackConfig(wandb="off")), resume_step=5).close()
        assert json.loads((tmp_path / "metrics.jsonl").read_text()).keys() > new.keys()
        assert read_rows(tmp_path / "metrics.jsonl") == [new]
