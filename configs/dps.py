"""The paper's VE-DPS with 1000 network evaluations on the head CT, 20 views, noiseless.

    python sample.py --config configs/dps.py --workdir results/dps

100 levels of 10 steps, geometric from 10 to 0.003, from pure noise, with the squared-form data step in units of the
operator (solvers/dps.py).
"""

from padis_jax.experiment_config import Experiment, ScanConfig, SolverConfig

config = Experiment(
    scan=ScanConfig(protocol="paper"),
    solver=SolverConfig(
        name="dps", levels=100, inner=10, sigma_max=10.0, sigma_min=0.003, start="noise", average=1, eps=0.5, zeta=1.0
    ),
)
