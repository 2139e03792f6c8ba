"""A short run of tests/fuzz.py; the whole is `python tests/fuzz.py`."""

import fuzz
import numpy as np
import pytest

from padis_jax.errors import UserError


@pytest.mark.slow
def test_no_file_brings_a_reader_down(capsys):
    counts = fuzz.run(cases=54, seed=1, processes=1)
    assert not any(counts[kind] for kind in fuzz.WRONG), capsys.readouterr().out
    assert sum(counts.values()) >= 200 and counts["refused"] > 100


def test_the_fuzzer_notices(monkeypatch, tmp_path):
    """What it counts is told apart."""
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)

    def forever():
        while True:
            pass

    def fail(error):
        raise error

    assert fuzz.attempt(lambda: 3) == ("value", "")
    assert fuzz.attempt(lambda: fail(UserError("one line")))[0] == "refused"
    assert fuzz.attempt(lambda: fail(UserError("two\nlines")))[0] == "traceback"
    assert fuzz.attempt(lambda: fail(KeyError("a")))[0] == "traceback"
    assert fuzz.attempt(forever)[0] == "hang"


def test_damage_is_decided_by_the_seed_and_changes_the_file():
    data = bytes(range(256)) * 4
    made = [[fuzz.damaged(data, np.random.default_rng([seed, i])) for i in range(40)] for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    assert sum(bad != data for bad in made[0]) >= 39  # two flips may meet
    assert len({len(bad) for bad in made[0]}) > 10
