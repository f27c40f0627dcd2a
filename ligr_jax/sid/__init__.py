"""Semantic ids: content vectors as short tuples of codes that similar items share (LiGR 3.3).

Letters here: W width of a content vector, d width of the latent, N levels, K codes of a level.
"""
