"""A prior of synthetic discs with holes, for the measurements of the Helsinki Tomography Challenge 2022.

python -m padis_jax.phantoms --out runs/discs.npz --count 600
python train.py --config configs/htc2022.py --workdir runs/htc2022

The network is that of configs/head_ct.py; the number of steps is meant for half an hour on two CPU cores. No measured
disc is seen in training. What it is used for: python -m benchmarks.htc2022 --weights ... (docs/results.md)
"""

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.noise import NoiseConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(
        path="runs/discs.npz",
        low=0.0,
        high=1.0,
        validation=(0, 1, 2, 3),
        provenance="synthetic discs with holes, python -m padis_jax.phantoms --count 600 --seed 0",
    ),
    network=NetworkConfig(model_channels=32, channel_mult=(1, 2, 3, 3), num_blocks=1, dropout=0.0, sigma_data=0.45),
    patches=PatchConfig(sizes=(16, 32, 56), probabilities=(0.2, 0.3, 0.5), batch=(32, 16, 8), flips=True),
    noise=NoiseConfig(log_mean=-1.2, log_std=1.6, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=200, ema_half_life=4000, ema_ramp=0.1),
    run=RunConfig(steps=2500, log_every=50, checkpoint_every=250, validate_every=250, weights_dtype="float16"),
)
