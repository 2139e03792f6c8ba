"""A colour prior from the photographs that come with scikit-image, for the benchmark's problems on photographs.

    python -m padis_jax.benchmark.photos --out data/photos.npy
    python train.py --config configs/photos_two.py --workdir runs/photos_two
    python -m padis_jax.benchmark --weights-rgb runs/photos_two/weights.safetensors

118 overlapping crops of two scenes (coffee, motorcycle), validated on a third (rocket): far too few for a general prior
of photographs (configs/photos.py, configs/celebahq.py). astronaut and chelsea, which the benchmark tests on, are not in
the file. Network and noise levels as in configs/head_ct.py, but for the channels.

Cost: 63 minutes for `--run.steps 3000` on one shared CPU core. Figure to expect: a validation loss of 0.201 after these
(weights/photos_two.safetensors, weights/README.md).
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
        image_channels=3, model_channels=32, channel_mult=(1, 2, 3, 3), num_blocks=1, dropout=0.05, sigma_data=0.28
    ),
    patches=PatchConfig(sizes=(16, 32, 56), probabilities=(0.2, 0.3, 0.5), batch=(32, 16, 8), flips=True),
    noise=NoiseConfig(log_mean=-2.1, log_std=1.6, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=300, ema_half_life=8000, ema_ramp=0.1),
    run=RunConfig(steps=9000, log_every=50, checkpoint_every=500, validate_every=500, weights_dtype="float16"),
)
