"""The paper's whole-image model (PaDIS, arXiv 2406.02462), which its patch prior is compared with.

    python train.py --config configs/aapm_whole.py --workdir runs/aapm_whole --data.path FILE_OR_FOLDER

Images, noise levels and optimiser as in configs/aapm_ct.py, which says what is the paper's and what is ours. No
padding, no positions, multipliers 1, 2, 2, 4, eight images per step.

Cost: not measured here; the paper reports 24 to 36 hours on two A40 GPUs. Figure to expect: not measured here; the
paper reports 32.84 dB and SSIM 0.835 for 20 views (noiseless, VE-DPS with 1000 evaluations).
"""

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.noise import NoiseConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(provenance="slices of the 2016 AAPM low-dose CT challenge, the user's own copy"),
    network=NetworkConfig(
        position_channels=0, model_channels=128, channel_mult=(1, 2, 2, 4), num_blocks=4, dropout=0.05, sigma_data=0.5
    ),
    patches=PatchConfig(sizes=(0,), probabilities=(1.0,), batch=(8,)),
    noise=NoiseConfig(log_mean=-1.2, log_std=1.2, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=2e-4, final_fraction=1.0, warmup_steps=1000, ema_half_life=500_000),
    run=RunConfig(steps=100_000),
)
