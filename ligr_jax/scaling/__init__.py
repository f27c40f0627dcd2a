"""From finished runs to laws: compute accounting, sweeps, fits and the report page.

`runs`, `fit`, `figures` and `report` import no JAX and work on any table of runs.
"""
