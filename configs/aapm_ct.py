"""The paper's CT prior: the settings of PaDIS (arXiv 2406.02462) for slices of 256 x 256 pixels.

    python train.py --config configs/aapm_ct.py --workdir runs/aapm --data.path FILE_OR_FOLDER

The images are yours to give: those of the paper (2016 AAPM low-dose challenge) are not in this repository. The paper
trains on nine volumes of 256 slices (2304 images) scaled to [0, 1], and tests on 25 slices of a tenth, which therefore
stays out of the file. A .npy array [N, 256, 256] of floats in [0, 1] or a folder of pictures is read as it is; for
values in Hounsfield units give the window too, for example --data.low -1000 --data.high 1000 --data.unit HU.

Network: 60,483,713 parameters. Cost: not measured here; the paper reports about 12 hours on two A40 GPUs.
Figure to expect: not measured here; the paper reports 33.57 dB and SSIM 0.854 for 20 views (noiseless, VE-DPS with
1000 evaluations).

Ours, where the paper leaves it open or we differ: the number of steps, 1000 steps of warm-up and a constant rate
after it, clipping of the gradient's norm, and the loss as a mean over pixels (docs/design.md says why).
"""

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.noise import NoiseConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(provenance="slices of the 2016 AAPM low-dose CT challenge, the user's own copy"),
    network=NetworkConfig(model_channels=128, channel_mult=(1, 2, 2, 2), num_blocks=4, dropout=0.05, sigma_data=0.5),
    patches=PatchConfig(sizes=(16, 32, 56), probabilities=(0.2, 0.3, 0.5), batch=(512, 256, 128)),
    noise=NoiseConfig(log_mean=-1.2, log_std=1.2, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=2e-4, final_fraction=1.0, warmup_steps=1000, ema_half_life=500_000),
    run=RunConfig(steps=100_000),
)
