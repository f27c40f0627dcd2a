"""A mesh changes placement and communication, but no number."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ligr_jax.config import Config, ConfigError
from ligr_jax.data.pipeline import plan_for, train_batches
from ligr_jax.data.records import Records
from ligr_jax.parallel.traffic import collectives
from ligr_jax.train.checkpoint import Checkpoints
from ligr_jax.train.optimizer import split_tables
from ligr_jax.train.program import Program
from ligr_jax.train.state import TrainState
from tests.train.runs import small_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_keys")]

MIXED = (
    "column_wise",
    "item_id:row_wise",
    "surface:table_wise",
    "dwell_s:table_wise",
    "age_days:replicated",
)
# Every kind of mesh with every placement of a table.
PLACED = [((2, 1), ("replicated",)), *product([(2, 2), (1, 4)], [MIXED])]
# Neither these widths nor the rows of the tables divide by 4 or 8.
UNEVEN = ("model.table_width=10", "model.features.item_id.width=7")
Tree = dict[str, Any]


def mesh(data: int, model: int, *placement: str) -> tuple[str, ...]:
    placed = [f"mesh.placement={','.join(placement)}"] if placement else []
    return (f"mesh.data={data}", f"mesh.model={model}", *placed)


def after(config: Config, steps: int = 10) -> tuple[Program, TrainState, list[float]]:
    """State and losses after steps from a fresh start."""
    records, program = Records(Path(config.data.dir)), Program(config, 10)
    batches = train_batches(records, plan_for(records, config, "train"), config, program.process)
    pairs = [next(batches) for _ in range(steps)]
    state = program.init_state(pairs[0].batch)
    step = program.compile_step(program.shard_batch(pairs[0]))
    losses = []
    for pair in pairs:
        state, metrics = step(state, program.shard_batch(pair))
        losses.append(float(metrics["loss"]))
    return program, state, losses


def contents(program: Program, state: TrainState) -> tuple[Tree, Tree, Tree]:
    """Dense weights, tables [V, E], and what is kept of their rows, whatever the layout."""
    dense, tables = split_tables(jax.device_get(state.params))
    rows = jax.device_get(state.opt_state["rows"])
    return dense, *(
        jax.tree.map(np.asarray, program.layout.unpack(x))
        for x in (tables, rows)  # type: ignore[return-value]
    )


@pytest.fixture(scope="module")
def alone(prepared: Path) -> tuple[Program, TrainState, list[float]]:
    return after(small_config(prepared, *UNEVEN, *mesh(1, 1)))


@pytest.mark.parametrize(("shape", "placement"), PLACED)
def test_ten_steps_end_alike_on_every_mesh_with_every_placement(
    prepared: Path,
    alone: tuple[Program, TrainState, list[float]],
    shape: tuple[int, int],
    placement: tuple[str, ...],
) -> None:
    program, state, losses = after(small_config(prepared, *UNEVEN, *mesh(*shape, *placement)))
    np.testing.assert_allclose(losses, alone[2], rtol=1e-6)
    # Accumulators are squares of sums that cancel: rounding weighs more in them.
    for one, other, close in zip(
        contents(*alone[:2]), contents(program, state), (1e-6, 1e-6, 2e-5)
    ):
        a, b = (np.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in (one, other))
        assert np.linalg.norm(a - b) < close * np.linalg.norm(a)


def test_dense_weights_can_be_split_too(
    prepared: Path, alone: tuple[Program, TrainState, list[float]]
) -> None:
    """`mesh.fsdp`: a device keeps a part of each matrix and of its moments, and of the tables."""
    split_too = ("mesh.fsdp=true", *mesh(4, 2, "column_wise"))
    _, state, losses = after(small_config(prepared, *UNEVEN, *split_too))
    np.testing.assert_allclose(losses, alone[2], rtol=1e-6)
    kept = {"dense": split_tables(state.params)[0], "moments": state.opt_state["dense"]}
    matrices = [x for x in jax.tree.leaves(kept) if x.ndim > 1]
    here = sum(x.addressable_shards[0].data.size for x in matrices)
    assert here < 0.3 * sum(x.size for x in matrices)


def test_a_checkpoint_goes_from_mesh_to_mesh_bit_by_bit(
    prepared: Path, alone: tuple[Program, TrainState, list[float]], tmp_path: Path
) -> None:
    """From one device to 8 x 1, 2 x 4 with tables everywhere, by columns, and to one device."""
    shapes = ((8, 1), (2, 4, *MIXED), (1, 8, "column_wise"), (1, 2, "table_wise"), (1, 1))
    configs = [small_config(prepared, *UNEVEN, *mesh(*shape)) for shape in shapes]
    program, state, _ = alone
    wanted = contents(program, state)
    for step, config in enumerate(configs, 1):
        directory = tmp_path / "checkpoints"
        Checkpoints.save(saver := Checkpoints(directory, 9, program.layout), step, state, {})
        saver.close()
        program = Program(config)
        reader = Checkpoints(directory, 9, program.layout)
        restored = reader.restore(program.abstract_state())
        reader.close()
        assert restored is not None
        state = restored[0]
        jax.tree.map(np.testing.assert_array_equal, contents(program, state), wanted)
        for name, array in split_tables(state.params)[1].items():
            stored = program.layout.arrays[name]
            assert array.shape == stored[1:3]
            assert array.sharding.spec == stored.spec(2)


V = 100_003


def compiled_step(program: Program, prepared: Path) -> tuple[Any, Any]:
    """The training step, and a batch for it."""
    config = program.config
    records = Records(prepared)
    batches = train_batches(records, plan_for(records, config, "train"), config, program.process)
    example = program.shard_batch(next(batches))
    return program.compile_step(example), example


@pytest.mark.parametrize(
    ("placement", "kinds"),
    [
        # Ids, rows there and gradients back, sums of gradients: of dense weights, and over `data`.
        ("replicated", {"all-reduce"}),
        ("column_wise", {"all-gather", "all-to-all", "all-reduce"}),
        ("row_wise", {"all-gather", "reduce-scatter", "all-reduce"}),
        ("table_wise", {"all-to-all", "all-reduce"}),
    ],
)
def test_no_table_travels_and_tables_are_made_where_they_live(
    prepared: Path, placement: str, kinds: set[str]
) -> None:
    small = ("model.features=item_id,dwell_s", "model.set_depth=0")
    large = f"model.features.item_id.rows={V}"
    config = small_config(prepared, *small, large, *mesh(2, 4, placement))
    program = Program(config)
    step, example = compiled_step(program, prepared)
    sent = list(collectives(step.as_text()))
    assert {c.kind for c in sent} == kinds
    longest = max(n for c in sent for _, shape in c.arrays for n in (*shape, 0))
    assert longest < V / program.layout.model
    assert step.memory_analysis().temp_size_in_bytes < 4 * V  # a quarter of the table
    make = program.compile_init(example.batch)
    assert not list(collectives(make.as_text()))
    parts = (
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(program.abstract_state())
    )
    memory = make.memory_analysis()
    assert memory.output_size_in_bytes == pytest.approx(sum(parts), rel=0.01)
    assert memory.temp_size_in_bytes < 4.2 * V


def test_what_cannot_be_is_refused_before_anything_is_allocated(prepared: Path) -> None:
    for changes, message in (
        (mesh(3, 4), r"mesh\.data=3 x mesh\.model=4 needs more than the 8 available"),
        ((*mesh(2, 4), "optim.batch=12"), "12 rows .* is not divisible by mesh.data=2 x"),
        (mesh(2, 4, "auto", "nothing:row_wise"), "no table nothing; there are .*'item_id'"),
        (
            mesh(2, 4, "diagonal"),
            "diagonal: choose one of auto, replicated, column_wise, row_wise, table_wise",
        ),
        ((*mesh(2, 4, "column_wise"), "optim.table_optimizer=adamw"), "cannot be sharded"),
        (
            ("model.features.item_id.rows=2000000000", "model.features.item_id.width=512"),
            r"need 3,8\d\d\.\d GiB per device, .* mesh.model=1 now, mesh.model=\d+ would suffice",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            Program(small_config(prepared, *changes))


def test_the_planner_splits_what_is_large_and_says_why(prepared: Path) -> None:
    large = (
        "model.features.item_id.rows=10000000",
        "model.features.item_id.width=30",
        "data.seq_len=2048",
    )
    plan = Program(small_config(prepared, *large, *mesh(2, 4))).plan
    assert plan.layout.placements == {
        "actor_id": "replicated",
        "age_days": "replicated",
        "dwell_s": "replicated",
        "item_id": "column_wise",
        "surface": "replicated",
    }
    text = "\n".join(plan.lines())
    assert "30 columns stored as 32" in text
    assert "replicated would send" in text
    # The budget decides where traffic does not.
    tight = (*large, "data.seq_len=32", *mesh(2, 4), "mesh.table_gib=0.5")
    plan = Program(small_config(prepared, *tight)).plan
    assert plan.layout.placements["item_id"] == "column_wise"
    assert "to fit in memory" in "\n".join(plan.lines())
    assert plan.stored < plan.budget
