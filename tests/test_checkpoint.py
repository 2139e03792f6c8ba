"""Checkpoints: what was saved comes back; damaged, interrupted and foreign ones give one line and stay as they are."""

import dataclasses
import resource
import shutil
import time

import jax
import numpy as np
import pytest
from tiny import CONFIG, random_state

from padis_jax import checkpoint
from padis_jax.errors import UserError
from padis_jax.training import state_shapes

ABOUT = {"config": dataclasses.asdict(CONFIG), "frame": {"patch": 8}}
LIKE = state_shapes(CONFIG.network, CONFIG.optimiser)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A work folder with the checkpoints 10 and 20."""
    workdir = tmp_path_factory.mktemp("saved")
    with checkpoint.open_checkpoints(workdir) as manager:
        for step in (10, 20):
            checkpoint.save(manager, random_state(seed=step, step=step), ABOUT)
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def _restore(workdir, like=LIKE):
    with checkpoint.open_checkpoints(workdir) as manager:
        return checkpoint.restore(manager, like)


def _refusal(workdir, like=LIKE):
    with pytest.raises(UserError) as refused:
        _restore(workdir, like)
    message = str(refused.value)
    assert "\n" not in message and len(message) < 700
    return message


def test_the_newest_comes_back_bit_for_bit(saved):
    state, expected = _restore(saved), random_state(seed=20, step=20)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_config_comes_back_as_json(saved):
    with checkpoint.open_checkpoints(saved) as manager:
        found = checkpoint.saved_config(manager)
    assert found["frame"] == {"patch": 8}
    assert found["config"]["patches"]["sizes"] == [4, 8]


def test_an_empty_folder_has_nothing(tmp_path):
    with checkpoint.open_checkpoints(tmp_path / "new") as manager:
        assert checkpoint.saved_config(manager) is None
        assert checkpoint.restore(manager, LIKE) is None


def test_only_the_newest_are_kept_and_a_step_is_saved_once(tmp_path):
    with checkpoint.open_checkpoints(tmp_path, keep=2) as manager:
        for step in (1, 2, 3, 3):
            checkpoint.save(manager, random_state(seed=step, step=step), ABOUT)
        manager.wait_until_finished()
        assert sorted(manager.all_steps()) == [2, 3]


def test_an_interrupted_save_is_passed_over(workdir):
    """A process that is killed while saving leaves a temporary folder; the checkpoint before it counts, and it goes."""
    root = checkpoint.folder(workdir)
    cut_off = root / "25.orbax-checkpoint-tmp"
    shutil.copytree(root / "20" / "state", cut_off / "state.orbax-checkpoint-tmp")
    assert int(_restore(workdir).step) == 20
    with checkpoint.open_checkpoints(workdir) as manager:
        checkpoint.save(manager, random_state(seed=30, step=30), ABOUT)
    assert int(_restore(workdir).step) == 30
    assert not cut_off.exists()


def _truncate(root):
    files = [f for f in (root / "state").rglob("*") if f.is_file() and f.stat().st_size > 1000]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _numbers(root):
    """The files with the numbers. Which of them a value is in, and whether it is used, differs from save to save."""
    files = [f for f in (root / "state" / "ocdbt.process_0" / "d").iterdir() if f.stat().st_size > 5000]
    assert files
    return files


def _truncate_the_numbers(root):
    """What TensorStore reads last, when all else was in order: it comes out of Orbax as another kind of error."""
    for file in _numbers(root):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _remove_state(root):
    shutil.rmtree(root / "state")


def _flip_a_bit(root):
    """One bit of a number in each file: nothing that the format itself would notice for certain."""
    for file in _numbers(root):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        file.write_bytes(content)


def _config_text(text):
    def write(root):
        (root / "config" / "metadata").write_text(text)

    return write


def _changed_config(root):
    file = root / "config" / "metadata"
    changed = file.read_text().replace('"patch": 8', '"patch": 9')
    assert changed != file.read_text()
    file.write_text(changed)


DAMAGE = {
    "truncated": _truncate,
    "numbers truncated": _truncate_the_numbers,
    "state missing": _remove_state,
    "bit flip": _flip_a_bit,
    "empty config": _config_text(""),
    "cut-off config": _config_text('{"config": '),
    "config no mapping": _config_text("[1, 2]"),
    "config changed": _changed_config,
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of reads that Orbax gives up
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(workdir, capsys, caplog, name):
    root = checkpoint.folder(workdir)
    DAMAGE[name](root / "20")
    with checkpoint.open_checkpoints(workdir) as manager:
        state = checkpoint.restore(manager, LIKE)
        assert int(state.step) == 10
        jax.tree.map(np.testing.assert_array_equal, state, random_state(seed=10, step=10))
        warning = capsys.readouterr().err
        assert warning.startswith(f"warning: checkpoint {root / '20'} is damaged (") and warning.count("\n") == 1
        assert not caplog.records  # of Orbax, with tracebacks
        assert "resuming from step 10" in warning
        for step in (15, 20):  # the steps that were lost can be saved again
            checkpoint.save(manager, random_state(seed=step, step=step), ABOUT)
    assert int(_restore(workdir).step) == 20
    assert (root / "damaged_20").is_dir() and not capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("RESOURCE_EXHAUSTED: 60 GB")])
def test_a_checkpoint_that_does_not_fit_into_memory_is_not_damaged(workdir, monkeypatch, error):
    def restore(*args, **kwargs):
        raise error

    with checkpoint.open_checkpoints(workdir) as manager:
        with monkeypatch.context() as patch, pytest.raises(type(error)):
            patch.setattr(manager, "restore", restore)
            checkpoint.restore(manager, LIKE)
        assert sorted(manager.all_steps()) == [10, 20]


def test_if_none_is_intact_nothing_is_touched(workdir):
    root = checkpoint.folder(workdir)
    for step in ("10", "20"):
        _flip_a_bit(root / step)
    message = _refusal(workdir)
    assert str(root) in message and "no checkpoint is intact" in message and "choose another --workdir" in message
    assert {p.name for p in root.iterdir() if p.is_dir()} == {"10", "20"}


def test_the_config_of_the_newest_that_can_be_read(workdir):
    root = checkpoint.folder(workdir)
    _config_text("")(root / "20")
    with checkpoint.open_checkpoints(workdir) as manager:
        assert checkpoint.saved_config(manager)["frame"] == {"patch": 8}
        _config_text("")(root / "10")
        with pytest.raises(UserError, match="no checkpoint is intact"):
            checkpoint.saved_config(manager)


def test_checkpoints_without_digests_are_read(tmp_path, monkeypatch):
    """Those that were written before there were any; what cannot be read of them is named with the remedy."""
    original = checkpoint.ocp.args.JsonSave
    plain = lambda item: original({k: v for k, v in item.items() if k != "digests"})  # noqa: E731
    with monkeypatch.context() as patch, checkpoint.open_checkpoints(tmp_path) as manager:
        patch.setattr(checkpoint.ocp.args, "JsonSave", plain)
        checkpoint.save(manager, random_state(seed=1, step=5), ABOUT)
    assert int(_restore(tmp_path).step) == 5
    _truncate(checkpoint.folder(tmp_path) / "5")
    message = _refusal(tmp_path)
    assert str(checkpoint.folder(tmp_path) / "5") in message and "remove this folder" in message


def test_a_full_disk_leaves_the_older_checkpoints(workdir, capfd, caplog):
    """No file may grow beyond 2 kB, as if the disk were full: one line, and what was complete stays so."""
    before = {f: f.read_bytes() for f in checkpoint.folder(workdir).glob("[12]0/**/*") if f.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(UserError) as refused, checkpoint.open_checkpoints(workdir, keep=2) as manager:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            checkpoint.save(manager, random_state(seed=30, step=30), ABOUT, wait=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = str(refused.value)
    assert "\n" not in message and str(checkpoint.folder(workdir)) in message
    assert "could not be written" in message and "that of step 20 is the newest complete one" in message
    assert {f: f.read_bytes() for f in before} == before
    assert not capfd.readouterr().err and not caplog.records
    assert int(_restore(workdir).step) == 20


def test_a_reader_changes_nothing(workdir, capsys):
    """Neither the save under way of another run, nor a damaged checkpoint."""
    root = checkpoint.folder(workdir)
    (root / "25.orbax-checkpoint-tmp").mkdir()
    _remove_state(root / "20")
    with checkpoint.open_checkpoints(workdir, reading=True) as manager:
        assert int(checkpoint.restore(manager, LIKE, aside=False).step) == 10
    assert {p.name for p in root.iterdir()} == {"10", "20", "25.orbax-checkpoint-tmp"}
    assert not capsys.readouterr().err


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_does_no_harm(tmp_path, monkeypatch, jump):
    original, saves = time.time, []
    monkeypatch.setattr(time, "time", lambda: original() + jump * len(saves))
    with checkpoint.open_checkpoints(tmp_path, keep=2) as manager:
        for step in (1, 2, 3):
            checkpoint.save(manager, random_state(seed=step, step=step), ABOUT, wait=True)
            saves.append(step)
    with checkpoint.open_checkpoints(tmp_path) as manager:
        assert sorted(manager.all_steps()) == [2, 3]
        assert int(checkpoint.restore(manager, LIKE).step) == 3


@pytest.mark.parametrize("change", [{"model_channels": 12}, {"channel_mult": (1, 1)}, {"num_blocks": 2}])
def test_another_architecture_is_refused(workdir, change):
    other = dataclasses.replace(CONFIG, network=dataclasses.replace(CONFIG.network, **change))
    message = _refusal(workdir, state_shapes(other.network, other.optimiser))
    assert "of another architecture" in message and "choose another --workdir" in message
    assert int(_restore(workdir).step) == 20  # and it is still there
