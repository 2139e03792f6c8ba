"""The same discs as in configs/htc2022.py at half as many pixels: the first of two priors, coarse to fine.

    python -m padis_jax.phantoms --out runs/discs64.npz --count 4000 --side 64
    python train.py --config configs/htc2022_coarse.py --workdir runs/htc2022_coarse

A patch of 48 pixels sees three quarters of the disc's width, and a disc costs a quarter of what it costs there, so that
the same time shows more of what a limited angle leaves open: which holes there are. Edges are left to the finer prior,
which goes on from the image of this one (python -m benchmarks.htc2022 --weights COARSE FINE, docs/results.md).

Cost: 56 minutes on one shared CPU core. Figure to expect: a validation loss of 0.095 (weights/README.md).
"""

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.noise import NoiseConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(
        path="runs/discs64.npz",
        low=0.0,
        high=1.0,
        validation=(0, 1, 2, 3),
        provenance="synthetic discs with holes, python -m padis_jax.phantoms --count 4000 --side 64 --seed 0",
    ),
    network=NetworkConfig(model_channels=32, channel_mult=(1, 2, 3, 3), num_blocks=1, dropout=0.0, sigma_data=0.45),
    patches=PatchConfig(sizes=(32, 48), probabilities=(0.3, 0.7), batch=(16, 8), flips=True),
    noise=NoiseConfig(log_mean=-0.7, log_std=1.6, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=200, ema_half_life=4000, ema_ramp=0.1),
    run=RunConfig(steps=3200, log_every=50, checkpoint_every=250, validate_every=250, weights_dtype="float16"),
)
