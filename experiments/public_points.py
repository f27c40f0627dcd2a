"""Do published points follow the laws that are read from them, and do the laws have intervals?

    python experiments/public_points.py                       all questions
    python experiments/public_points.py DIR                   points in another directory

No training: the points are runs that others published, extracted into tables; the page
docs/public-points.md names the repositories and the columns. Used are SASRec with text features on
five sizes of Amazon (srt), rankers of KuaiRand-27K (UniRank), two suites of language models (OLMo's
ladder, Gemstones), and the tables of the OneTrans and HyFormer papers.

Expected: the last epoch inverts the law in loss on three of five data sizes; width helps NDCG and
depth does not; the worth of a repeat depends on the metric; two of six published curves of click
AUC have a slope that its interval separates from 0, and three of six of the mean AUC; the spread
within one architecture exceeds that between 15; both targets of OLMo are inside their intervals.
Numbers: experiments/results/public_points.json. Time: five minutes on one busy core.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from lib.options import make_parser
from lib.public_points import (
    curves,
    designs,
    factors,
    ladder,
    losses,
    marks,
    repeats,
    shapes,
    spread,
)
from lib.public_points.points import SEED, Answer, Tables, read_points
from lib.results import Cell, Column, Study

from ligr_jax.messages import show_messages
from ligr_jax.scaling.report.style import save

POINTS = Path(__file__).parents[2] / "shared" / "data" / "public_points"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
QUESTIONS: Mapping[str, Callable[[Study, Tables, int], Answer]] = {
    "marks": marks.answer,
    "losses": losses.answer,
    "factors": factors.answer,
    "repeats": repeats.answer,
    "curves": curves.answer,
    "spread": spread.answer,
    "ladder": ladder.answer,
    "shapes": shapes.answer,
    "designs": designs.answer,
}


def main() -> None:
    show_messages()
    args = arguments()
    tables = read_points(args.points)
    study = Study.of(__file__, __doc__, [SEED])
    answers = []
    for name, answer in QUESTIONS.items():
        answers.append(answer(study, tables, args.resamples))
        if figure := answers[-1].figure:
            save(figure, args.images / f"public-{name}.png")
    add_answers(study, answers)
    study.record(args.record)


def add_answers(study: Study, answers: list[Answer]) -> None:
    """Add the table of all questions, which the page shows first."""
    rows: list[list[Cell]] = [
        [a.question, a.expected, a.found, "yes" if a.agrees else f"no: {a.why}".rstrip(": ")]
        for a in answers
    ]
    columns = [Column(name) for name in ("question", "expected", "came out", "as expected")]
    study.add("answers", "All questions, and the answers before and after the fits.", columns, rows)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("points", type=Path, nargs="?", default=POINTS, metavar="DIR", help="[%(default)s]")
    add("--resamples", type=int, default=1000, help="of each bootstrap [%(default)s]")
    add("--images", type=Path, default=IMAGES, metavar="DIR", help="of figures [docs/images]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
