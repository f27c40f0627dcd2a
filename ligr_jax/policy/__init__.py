"""What to show, and how to use its log: exploration, replay, propensities, re-ranking, diversity.

These modules need NumPy and SciPy only, so they work with any model and any log.
"""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.policy.diversity import alpha_ndcg as alpha_ndcg
    from ligr_jax.policy.diversity import distinct_in_top as distinct_in_top
    from ligr_jax.policy.diversity import intra_list_similarity as intra_list_similarity
    from ligr_jax.policy.offline_replay import RandomSlates as RandomSlates
    from ligr_jax.policy.offline_replay import Replay as Replay
    from ligr_jax.policy.offline_replay import random_slates as random_slates
    from ligr_jax.policy.offline_replay import replay as replay
    from ligr_jax.policy.offline_replay import replay_slates as replay_slates
    from ligr_jax.policy.offline_replay import wilson as wilson
    from ligr_jax.policy.propensity import ResponseWeights as ResponseWeights
    from ligr_jax.policy.propensity import response_weights as response_weights
    from ligr_jax.policy.rerank import GapRule as GapRule
    from ligr_jax.policy.rerank import rerank_by_rules as rerank_by_rules
    from ligr_jax.policy.thompson import Gaussian as Gaussian
    from ligr_jax.policy.thompson import LinearStatistics as LinearStatistics
    from ligr_jax.policy.thompson import choose as choose
    from ligr_jax.policy.thompson import laplace as laplace
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "GapRule": "rerank",
            "Gaussian": "thompson",
            "LinearStatistics": "thompson",
            "RandomSlates": "offline_replay",
            "Replay": "offline_replay",
            "ResponseWeights": "propensity",
            "alpha_ndcg": "diversity",
            "choose": "thompson",
            "distinct_in_top": "diversity",
            "intra_list_similarity": "diversity",
            "laplace": "thompson",
            "random_slates": "offline_replay",
            "replay": "offline_replay",
            "replay_slates": "offline_replay",
            "rerank_by_rules": "rerank",
            "response_weights": "propensity",
            "wilson": "offline_replay",
        },
    )
