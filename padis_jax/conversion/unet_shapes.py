"""Names and shapes of the U-Net's parameters, by arithmetic: what a file holds is compared with what its config says
before anything is built. Tracing the network for them takes seconds, and minutes for a hostile config.
"""

from __future__ import annotations

from padis_jax.unet import NetworkConfig

Shapes = dict[str, tuple[int, ...]]


def unet_shapes(config: NetworkConfig) -> Shapes:
    """Dotted name -> shape of every array of `init_network(key, config)`."""
    found: Shapes = {}
    width = [m * config.model_channels for m in config.channel_mult]
    embedded, attended = 4 * config.model_channels, set(config.attention_levels)

    def norm(name: str, c: int) -> None:
        found.update({f"{name}.scale": (c,), f"{name}.bias": (c,)})

    def linear(name: str, *shape: int) -> None:
        found.update({f"{name}.kernel": shape, f"{name}.bias": shape[-1:]})

    def block(name: str, given: int, made: int, *, resampled: bool = False, attention: bool = False) -> int:
        norm(f"{name}.norm0", given)
        linear(f"{name}.conv0", 3, 3, given, made)
        linear(f"{name}.affine", embedded, made)
        norm(f"{name}.norm1", made)
        linear(f"{name}.conv1", 3, 3, made, made)
        if resampled or given != made:
            linear(f"{name}.skip", given, made)
        if attention:
            norm(f"{name}.attention.norm2", made)
            linear(f"{name}.attention.qkv", made, 3 * made)
            linear(f"{name}.attention.proj", made, made)
        return made

    if config.embedding == "fourier":
        found["freqs"] = (config.noise_channels // 2,)
    linear("map_layer0", config.noise_channels, embedded)
    linear("map_layer1", embedded, embedded)
    aux, c = config.image_channels + config.position_channels, config.model_channels
    linear("enc0_conv", 3, 3, aux, c)
    skips = [c]
    for level, w in enumerate(width):
        if level:
            block(f"enc{level}_down", c, c, resampled=True)
            if config.encoder == "residual":
                linear(f"enc{level}_aux_residual", 3, 3, aux, c)
                aux = c
            skips.append(c)
        for i in range(config.num_blocks):
            c = block(f"enc{level}_block{i}", c, w, attention=level in attended)
            skips.append(c)
    last = config.levels - 1
    for level in range(last, -1, -1):
        if level == last:
            block(f"dec{level}_in0", c, c, attention=True)
            block(f"dec{level}_in1", c, c)
        else:
            block(f"dec{level}_up", c, c, resampled=True)
        for i in range(config.num_blocks + 1):
            attention = i == config.num_blocks and level in attended
            c = block(f"dec{level}_block{i}", c + skips.pop(), width[level], attention=attention)
    norm("dec0_aux_norm", c)
    linear("dec0_aux_conv", 3, 3, c, config.image_channels)
    return found
