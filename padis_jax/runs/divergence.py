"""An image that is not finite: refused in a line that says what to try."""

from __future__ import annotations

from typing import Any

import numpy as np

from padis_jax.errors import UserError
from padis_jax.solvers.classical import CLASSICAL
from padis_jax.solvers.registry import METHODS


def refuse_divergence(name: str, image: Any) -> None:
    """Raises UserError for an image with NaN or infinity."""
    if not np.isfinite(image).all():
        raise UserError(f"{name} diverged: its image is not finite. {_remedy(name)}")


def _remedy(name: str) -> str:
    """What to try, of the settings that the method of this label has."""
    if name == CLASSICAL["sirt"].label:
        return "Its operator may have negative entries, which SIRT cannot take: use --classical cgls"
    fields = next((row.fields for row in METHODS.values() if row.label == name), ())
    words = [("Lower", ("zeta", "damping")), ("raise", ("consistency", "weight"))]
    flags = [
        f"{word} {' or '.join(f'--solver.{field}' for field in own)}"
        for word, every in words
        if (own := [field for field in every if field in fields])
    ]
    text = ", or ".join(flags) or "Look at the measurement for values far beyond the others"
    return text[0].upper() + text[1:]
