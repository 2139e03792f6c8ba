"""A whole-image model of synthetic discs with holes, for the scans of the Helsinki Tomography Challenge 2022.

    python -m studies.htc2022.discs --out runs/discs.npz --count 20000 --side 64
    python train.py --config configs/htc2022.py --workdir runs/htc2022

A limited angle leaves open which holes there are, and only the whole disc tells that. Discs are made from a seed, as
many as wanted, so patches have nothing to save here; and 64 x 64 pixels are cheap. Training sees no measured disc.
Noise levels are drawn higher than usual, as edges are left to the rays: a level set is fitted to them on finer pixels
between the restarts (python -m studies.htc2022 --weights FILE, docs/studies/htc2022.md).

Cost: 7 minutes on an H100 that other programs shared, two of them compilation. Figure to expect: a validation loss of
0.269 (weights/README.md). On two thirds of a CPU core an hour is 3300 steps of 8 images at half the width, to 0.290.
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
        validation=tuple(range(16)),
        provenance="synthetic discs with holes, python -m studies.htc2022.discs --count 20000 --side 64 --seed 0",
    ),
    network=NetworkConfig(
        model_channels=32,
        channel_mult=(1, 2, 3, 3, 3),
        num_blocks=1,
        attention_levels=(2,),
        dropout=0.0,
        sigma_data=0.45,
    ),
    patches=PatchConfig(sizes=(0,), probabilities=(1.0,), batch=(64,), flips=True),
    noise=NoiseConfig(log_mean=-0.2, log_std=1.4, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=200, ema_half_life=30_000, ema_ramp=0.1),
    run=RunConfig(steps=4000, log_every=50, checkpoint_every=250, validate_every=250, weights_dtype="float16"),
)
