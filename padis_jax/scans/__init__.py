"""Measured scans: files, what is stored beside them, and their way to the solvers."""
