"""A training run to see that everything works: a small network on eight slices of the shipped head CT.

    python train.py --config configs/smoke.py --workdir runs/smoke

Network: PARAMS parameters, two patch sizes.
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
        limit=8,
        provenance="InVesalius example volume 'ProMED CT 0051' (anonymised), GPL-2, see data/README.md",
    ),
    network=NetworkConfig(model_channels=32, channel_mult=(1, 2), num_blocks=1, dropout=0.0, sigma_data=0.28),
    patches=PatchConfig(sizes=(16, 32), probabilities=(0.3, 0.7), batch=(32, 8)),
    noise=NoiseConfig(log_mean=-2.1, log_std=1.6),
    optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=20, ema_half_life=500, ema_ramp=0.1),
    run=RunConfig(steps=200, log_every=20, checkpoint_every=100, validate_every=100),
)
