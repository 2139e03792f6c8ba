"""Named inverse problems, and masks and kernels from a user's files."""
