"""Train runs that differ only in seed, learning rates or weight decay as one compiled program.

A small model leaves a device idle, because most of its step is overhead. Therefore the states of K
runs are stacked and the step is mapped over them by `jax.vmap`. Every device trains complete runs,
so devices do not communicate. The values that differ are arguments of the program, so other seeds
and rates do not compile again. Runs of one seed share their batches; runs of several seeds have one
input pipeline per seed.

Every run has its own directory, as if it trained alone: `ligr train` can continue it, and runs that
`ligr train` began can continue here. Numbers differ from those of `ligr train` only by rounding.
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
from ligr_jax.runs.staged import stage_run
from ligr_jax.runs.trained_data import write_trained_data
from ligr_jax.runs.wandb_check import check_wandb
from ligr_jax.runs.wandb_env import several_runs
from ligr_jax.train.data import open_verified
from ligr_jax.train.length import steps_of
from ligr_jax.train.optimizer import ScaleParams
from ligr_jax.train.preflight import require_trainable
from ligr_jax.train.program import Program, key_data
from ligr_jax.train.recorder import RunRecorder, TrainingDiverged
from ligr_jax.train.run_batch import RunBatch, RunSlot

_log = logging.getLogger(__name__)

MAY_DIFFER = ("train.seed", *(f"optim.{name}" for name in ScaleParams._fields))


def plan_run_batches(configs: Sequence[Config], max_runs: int) -> list[list[int]]:
    """Partition configurations into batches of runs that can train as one program.

    A run that cannot be batched forms a batch of its own. A batch needs the memory of as many
    training states as it has runs.

    Args:
        configs: configurations of the runs.
        max_runs: largest number of runs in a batch.

    Returns:
        Indices into `configs` by batch, in increasing order.
    """
    by_shared_values: dict[Any, list[list[int]]] = {}
    for index, config in enumerate(configs):
        key = index if reason_to_train_alone(config) else _shared_values(config)
        batches = by_shared_values.setdefault(key, [])
        if not batches or len(batches[-1]) == max_runs:
            batches.append([])
        batches[-1].append(index)
    return sorted(batch for batches in by_shared_values.values() for batch in batches)


def reason_to_train_alone(config: Config) -> str:
    """Return why a configuration cannot be batched; "" if it can."""
    if config.mesh.model > 1:
        return (
            f"mesh.model={config.mesh.model} shards tables over devices, and runs trained together "
            "keep each table on one device; set mesh.model=1 or train it alone"
        )
    if config.train.warm.run:
        return "train.warm.run: a run that starts from another run trains alone"
    if config.mesh.fsdp:
        return (
            "mesh.fsdp=true shards weights over devices, and runs trained together keep each "
            "weight on one device; set mesh.fsdp=false or train it alone"
        )
    return ""


def _shared_values(config: Config) -> tuple[tuple[str, Any], ...]:
    """Return the values that runs of one batch have in common."""
    return tuple((k, v) for k, v in flatten(config).items() if k not in MAY_DIFFER)


def train_vmapped(configs: Sequence[Config], outs: Sequence[Path]) -> list[dict[str, Any]]:
    """Train several runs as one program; see `ligr_jax.train.loop.train`.

    Finished runs are not trained again. If the newest checkpoints of the others have different
    steps, the runs of each step train as a batch, one batch after another. A run that diverges
    leaves its error in `error.txt`, and the other runs continue.

    Args:
        configs: configurations, which may differ in `MAY_DIFFER` only.
        outs: run directories.

    Returns:
        The summaries of all runs, in the order of `configs`.

    Raises:
        ConfigError: the runs cannot be batched, or a directory has another run.
        Busy: another process trains one of the runs; no run was changed.
        TrainingDiverged: raised at the end, if some of the runs diverged.
        Preempted: a signal requested a stop; everything is saved.
    """
    _require_one_batch(configs, outs)
    runs = list(zip(configs, outs))
    with contextlib.ExitStack() as locks:
        # Lock first: a run may finish in another process until it is locked here.
        for config, out in runs:
            stage_run(out)
            if finished(out, config) is None:
                locks.enter_context(lock(out))
                stage_run(out, owned=True)
        unfinished = [(config, out) for config, out in runs if finished(out, config) is None]
        if unfinished:
            check_wandb(unfinished[0][0].track)  # equal for all runs
        for config, out in unfinished:
            write_or_verify_config(out, config)
        if len(unfinished) < len(outs):
            _log.info(f"{len(outs) - len(unfinished)} of {len(outs)} runs are finished")
        if len(outs) > 1:
            for name in locks.enter_context(several_runs()):
                _log.warning(f"{name} names one run, and {len(outs)} are trained: it is ignored")
        failed = _train(unfinished) if unfinished else {}
    if failed:
        errors = "\n".join(f"  {out}: {error}" for out, error in failed.items())
        raise TrainingDiverged(f"{len(failed)} of {len(outs)} runs failed:\n{errors}")
    return [load_summary(out) or {} for out in outs]


def _require_one_batch(configs: Sequence[Config], outs: Sequence[Path]) -> None:
    """Raise ConfigError if the runs cannot be batched."""
    if jax.process_count() > 1:
        raise ConfigError(
            f"runs train together on one process, and this is one of {jax.process_count()}; start "
            "a process for each group"
        )
    if len({out.resolve() for out in outs}) < len(configs):
        raise ConfigError("each run trained together needs a directory of its own")
    first = dict(_shared_values(configs[0]))
    for config, out in zip(configs, outs, strict=True):
        if reason := reason_to_train_alone(config):
            raise ConfigError(f"{out}: {reason}")
        values = dict(_shared_values(config))
        for name in first | values:
            if first.get(name) != values.get(name):
                raise ConfigError(
                    f"{out} cannot train together with {outs[0]}: {name} is {values.get(name)!r}, "
                    f"not {first.get(name)!r}; only {', '.join(MAY_DIFFER)} may differ"
                )


def _train(runs: Sequence[tuple[Config, Path]]) -> dict[Path, str]:
    """Train unfinished runs from their newest checkpoints; return the errors of failed runs."""
    config, _ = runs[0]
    records = open_verified(config.data.dir, config.data.edges, config.data.digest)
    require_trainable(config, records)
    for _, out in runs:
        write_trained_data(out, records.digest, records.manifest)
    for line in crowded_tables(config.model, records.manifest):
        _log.info(line)
    # Another seed packs rows in another way, and with data.fraction it selects other members, so
    # runs of one batch may differ by a step.
    configs_by_seed = {config.train.seed: config for config, _ in runs}
    steps_by_seed = {
        seed: steps_of(config, records, plan_for(records, config, "train"))
        for seed, config in configs_by_seed.items()
    }
    failed: dict[Path, str] = {}
    for steps in sorted(set(steps_by_seed.values())):
        of_length = [(c, out) for c, out in runs if steps_by_seed[c.train.seed] == steps]
        failed |= _train_steps(of_length, records, steps)
    return failed


def _train_steps(
    runs: Sequence[tuple[Config, Path]], records: Records, steps: int
) -> dict[Path, str]:
    """Train runs that have the same number of steps; return the errors of failed runs."""
    first_config, _ = runs[0]
    # The program of a run that trains on one device.
    program = Program(dataclasses.replace(first_config, mesh=MeshConfig(data=1)), steps)
    plan = plan_for(records, first_config, "train")
    example = Assembler(records, plan, first_config.model)(np.array([-1]))
    abstract = program.abstract_state()
    init = program.compile_init(example)
    by_step: dict[int, list[RunSlot]] = {}
    for config, out in runs:
        recorder = RunRecorder(config, out, steps, program.layout)
        restored = recorder.restore(abstract)
        if restored is None:
            restored = init(key_data(config.train.seed), example), {"next_index": 0}
        state, batches = restored
        slot = RunSlot(
            config=config, recorder=recorder, state=jax.device_get(state), batches=batches
        )
        by_step.setdefault(int(state.step), []).append(slot)
    if len(by_step) > 1:
        counts = ", ".join(f"{len(m)} at step {step}" for step, m in sorted(by_step.items()))
        _log.info(f"newest checkpoints have different steps ({counts}): one batch for each step")
    failed: dict[Path, str] = {}
    for step, slots in sorted(by_step.items()):
        if step:
            _log.info(f"resuming at step {step} of {steps}: {len(slots)} runs")
        failed |= RunBatch(slots, program, records, steps).run()
    return failed
