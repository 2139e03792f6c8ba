"""The benchmark's grid, cells and tables: nothing is computed twice, nothing is averaged wrongly, all is explained."""

import dataclasses
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NETWORK, refused, write_weights

from padis_jax.benchmark import methods, work
from padis_jax.benchmark.__main__ import main
from padis_jax.benchmark.cells import Cell, Result, read_result, write_result
from padis_jax.benchmark.grid import PRESETS, Benchmark, Entry
from padis_jax.benchmark.measure import Scene
from padis_jax.benchmark.methods import METHODS, described, prior_of
from padis_jax.benchmark.networks import load_networks
from padis_jax.benchmark.report import line, markdown, spread
from padis_jax.errors import UserError
from padis_jax.metrics import psnr
from padis_jax.problems.registry import PROBLEMS
from padis_jax.serialization import from_json
from padis_jax.shipped import CARDS
from padis_jax.solvers.presets import preset
from padis_jax.solvers.registry import METHODS as SOLVERS

CHECKED = ("dds", "dps_stitch", "tv")
FIELDS = ("--only", "ct8/start", "--only", "ct8/tv", "--only", "ct20/dds")  # on two images: six cells


@pytest.fixture
def folder(tmp_path):
    """Two small images and a prior for them."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.uniform(size=(2, 16, 16)).astype(np.float32))
    write_weights(tmp_path / "prior.safetensors")
    return tmp_path


def arguments(folder, *more):
    flags = ("--ct", folder / "images.npy", "--weights", folder / "prior.safetensors", "--out", folder / "out")
    return [str(a) for a in (*flags, "--images", 2, "--evaluations", 2, "--quiet", *more)]


def counted(monkeypatch, stop_at=None):
    """Counts the cells that are computed; Ctrl-C comes instead of number `stop_at`."""
    calls, run_cell = [], work.run_cell

    def run(cell, *rest):
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        calls.append((cell.problem, cell.method, cell.image))
        return run_cell(cell, *rest)

    monkeypatch.setattr(work, "run_cell", run)
    return calls


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(folder, monkeypatch, capsys, no_temporary_files):
    with monkeypatch.context() as patch:
        first = counted(patch, stop_at=4)
        with pytest.raises(SystemExit) as stop:
            main(arguments(folder, *FIELDS))
    assert stop.value.code == 130 and len(first) == 4
    assert "interrupted after 4 of 6 cells" in capsys.readouterr().err
    half = json.loads((folder / "out" / "results_only.json").read_text())
    assert [row["finished"] for row in half["table"]] == [2, 2, 0] and half["table"][2]["note"] == "not run yet"

    with monkeypatch.context() as patch:
        second = counted(patch)
        main(arguments(folder, *FIELDS))
    assert len(second) == 2 and len({*first, *second}) == 6
    whole = json.loads((folder / "out" / "results_only.json").read_text())
    assert whole["cells"][:4] == half["cells"] and [row["finished"] for row in whole["table"]] == [2, 2, 2]
    assert (folder / "out" / "pictures_only" / "ct8.png").stat().st_size > 1000

    with monkeypatch.context() as patch:
        third = counted(patch)
        main(arguments(folder, *FIELDS))
        assert not third
        path = next((folder / "out" / "cells" / "ct8" / "tv").glob("*.json"))
        path.write_text(path.read_text()[:-20])  # a full disk of someone else's making
        picture = next((folder / "out" / "cells" / "ct8" / "start").glob("*.npy"))
        picture.unlink()  # an image that the picture needs
        capsys.readouterr()
        main(arguments(folder, *FIELDS))
        assert sorted({method for _, method, _ in third}) == ["start", "tv"] and len(third) == 2
        assert capsys.readouterr().err.count("the cell is recomputed") == 2
        main(arguments(folder, *FIELDS, "--evaluations", "3"))  # other cells, the old ones stay
        assert len(third) == 4 and {method for _, method, _ in third[2:]} == {"dds"}

    cells = [from_json(Result, cell) for cell in whole["cells"]]
    assert {cell.config["network_sha256"] is None for cell in cells if cell.method != "dds"} == {True}
    weights = {cell.config["network_sha256"] for cell in cells if cell.method == "dds"}
    assert len(weights) == 1 and len(weights.pop()) == 64
    assert {cell.evaluations for cell in cells} == {0, 2}
    pictures = work.prepare(
        Benchmark(ct=str(folder / "images.npy"), weights="", only=("ct8/start",), images=2)
    ).pictures
    scene = Scene("ct8", pictures["ct8"], 1, 0)
    start = jnp.clip(scene.case.operator.start(scene.case.measurement.y), 0, 1).reshape(scene.case.image_shape)
    found = next(c for c in cells if c.method == "start" and c.image == pictures["ct8"].names[1])
    assert found.psnr == pytest.approx(float(psnr(start, np.load(folder / "images.npy")[1][..., None])), abs=1e-3)


def result(psnr_value, seed=0, seconds=1.0, method="tv"):
    return Result("", "ct8", method, "a", seed, {}, psnr_value, 0.5, 0.1, 25, seconds, 0.0, "")


def test_mean_and_spread():
    found = spread([1.0, 2.0, 6.0])
    assert found.mean == 3 and found.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2)) and found.n == 3
    assert found.text(".2f") == "3.00 ± 2.65" and spread([2.0]).text(".1f") == "2.0"
    cells = [result(20.0), result(26.0, seed=1, seconds=3.0), result(None, seed=2)]
    row = line(Entry("ct8", "tv", ""), cells, 4)
    assert row.scores["psnr"].mean == 23 and row.scores["psnr"].deviation == pytest.approx(math.sqrt(18))
    assert row.scores["seconds"].mean == 2 and row.scores["evaluations"].n == 2
    assert row.field("psnr") == "23.00 ± 4.24 (diverged: 1 of 3, 3 of 4 cells)"
    assert line(Entry("ct8", "tv", ""), [result(None)], 1).field("psnr") == "diverged: 1 of 1"
    dark = dataclasses.replace(result(30.0), residual=None)  # a score that one cell has not
    row = line(Entry("ct8", "tv", ""), [result(20.0), dark], 2)
    assert (row.scores["psnr"].n, row.scores["residual"].n, row.note) == (2, 1, "")
    assert "residual" not in line(Entry("ct8", "tv", ""), [dark], 1).scores
    row = line(Entry("ct8", "tv", ""), [result(20.0)], 3, ["no memory", "no memory"])
    assert row.field("psnr") == "20.00 (failed: no memory, 1 of 3 cells)"


def test_the_table_says_why_a_method_is_missing(folder):
    config = Benchmark(ct=str(folder / "images.npy"), weights="", only=("ct8/tv", "ct8/dds", "ct20/tv"))
    found = work.prepare(config)
    refusals = {(e.problem, e.method): e.refused for e in found.fields}
    assert refusals == {("ct8", "tv"): "", ("ct8", "dds"): "no network at hand: --weights", ("ct20", "tv"): ""}
    rows = [line(e, [result(20.0)] if e == found.fields[0] else [], 1) for e in found.fields]
    text = markdown(rows, found.pictures, {"preset": "quick"})
    assert "| tv | 20.00 | not run yet |" in text
    assert "| dds | no network at hand: --weights | not chosen |" in text
    assert "| tv | 20.00 | 0.5000 | 0.1 | 25 | 1.0 |" in text


def test_only():
    assert Benchmark(only=("ct8/d*", "sr2/tv")).pairs() == [
        *(("ct8", name) for name in METHODS if name.startswith("d")),
        ("sr2", "tv"),
    ]
    assert {method for _, method in Benchmark(only=("denoise",)).pairs()} == set(METHODS)
    assert [problem for problem, _ in Benchmark(only=("*/tv",)).pairs()] == [
        t for t in PROBLEMS if t in PRESETS["quick"].problems
    ]
    assert len(Benchmark().pairs()) == len(PRESETS["quick"].problems) * len(METHODS)
    with pytest.raises(UserError, match="--only ct9/tv: matches no problem and method"):
        Benchmark(only=("ct9/tv",)).pairs()


def test_presets_name_what_there_is():
    for name, grid in PRESETS.items():
        assert set(grid.problems) <= set(PROBLEMS) and set(grid.thorough) <= set(SOLVERS)
        assert Benchmark(preset=name).evaluations_of("whole_dps") == grid.thorough.get("dps", grid.evaluations)
        assert Benchmark(preset=name, evaluations=7).evaluations_of("dps") == 7


@pytest.mark.parametrize("evaluations", [25, 100, 1000])
@pytest.mark.parametrize("solver", SOLVERS)
def test_budgets_are_kept(solver, evaluations):
    for tilings in (1, 4):
        spent = preset(solver, "ct", evaluations, tilings=tilings).evaluations * tilings
        assert 0.75 * evaluations <= spent <= evaluations


def test_a_cell_is_known_by_all_it_depends_on(tmp_path):
    cell = Cell("ct8", "dds", "slice 41", 0, described("dds", "ct8", 25))
    others = [
        dataclasses.replace(cell, **change)
        for change in (
            {"problem": "ct20"},
            {"method": "dps"},
            {"image": "slice 20"},
            {"seed": 1},
            {"config": described("dds", "ct8", 26)},
            {"config": described("dds", "deblur9", 25)},
        )
    ]
    assert len({c.path(tmp_path) for c in (cell, *others)}) == 7
    assert dataclasses.replace(cell, config=dict(cell.config)).path(tmp_path) == cell.path(tmp_path)


def test_a_cell_depends_on_the_definition_of_its_problem(monkeypatch, tmp_path):
    write_weights(tmp_path / "prior.safetensors")
    prior = load_networks({("patch", 1): str(tmp_path / "prior.safetensors")}).find("patch", 1, "")

    def prints():
        return [Cell("deblur9", name, "a", 0, described(name, "deblur9", 25, prior)).fingerprint for name in CHECKED]

    before, problem = prints(), PROBLEMS["deblur9"]
    for where, name, value in (
        (PROBLEMS, "deblur9", dataclasses.replace(problem, factory=PROBLEMS["deblur17"].factory)),
        (PROBLEMS, "deblur9", dataclasses.replace(problem, sigma=0.02)),
        (vars(methods), "VERSION", methods.VERSION + 1),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(where, name, value)
            assert not set(before) & set(prints()), name
    with monkeypatch.context() as patch:  # the share of overlapping patches, where there are such
        patch.setattr(methods, "overlap_of", lambda patch: 1)
        assert [a == b for a, b in zip(before, prints(), strict=True)] == [True, False, True]
        assert prior_of(METHODS["dps_stitch"], prior, (16, 16)).denoise.overlap.overlap == 1
    with monkeypatch.context() as patch:  # what changes no figure
        texts = {name: dataclasses.replace(method, text="another") for name, method in METHODS.items()}
        patch.setattr(methods, "_methods", lambda: texts)
        patch.setitem(PROBLEMS, "deblur9", dataclasses.replace(problem, description="another", start="a", label="b"))
        assert prints() == before


def test_a_finished_cell_is_read_only_where_it_is_whole_and_its_own(tmp_path):
    cell = Cell("ct8", "dds", "slice 41", 0, {"a": 1})
    done = dataclasses.replace(
        result(20.0, method="dds"), fingerprint=cell.fingerprint, image="slice 41", config={"a": 1}
    )
    shape = (4, 5, 1)
    assert read_result(tmp_path, cell, shape) == (None, "")
    write_result(tmp_path, cell, done, None)
    assert read_result(tmp_path, cell) == (done, "")
    missing, why = read_result(tmp_path, cell, shape)  # the picture needs the image too
    assert missing is None and "damaged" in why
    diverged = dataclasses.replace(done, psnr=None)
    write_result(tmp_path, cell, diverged, None)
    assert read_result(tmp_path, cell, shape) == (diverged, "")  # which then has no image
    write_result(tmp_path, cell, done, np.zeros(shape))
    assert read_result(tmp_path, cell, shape) == (done, "")
    image = cell.path(tmp_path).with_suffix(".npy")
    whole = image.read_bytes()
    for content in (b"", b"PK\x03\x04 garbage", b"garbage", whole[:-3]):
        image.write_bytes(content)
        missing, why = read_result(tmp_path, cell, shape)
        assert missing is None and "damaged" in why, content
    image.write_bytes(whole)
    missing, why = read_result(tmp_path, cell, (5, 4, 1))  # of another size
    assert missing is None and "is no array of shape (5, 4, 1)" in why
    other = dataclasses.replace(cell, seed=1)  # a file that was copied to another cell's name
    other.path(tmp_path).write_bytes(cell.path(tmp_path).read_bytes())
    assert read_result(tmp_path, other) == (
        None,
        f"{other.path(tmp_path)}: holds the result of another cell",
    )


def test_a_cell_whose_name_has_no_letters_has_a_path_too(tmp_path):
    paths = {Cell("ct8", "dds", name, 0, {}).path(tmp_path) for name in ("../../é", "///", "")}
    assert len(paths) == 3 and {p.parent for p in paths} == {tmp_path / "cells" / "ct8" / "dds"}


def test_flags_count_before_the_presets():
    assert Benchmark(preset="paper").image_count == 25 and Benchmark(preset="paper", images=3).image_count == 3
    assert (
        Benchmark(preset="paper").evaluations_of("dps") == 1000 > Benchmark(preset="paper").evaluations_of("dds") == 100
    )
    assert not Benchmark().on_ct("sr4") and Benchmark(restore="ct").on_ct("sr4") and Benchmark().on_ct("ct8")
    for seeds in ((), (-1,), (0, 0)):
        with pytest.raises(UserError, match="seeds are"):
            Benchmark(seeds=seeds)


def test_dry_run_counts_and_writes_nothing(folder, capsys):
    args = [a for a in arguments(folder, *FIELDS, "--only", "ct8/whole_dds", "--dry-run") if a != "--quiet"]
    main(args)
    out = capsys.readouterr().out
    assert "ct8: 4 cells (0 finished), 2 of" in out and "6 cells, 0 finished" in out
    assert "not whole_dds: no network at hand: --weights-whole" in out
    main([*args, "--json"])
    assert json.loads(capsys.readouterr().out)["cells"] == 6
    assert not (folder / "out").exists()


def test_refusals(folder, capsys):
    colour = dataclasses.replace(NETWORK, image_channels=3)
    rgb = write_weights(folder / "rgb.safetensors", network=colour)
    np.save(folder / "small.npy", np.zeros((1, 8, 8), np.float32))
    for more, message in (
        (("--weights", rgb), "trained on images of 3 channels, not 1"),
        (
            ("--weights-whole", folder / "prior.safetensors"),
            "holds a patch prior, but this flag is for the",
        ),
        (("--supervised", folder / "prior.safetensors"), "holds 'something else'"),
        (("--ct", folder / "small.npy"), "at least 11 x 11 are needed"),
        (("--ct", folder / "none.npy"), "none.npy"),
        (("--only", "ct8/dds2"), "matches no problem and method"),
        (("--seeds", 1, 1), "give different numbers"),
        (("--evaluations", -1), "must be at least 1, or 0"),
        (("--patch-batch", -1), "patch_batch is -1"),
    ):
        assert message in refused(main, arguments(folder, "--only", "ct8/start", *more), capsys)
    assert not (folder / "out").exists()


def test_a_prior_by_its_name_is_known_by_the_digest_of_its_file():
    found = load_networks({("patch", 3): "photos"}).find("patch", 3, "")
    assert found is not None and found.digest == CARDS["photos"].digest
