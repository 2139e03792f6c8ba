"""The paper's VE-DPS with 1000 network evaluations on the head CT, 20 views, noiseless.

    python sample.py --config configs/dps.py --workdir results/dps

100 levels of 10 Langevin steps, geometric from 1 to 0.003, from pure noise, with the squared-form data step in units of
the operator (solvers/dps.py); tilings are not mirrored. First level and step size are the best of six combinations at
100 evaluations, on validation slice 73:

    python -m studies.tune --slices 73 --scan.protocol paper --solver dps --solver.levels 25 --solver.inner 4 \\
        --solver.average 1 --solver.start noise --vary solver.sigma-max 10 1 --vary solver.zeta 0.5 1 1.7
"""

from padis_jax.experiment import Experiment, ScanConfig, SolverConfig

config = Experiment(
    scan=ScanConfig(protocol="paper"),
    mirror="off",
    solver=SolverConfig(
        "dps",
        levels=100,
        inner=10,
        sigma_max=1.0,
        sigma_min=0.003,
        start="noise",
        average=1,
        prior_step="langevin",
        eps=0.5,
        zeta=1.7,
    ),
)
