"""Checkpoints of PyTorch networks, read without PyTorch and without running anything of them."""
