"""Every method on every problem, from one command: `python -m padis_jax.benchmark`.

`grid` says what is compared, `data` its images, `networks` its trained networks, `methods` what can be run on what
(settings: solvers/presets.py), and `leakage` which were trained on what is tested; `measure` runs one cell, `cells`
keeps its result, `work` is the loop, `report` makes tables and pictures, `termination` stops it in good order.
"""
