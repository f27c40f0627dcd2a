"""From finished runs to the shape to train next: `ligr plan`."""

from ligr_jax.scaling.plan.plan import Plan, make_plan
from ligr_jax.scaling.plan.question import Asked
from ligr_jax.scaling.plan.words import command, text, to_json

__all__ = ["Asked", "Plan", "command", "make_plan", "text", "to_json"]
