"""A view of the whole noisy image as one more channel of the patch network; docs/studies/context.md."""
