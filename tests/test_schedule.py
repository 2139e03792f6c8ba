"""studies.schedule: cells that are kept, what of them is the best, and lines that begin there."""

import json

import numpy as np
import pytest
from study_tasks import still
from tiny import refused

from padis_jax.solvers.level_range import Errors
from padis_jax.solvers.presets import preset
from studies import tasks
from studies.schedule import cells, rule
from studies.schedule.__main__ import main
from studies.schedule.cells import FIRST, LAST, Cell, best_of, plan_of, read


@pytest.fixture
def ran(monkeypatch):
    """The cells that were run, each of a PSNR that is highest at the second first level and the third last one."""
    seen = []

    def solve(given, plan, ladder):
        seen.append((plan, ladder))
        away = abs(np.log(ladder[0] / FIRST[1])) + abs(np.log(ladder[-1] / LAST[2]))
        return tasks.Solved(np.zeros((4, 4, 1)), 30 - away + 0.01 * len(ladder), [0.5] * len(ladder), 2.0)

    monkeypatch.setattr(cells, "task", still("small"))
    monkeypatch.setattr(cells, "solve", solve)
    return seen


def run(tmp_path, *words):
    main([*words, "--out", str(tmp_path)])


def test_a_map_resumes_and_lines_go_through_its_best(tmp_path, ran, capsys):
    words = ("--problems", "deblur9", "--methods", "pnp_admm", "--seeds", "0")
    run(tmp_path, "map", *words, "--most", "7")
    assert len(ran) == 7 and "20 cells to run, 500 evaluations" in capsys.readouterr().out
    run(tmp_path, "map", *words)
    assert len(ran) == 20 and "13 cells to run, 325 evaluations, 0.1 s each" in capsys.readouterr().out
    assert best_of(read(tmp_path), "deblur9", "pnp_admm") == (FIRST[1], LAST[2])
    run(tmp_path, "lines", *words)
    ends = {(plan.method, float(ladder[0]), float(ladder[-1])) for plan, ladder in ran[20:]}
    assert ends == {("pnp_admm", np.float32(FIRST[1]), np.float32(LAST[2]))}
    assert sorted(len(ladder) for _, ladder in ran[20:]) == [10, 15, 25, 25, 25, 50, 100]
    run(tmp_path, "lines", "--problems", "sr4", "--methods", "pnp_admm", "--seeds", "0")
    assert len(ran) == 27 + 8
    cell = json.loads(next((tmp_path / "cells").glob("sr4*")).read_text())
    assert cell["problem"] == "sr4" and len(cell["residual"]) == 25
    capsys.readouterr()
    run(tmp_path, "table")
    text = capsys.readouterr().out
    assert "**deblur9, pnp_admm**, rocket, TV 20.00 dB, seeds 0" in text
    best = [row for row in text.splitlines() if row.startswith(f"| {LAST[2]:g} |")]
    assert "| 30.25 |" in best[0] and "| 0.126 | 0.01 | rho 3 | 25 | 30.25 |" in text
    run(tmp_path, "figure")
    assert (tmp_path / "map.png").read_bytes()[1:4] == b"PNG"


def test_lines_need_the_map_that_they_begin_at(tmp_path, ran, capsys):
    words = ["lines", "--problems", "ct8", "--methods", "dps", "--out", tmp_path]
    assert "map --problems ct20 --methods dds` first" in refused(main, words, capsys)


def test_the_spacing_of_a_cell_is_its_ladders():
    cell = Cell("ct20", "dds", "73", 0, 1.0, 0.01, "3", 3)
    assert cell.ladder[1] == pytest.approx(((1 + 0.01 ** (1 / 3)) / 2) ** 3, rel=1e-5)
    assert cell._replace(spacing="geometric").ladder[1] == pytest.approx(0.1, rel=1e-5)


def test_a_level_that_a_preset_fixes_is_let_go():
    given = still("small")()
    assert preset("pnp_admm", "small", 25).settings.sigma == 0.03
    plan = plan_of("pnp_admm", given)
    assert plan.settings.sigma == 0 and plan.settings.weight == 0.03


def test_a_task_is_of_held_out_images_and_a_solved_one_of_its_levels():
    with pytest.raises(ValueError, match="photo: no such crop"):
        tasks.task("deblur9", "photo", 0)
    assert tasks.validation("ct8") == "73" and tasks.tests("ct8") == ("20", "41", "62", "83")
    assert tasks.validation("sr4") == "rocket" and len(set(tasks.tests("sr4"))) == 4
    assert all(name.split("_")[0] in ("astronaut", "chelsea") for name in tasks.tests("sr4"))


def test_the_rule_is_run_beside_the_best_on_every_test_image(tmp_path, ran, monkeypatch, capsys):
    words = ("--problems", "ct20", "--methods", "dds", "--seeds", "0")
    run(tmp_path, "map", *words)
    monkeypatch.setattr(rule, "task", cells.task)
    monkeypatch.setattr(rule, "errors_of", lambda given, plan: Errors(0.05, 0.02))
    run(tmp_path, "rule", *words)
    assert len(ran) == 20 + 4 * 5
    ends = [(float(ladder[0]), float(ladder[-1])) for _, ladder in ran[20:25]]
    assert ends[0] == pytest.approx((FIRST[1], LAST[2])) and ends[3:] == [
        pytest.approx((0.2, 0.003)),  # the preset's
        pytest.approx((0.2, 0.02)),
    ]
    capsys.readouterr()
    run(tmp_path, "table")
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("| ct20 | dds |")]
    away = np.log(0.2 / FIRST[1]) + np.log(0.02 / LAST[2])
    assert len(rows) == 6 and rows[0] == f"| ct20 | dds | rule | 4 | {30.25 - away:.2f} |  |"
    assert rows[1].startswith(f"| ct20 | dds | total variation | 4 | 20.00 | {10.25 - away:+.2f}")
    assert all(cell.spacing == "rule" for cell in read(tmp_path) if cell.image != "73" and cell.last == 0.02)
    low = f"{-away:+.2f}"
    assert rows[2] == f"| ct20 | dds | 0.126 to 0.01 | 4 | 30.25 | {low} ({low} to {low}) |"
    assert rows[-1].startswith("| ct20 | dds | preset | 4 |")


def test_a_preset_of_one_level_is_run_as_it_is_beside_the_rule(tmp_path, ran, monkeypatch, capsys):
    monkeypatch.setattr(rule, "task", cells.task)
    monkeypatch.setattr(rule, "errors_of", lambda given, plan: Errors(0.05, 0.02))
    run(tmp_path, "rule", "--problems", "inpaint_random", "--seeds", "0")
    assert [plan.settings.sigma for plan, _ in ran] == [0.03, 0.0] * 4
    assert [(float(levels[0]), float(levels[-1])) for _, levels in ran[1::2]] == [pytest.approx((0.2, 0.02))] * 4
    capsys.readouterr()
    run(tmp_path, "table")
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("| inpaint_random |")]
    assert [row.split(" | ")[2] for row in rows] == ["rule", "total variation", "preset"]
