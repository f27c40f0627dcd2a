"""Laws of the speeds of input: what devices want, what a core makes, how many loader processes."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ligr_jax import cli
from ligr_jax.cost.flops import train_flops
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.records import Records
from ligr_jax.nn.work import Work
from ligr_jax.train import feed
from ligr_jax.train.feed import MFU, Feed, tokens_made, tokens_wanted
from tests.train.runs import SMALL, small_config


def test_loader_processes_make_what_devices_want_where_cores_allow() -> None:
    threads = Feed(wanted=1e6, made=1e6, made_by_loader=5e5, cores=16)
    assert threads.workers == 0  # two threads make 2e6
    for wanted in (4e6, 7e6, 2e7):
        speeds = Feed(wanted=wanted, made=2e6, made_by_loader=1.3e6, cores=64)
        assert speeds.workers * speeds.made_by_loader >= 1.5 * wanted
        assert (speeds.workers - 1) * speeds.made_by_loader < 1.5 * wanted
        assert replace(speeds, cores=8).workers == min(6, speeds.workers)
        assert replace(speeds, cores=2).workers == 0


def test_devices_at_the_wanted_speed_reach_the_stated_mfu(prepared: Path) -> None:
    model = small_config(prepared).model
    work = Work(100.0, 500.0, 300.0)
    wanted = tokens_wanted(model, work, 1e12)
    assert wanted * train_flops(model, work) / (2 * work.impressions) == pytest.approx(MFU * 1e12)


def test_tokens_per_second_of_a_core_are_those_of_whole_batches(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that advances by half a second at each look; copying a batch takes one step."""
    ticks = iter(np.arange(100) / 2)
    monkeypatch.setattr(feed.time, "thread_time", lambda: next(ticks))
    config, records = small_config(prepared), Records(prepared)
    plan = plan_for(records, config, "train")
    made, made_by_loader = tokens_made(records, plan, config, devices=1)
    tokens = config.optim.batch * config.data.seq_len
    assert plan.packing / 2 < made / (tokens / 0.5) <= 1
    assert made_by_loader == made / 2


def test_a_plan_says_what_devices_want_and_what_a_core_makes(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "--data", str(prepared), "--plan", *SMALL]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    number = r"[\d.e+]+"
    assert re.fullmatch(
        rf"input: the devices of a process want {number} tokens/s at 40% MFU; one core makes "
        rf"{number} tokens/s \(measured\), the process has \d+ cores?",
        line,
    )
