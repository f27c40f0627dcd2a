"""Tables of the section "Architectures compared"."""

from ligr_jax.scaling.fit import CONFIDENCE, PairedDifference
from ligr_jax.scaling.report.drawn import action_of, arm_words
from ligr_jax.scaling.report.html import engineering, interval_text, table
from ligr_jax.scaling.report.slopes import costs
from ligr_jax.scaling.report.study import Study


def slopes_tables(study: Study) -> str:
    """Return the tables of slopes and of costs; "" for a single architecture."""
    if not study.slopes:
        return ""
    return _slopes_table(study) + _costs_table(study)


def _slopes_table(study: Study) -> str:
    head = ("compute axis", "metric", "architecture", "runs", "change per decade",
            "less the baseline's", "detectable", "level less the baseline's", "at")  # fmt: skip
    rows = []
    baseline = next((s.compared.baseline for s in study.slopes if s.compared), "")
    for s in study.slopes:
        metric = "NE" if s.metric == study.metric else f"AUC {action_of(s.metric)}"
        row = [s.axis, metric, arm_words(s.arm), str(s.runs), interval_text(s.slope, s.span)]
        if s.compared:
            slope, level = s.compared.slope, s.compared.level
            row += [_paired(slope), _number(slope.detectable), _paired(level)]
            row += [engineering(s.compared.at)]
        else:
            row += ["baseline" if s.arm == baseline else "no common seed", "–", "–", "–"]
        rows.append(row)
    seeds = sorted({s.compared.seeds for s in study.slopes if s.compared})
    shared = " or ".join(map(str, seeds)) or "no"
    caption = (
        f"Change of each metric per tenfold compute, with {CONFIDENCE:.0%} intervals over sizes; "
        f"and its difference from {arm_words(baseline) if baseline else 'the baseline'}, paired by "
        f"seed ({shared} seeds), with the smallest true difference that so many seeds show with "
        "80% probability. Levels are those of the lines in the middle of the common compute"
    )
    return table(head, rows, caption, words=3)


def _costs_table(study: Study) -> str:
    head = ("architecture", "dense parameters", "compute", "memory, estimated", "ms per step",
            "input wait")  # fmt: skip
    ladder = study.table.take(list(study.ladder))
    arms = [study.arms[i] for i in study.ladder]
    rows = [
        [
            arm_words(c.arm),
            f"{c.dense:,.0f}" if c.dense is not None else "–",
            engineering(c.flops) if c.flops is not None else "–",
            f"{c.memory / 2**20:,.0f} MiB" if c.memory is not None else "–",
            f"{c.step_ms:.1f}" if c.step_ms is not None else "–",
            f"{c.input_wait:.0%}" if c.input_wait is not None else "–",
        ]
        for c in costs(ladder, arms, study.axis)
    ]
    return table(head, rows, "The largest run of each architecture", words=1)


def _paired(difference: PairedDifference) -> str:
    return interval_text(difference.value, (difference.low, difference.high))


def _number(value: float) -> str:
    return f"{value:.4f}" if value == value else "–"
