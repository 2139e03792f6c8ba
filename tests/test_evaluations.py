"""studies.evaluations: the best of each way, searches that begin there, and the search itself."""

import json

import numpy as np
import pytest
from study_tasks import still
from tiny import refused

from studies import evaluations, tasks
from studies.evaluations import coordinate_search


@pytest.fixture
def ran(monkeypatch):
    """Runs, each of a PSNR that is highest at the levels 0.2 and 0.03."""
    seen = []

    def solve(given, plan, ladder):
        seen.append((plan, tuple(map(float, ladder))))
        away = abs(np.log(ladder[0] / 0.2)) + abs(np.log(ladder[-1] / 0.03))
        away = abs(plan.settings.sigma - 0.03) if getattr(plan.settings, "sigma", 0) else away
        return tasks.Solved(np.zeros((4, 4, 1)), 30 - away, [0.5] * len(ladder), 2.0)

    monkeypatch.setattr(evaluations, "task", still("ct"))
    monkeypatch.setattr(evaluations, "solve", solve)
    return seen


def test_the_parts_begin_at_the_best_of_the_curves(tmp_path, ran, capsys):
    words = ("--problems", "ct20", "--budgets", "2", "--out", str(tmp_path))
    message = refused(evaluations.main, ["search", *words], capsys)
    assert "curves --problems ct20 --budgets 2 --seeds 0` first" in message
    evaluations.main(["curves", *words, "--most", "5"])
    assert len(ran) == 5 and "12 cells to run, 24 evaluations" in capsys.readouterr().out
    evaluations.main(["curves", *words])
    assert len(ran) == 12 and "7 cells to run, 14 evaluations, 1.0 s each" in capsys.readouterr().out
    fixed = [plan for plan, _ in ran if getattr(plan.settings, "sigma", 0)]
    assert [plan.settings.sigma for plan in fixed] == [0.02, 0.03, 0.05] and fixed[0].settings.weight == 0.003
    evaluations.main(["search", *words])
    kept = json.loads((tmp_path / "search" / "ct20_2_0.json").read_text())
    assert ran[12][1] == pytest.approx((0.3, 0.03)) and len(kept) == len(ran) - 12 <= evaluations.TRIALS
    assert max(row["psnr"] for row in kept) > 29.9
    count = len(ran)
    evaluations.main(["search", *words])
    assert len(ran) == count
    capsys.readouterr()
    evaluations.main(["table", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    assert "| plug-and-play, falling | 29.59 (0.3 to 0.03) |" in text
    assert "| plug-and-play, one level | 30.00 (0.03) |" in text and "| plug-and-play, searched |" in text
    evaluations.main(["figure", "--out", str(tmp_path)])
    assert (tmp_path / "curves.png").read_bytes()[1:4] == b"PNG"
    assert "needs 2 evaluations or more" in refused(evaluations.main, ["curves", "--budgets", 1], capsys)


def test_the_search_finds_levels_and_keeps_their_order():
    target, calls = (0.5, 0.09, 0.01), []

    def value(levels):
        calls.append(levels)
        return -sum(np.log(a / b) ** 2 for a, b in zip(levels, target, strict=True))

    found = coordinate_search(value, (0.2, 0.1, 0.05), 60)
    assert np.allclose(np.log(found), np.log(target), atol=0.1) and len(calls) <= 60
    assert all(levels[0] > levels[1] > levels[2] for levels in calls)
    calls.clear()
    coordinate_search(value, (0.2, 0.1, 0.05), 4)
    assert len(calls) == 4
