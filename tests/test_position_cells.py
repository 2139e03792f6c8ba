"""studies.position: poses, cells that name what they depend on, tables and picture."""

import dataclasses

import jax
import numpy as np
import pytest
from study_tasks import still
from tiny import refused

from studies import tasks
from studies.position import cells, report
from studies.position.__main__ import main
from studies.position.cells import POSES, Cell, posed


def test_poses_are_exact_shifts_and_turns():
    image = np.zeros((32, 32, 1), np.float32)
    image[10:14, 8:20] = 0.5
    np.testing.assert_array_equal(posed(image, 0, 0), image)
    moved = posed(image, 6, 0)
    assert moved[16:20, 8:20].min() == 0.5 and moved.sum() == image.sum() and moved[:16].max() == 0
    assert posed(image, 30, 0).sum() == 0
    np.testing.assert_allclose(posed(image, 0, 90), np.rot90(image), atol=1e-5)  # counter-clockwise
    turned = posed(image, 0, 15)
    assert (
        0 <= turned.min() and turned.max() <= 1 and turned.sum() == pytest.approx(image.sum(), rel=0.06)
    )  # splines swing below 0, which is cut


def net(way="coordinates", givens=("own", "zero"), steps=4, slices=0, patch=56, weights="a"):
    return cells.Net(way, patch, slices, steps, weights, lambda given: (way, given), givens, {})


def test_cells_run_once_with_the_network_and_pose_that_they_name(monkeypatch, tmp_path):
    seen = []

    def solve(given, plan, ladder):
        seen.append((given.prior, plan.method, plan.start, len(ladder), round(float(ladder[0]), 6)))
        return tasks.Solved(np.zeros((4, 4, 1)), 30.0, [0.5, 0.25], 2.0)

    poses = []
    monkeypatch.setattr(cells, "scene", lambda *about: poses.append(about) or still("ct")())
    monkeypatch.setattr(cells, "solve", solve)
    nets = [net(), net("none", ("own",), weights="b")]
    chosen = cells.measure_cells(nets, ["pnp_admm", "dds_noise"], [0], ["20"])
    cells.measure(chosen, nets, tmp_path, most=1)
    cells.measure(chosen, nets, tmp_path)
    assert seen == [
        (("coordinates", "own"), "pnp_admm", "tv", 25, 0.1),
        (("none", "own"), "pnp_admm", "tv", 25, 0.1),
        (("coordinates", "zero"), "pnp_admm", "tv", 25, 0.1),
        (("coordinates", "own"), "dds", "noise", 25, 1.0),
        (("none", "own"), "dds", "noise", 25, 1.0),
        (("coordinates", "zero"), "dds", "noise", 25, 1.0),
    ]
    assert {cell.settings for cell in chosen} == {cells.settings_of("pnp_admm"), cells.settings_of("dds_noise")}
    others = cells.misregister_cells([net("dropped")], ["pnp_admm"], [1], ["20"])
    assert [(c.shift, c.turn, c.given) for c in others] == [(*p, g) for p in POSES for g in ("own", "zero")]
    poses.clear()
    cells.measure(others, [net("dropped")], tmp_path)
    assert poses == [("20", 1, *pose) for pose in POSES for _ in range(2)]
    assert set(cells.read(tmp_path)) == {*chosen, *others}


def test_another_preset_has_other_cells(monkeypatch):
    before, first = net().cell("20", 0, "own", "pnp_admm"), cells.plan_of("pnp_admm")
    changed = dataclasses.replace(first.settings, weight=0.5)
    cells.settings_of.cache_clear()
    monkeypatch.setattr(cells, "preset", lambda *about: first._replace(settings=changed))
    other = net().cell("20", 0, "own", "pnp_admm")
    cells.settings_of.cache_clear()
    assert other.name != before.name and other._replace(settings=before.settings) == before


def found(values):
    """{(way, given, image, seed, shift): PSNR} as cells, TV 20 dB in the right pose and 19 in another."""
    return {
        Cell(way, 56, 0, 4, way[0], image, seed, given, "pnp_admm", shift): {"psnr": psnr, "tv": 20.0 - (shift > 0)}
        for (way, given, image, seed, shift), psnr in values.items()
    }


def test_differences_are_paired_by_slice_and_seed():
    base = {"20": 30.0, "41": 34.0}
    values = {("coordinates", "own", i, s, 0): b + s for i, b in base.items() for s in (0, 1)}
    values |= {("none", "own", i, 0, 0): base[i] - lost for i, lost in (("20", 1.0), ("41", 2.0))}
    values |= {("coordinates", "own", i, s, 8): b + s - 3 for i, b in base.items() for s in (0, 1)}
    text = report.tables(found(values))
    assert "| pnp_admm | 56 | all | 4 | coordinates | own | 4 | 32.50 |" in text
    (row,) = [line for line in text.splitlines() if "| none | own | 2 | 30.50 |" in line]
    assert "| -1.50 (-7.85 to +4.85) | 0 of 2 |" in row
    assert "| coordinates, P = 56, all slices, 4 steps | own | +12.50" in text
    assert "| -2.00 (-2.00 to -2.00) |  |  |  |" in text  # PSNR lost 3 dB, TV one of them
    assert text.splitlines()[2].endswith("| 0.71 |")  # two seeds, 1 dB apart


def test_the_figure_draws_what_there_is_and_two_trainings_do_not_mix(capsys, tmp_path):
    own = {(way, "own", i, 0, 0): p for way, p in (("coordinates", 31.0), ("none", 30.0)) for i in ("20", "41")}
    posed_too = own | {("coordinates", "own", i, 0, 8): 29.0 for i in ("20", "41")}
    worth, cost = report.figure(found(posed_too)).axes
    assert [float(line.get_ydata()[0]) for line in worth.lines if len(line.get_xdata()) == 1] == [1.0]
    assert [float(line.get_ydata()[0]) for line in cost.lines if len(line.get_xdata()) == 1] == [-1.0]
    two = found(own)
    two |= {cell._replace(weights="other"): row for cell, row in two.items()}
    with pytest.raises(report.UserError, match="cells of coordinates_56_0_4 are of two trainings or presets, c and o"):
        report.tables(two)
    two = found(own) | {cell._replace(settings="b"): row for cell, row in found(own).items()}
    with pytest.raises(report.UserError, match="cells of pnp_admm are of two trainings or presets,  and b"):
        report.tables(two)
    assert "no cell is there yet" in refused(main, ["table", "--out", str(tmp_path)], capsys)


def test_a_plan_from_noise_starts_there(monkeypatch):
    started = []
    monkeypatch.setattr(tasks, "reconstruct", lambda *args, start, **rest: started.append(start) or 1 / 0)
    for method in cells.METHODS:
        with pytest.raises(ZeroDivisionError):
            tasks.solve(still("ct")()._replace(key=jax.random.key(0), start="tv's"), cells.plan_of(method), [0.1])
    assert started == ["tv's", "tv's", "noise"]
