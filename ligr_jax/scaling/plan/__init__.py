"""`ligr plan`: the shape to train next, from finished runs."""

from ligr_jax.scaling.plan.planner import Plan, make_plan
from ligr_jax.scaling.plan.request import PlanRequest
from ligr_jax.scaling.plan.words import command, plan_json, text

__all__ = ["Plan", "PlanRequest", "command", "make_plan", "plan_json", "text"]
