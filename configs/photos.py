"""A colour prior of photographs under CC0 and CC-BY, for images of any size (it does not see positions).

    python -m studies.photos data/photos_cc --licences CC0 CC-BY --scikit-image   the eleven pictures
    python train.py --config configs/photos.py --workdir runs/photos

Nine of Debian's wallpapers, and coffee and rocket of scikit-image; rocket is for validation. Every draw takes a crop of
256 x 256 of a picture that is reduced by a random factor, 0.5 to 1. Network and noise levels as in configs/head_ct.py,
but for the channels.
"""

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.noise import NoiseConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(
        path="data/photos_cc",
        validation=(8,),
        crop=(256, 256),
        scales=(0.5, 1.0),
        provenance="eleven photographs under CC0 and CC-BY (python -m studies.photos), listed in weights/README.md",
    ),
    network=NetworkConfig(
        image_channels=3,
        position_channels=0,
        model_channels=32,
        channel_mult=(1, 2, 3, 3),
        num_blocks=1,
        dropout=0.05,
        sigma_data=0.28,
    ),
    patches=PatchConfig(sizes=(16, 32, 56), probabilities=(0.2, 0.3, 0.5), batch=(32, 16, 8), flips=True),
    noise=NoiseConfig(log_mean=-2.1, log_std=1.6, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=300, ema_half_life=8000, ema_ramp=0.1),
    run=RunConfig(steps=6000, log_every=50, checkpoint_every=500, validate_every=500, weights_dtype="float16"),
)
