"""The questions of `public_points.py`, one per module: `answer(study, tables, resamples)`."""
