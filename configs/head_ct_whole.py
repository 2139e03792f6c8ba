"""The whole-image model on the head CT: what the patch prior of configs/head_ct.py is compared with.

    python train.py --config configs/head_ct_whole.py --workdir runs/head_ct_whole

No padding, no positions, multipliers 1, 2, 2, 4 as in the paper; width, noise levels and images as in
configs/head_ct.py. Two images per step; the average forgets after about as many steps as there.

Cost: 59 minutes of one CPU core for 520 steps (weights/head_ct_whole.safetensors); all 9000 were not run.
Figure to expect: a validation loss of 0.150 after those 520, still falling.
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
    network=NetworkConfig(
        position_channels=0, model_channels=32, channel_mult=(1, 2, 2, 4), num_blocks=1, dropout=0.05, sigma_data=0.28
    ),
    patches=PatchConfig(sizes=(0,), probabilities=(1.0,), batch=(2,), flips=True),
    noise=NoiseConfig(log_mean=-2.1, log_std=1.6, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=300, ema_half_life=1000, ema_ramp=0.1),
    run=RunConfig(steps=9000, log_every=50, checkpoint_every=500, validate_every=500, weights_dtype="float16"),
)
