"""Laws of runs that train on actions of the own session: marked, and served without them."""

from pathlib import Path

import pytest

from ligr_jax.config import served_config, training_leak
from ligr_jax.runs.directory import load_config
from ligr_jax.serve import Scorer
from ligr_jax.train.evaluate import evaluate_run
from ligr_jax.train.loop import train
from tests.train.random_run import random_run
from tests.train.runs import small_config

CAUSAL = ("model.mask=causal", "model.set_depth=0", "mesh.data=1")


@pytest.mark.parametrize(
    ("assignments", "leaks"),
    [
        ((), False),
        (("data.shuffle_sessions=true",), False),
        (("model.mask=session_lag",), False),
        (("model.mask=causal",), True),
        (("model.mask=causal", "optim.bce_weight=0"), True),  # the rank loss reads actions too
        (("model.mask=causal", "optim.bce_weight=0", "optim.rank_weight=0"), False),
    ],
)
def test_a_causal_mask_with_a_loss_on_actions_is_a_leak(
    prepared: Path, assignments: tuple[str, ...], leaks: bool
) -> None:
    assert bool(training_leak(small_config(prepared, *assignments))) == leaks


def test_a_causal_run_with_shuffled_sessions_is_served_under_the_session_mask(
    prepared: Path, tmp_path: Path
) -> None:
    """A causal run without shuffling keeps its mask, which measures the leak."""
    shuffled = small_config(prepared, *CAUSAL, "data.shuffle_sessions=true")
    session = small_config(prepared, "model.mask=session", *CAUSAL[1:])
    runs = {"shuffled": shuffled, "causal": small_config(prepared, *CAUSAL), "session": session}
    ne = {
        name: evaluate_run(random_run(config, tmp_path / name), "test")["test/ne"]
        for name, config in runs.items()
    }
    assert ne["shuffled"] == ne["session"]
    assert ne["causal"] != ne["session"]
    assert Scorer.from_run(tmp_path / "shuffled").model.mask == "session"
    assert load_config(tmp_path / "shuffled").model.mask == "causal"
    assert served_config(runs["causal"]).model.mask == "causal"


def test_the_summary_of_a_leaking_run_is_marked_and_its_evaluation_is_that_of_serving(
    prepared: Path, tmp_path: Path
) -> None:
    config = small_config(
        prepared, *CAUSAL, "data.shuffle_sessions=true", "train.steps=2", "eval.splits=test"
    )
    summary = train(config, tmp_path / "run")
    assert summary["leaks"] is True
    assert summary["status"] == "leaks"
    assert summary["beats_oracle"] is False
    again = evaluate_run(tmp_path / "run", "test")
    assert again["test/ne"] == pytest.approx(summary["test/ne"], rel=1e-6)
