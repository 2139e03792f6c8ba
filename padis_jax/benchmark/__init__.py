"""Every method on every problem, from one command: `python -m padis_jax.benchmark` (docs/results.md).

`presets` names the grid, `data` its images, `networks` its trained networks, `methods` what can be run on what and with
which settings, `cells` measures and keeps one result, `report` makes the tables and pictures.
"""
