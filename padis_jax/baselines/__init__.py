"""Networks that the prior is compared with: a plain denoiser, and FBP + U-Net."""
