"""Folders of measurements: one line per item, failures do not stop the rest, a second start redoes nothing."""

import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import failing, refused, write_weights

from padis_jax.cli.sample import main
from padis_jax.errors import UserError
from padis_jax.measurements.load import MeasurementConfig
from padis_jax.operators import ParallelBeam
from padis_jax.runs import batch_job, job, solve
from padis_jax.solvers.batch import reconstruct_batch

QUICK = (
    "--scan.views 5 --scan.bins 24 --tv.weight 0.1 --tv.iterations 5 --solver.levels 3 --solver.sigma-max 2 "
    "--solver.average 1 --solver.cg-steps 2 --batch 2"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, and scans/ with four good sinograms and three bad ones among them."""
    folder = tmp_path_factory.mktemp("job")
    write_weights(folder / "w.safetensors")
    angles = (np.arange(5) + 0.5) * np.pi / 5
    operator = ParallelBeam(image_shape=(16, 16), angles=angles, detector_count=24)
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    (folder / "scans").mkdir()
    for i, radius in enumerate((0.3, 0.5, 0.7, 0.9)):
        sinogram = np.asarray(operator(jnp.asarray(0.7 * (np.hypot(x, y) < radius), jnp.float32)))
        np.savez(folder / "scans" / f"scan{i}.npz", sinogram=sinogram, noise_sigma=0.01 * i)
    np.savez(folder / "scans" / "scan1b.npz", sinogram=np.ones((5, 23), np.float32))
    np.savez(folder / "scans" / "scan2b.npz", sinogram=np.full((5, 24), np.nan, np.float32))
    (folder / "scans" / "scan3b.npz").write_bytes(b"PK\x03\x04 nothing")
    return folder


def _job(folder, out, *more, failed=""):
    """The job, whose last line says `failed` where items fail: the exit code is then 2."""
    argv = ["--weights", folder / "w.safetensors", "--measurements", folder / "scans", "--workdir", out, *QUICK, *more]
    argv = [str(a) for a in argv]
    failing(main, argv, failed) if failed else main(argv)


def _manifest(out):
    return {r["item"]: r for r in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "a"
    _job(folder, out, failed="3 of 7 measurements failed; the first: ")
    return out


def _images(out):
    found = {}
    for path in sorted(out.glob("*.npz")):
        with np.load(path) as archive:
            found[path.stem] = archive["image"]
    return found


def test_every_item_has_its_line(done):
    lines = _manifest(done)
    assert list(lines) == ["scan0", "scan1", "scan1b", "scan2", "scan2b", "scan3", "scan3b"]
    good, bad = ({n for n, line in lines.items() if line["status"] == status} for status in ("done", "failed"))
    assert good == {"scan0", "scan1", "scan2", "scan3"} and bad == {"scan1b", "scan2b", "scan3b"}
    assert "has shape (5, 23)" in lines["scan1b"]["reason"] and "scan1b.npz" in lines["scan1b"]["reason"]
    assert "NaN or infinite" in lines["scan2b"]["reason"] and "not a readable" in lines["scan3b"]["reason"]
    images = _images(done)
    assert set(images) == good and all(i.shape == (16, 16, 1) and np.isfinite(i).all() for i in images.values())


def test_items_that_know_the_noise_of_each_ray_are_weighed_by_it(folder, done, tmp_path):
    """Beside one that knows it of all: the common scale is that of the entries, and weights are relative."""
    scans = tmp_path / "scans"
    scans.mkdir()
    (tmp_path / "w.safetensors").symlink_to(folder / "w.safetensors")
    with np.load(folder / "scans" / "scan2.npz") as archive:
        sinogram = archive["sinogram"]
    std = np.where(np.arange(5) < 2, 0.01, 2.0)[:, None] * np.ones((5, 24))
    np.savez(scans / "scan2.npz", sinogram=sinogram, noise_sigma=0.02)
    np.savez(scans / "rays.npz", sinogram=sinogram + np.where(std > 1, 1.0, 0), noise_std=std)
    _job(tmp_path, tmp_path / "out", "--weighted")
    images, lines = _images(tmp_path / "out"), _manifest(tmp_path / "out")
    assert [line["status"] for line in lines.values()] == ["done", "done"]
    np.testing.assert_allclose(images["scan2"], _images(done)["scan2"], atol=1e-4)  # whatever is beside it
    _job(tmp_path, tmp_path / "plain")
    gap = {name: np.abs(_images(tmp_path / "plain")[name] - images[name]).max() for name in images}
    assert gap["scan2"] < 1e-4 < 0.01 < gap["rays"]


def test_a_second_start_keeps_what_is_done_and_fills_the_gaps(folder, done, capsys):
    """One image is lost and must come back as it was, though its batch is another one now."""
    before = _images(done)
    times = {path.name: path.stat().st_mtime_ns for path in done.glob("*.npz")}
    (done / "scan2.npz").unlink()
    _job(folder, done, failed=f"The others are in {done}; the same command tries those again that failed")
    assert "1 done, 3 failed, 3 kept from before" in capsys.readouterr().out
    after = _images(done)
    np.testing.assert_allclose(after["scan2"], before["scan2"], atol=1e-5)
    assert all((done / n).stat().st_mtime_ns == t for n, t in times.items() if n != "scan2.npz")
    assert len(_manifest(done)) == 7


def test_numbers_too_large_for_float32_fail_their_item_alone(folder, tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "w.safetensors").symlink_to(folder / "w.safetensors")
    with np.load(folder / "scans" / "scan0.npz") as archive:
        good = archive["sinogram"]
    np.savez(tmp_path / "scans" / "a.npz", sinogram=1e18 * good)
    np.savez(tmp_path / "scans" / "b.npz", sinogram=good)
    _job(tmp_path, tmp_path / "out", failed="1 of 2 measurements failed")
    lines = _manifest(tmp_path / "out")
    assert lines["b"]["status"] == "done" and "too large for computing in float32" in lines["a"]["reason"]


def test_ctrl_c_says_where_the_finished_items_are(folder, tmp_path, monkeypatch, capsys):
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return reconstruct_batch(*args, **kwargs)

    monkeypatch.setattr(solve, "reconstruct_batch", interrupted)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        _job(folder, out)
    assert stopped.value.code == 130
    assert f"what is finished is in {out}. Rerun the same command" in capsys.readouterr().err
    assert [r["status"] for r in _manifest(out).values()].count("done") == 2


def test_other_settings_are_refused(folder, done, capsys):
    arguments = ["--weights", folder / "w.safetensors", "--measurements", folder / "scans", "--workdir", done]
    message = refused(main, [*arguments, *QUICK, "--seed", "3"], capsys)
    assert "has results of other settings (experiment.seed)" in message and "choose another --workdir" in message


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--samples", "4"], "--samples: --measurements reconstructs each file once"),
        (["--save-as", "png"], "--save-as: --measurements"),
        (["--anonymise"], "--anonymise: --measurements"),
        (["--classical", "cgls"], "--classical: --measurements"),
        (["--display", "0:1"], "--display: --measurements"),
        (["--generate", "2"], "--generate: --measurements"),
        (["--measurement.path", "one.npz"], "--measurement.path one.npz: --measurements"),
        (["--measurement.counts", "--measurement.flat", "3"], "--measurement.counts: the .npz files of"),
        (["--measurement.noise", "0.1"], "for line integrals or counts add --measurement.geometry FILE"),
    ],
)
def test_what_a_folder_has_no_use_for_is_refused(folder, tmp_path, capsys, flags, expected):
    argv = ["--weights", folder / "w.safetensors", "--measurements", folder / "scans", "--workdir", tmp_path / "out"]
    assert expected in refused(main, [*argv, *QUICK, *flags, "--quiet"], capsys)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_measurements(folder, tmp_path, capsys):
    arguments = ["--weights", folder / "w.safetensors", "--measurements", tmp_path / "no", "--workdir", tmp_path / "o"]
    assert "no such folder, or no measurements in it" in refused(main, [*arguments, *QUICK], capsys)


def _solver(calls, fail_at=None):
    def solve(indices, items):
        calls.append([str(int(item)) for item in items])
        if fail_at is not None and len(calls) == fail_at:
            raise KeyboardInterrupt  # as if the process ended here
        images = np.stack([np.full((2, 2, 1), item) for item in items])
        return images, np.asarray([0.1] * len(items))

    return solve


def _run(folder, *args, **kwargs):
    items = batch_job.list_items(folder / "scans", (".npz",))

    def read(path):  # of an item, only what it says matters here
        return batch_job.Item(batch_job.read_sinogram(path, (2, 3))[0][0, 0])

    def solve(indices, items):
        return args[0](indices, [item.case for item in items])

    return batch_job.run(items, folder / "out", read, solve, *args[1:], **kwargs)


@pytest.fixture
def seven(tmp_path):
    (tmp_path / "scans").mkdir()
    for i in range(7):
        np.savez(tmp_path / "scans" / f"{i}.npz", sinogram=np.full((2, 3), i, np.float32))
    return tmp_path


def test_a_kill_loses_one_batch_at_most(seven):
    calls = []
    with pytest.raises(KeyboardInterrupt):
        _run(seven, _solver(calls, fail_at=3), {"a": 1}, batch=2)
    assert calls == [["0", "1"], ["2", "3"], ["4", "5"]]
    calls.clear()
    counts = _run(seven, _solver(calls), {"a": 1}, batch=2)
    assert counts == {"done": 3, "failed": 0, "kept": 4}
    assert calls == [["4", "5"], ["6", "6"]]  # the last batch has the size of all
    assert [json.loads(line)["item"] for line in (seven / "out" / "manifest.jsonl").read_text().splitlines()] == [
        *"0123456"
    ]


def test_processes_take_turns(seven, monkeypatch):
    for process in range(2):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        calls = []
        _run(seven, _solver(calls), {}, batch=4)
        assert sorted({name for call in calls for name in call}) == [*"0246"] if process == 0 else [*"135"]
    assert {p.name for p in (seven / "out").glob("*.jsonl")} == {"manifest_0000.jsonl", "manifest_0001.jsonl"}
    monkeypatch.undo()
    counts = _run(seven, _solver([]), {}, batch=4)
    assert counts == {"done": 0, "failed": 0, "kept": 7}


def test_an_image_that_is_not_finite_is_a_failure_of_its_item(seven):
    def solve(indices, items):
        images = np.stack([np.full((2, 2, 1), np.nan if item == 3 else 1.0) for item in items])
        return images, np.zeros(len(items))

    counts = _run(seven, solve, {}, batch=4)
    assert counts == {"done": 6, "failed": 1, "kept": 0}
    assert "diverged" in (seven / "out" / "manifest.jsonl").read_text()
    assert not (seven / "out" / "3.npz").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": np.ones((2, 3))}, "has no `sinogram`"),
        ({"sinogram": np.ones((2, 3)), "noise_sigma": -1.0}, "one number, not negative"),
        ({"sinogram": np.ones((2, 3)), "noise_sigma": np.ones(3)}, "one number"),
        ({"sinogram": np.ones((2, 3)), "noise_std": np.ones(3)}, r"`noise_std` has shape \(3,\)"),
        ({"sinogram": np.ones((2, 3)), "noise_std": np.eye(2, 3)}, "noise_std is 0 at 4 of 6 measured entries"),
        ({"sinogram": np.ones((2, 3)), "noise_std": -np.ones((2, 3))}, "must not be negative"),
        ({"sinogram": np.ones((2, 3)), "noise_std": np.full((2, 3), np.nan)}, "NaN or infinite"),
        ({"sinogram": np.ones((2, 3)), "noise_std": np.ones((2, 3)), "noise_sigma": 1.0}, "leave one of them out"),
        ({"sinogram": np.array([[{}] * 3] * 2, object)}, "type object"),
    ],
)
def test_measurements_that_cannot_be_used(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=message) as refusal:
        batch_job.read_sinogram(tmp_path / "a.npz", (2, 3))
    assert "a.npz" in str(refusal.value)


def _lines(folder):
    return {r["item"]: r for r in map(json.loads, (folder / "out" / "manifest.jsonl").read_text().splitlines())}


def test_what_was_replaced_or_emptied_is_done_again(seven):
    _run(seven, _solver([]), {}, batch=2)
    before = _lines(seven)
    assert len({line["measurement_sha256"] for line in before.values()}) == 7
    np.savez(seven / "scans" / "1.npz", sinogram=np.full((2, 3), 99, np.float32))  # a new measurement of that name
    (seven / "out" / "2.npz").write_bytes(b"")
    content = bytearray((seven / "out" / "3.npz").read_bytes())
    content[-100] ^= 1
    (seven / "out" / "3.npz").write_bytes(content)
    calls = []
    assert _run(seven, _solver(calls), {}, batch=3) == {"done": 3, "failed": 0, "kept": 4}
    assert calls == [["99", "2", "3"]]
    assert _images(seven / "out")["1"].ravel()[0] == 99 and _images(seven / "out")["2"].ravel()[0] == 2
    after = _lines(seven)
    assert after["2"]["output_sha256"] == before["2"]["output_sha256"]
    assert after["1"]["measurement_sha256"] != before["1"]["measurement_sha256"]
    assert _run(seven, _solver([]), {}, batch=3)["kept"] == 7


def test_the_key_of_an_item_is_made_of_its_name_and_a_new_file_changes_no_other(seven):
    numbers = {}

    def solve(indices, items):
        numbers.update(zip(map(int, items), indices, strict=True))
        return np.zeros((len(items), 2, 2, 1)), np.zeros(len(items))

    (seven / "scans" / "3.npz").rename(seven / "late.npz")
    _run(seven, solve, {}, batch=1)
    first = dict(numbers)
    assert first[0] == int(hashlib.sha256(b"0").hexdigest()[:8], 16) >> 1
    (seven / "late.npz").rename(seven / "scans" / "3.npz")
    assert _run(seven, solve, {}, batch=1) == {"done": 1, "failed": 0, "kept": 6}
    shutil.rmtree(seven / "out")
    _run(seven, solve, {}, batch=1)
    assert numbers == first | {3: numbers[3]} and len(set(numbers.values())) == 7
    assert json.loads((seven / "out" / "job.json").read_text())["numbers"] == job.RULE
    (seven / "scans" / "0.mat").touch()  # of the same stem
    names = batch_job.list_items(seven / "scans", (".npz", ".mat"), seven / "out")
    assert names["0"].name == "0.npz" and names["0.mat"].name == "0.mat"


def test_a_line_that_was_changed_is_not_believed(seven):
    """Its scores may be other ones, or no numbers; nor is it kept beside the line that is right."""
    path = seven / "out" / "manifest.jsonl"
    _run(seven, _solver([]), {}, batch=7)
    first, *rest = path.read_text().splitlines()
    for old, new in (('"residual": 0', '"residual": 9'), ('"seconds": ', '"more": 1, "seconds": ')):
        assert (changed := first.replace(old, new)) != first
        path.write_text("\n".join([changed, *rest]) + "\n")
        assert _run(seven, _solver([]), {}, batch=7) == {"done": 1, "failed": 0, "kept": 6}
        first = path.read_text().splitlines()[0]
        path.write_text("\n".join([first, *rest, first.replace(old, new)]) + "\n")
        assert _run(seven, _solver([]), {}, batch=7)["kept"] == 7
        assert path.read_text().splitlines() == [first, *rest]


def test_names_of_items_are_all_different(tmp_path):
    for name in ("a.npz", "a.mat", "a.npz.mat", "b.npz"):
        (tmp_path / name).touch()
    items = batch_job.list_items(tmp_path, (".npz", ".mat"))
    assert {name: path.name for name, path in items.items()} == {
        "a.mat": "a.mat", "a.npz": "a.npz", "a.npz.mat": "a.npz.mat", "b": "b.npz"
    }  # fmt: skip


def test_a_job_begun_by_the_old_rule_ends_by_it(seven):
    """Its job.json says nothing of a rule, and its lines have no digests."""
    indices = []

    def solve(numbers, items):
        indices.extend(numbers)
        return np.zeros((len(items), 2, 2, 1)), np.zeros(len(items))

    out = seven / "out"
    out.mkdir()
    (out / "job.json").write_text('{"a": 1}')
    (out / "manifest.jsonl").write_text('{"item": "0", "status": "done"}\n{"item": "1", "status": "done"}\n')
    np.savez(out / "0.npz", image=np.zeros((2, 2, 1)))
    (out / "1.npz").write_bytes(b"")
    assert _run(seven, solve, {"a": 1}, batch=1) == {"done": 6, "failed": 0, "kept": 1}
    assert indices == [1, 2, 3, 4, 5, 6] and json.loads((out / "job.json").read_text()) == {"a": 1}
    assert _run(seven, solve, {"a": 1}, batch=1)["kept"] == 7


def test_a_setting_that_came_later_has_its_default_in_an_older_job(seven):
    def solve(numbers, items):
        return np.zeros((len(items), 2, 2, 1)), np.zeros(len(items))

    now = {"experiment": {"seed": 3, "anonymise": False, "measurement": {"axes": MeasurementConfig.axes}}}
    (seven / "out").mkdir()
    (seven / "out" / "job.json").write_text('{"experiment": {"seed": 3, "measurement": {}}}')
    assert _run(seven, solve, now, batch=7)["done"] == 7
    now["experiment"]["anonymise"] = True
    with pytest.raises(UserError, match=r"other settings \(experiment\.anonymise\)"):
        _run(seven, solve, now, batch=7)


@pytest.mark.parametrize(
    ("manifest", "job", "message"),
    [
        ('{"status": "done"}\n{}', "{}", "names no item"),
        ('{"item": 3, "status": "done"}', "{}", "names no item"),
        ('{"item": "scan0", "file": [1], "status": "done"}', "{}", "names no item"),
        ("", '{"a\\nb": 1}', r"other settings \(a\\nb"),
        ('{"item": "0", "status": "maybe"}', "{}", "neither done nor failed"),
        ("[" * 100_000 + "\n{}", "{}", "line 1 is not JSON"),
        ("9" * 5000 + "\n{}", "{}", "line 1 is not JSON"),
        ("", "[]", "holds no settings of a job"),
        ("", "null", "holds no settings of a job"),
        ("", '"text"', "holds no settings of a job"),
        ("", '{"numbers": "of a later version"}', "a later version"),
        ("", "[" * 100_000, "not readable"),
        ("", '{"a": 1', "not readable"),
    ],
)
def test_damaged_files_of_a_job_are_one_line(seven, manifest, job, message):
    (seven / "out").mkdir()
    (seven / "out" / "manifest.jsonl").write_text(manifest)
    (seven / "out" / "job.json").write_text(job)
    with pytest.raises(UserError, match=message) as refusal:
        _run(seven, _solver([]), {}, batch=2)
    assert len(str(refusal.value)) < 500 and (seven / "out" / "manifest.jsonl").read_text() == manifest


def test_lines_of_measurements_that_have_gone_stay(seven):
    _run(seven, _solver([]), {}, batch=2)
    (seven / "scans" / "3.npz").unlink()
    (seven / "out" / "2.npz").unlink()
    for _ in range(2):
        _run(seven, _solver([]), {}, batch=2)
        assert sorted(_lines(seven)) == [*"0123456"]
        assert (seven / "out" / "manifest.jsonl").read_text().count("\n") == 7
