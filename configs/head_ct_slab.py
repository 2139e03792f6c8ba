"""A prior of volumes: slabs of three neighbouring slices of the head CT, for `load_volume_prior`.

    python train.py --config configs/head_ct_slab.py --workdir runs/head_ct_slab

The same slices as configs/head_ct.py, which leaves 70 of 108 in seven runs; no slab holds a slice that is left out. The
network is that of images with three channels for the slices and one more for z, and starts from the weights of images.
Batches are of neighbours or of every third slice, so that `--volume.skip 3` may be used. No weights of it are shipped;
python -m studies.volumes compares:

    python -m studies.volumes --slab-weights runs/head_ct_slab/weights.safetensors
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
        image_channels=3,
        position_channels=3,
        model_channels=32,
        channel_mult=(1, 2, 3, 3),
        num_blocks=1,
        dropout=0.05,
        sigma_data=0.28,
    ),
    patches=PatchConfig(
        sizes=(16, 32, 56), probabilities=(0.2, 0.3, 0.5), batch=(32, 16, 8), flips=True, depth=3, skips=(1, 3)
    ),
    noise=NoiseConfig(log_mean=-2.1, log_std=1.6, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=300, ema_half_life=8000, ema_ramp=0.1),
    run=RunConfig(
        steps=4000,
        start_weights="weights/head_ct.safetensors",
        log_every=50,
        checkpoint_every=250,
        validate_every=250,
        weights_dtype="float16",
    ),
)
