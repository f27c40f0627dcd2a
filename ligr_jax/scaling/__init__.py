"""Sweeps of runs, scaling laws fitted to them, the report page, and the plan of the next run.

`runs`, `fit`, `report` and `plan` import no JAX and work on any table of runs.
"""
