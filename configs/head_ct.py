"""The shipped weights: a patch prior of one head CT (data/README.md).

    python train.py --config configs/head_ct.py --workdir runs/head_ct

Cost: 103 minutes for the first 6500 steps on two shared CPU cores. The shipped weights had those and 5000 more from
there, with another seed and a lower learning rate (weights/README.md), in 53 minutes.
Figure to expect: a validation loss of 0.105 after 6500 steps and 0.098 after all; with the shipped weights the default
solver reaches 38.06 dB on the four test slices (20 views, paper's protocol, two seeds):

    python -m studies.head_ct --scan.protocol paper --seeds 0 1
"""

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.noise import NoiseConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(
        path="data/head_ct.npz",
        test=(20, 41, 62, 83),
        test_gap=3,
        validation=(30, 73),
        validation_gap=2,
        provenance="InVesalius example volume 'ProMED CT 0051' (anonymised), GPL-2, see data/README.md",
    ),
    network=NetworkConfig(model_channels=32, channel_mult=(1, 2, 3, 3), num_blocks=1, dropout=0.05, sigma_data=0.28),
    patches=PatchConfig(sizes=(16, 32, 56), probabilities=(0.2, 0.3, 0.5), batch=(32, 16, 8), flips=True),
    noise=NoiseConfig(log_mean=-2.1, log_std=1.6, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=300, ema_half_life=8000, ema_ramp=0.1),
    run=RunConfig(steps=9000, log_every=50, checkpoint_every=500, validate_every=500, weights_dtype="float16"),
)
