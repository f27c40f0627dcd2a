"""Does another number of negatives give another law? srt: families that share an exponent."""

from lib.public_points.points import SEED, Answer, Tables, fit_or_refusal, note, parameter
from lib.results import Cell, Column, Study
from ligr_jax.scaling.fit import FORMS, equality, fit_form, fit_line, fit_power

COLUMNS = [
    Column("training targets", ",d"),
    Column("runs", "d"),
    Column("common alpha", ".3f"),
    Column("floor, 100 negatives", ".3f"),
    Column("floor, 300 negatives", ".3f"),
    Column("p of one alpha", ".2f"),
    Column("p of one slope of NDCG@5", ".2f"),
    Column("note of the fit"),
]
CAPTION = (
    "srt: least loss E_f + A N^-alpha with a floor per number of negatives, 90 % intervals; and "
    "tests of whether the laws of both are equal (Cochran's Q)."
)
LEVEL = 0.1  # of all tests of a row together


def answer(study: Study, tables: Tables, resamples: int) -> Answer:
    """Add the law of both losses at each data size, with tests of equal parameters."""
    rows: list[list[Cell]] = []
    sizes = tables["srt_runs"].sort("D").partition_by("D", maintain_order=True)
    p_values: list[list[float]] = [[], []]  # of alpha, of the slope of NDCG
    for part in sizes:
        law = fit_or_refusal(
            fit_form,
            FORMS["families"],
            {"compute": part["N"].to_numpy()},
            part["best_valid_loss"].to_numpy(),
            family=part["negatives"].to_list(),
            resamples=resamples,
        )
        kinds = part.sort("negatives").partition_by("negatives", maintain_order=True)
        powers = [
            fit_or_refusal(fit_power, k["N"], k["best_valid_loss"], resamples=resamples)
            for k in kinds
        ]
        lines = [
            fit_line(k["N"], k["best_valid_ndcg5"], resamples=resamples, seed=SEED) for k in kinds
        ]
        fitted = not any(isinstance(power, str) for power in powers)
        p = [equality(powers).get("alpha") if fitted else None, equality(lines)["slope"]]
        for found, value in zip(p_values, p):
            found += [] if value is None else [value]
        floors = [parameter(law, f"E[{k['negatives'][0]}]") for k in kinds]
        rows.append([part["D"][0], len(part), parameter(law, "alpha"), *floors, *p, note(law)])
    study.add("losses", CAPTION, COLUMNS, rows)
    differ = [sum(p * len(found) < LEVEL for p in found) for found in p_values]
    return Answer(
        "Does another number of negatives give another law?",
        "no: 300 negatives give the same picture as 100, with another floor",
        f"alpha differs on {differ[0]} of {len(p_values[0])} data sizes, and the slope of NDCG@5 "
        f"on {differ[1]} of {len(p_values[1])}",
        not any(differ),
    )
