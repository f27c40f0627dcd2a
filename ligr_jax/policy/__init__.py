"""What to show and what the log then tells: exploration, replay, weights against selection.

NumPy and SciPy alone: these work on arrays of any model, and of any log.
"""
