"""An image that is not finite is refused, with settings that its method has."""

import numpy as np
import pytest

from padis_jax.errors import UserError
from padis_jax.runs.divergence import refuse_divergence
from padis_jax.solvers.registry import METHODS


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("DPS", "Lower --solver.zeta"),
        ("DDS", "Raise --solver.consistency"),
        ("PnP-ADMM", "Lower --solver.damping, or raise --solver.weight"),
        ("SIRT", "negative entries, which SIRT cannot take: use --classical cgls"),
        ("TV", "Look at the measurement"),
    ],
)
def test_what_to_try(name, words):
    with pytest.raises(UserError, match=f"^{name} diverged: its image is not finite. ") as error:
        refuse_divergence(name, np.array([0.0, np.nan]))
    assert words in str(error.value)
    refuse_divergence(name, np.zeros(2))


@pytest.mark.parametrize("row", METHODS.values(), ids=METHODS)
def test_no_method_is_told_of_a_setting_that_it_lacks(row):
    with pytest.raises(UserError) as error:
        refuse_divergence(row.label, np.array([np.inf]))
    for field in ("zeta", "damping", "consistency", "weight"):
        assert (f"--solver.{field}" in str(error.value)) == (field in row.fields)
