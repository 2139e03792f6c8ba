"""Faces in colour: the paper's settings (arXiv 2406.02462) for CelebA-HQ at 256 x 256.

    python train.py --config configs/celebahq.py --workdir runs/celebahq --data.path FOLDER

The folder of PNG or JPEG pictures, all 256 x 256 and in colour, is yours to give; the paper trains on 3000 images and
tests on 25 others. All but the three channels is as in configs/aapm_ct.py, which says what is the paper's and what is
ours.

Cost: not measured here. Figure to expect: not measured here.
"""

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.noise import NoiseConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(provenance="CelebA-HQ, the user's own copy"),
    network=NetworkConfig(
        image_channels=3, model_channels=128, channel_mult=(1, 2, 2, 2), num_blocks=4, dropout=0.05, sigma_data=0.5
    ),
    patches=PatchConfig(sizes=(16, 32, 56), probabilities=(0.2, 0.3, 0.5), batch=(512, 256, 128)),
    noise=NoiseConfig(log_mean=-1.2, log_std=1.2, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=2e-4, final_fraction=1.0, warmup_steps=1000, ema_half_life=500_000),
    run=RunConfig(steps=100_000),
)
