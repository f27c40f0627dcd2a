"""Are semantic ids distinct, and are all codes used, on titles and on a synthetic world?

    python experiments/semantic_ids_quality.py --movies ml-latest-small/movies.csv
    python experiments/semantic_ids_quality.py --parts world --seeds 2

RQ-VAE with its defaults (latent 8, 1,000 steps of 1,024 items) from several seeds, and residual
k-means of equal size (20 passes per level), on MovieLens' 9,742 titles and genres as 64 numbers
(`ligr sid vectors`) with 3 x 256 codes, and on the 32-wide vectors of a world's 100,000 items with
3 x 1,000. All measures are over the whole corpus, in which no two vectors are equal:

    unique        share of vectors whose tuple no other vector has
    bucket        most vectors on one tuple
    used          share of codes that some item has, least of the levels
    perplexity    exp of the entropy of a level's codes
    error lost    sum |x - x_hat|^2 / sum |x - mean|^2

Expected: every code is used, and at least 98.9 % of the vectors have a tuple of their own; residual
k-means reconstructs better. Numbers: experiments/results/semantic_ids_quality.json. Time: about
half an hour on a fraction of two busy cores; not measured on an idle machine. It can be resumed.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from lib.options import make_parser
from lib.results import Cell, Column, Study

from ligr_jax.atomic import write_atomically
from ligr_jax.messages import show_messages
from ligr_jax.parallel.host import use_all_cores, use_fast_allocator

PARTS = ("movielens", "world")
CODES = {"movielens": 256, "world": 1000}


def main() -> None:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--parts", default="movielens,world")
    parser.add_argument("--movies", type=Path, help="movies.csv of a MovieLens archive")
    parser.add_argument("--items", type=int, default=100_000, help="of the world [%(default)s]")
    parser.add_argument("--seeds", type=int, default=5, help="of RQ-VAE [%(default)s]")
    parser.add_argument("--steps", type=int, default=0, help="of RQ-VAE [its default]")
    parser.add_argument("--work", type=Path, default=Path("data/semantic_ids_quality"))
    args = parser.parse_args()
    parts = args.parts.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"--parts {args.parts}: choose of {','.join(PARTS)}")
    if "movielens" in parts and args.movies is None:
        parser.error("movielens needs --movies FILE")
    use_all_cores()
    study = Study.of(__file__, __doc__, range(args.seeds))
    args.work.mkdir(parents=True, exist_ok=True)
    for part in parts:
        source = movie_vectors(args) if part == "movielens" else world(args)
        qualities = {
            "rqvae": [trained(args, part, source, "rqvae", seed) for seed in range(args.seeds)],
            "rqkmeans": [trained(args, part, source, "rqkmeans", 0)],
        }
        write_atomically(args.work / f"{part}.json", json.dumps(qualities, indent=1) + "\n")
        add_quality(study, part, qualities)
    study.record(args.record)


def movie_vectors(args: argparse.Namespace) -> Path:
    from ligr_jax.sid.text import write_title_vectors

    out = args.work / "movies.parquet"
    write_title_vectors(args.movies, out, "movieId", "title", "genres", 64)
    result: Path = out
    return result


def world(args: argparse.Namespace) -> Path:
    """Return a prepared world with few members: only its items matter here."""
    from ligr_jax.data.prepare.build import prepare
    from ligr_jax.data.prepare.options import PrepareOptions
    from ligr_jax.data.sources.canonical import canonical_source
    from ligr_jax.data.world.generate import WorldConfig, generate_world

    log, out = args.work / f"log-{args.items}", args.work / f"prepared-{args.items}"
    if not (out / "manifest.json").exists():
        generate_world(WorldConfig(members=200, items=args.items), log)
        prepare(canonical_source(log), out, PrepareOptions())
    result: Path = out
    return result


def trained(
    args: argparse.Namespace, part: str, source: Path, method: str, seed: int
) -> dict[str, Any]:
    """Return the quality of one model, which is trained if it does not exist."""
    from ligr_jax.sid.config import SidConfig
    from ligr_jax.sid.corpus import open_corpus
    from ligr_jax.sid.measure import measure_codes
    from ligr_jax.sid.train import train_semantic_ids

    steps = args.steps if method == "rqvae" else 0
    config = SidConfig(method=method, codes=CODES[part], seed=seed, steps=steps)  # type: ignore[arg-type]
    corpus = open_corpus(source, "content")
    out = args.work / f"{part}-{len(corpus)}-{method}-{config.steps}-{seed}"
    model = train_semantic_ids(config, corpus, "content", out)
    quality = measure_codes(model, corpus).quality
    print(f"{out.name}: " + "; ".join(quality.lines()), flush=True)
    return dataclasses.asdict(quality)


def add_quality(study: Study, part: str, qualities: dict[str, list[dict[str, Any]]]) -> None:
    """Add the measures of every method, least to most over the seeds."""
    levels = range(1, 1 + len(qualities["rqvae"][0]["used"]))
    rows: list[list[Cell]] = []
    for method, models in qualities.items():
        values = [
            [m["unique"], m["bucket"], min(m["used"]), *m["perplexity"], m["error"]] for m in models
        ]
        ends = zip(np.min(values, 0).tolist(), np.max(values, 0).tolist())
        cells = (low if low == high else {"low": low, "high": high} for low, high in ends)
        rows.append([f"{method} ({len(models)})", *cells])
    columns = [
        Column("method (seeds)"),
        Column("unique", ".4f"),
        Column("bucket", ".0f"),
        Column("used", ".3g"),
        *(Column(f"perplexity {level}", ".0f") for level in levels),
        Column("error lost", ".3f"),
    ]
    caption = f"{part}, 3 x {CODES[part]} codes; least to most over the seeds."
    study.add(part, caption, columns, rows)


if __name__ == "__main__":
    show_messages()
    use_fast_allocator()
    main()
