"""metrics.jsonl has complete lines and no step twice."""

from pathlib import Path

from ligr_jax.config import Config, TrackConfig
from ligr_jax.runs.rows import read_rows
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
