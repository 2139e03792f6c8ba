"""Solvers: a step per method, one loop that runs them, and `reconstruct`, which joins operator, prior and solver."""
