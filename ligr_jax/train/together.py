"""Runs that differ only in seed, learning rates or weight decay, trained together as one program.

A small model leaves a device idle: most of its step is overhead. So the states of K runs are
stacked, the step is mapped over them by `jax.vmap`, and the runs are shared out over the devices:
each device trains its runs whole, and nothing travels. What differs is an argument of the program,
so other seeds and rates do not compile again. Runs of one seed see the same batches, and share
them; runs of several seeds have an input pipeline for each.

Every run keeps its own directory as if it trained alone: `ligr train` goes on from there, and a
group from what `ligr train` left. Its numbers are those of `ligr train` but for rounding.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ligr_jax.config import Config, ConfigError, MeshConfig, flatten
from ligr_jax.data.assemble import Assembler, crowded_tables
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.records import Records
from ligr_jax.runs.directory import finished, load_summary, lock, write_or_verify_config
from ligr_jax.runs.wandb_check import check_wandb
from ligr_jax.runs.wandb_env import several_runs
from ligr_jax.train.data import open_verified
from ligr_jax.train.group import Group, Member
from ligr_jax.train.length import steps_of
from ligr_jax.train.optimizer import ScaleParams
from ligr_jax.train.preflight import require_trainable
from ligr_jax.train.program import Program, key_data
from ligr_jax.train.record import Record, TrainingDiverged

_log = logging.getLogger(__name__)

MAY_DIFFER = ("train.seed", *(f"optim.{name}" for name in ScaleParams._fields))


def groupable(configs: Sequence[Config], most: int) -> list[list[int]]:
    """Which configurations can train together: groups of at most `most` places in `configs`.

    Groups, and places inside them, are in the order given; who can only train alone is a group of
    one. A group needs the memory of as many training states as it has members.
    """
    alike: dict[Any, list[list[int]]] = {}
    for place, config in enumerate(configs):
        groups = alike.setdefault(place if why_alone(config) else _frame(config), [])
        if not groups or len(groups[-1]) == most:
            groups.append([])
        groups[-1].append(place)
    return sorted(group for groups in alike.values() for group in groups)


def why_alone(config: Config) -> str:
    """Why a configuration can only train alone; "" where it can train with others."""
    if config.mesh.model > 1:
        return (
            f"mesh.model={config.mesh.model} splits tables over devices, and runs trained together "
            "keep theirs whole; set mesh.model=1 or train it alone"
        )
    if config.train.warm.run:
        return "train.warm.run: a run that goes on from another trains alone"
    if config.mesh.fsdp:
        return (
            "mesh.fsdp=true splits weights over devices, and runs trained together keep theirs "
            "whole; set mesh.fsdp=false or train it alone"
        )
    return ""


def _frame(config: Config) -> tuple[tuple[str, Any], ...]:
    """What runs trained together have in common."""
    return tuple((k, v) for k, v in flatten(config).items() if k not in MAY_DIFFER)


def train_together(configs: Sequence[Config], outs: Sequence[Path]) -> list[dict[str, Any]]:
    """`ligr_jax.train.loop.train` for several runs at once; their summaries, in order.

    Finished runs are returned as they are. Where the newest checkpoints of the others are not of
    one step, those of a step go on together, one such group after another. A run that diverges
    leaves its last words in `error.txt` of its directory, and the others go on.

    Raises:
        ConfigError: the runs cannot train together, or a directory holds another run.
        Busy: another process is training one of the runs; none was touched.
        TrainingDiverged: at the end, where some of the runs diverged.
        Preempted: A signal asked to stop; everything is saved.
    """
    _require_alike(configs, outs)
    with contextlib.ExitStack() as claims:
        pairs = list(zip(configs, outs))
        for _, out in [(c, o) for c, o in pairs if finished(o, c) is None]:
            claims.enter_context(lock(out))
        unfinished = [(c, out) for c, out in pairs if finished(out, c) is None]
        for config, _ in unfinished[:1]:  # they all have the same `track`
            check_wandb(config.track)
        for config, out in unfinished:
            write_or_verify_config(out, config)
        if len(unfinished) < len(outs):
            _log.info(f"{len(outs) - len(unfinished)} of {len(outs)} runs are finished")
        if len(outs) > 1:
            for name in claims.enter_context(several_runs()):
                _log.warning(f"{name} names one run, and {len(outs)} are trained: it is ignored")
        failed = _train(unfinished) if unfinished else {}
    if failed:
        words = "\n".join(f"  {out}: {error}" for out, error in failed.items())
        raise TrainingDiverged(f"{len(failed)} of {len(outs)} runs failed:\n{words}")
    return [load_summary(out) or {} for out in outs]


def _require_alike(configs: Sequence[Config], outs: Sequence[Path]) -> None:
    if jax.process_count() > 1:
        raise ConfigError(
            f"runs train together on one process, and this is one of {jax.process_count()}; start "
            "a process for each group"
        )
    if len({out.resolve() for out in outs}) < len(configs):
        raise ConfigError("each run trained together needs a directory of its own")
    first = dict(_frame(configs[0]))
    for config, out in zip(configs, outs, strict=True):
        if why_alone(config):
            raise ConfigError(f"{out}: {why_alone(config)}")
        here = dict(_frame(config))
        for name in first | here:
            if first.get(name) != here.get(name):
                raise ConfigError(
                    f"{out} cannot train together with {outs[0]}: {name} is {here.get(name)!r}, "
                    f"there {first.get(name)!r}; only {', '.join(MAY_DIFFER)} may differ"
                )


def _train(runs: Sequence[tuple[Config, Path]]) -> dict[Path, str]:
    """Trains runs from where each of them is; last words of those that failed."""
    data = runs[0][0].data
    records = open_verified(data.dir, data.edges, data.digest)
    require_trainable(runs[0][0], records)
    for line in crowded_tables(runs[0][0].model, records.manifest):
        _log.info(line)
    # Other seeds pack, and with data.fraction choose, other rows: a step more or less.
    steps = {
        seed: steps_of(config, records, plan_for(records, config, "train"))
        for seed, config in {config.train.seed: config for config, _ in runs}.items()
    }
    failed: dict[Path, str] = {}
    for length in sorted(set(steps.values())):
        failed |= _of_one_length(
            [(c, out) for c, out in runs if steps[c.train.seed] == length], records, length
        )
    return failed


def _of_one_length(
    runs: Sequence[tuple[Config, Path]], records: Records, steps: int
) -> dict[Path, str]:
    config = runs[0][0]
    # A run as it trains on one device.
    program = Program(dataclasses.replace(config, mesh=MeshConfig(data=1)), steps)
    example = Assembler(records, plan_for(records, config, "train"), config.model)(np.array([-1]))
    abstract = program.abstract_state(example)
    init = program.compile_init(example)
    by_step: dict[int, list[Member]] = {}
    for config, out in runs:
        record = Record(config, out, steps, program.layout)
        state, place = record.restore(abstract) or (
            init(key_data(config.train.seed), example),
            {"next_index": 0},
        )
        member = Member(config, record, jax.device_get(state), place)
        by_step.setdefault(int(state.step), []).append(member)
    if len(by_step) > 1:
        counts = ", ".join(f"{len(m)} at step {step}" for step, m in sorted(by_step.items()))
        _log.info(
            f"newest checkpoints are of different steps ({counts}): each step's runs by themselves"
        )
    failed: dict[Path, str] = {}
    for step, members in sorted(by_step.items()):
        if step:
            _log.info(f"resuming at step {step} of {steps}: {len(members)} runs")
        failed |= Group(members, program, records, steps).run()
    return failed
