"""Folders of measurements: one line per item, failures do not stop the rest, a second start redoes nothing."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import refused, write_weights

from padis_jax.cli import batch
from padis_jax.cli.sample import main
from padis_jax.errors import UserError
from padis_jax.operators import ParallelBeam
from padis_jax.runs import batch_job
from padis_jax.solvers.batch import reconstruct_batch

QUICK = (
    "--scan.views 5 --scan.bins 24 --tv.weight 0.1 --tv.iterations 5 --solver.levels 3 --solver.sigma-max 2 "
    "--solver.average 1 --solver.cg-steps 2 --solver.consistency 0.1 --batch 2"
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


def _job(folder, out, *more):
    main(
        [
            str(a)
            for a in (
                "--weights",
                folder / "w.safetensors",
                "--measurements",
                folder / "scans",
                "--workdir",
                out,
                *QUICK,
                *more,
            )
        ]
    )


def _manifest(out):
    return {r["item"]: r for r in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "a"
    _job(folder, out)
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


def test_a_second_start_keeps_what_is_done_and_fills_the_gaps(folder, done, capsys):
    """One image is lost and must come back as it was, though its batch is another one now."""
    before = _images(done)
    times = {path.name: path.stat().st_mtime_ns for path in done.glob("*.npz")}
    (done / "scan2.npz").unlink()
    _job(folder, done)
    assert "1 done, 3 failed, 3 kept from before" in capsys.readouterr().out
    after = _images(done)
    np.testing.assert_allclose(after["scan2"], before["scan2"], atol=1e-5)
    assert all((done / n).stat().st_mtime_ns == t for n, t in times.items() if n != "scan2.npz")
    assert len(_manifest(done)) == 7


def test_ctrl_c_says_where_the_finished_items_are(folder, tmp_path, monkeypatch, capsys):
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return reconstruct_batch(*args, **kwargs)

    monkeypatch.setattr(batch, "reconstruct_batch", interrupted)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        _job(folder, out)
    assert stopped.value.code == 130
    assert f"what is finished is in {out}. Rerun the same command" in capsys.readouterr().err
    assert [r["status"] for r in _manifest(out).values()].count("done") == 2


def test_other_settings_are_refused(folder, done, capsys):
    arguments = ["--weights", folder / "w.safetensors", "--measurements", folder / "scans", "--workdir", done]
    message = refused(main, [*arguments, *QUICK, "--seed", "3"], capsys)
    assert "has results of other settings (experiment)" in message and "choose another --workdir" in message


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
        ({"sinogram": np.array([[{}] * 3] * 2, object)}, "type object"),
    ],
)
def test_measurements_that_cannot_be_used(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=message) as refusal:
        batch_job.read_sinogram(tmp_path / "a.npz", (2, 3))
    assert "a.npz" in str(refusal.value)
