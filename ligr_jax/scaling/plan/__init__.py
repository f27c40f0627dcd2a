"""`ligr plan`: the shape to train next, from finished runs."""

from ligr_jax.scaling.plan.planner import Plan, make_plan
from ligr_jax.scaling.plan.request import PlanRequest
from ligr_jax.scaling.plan.words import command, text, to_json

__all__ = ["Plan", "PlanRequest", "command", "make_plan", "text", "to_json"]
