"""Does the best learning rate stay the same when LiGR becomes wider or deeper?

    python experiments/learning_rate.py                      train about 220 runs and draw
    python experiments/learning_rate.py --parts width        width only

Validation NE of clicks after 200 steps of 16 rows of 32 tokens, less than one pass over a synthetic
world of 1,500 members, against optim.dense_lr on a grid of powers of two, three seeds, under both
`model.parametrization`s. The grid is extended until the best rate has two points on either side.

    width    D = 8, 16, 32, 64, two historical layers and a set-wise one
    depth    1, 2, 4, 8 historical layers and a set-wise one, D = 16

The base is D = 16 with two historical layers, where both parametrizations are equal. All models
have two heads, so K grows with D. The optimum is that of a parabola in log2 of the rate through the
means of the seeds; its 90 % interval is from resampling the seeds at each rate.

Expected: from the base to larger models the best rate of mup stays within a factor of 1.5; the best
rate of standard falls to 0.29 and 0.40 of the base's. Numbers:
experiments/results/learning_rate.json. Time: an hour, at about a tenth of one core; not measured on
an idle machine.
"""

import argparse
import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from lib.options import make_parser
from lib.results import Cell, Column, Study, interval
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ligr_jax.atomic import write_atomically
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.pipeline import plan_for, train_batches
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.sources.canonical import canonical_source
from ligr_jax.data.world.generate import WorldConfig, generate_world
from ligr_jax.messages import show_messages
from ligr_jax.parallel.host import use_fast_allocator
from ligr_jax.scaling.ladder import configure
from ligr_jax.scaling.report.style import STYLE, save
from ligr_jax.train.evaluate import Evaluator
from ligr_jax.train.program import Program
from ligr_jax.train.state import init_state
from ligr_jax.train.step import make_step

PARTS = {"width": (8, 16, 32, 64), "depth": (1, 2, 4, 8)}  # what grows, through which sizes
BASE = {"width": 16, "depth": 2}
RULES = ("standard", "mup")
SETTINGS = (
    "model.actions=click",
    "model.prior=0.25",
    "model.action_token=actions_and_item",
    "model.position=relative_session",
    "model.table_width=16",
    "model.table_init=0.02",
    "data.seq_len=32",
    "optim.batch=16",
    "optim.dense_lr=1",  # times each run's own
    "eval.batch=64",
    "track.wandb=off",
)
FIRST, REACH = -8, 2  # log2 of the first rate; points wanted to either side of the best
RESAMPLES = 2000

Curve = dict[int, list[float]]  # log2 of the rate -> NE of each seed


def main() -> None:
    show_messages()
    use_fast_allocator()
    args = arguments()
    data = args.out / "prepared"
    if not (data / "manifest.json").exists():
        generate_world(WorldConfig(members=1500), args.out / "log")
        prepare(canonical_source(args.out / "log"), data, PrepareOptions())
    study = Study.of(__file__, __doc__, range(args.seeds))
    results = Results(args.out / "results.json")
    for part in args.parts:
        for rule in RULES:
            start = FIRST
            for size in PARTS[part]:
                shape = BASE | {part: size}
                own = [f"model.{dial}={value}" for dial, value in shape.items()]
                base = [f"model.base_{dial}={value}" for dial, value in BASE.items()]
                settings = [*SETTINGS, *own, *base, f"model.parametrization={rule}"]
                runs = Runs(data, settings, args.steps)
                curve = search(runs, results, name(part, rule, size), start, args.seeds)
                start = min(curve, key=lambda k: float(np.mean(curve[k])))
        add_optimum(study, part, results)
    save(figure(args.parts, results), args.figure)
    print(args.figure)
    study.record(args.record)


def name(part: str, rule: str, size: int) -> str:
    """Return the name of a shape and parametrization; at the base both are equal bit for bit."""
    shape = BASE | {part: size}
    return f"{'base' if shape == BASE else rule}, D = {shape['width']}, L = {shape['depth']}"


class Results:
    """NE by shape, log2 of the rate and seed; saved after every run, so it can be resumed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, dict[str, float]] = (
            json.loads(path.read_text()) if path.exists() else {}
        )

    def get(self, shape: str, rate: int, seed: int) -> float | None:
        return self.values.get(shape, {}).get(f"{rate}/{seed}")

    def put(self, shape: str, rate: int, seed: int, value: float) -> None:
        self.values.setdefault(shape, {})[f"{rate}/{seed}"] = value
        write_atomically(self.path, json.dumps(self.values, indent=1) + "\n")

    def curve(self, shape: str) -> Curve:
        """Return the rates that every seed ran."""
        by_rate: Curve = {}
        for key, value in self.values[shape].items():
            by_rate.setdefault(int(key.split("/")[0]), []).append(value)
        most = max(map(len, by_rate.values()))
        return {k: v for k, v in sorted(by_rate.items()) if len(v) == most}


class Runs:
    """Runs of one shape and parametrization, compiled once; rate and seed are arguments."""

    def __init__(self, data: Path, settings: list[str], steps: int) -> None:
        self.steps, self.records = steps, Records(data)
        self.config = configure(load_manifest(data), data, [*settings, f"train.steps={steps}"])
        self._compiled: tuple[Any, Any, Evaluator] | None = None

    def __call__(self, rate: int, seed: int) -> float:
        """Return validation NE after training."""
        batches = self._batches(seed)
        if self._compiled is None:
            self._compiled = self._compile(next(self._batches(0)))
        fresh, step, evaluate = self._compiled
        state: Any = None
        for inputs in batches:
            state = fresh(inputs.batch, seed) if state is None else state
            state, _ = step(jnp.float32(2.0**rate), state, inputs)
        return float(evaluate(state, "validation")["validation/ne"])

    def _batches(self, seed: int) -> Any:
        train = dataclasses.replace(self.config.train, seed=seed)
        config = dataclasses.replace(self.config, train=train)
        plan = plan_for(self.records, config, "train")
        return itertools.islice(train_batches(self.records, plan, config), self.steps)

    def _compile(self, example: Any) -> tuple[Any, Any, Evaluator]:
        """Compile the initial state of a seed, a step at a rate, and the evaluation."""
        program = Program(self.config, self.steps)

        def tx(rate: jax.Array | float) -> Any:
            dense = optax.chain(program.tx.dense, optax.scale(rate))
            return dataclasses.replace(program.tx, dense=dense)

        fresh = jax.jit(
            lambda batch, seed: init_state(program.model, tx(1.0), batch, jax.random.key(seed))
        )
        key = jax.random.key(self.config.train.seed)
        step = jax.jit(
            lambda rate, *args: make_step(program.model, tx(rate), self.config.optim, key)(*args),
            donate_argnums=1,
        )
        state = fresh(example.batch, 0)
        compiled = step.lower(jnp.float32(0), state, example).compile()
        return fresh, compiled, Evaluator(program, self.records)


def search(runs: Runs, results: Results, shape: str, start: int, seeds: int) -> Curve:
    """Run rates around the best until it has two neighbours on either side, for all seeds."""

    def ne(rate: int, seed: int) -> float:
        value = results.get(shape, rate, seed)
        if value is None:
            value = runs(rate, seed)
            results.put(shape, rate, seed, value)
            print(f"{shape}: 2^{rate}, seed {seed}: NE {value:.5f}", file=sys.stderr, flush=True)
        return value

    best, around = start, range(0)
    while best not in around[REACH:-REACH]:
        around = range(min([best - REACH, *around]), max([best + REACH, *around]) + 1)
        best = min(around, key=lambda k: np.mean([ne(k, seed) for seed in range(seeds)]))
    return results.curve(shape)


def optimum(curve: Curve, draws: int = 0) -> np.ndarray:
    """Return log2 of the best rate, and that of each bootstrap sample.

    The optimum is the minimum of the parabola through the best point and its neighbours; it is NaN
    if the parabola has no minimum among them.
    """
    rates, ne = np.array(list(curve)), np.array(list(curve.values()))
    middle = int(ne.mean(1).argmin())
    near = slice(max(middle - REACH, 0), middle + REACH + 1)
    rates, ne = rates[near], ne[near]
    drawn = np.random.default_rng(0).integers(0, ne.shape[1], (draws, *ne.shape))
    means = np.stack([ne.mean(1), *np.take_along_axis(ne[None], drawn, 2).mean(2)])
    a, b, _ = np.polyfit(rates, means.T, 2)
    vertex = -b / (2 * np.where(a > 0, a, np.nan))
    return np.where((vertex >= rates[0]) & (vertex <= rates[-1]), vertex, np.nan)


def add_optimum(study: Study, part: str, results: Results) -> None:
    """Add, per shape and parametrization, the optimum, its interval and ratio, and least NE."""
    rows: list[list[Cell]] = []
    base_optimum = optimum(results.curve(name(part, "standard", BASE[part])))[0]
    for rule in RULES:
        for size in PARTS[part]:
            curve = results.curve(name(part, rule, size))
            best, *drawn = optimum(curve, RESAMPLES)
            low, high = np.nanpercentile(drawn, (5, 95))
            lowest = min(float(np.mean(v)) for v in curve.values())
            ratio = float(2 ** (best - base_optimum))
            rows.append([rule, size, interval(best, low, high), ratio, lowest])
    columns = [
        Column("parametrization"),
        Column(part),
        Column("log2 of the best rate", ".2f"),
        Column("times the base's", ".2f"),
        Column("lowest NE", ".5f"),
    ]
    caption = f"Best learning rate as {part} grows; 90 % intervals from resampled seeds."
    study.add(part, caption, columns, rows)


def figure(parts: list[str], results: Results) -> Figure:
    """Draw NE against the rate: a row of panels per part, a column per parametrization.

    Each size has a line; the optima and their intervals are below the lines.
    """
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(7.2, 3.1 * len(parts)))
        panels = drawing.subplots(len(parts), 2, squeeze=False, sharex=True, sharey="row")
        for row, part in zip(panels, parts):
            for axes, rule in zip(row, RULES):
                _panel(axes, part, rule, results)
            row[0].set_ylabel("validation NE")
            low, high = row[0].get_ylim()
            row[0].set_ylim(low - 0.25 * (high - low))
            row[1].legend(frameon=False, title=part, loc="center left", bbox_to_anchor=(1, 0.5))
        for axes in panels[-1]:
            axes.set_xlabel("log2 of optim.dense_lr")
        return drawing


def _panel(axes: Axes, part: str, rule: str, results: Results) -> None:
    sizes = PARTS[part]
    for i, size in enumerate(sizes):
        color = mpl.colormaps["viridis"](0.9 - 0.9 * i / len(sizes))
        curve = results.curve(name(part, rule, size))
        ne = [np.mean(v) for v in curve.values()]
        axes.plot(list(curve), ne, "o-", color=color, ms=3, lw=1.4, label=f"{size}")
        best, *drawn = optimum(curve, RESAMPLES)
        place, height = axes.get_xaxis_transform(), 0.18 - 0.035 * i  # of the panel's
        axes.plot(np.nanpercentile(drawn, (5, 95)), [height] * 2, color=color, transform=place)
        axes.plot([best], [height], "|", color=color, ms=7, mew=2, transform=place)
    axes.set_title(rule)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=[*PARTS], help="[all]")
    add("--seeds", type=int, default=3, help="[%(default)s]")
    add("--steps", type=int, default=200, help="of a run [%(default)s]")
    add("--out", type=Path, default=Path("runs/learning_rate"), help="[%(default)s]")
    figure = Path(__file__).parents[1] / "docs" / "images" / "learning-rate.png"
    add("--figure", type=Path, default=figure, help="[docs/images/learning-rate.png]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
