"""A short run of tests/fuzz.py; the whole is `python tests/fuzz.py`."""

import time

import fuzz
import numpy as np
import pytest
from members import EITHER, REFUSED, Member, judge, written

from padis_jax.errors import UserError


@pytest.mark.slow
def test_no_file_brings_a_reader_down(capsys):
    counts = fuzz.run(cases=54, members=200, seed=1, processes=1, commands=0)
    assert not any(found["wrong"] for found in counts.values()), capsys.readouterr().out
    assert counts.keys() == set(fuzz.KINDS) and all(found["refused"] for found in counts.values())
    assert sum(found.total() for found in counts.values()) >= 400


def test_the_fuzzer_notices(monkeypatch, tmp_path):
    """What it counts is told apart."""
    monkeypatch.setattr(judge, "SECONDS", 0.05)

    def forever():
        while True:
            pass

    def fail(error):
        raise error

    assert fuzz.attempt(lambda: 3) == ("value", "")
    assert fuzz.attempt(lambda: fail(UserError("one line")))[0] == "refused"
    assert fuzz.attempt(lambda: fail(UserError("two\nlines")))[0] == "traceback"
    assert fuzz.attempt(lambda: fail(KeyError("a")))[0] == "traceback"
    assert fuzz.attempt(forever)[0] == fuzz.attempt(lambda: time.sleep(9))[0] == "hang"


@pytest.mark.parametrize("right, refusable, found, outcome", [
    (1.0, False, 1.0, "right"),
    (1.0, False, 1.1, "wrong value"),
    (np.ones(2), False, 1.0, "wrong value"),
    (1.0, False, UserError("no"), "wrongly refused"),
    (1.0, True, UserError("no"), "refused"),
    (1.0, True, 1.1, "wrong value"),
    (REFUSED, False, UserError("no"), "refused"),
    (REFUSED, False, 1.0, "wrongly read"),
    (EITHER, False, None, "right"),
    (EITHER, False, AssertionError("a promise broken"), "traceback"),
])  # fmt: skip
def test_members_are_judged_by_what_is_right(tmp_path, right, refusable, found, outcome):
    def read(path):
        assert path == tmp_path / "x" and path.read_bytes() == b"data"
        if isinstance(found, Exception):
            raise found
        return found

    member = Member("a", "b", written(b"data", "x"), read, right, refusable)
    assert judge.judged(member, tmp_path)[0] == outcome


def test_a_refusal_may_not_take_memory(tmp_path):
    def read(path):
        assert np.ones(2**25).sum()
        raise UserError("no")

    for limit, outcome in ((None, "refused"), ("1M", "too late")):
        member = Member("a", "b", written(b"", "x"), read, REFUSED, limit=limit)
        assert judge.judged(member, tmp_path)[0] == outcome


def test_damage_is_decided_by_the_seed_and_changes_the_file():
    data = bytes(range(256)) * 4
    made = [[fuzz.damaged(data, np.random.default_rng([seed, i])) for i in range(40)] for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    assert sum(bad != data for bad in made[0]) >= 39  # two flips may meet
    assert len({len(bad) for bad in made[0]}) > 10
