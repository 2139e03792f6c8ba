"""Paired differences of the benchmark's cells: intervals by hand, what is paired with what, cells in lines of JSON."""

import dataclasses
import json

import numpy as np
from test_benchmark import arguments, counted, folder  # noqa: F401 (a fixture)
from tiny import refused

from padis_jax.benchmark import paired
from padis_jax.benchmark.__main__ import main as benchmark
from padis_jax.benchmark.cells import Result, read_lines, write_lines
from padis_jax.benchmark.grid import PRESETS, Benchmark
from padis_jax.benchmark.methods import METHODS

SOLVER = {"method": {"family": "solver", "samples": 1}}


def cell(method, image, seed, psnr, *, evaluations=25, config=SOLVER):
    name = f"{method} {image} {seed} {evaluations}"
    return Result(name, "ct20", method, image, seed, config, psnr, 0.9, 0.01, evaluations, 2.0, 0.0, "")


CELLS = [
    *(cell("pnp_admm", i, s, v) for i, s, v in (("a", 0, 30.0), ("a", 1, 32.0), ("b", 0, 40.0), ("c", 0, 35.0))),
    *(cell("dds", i, s, v) for i, s, v in (("a", 0, 29.0), ("a", 1, 29.0), ("b", 0, 39.0), ("c", 0, None))),
    cell("dds_mean8", "a", 0, 30.5, evaluations=200, config={"method": {"family": "solver", "samples": 8}}),
    cell("tv", "a", 0, 20.0, evaluations=0, config={"method": {"family": "tv"}}),
    cell("dds", "a", 0, 31.0, evaluations=50),
]


def test_an_interval_is_students_over_images():
    found = paired.interval([1.0, 2.0, 4.0, 5.0])
    half = 3.182446305284263 * np.sqrt(10 / 3) / 2  # t of 3 degrees of freedom; s^2 = (4 + 1 + 1 + 4) / 3
    np.testing.assert_allclose(found[:3], (3, 3 - half, 3 + half), rtol=1e-9)
    assert found.n == 4 and found.text() == f"+3.00 ({3 - half:+.2f} to {3 + half:+.2f})"
    assert paired.interval([2.0]).text() == "+2.00"


def test_a_difference_is_of_one_image_and_seed():
    dds, pnp = ([c for c in CELLS if c.method == name and c.evaluations == 25] for name in ("dds", "pnp_admm"))
    assert paired.differences(dds, pnp) == {"a": -2.0, "b": -1.0}  # c diverged
    assert paired.differences(dds, []) == {}


def test_seconds_are_a_median():
    """One cell that was held up for hours does not change what the others took."""
    slow = [dataclasses.replace(cell("dds", str(i), 0, 30.0), seconds=s) for i, s in enumerate((2.0, 3.0, 7777.0))]
    text = paired.markdown([*slow, cell("pnp_admm", "0", 0, 31.0)])
    assert "| 25 | 3.0 |" in text and "7777" not in text


def test_the_table_marks_which_cells_are_there():
    text = paired.markdown(CELLS)
    assert text.count("### ") == 2 and "### ct20, 25 evaluations" in text and "### ct20, 50 evaluations" in text
    first = text.split("### ct20, 50")[0]
    assert "a, b, c; seeds 0, 1." in first
    rows = {line.split(" | ")[0][2:]: line for line in first.splitlines() if line.startswith("| ")}
    assert list(rows) == ["method", "pnp_admm", "dds", "dds_mean8", "tv"]
    assert rows["pnp_admm"].startswith("| pnp_admm | 4 of 4 | 34.25 ± ") and rows["pnp_admm"].endswith("|  |")
    half = 12.706204736432095 * np.sqrt(0.5) / np.sqrt(2)
    assert (
        rows["dds"].startswith("| dds | 3 of 4: a, b |")
        and f"-1.50 ({-1.5 - half:+.2f} to {-1.5 + half:+.2f})" in rows["dds"]
    )
    assert "| 1 of 4: a | 30.50 | 0.9000 | 0.01 | 200 | 2.0 | +0.50 |" in rows["dds_mean8"]
    assert "Without a cell: start, cgls, sirt, pnp_admm_cnn, pnp_admm_average, pnp_red, diffpir," in first
    assert "| tv | 1 of 4: a | 20.00 |" in rows["tv"] and "-10.00 |" in rows["tv"]


def test_the_command_prints_what_files_hold_and_names_what_they_do_not(tmp_path, capsys):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    write_lines(str(one), {c.fingerprint: c for c in CELLS[:4]})
    write_lines(str(two), {c.fingerprint: c for c in CELLS[4:]})
    assert list(read_lines(str(one)).values()) == CELLS[:4]
    paired.main([str(one), str(two), "--problem", "ct20"])
    assert capsys.readouterr().out.strip() == paired.markdown(CELLS).strip()
    for args, said in (
        ([one, "--problem", "ct8"], "--problem ct8: no cells of it; there are ct20"),
        ([one, "--against", "dps"], "--against dps: no cells of it"),
        ([tmp_path / "none.jsonl"], "none.jsonl: no such file, or no finished cells in it"),
    ):
        assert said in refused(paired.main, args, capsys)


def test_cells_of_a_file_are_not_computed_again(folder, monkeypatch, capsys):  # noqa: F811
    flags = ("--only", "ct8/start", "--only", "ct8/tv", "--lines", folder / "cells.jsonl")
    with monkeypatch.context() as patch:
        first = counted(patch)
        benchmark(arguments(folder, *flags))
    assert len(first) == 4 and len(read_lines(str(folder / "cells.jsonl"))) == 4
    lines = (folder / "cells.jsonl").read_text().splitlines()
    (folder / "cells.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:50])  # killed as it wrote
    with monkeypatch.context() as patch:
        second = counted(patch)
        benchmark([a if a != str(folder / "out") else str(folder / "elsewhere") for a in arguments(folder, *flags)])
    assert len(second) == 1 and sorted(json.loads(line)["psnr"] for line in lines) == sorted(
        r.psnr for r in read_lines(str(folder / "cells.jsonl")).values()
    )
    (folder / "cells.jsonl").write_text('{"method": "tv"}\n{}\n')
    assert "cells.jsonl: line 1" in refused(benchmark, arguments(folder, *flags), capsys)


def test_the_preset_of_the_table_names_twelve_methods_and_more():
    grid = PRESETS["table"]
    assert len(grid.methods) >= 12 and set(grid.methods) <= set(METHODS) and paired.AGAINST in grid.methods
    assert {m for _, m in Benchmark(preset="table").pairs()} == set(grid.methods)
    assert {m for _, m in Benchmark(preset="table", only=("ct20",)).pairs()} == set(grid.methods)
    assert ("ct20", "langevin") in Benchmark(preset="table", only=("ct20/langevin",)).pairs()
