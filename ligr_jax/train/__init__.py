"""State, step, loop, checkpoints, evaluation, tracking."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.train.checkpoint import Checkpoints as Checkpoints
    from ligr_jax.train.evaluate import Evaluator as Evaluator
    from ligr_jax.train.evaluate import evaluate_run as evaluate_run
    from ligr_jax.train.ewc import EwcState as EwcState
    from ligr_jax.train.ewc import add_fisher_penalty as add_fisher_penalty
    from ligr_jax.train.incremental import warm_assignments as warm_assignments
    from ligr_jax.train.last_layer import last_layer_features as last_layer_features
    from ligr_jax.train.loop import Trainer as Trainer
    from ligr_jax.train.loop import train as train
    from ligr_jax.train.measure import Predictions as Predictions
    from ligr_jax.train.optimizer import Optimizer as Optimizer
    from ligr_jax.train.optimizer import make_optimizer as make_optimizer
    from ligr_jax.train.program import Program as Program
    from ligr_jax.train.random_effect import RandomEffects as RandomEffects
    from ligr_jax.train.schedules import rate_schedule as rate_schedule
    from ligr_jax.train.state import TrainState as TrainState
    from ligr_jax.train.state import abstract_state as abstract_state
    from ligr_jax.train.state import init_state as init_state
    from ligr_jax.train.step import make_step as make_step
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Checkpoints": "checkpoint",
            "Evaluator": "evaluate",
            "EwcState": "ewc",
            "Optimizer": "optimizer",
            "Predictions": "measure",
            "Program": "program",
            "RandomEffects": "random_effect",
            "TrainState": "state",
            "Trainer": "loop",
            "abstract_state": "state",
            "add_fisher_penalty": "ewc",
            "evaluate_run": "evaluate",
            "init_state": "state",
            "last_layer_features": "last_layer",
            "make_optimizer": "optimizer",
            "make_step": "step",
            "rate_schedule": "schedules",
            "train": "loop",
            "warm_assignments": "incremental",
        },
    )
