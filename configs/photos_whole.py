"""The whole-image model of the photographs of configs/photos_two.py: what their patch prior is compared with.

    python -m padis_jax.benchmark.photos --out data/photos.npy
    python train.py --config configs/photos_whole.py --workdir runs/photos_whole --run.steps 520
    python -m padis_jax.benchmark --weights-whole-rgb runs/photos_whole/weights.safetensors

Network and average as in configs/head_ct_whole.py but for the channels; images and noise levels as in
configs/photos_two.py.

Cost: 67 minutes of one CPU core for 520 steps (weights/photos_whole.safetensors; weights/README.md has the whole
command); all 9000 were not run. Figure to expect: a validation loss of 0.894 after those 520, still falling.
"""

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.noise import NoiseConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(
        path="data/photos.npy",
        validation=tuple(range(118, 146)),
        provenance="coffee and motorcycle from scikit-image's example images (padis_jax.benchmark.photos)",
    ),
    network=NetworkConfig(
        image_channels=3,
        position_channels=0,
        model_channels=32,
        channel_mult=(1, 2, 2, 4),
        num_blocks=1,
        dropout=0.05,
        sigma_data=0.28,
    ),
    patches=PatchConfig(sizes=(0,), probabilities=(1.0,), batch=(2,), flips=True),
    noise=NoiseConfig(log_mean=-2.1, log_std=1.6, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=300, ema_half_life=1000, ema_ramp=0.1),
    run=RunConfig(steps=9000, log_every=50, checkpoint_every=500, validate_every=500, weights_dtype="float16"),
)
