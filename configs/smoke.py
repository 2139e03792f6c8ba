"""A training run to see that everything works: a small network on eight slices of the shipped head CT.

    python train.py --config configs/smoke.py --workdir runs/smoke

Network: 715,777 parameters, one patch size. Cost: 101 CPU seconds, compilation included (measured on a busy machine),
so about a minute on two idle cores. Figure to expect: the validation loss in runs/smoke/log.jsonl falls below 0.35 at
step 120 (measured: 0.258; 0.507 at step 60), the training loss from 0.82 to 0.23. The weights are good for nothing but
trying sample.py.
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
    patches=PatchConfig(sizes=(32,), probabilities=(1.0,), batch=(8,)),
    noise=NoiseConfig(log_mean=-2.1, log_std=1.6),
    optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=20, ema_half_life=500, ema_ramp=0.1),
    run=RunConfig(steps=120, log_every=20, checkpoint_every=60, validate_every=60),
)
