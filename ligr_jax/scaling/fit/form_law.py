"""A law of a form of `forms`: its parameters, its predictions, and notes on what they lack."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import Array
from ligr_jax.scaling.fit.checks import index_of_family
from ligr_jax.scaling.fit.forms import DECAY, Form, form_points
from ligr_jax.scaling.fit.intervals import band
from ligr_jax.scaling.fit.law import Fitted
from ligr_jax.scaling.fit.powers import ALPHA


@dataclass(frozen=True, kw_only=True)
class FormLaw(Fitted):
    """A law of a form of `forms`.

    `params` has the coefficients, exponents and floors of the form by name; `ceiling` instead of E
    for a metric that rises; a = beta / (alpha + beta), the exponent of the best N in compute, and
    b = 1 - a, for a surface; eta = alpha / 2 for tied exponents.

    Attributes:
        inputs: names of the scales that `predict` takes, in order.
        families: labels of the families; one empty label if the form has none.
        shape: the form.
        ranges: smallest and largest value of each scale.
        centre: mean of the log of each scale.
    """

    inputs: tuple[str, ...]
    families: tuple[str, ...]
    ranges: dict[str, tuple[float, float]]
    shape: Form = field(repr=False, compare=False)
    centre: dict[str, float] = field(repr=False, compare=False)

    def predict(
        self, *scales: ArrayLike, family: str = "", run_noise: bool = False, **named: ArrayLike
    ) -> tuple[Array, Array, Array]:
        """Predict the metric.

        Args:
            *scales: the scales of `inputs`, in order; their shapes broadcast.
            family: label of the family; needed if the law has several.
            run_noise: False: the interval covers the law. True: it covers one further run.
            **named: scales by name; `unique` is `d` where it is not given.

        Returns:
            Value, low and high, of the common shape. Low and high are NaN without an interval (see
            `intervals.band`).

        Raises:
            BadInput: the scales are not those of `inputs`, or the law has several families and none
                of them is named.
        """
        values = dict(zip(self.inputs, scales)) | named
        if len(scales) > len(self.inputs) or not set(self.inputs) - {"unique"} <= set(values):
            raise BadInput(f"a {self.form} law predicts at values of {', '.join(self.inputs)}")
        if "unique" in self.inputs:
            values.setdefault("unique", values["d"])
        arrays = np.broadcast_arrays(*values.values())
        flat = {k: np.asarray(v, np.float64).ravel() for k, v in zip(values, arrays)}
        index = index_of_family(self.families, family)
        member = np.full(arrays[0].size, index)
        points = form_points(self.shape, flat, member, self.families).centred(self.centre)
        value = self._of_log(points.log_metric(self.shape, self.theta[None])[0][0])
        draws = points.log_metric(self.shape, self.draws)[0]
        noisy = draws[:, None] + self.spread(run_noise)[:, None]
        low, high = band(value, self._of_log(noisy.reshape(-1, value.size)), self.confidence)
        shape = arrays[0].shape
        return value.reshape(shape), low.reshape(shape), high.reshape(shape)

    def _of_log(self, log: Array) -> Array:
        return 1.0 - np.exp(log) if self.shape.rises else np.exp(log)


def form_notes(law: FormLaw, best: float) -> list[str]:
    """Return warnings about parameters that the runs do not determine."""
    notes = []
    limits = dict.fromkeys(law.shape.exponents, ALPHA) | dict.fromkeys(law.shape.decays, DECAY)
    for name, (least, most) in limits.items():
        low, high = law.intervals.get(name, (law.params[name],) * 2)
        if low <= 1.01 * least or high >= 0.99 * most:
            notes.append(
                f"{name} is not identified: its interval [{low:.3g}, {high:.3g}] reaches the "
                f"bounds of the search [{least:g}, {most:g}]; add runs over a wider range"
            )
    for name in law.params:
        low, high = law.intervals.get(name, (law.params[name],) * 2)
        if name[0] == "E" and low < 0.01 * best:
            notes.append(f"{name} is not identified: these runs do not exclude a floor of zero")
        if name.startswith("ceiling") and high > 1.0 - 0.01 * best:
            notes.append(f"the {name} is not identified: these runs do not exclude 1")
    if law.params.get("C") == 0.0:
        notes.append("C = 0: the loss of these runs does not turn up with repeats")
    return notes
