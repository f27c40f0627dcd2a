"""Semantic ids: content vectors as short tuples of codes that similar items share (LiGR 3.3).

Letters in this package: W width of a content vector, d width of the latent, N levels, K codes per
level.
"""
