"""A prior of synthetic discs with holes, for the measurements of the Helsinki Tomography Challenge 2022.

    python -m padis_jax.phantoms --out runs/discs.npz --count 10000 --side 128
    python train.py --config configs/htc2022.py --workdir runs/htc2022

The network is that of configs/head_ct.py. Images are coarse and patches large, so that a patch sees half of the disc:
what a limited angle leaves open is decided by shapes, not by texture. No measured disc is seen in training. What it is
used for: python -m benchmarks.htc2022 --weights ... (docs/results.md)

Cost: 6 minutes on an H100 that other programs shared, two of them compilation. Figure to expect: a validation loss of
0.175 (weights/README.md).
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
        provenance="synthetic discs with holes, python -m padis_jax.phantoms --count 10000 --side 128 --seed 0",
    ),
    network=NetworkConfig(model_channels=32, channel_mult=(1, 2, 3, 3), num_blocks=1, dropout=0.0, sigma_data=0.45),
    patches=PatchConfig(sizes=(40, 80), probabilities=(0.3, 0.7), batch=(128, 32), flips=True),
    noise=NoiseConfig(log_mean=-0.7, log_std=1.6, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=200, ema_half_life=20_000, ema_ramp=0.1),
    run=RunConfig(steps=3000, log_every=50, checkpoint_every=250, validate_every=250, weights_dtype="float16"),
)
