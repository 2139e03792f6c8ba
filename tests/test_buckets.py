"""Work folders in a bucket: addresses arrive unmangled, files go through epath, and what cannot be is said at once.

There is no bucket here. gs:// is a folder on the disk behind epath, and Orbax writes its arrays to the folder it stands
for, because TensorStore has its own way to a bucket; what Orbax is given is looked at before.
"""

import json
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from etils.epath import backend, gpath
from test_cli_train import CONFIG
from tiny import refused

from padis_jax import checkpoint
from padis_jax.cli import sample, train
from padis_jax.errors import UserError
from padis_jax.files import check_bucket, in_bucket, place, read_records, replacing, write_json
from padis_jax.weights import load_weights


class _Bucket(backend._OsPathBackend):
    """A bucket on the disk: gs://NAME/x is ROOT/NAME/x."""

    def __init__(self, root):
        self.root = root

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("_") or name in ("root", "at") or not callable(found):
            return found
        return lambda path, *args, **kwargs: found(self.at(path), *map(self.at, args), **kwargs)

    def at(self, path):
        text = str(path)
        return str(self.root / text.removeprefix("gs://")) if text.startswith("gs://") else path

    def open(self, path, mode):
        if "w" in mode:  # buckets know no folders
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        assert "a" not in mode, "objects cannot be appended to"
        return super().open(path, mode)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder that is behind gs://."""
    root = tmp_path / "bucket"
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", _Bucket(root))
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    opened = tensorstore.KvStore.open

    def opens(spec, **options):  # of the lock; Orbax opens its own, which lie on the disk
        if isinstance(spec, str) and spec.startswith("gs://"):
            spec = {"driver": "file", "path": spec.replace("gs://", f"{root}/")}
        return opened(spec, **options)

    monkeypatch.setattr(tensorstore.KvStore, "open", opens)
    return root


@pytest.fixture
def given(bucket, monkeypatch):
    """What Orbax is given as its folder."""
    folders, original = [], ocp.CheckpointManager

    def manager(directory, **options):
        folders.append(str(directory))
        return original(bucket / str(directory).removeprefix("gs://"), **options)

    monkeypatch.setattr(checkpoint.ocp, "CheckpointManager", manager)
    return folders


def test_addresses_keep_their_slashes(tmp_path):
    assert str(checkpoint.folder("gs://b/runs/one")) == "gs://b/runs/one/checkpoints"
    assert str(place("s3://b/x") / "log.jsonl") == "s3://b/x/log.jsonl"
    assert place("runs/one") == Path("runs/one") and not in_bucket("runs/one")
    assert checkpoint.folder(tmp_path / "x") == (tmp_path / "x" / "checkpoints").resolve()


def test_an_object_is_written_whole_or_not_at_all(bucket):
    write_json("gs://b/a.json", {"x": 1})
    assert json.loads((bucket / "b" / "a.json").read_text()) == {"x": 1}
    with pytest.raises(ZeroDivisionError), replacing("gs://b/a.json") as handle:
        handle.write(b"half")
        1 / 0  # noqa: B018
    assert json.loads((bucket / "b" / "a.json").read_text()) == {"x": 1}


@pytest.mark.slow
def test_a_run_in_a_bucket_trains_and_goes_on(bucket, given, tmp_path, capsys):
    """Log, config, weights and pictures are in the bucket; a second start takes its settings from there."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((6, 12, 14), np.float32))
    (tmp_path / "tiny.py").write_text(CONFIG.format(path=str(tmp_path / "images.npy")))
    train.main(["--config", str(tmp_path / "tiny.py"), "--workdir", "gs://b/runs/one"])
    assert set(given) == {"gs://b/runs/one/checkpoints"}
    inside = bucket / "b" / "runs" / "one"
    assert {"config.json", "log.jsonl", "weights.safetensors", "loss.png", "pictures"} <= {
        p.name for p in inside.iterdir()
    }
    steps = [record["step"] for record in read_records("gs://b/runs/one/log.jsonl")]
    assert steps == sorted(steps) and steps[-1] == 4
    train.main(["--workdir", "gs://b/runs/one", "--run.steps", "6"])
    assert load_weights(inside / "weights.safetensors").provenance["steps"] == 6
    assert [record["step"] for record in read_records("gs://b/runs/one/log.jsonl")][-1] == 6
    assert not [p for p in Path().glob("gs:*")]


def test_a_damaged_checkpoint_in_a_bucket_is_removed_through_epath(bucket):
    leftover = bucket / "b" / "run" / "checkpoints" / "7.orbax-checkpoint-tmp"
    leftover.mkdir(parents=True)
    checkpoint._remove(place("gs://b/run/checkpoints/7.orbax-checkpoint-tmp"))
    assert not leftover.exists()
    checkpoint._remove(place("gs://b/run/nothing"))


def test_what_cannot_be_reached_is_said_at_once(tmp_path, capsys, monkeypatch):
    class Closed(backend._OsPathBackend):
        def exists(self, path):
            raise ImportError("Please install gcsfs")

    with monkeypatch.context() as patch:
        patch.setitem(gpath._PREFIX_TO_BACKEND, "gs", Closed())
        patch.setattr(gpath, "_is_tf_installed", lambda: False)
        with pytest.raises(UserError, match="pip install gcsfs, check the address"):
            check_bucket("gs://b/x")
    message = refused(train.main, ["--config", "configs/smoke.py", "--workdir", "ftp://host/x"], capsys)
    assert "ftp:// cannot be written to; give a folder, or a path in a bucket" in message
    assert "results are written to a folder" in refused(sample.main, ["--workdir", "gs://b/out"], capsys)
