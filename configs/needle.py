"""A prior of one specimen, a needle in the electron microscope: the slices that are not tested.

    python -m studies.needle slices --path needle_tilt_series.npz      the 144 slices, by total variation of all tilts
    python train.py --config configs/needle.py --workdir runs/needle

The slices above and below the tested ones; six of them are for the loss on the log. Network and noise levels as in
configs/head_ct.py, batches too.
"""

from padis_jax.batches import PatchConfig
from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig
from padis_jax.noise import NoiseConfig
from padis_jax.unet import NetworkConfig

config = Config(
    data=DataConfig(
        path="results/needle/slices.npy",
        low=0.0,
        high=1.0,
        validation=(54, 126),
        validation_gap=1,
        provenance="electron tomography of a layered needle, example data of ETSpy (NIST), a US government work, "
        "slices by total variation (studies/needle.py)",
    ),
    network=NetworkConfig(model_channels=32, channel_mult=(1, 2, 3, 3), num_blocks=1, dropout=0.05, sigma_data=0.28),
    patches=PatchConfig(sizes=(16, 32, 56), probabilities=(0.2, 0.3, 0.5), batch=(32, 16, 8), flips=True),
    noise=NoiseConfig(log_mean=-2.1, log_std=1.6, sigma_min=0.002, sigma_max=40.0),
    optimiser=OptimiserConfig(learning_rate=1e-3, warmup_steps=200, ema_half_life=8000, ema_ramp=0.1),
    run=RunConfig(steps=1000, log_every=50, checkpoint_every=250, validate_every=250, weights_dtype="float16"),
)
