"""Compiled programs are kept between processes, whole, for their user alone; what is damaged is compiled again."""

import os
import subprocess
import sys
import time

import jax
import pytest
from tqdm import tqdm

from padis_jax.cli.arguments import OutputOptions
from padis_jax.cli.progress import Progress, solver_progress, trial_progress
from padis_jax.devices import compile_cache

SCRIPT = """
import padis_jax.cli
from padis_jax.devices import compile_cache
folder = compile_cache.use()
import jax, jax.numpy as jnp
out = jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((8, 8)))
print(compile_cache.spent().loaded, float(out.sum()), folder)
"""


def start(base, **more):
    """(programs loaded, result, folder, stderr) of a process."""
    ours = ("TF_CPP_MIN_LOG_LEVEL", "JAX_COMPILATION_CACHE_DIR")  # the first one jax has set
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    env = {**inherited, "PADIS_JAX_COMPILE_CACHE": str(base), "JAX_PLATFORMS": "cpu", **more}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
    loaded, total, folder = done.stdout.split()
    return int(loaded), total, folder, done.stderr


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    base = tmp_path_factory.mktemp("cache") / "deep" / "padis"
    return base, start(base)


def entries(base):
    return sorted(base.glob("compiled-*/*-cache.*"))


def test_the_second_process_loads_what_the_first_compiled(kept):
    base, first = kept
    assert first[0] == 0 and not first[3] and entries(base)
    assert not list(base.glob("compiled-*/run-*"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (base, *base.glob("compiled-*")))
    second = start(base)
    assert second[0] >= 3 and second[1] == first[1] and not second[3]


def test_a_damaged_entry_is_compiled_again(kept):
    base, first = kept
    start(base)
    before = entries(base)
    for path in before:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    again = start(base)
    assert again[0] == 0 and again[1] == first[1] and not again[3]
    assert [path.name for path in entries(base)] == [path.name for path in before] and start(base)[0] >= 1


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path):
    base = tmp_path / "cache"
    base.mkdir()
    base.chmod(0o755)
    loaded, _, folder, errors = start(base)
    assert folder == "None" and errors.count("\n") == 1 and "open to other users (mode 755)" in errors
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert "is no folder" in start(tmp_path / "link")[3] and not list((tmp_path / "real").iterdir())
    (tmp_path / "file").write_text("")
    assert "compiled programs are not kept" in start(tmp_path / "file")[3]
    assert start("off")[2:] == ("None", "")
    assert start(tmp_path / "mine", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))[2] == "None"


def test_what_is_too_much_and_what_was_left_behind_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "LIMIT", 250)
    staging = tmp_path / "run-x"
    staging.mkdir()
    for age, name in enumerate("abc"):
        (staging / f"{name}-cache").write_bytes(name.encode() * 100)
        os.utime(staging / f"{name}-cache", (time.time(), time.time() - age))
    (staging / "other").write_bytes(b"not an entry")
    compile_cache.keep(tmp_path, staging)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["a", "b"]  # c is the oldest
    for name, age in (("run-old", 8 * 24 * 3600), ("run-new", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    compile_cache._sweep(tmp_path)
    assert [path.name for path in tmp_path.glob("run-*")] == ["run-new"]


def test_entries_are_counted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "ENTRIES", 2)
    staging = tmp_path / "run-x"
    staging.mkdir()
    for age, name in enumerate("abc"):
        (staging / f"{name}-cache").write_bytes(name.encode())
        os.utime(staging / f"{name}-cache", (time.time(), time.time() - age))
    compile_cache.keep(tmp_path, staging)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_forecast_does_not_count_compilation(tmp_path, monkeypatch):
    spent = [compile_cache.Spent(5.0, 2)]
    monkeypatch.setattr(compile_cache, "spent", lambda: spent[0])
    monkeypatch.setattr(compile_cache, "_folder", [tmp_path])
    assert compile_cache.last_seconds("DDS") is None
    with open(os.devnull, "w") as nowhere, tqdm(total=10, desc="DDS: compiling", file=nowhere) as bar:
        progress = Progress(bar, 10, "DDS")
        bar.start_t -= 100.0  # as if a hundred seconds had gone by
        spent[0] = compile_cache.Spent(103.0, 2)
        progress(1, 10, type("Info", (), {"residual": 0.1})())
        assert bar.desc == "DDS: " and bar.format_dict["elapsed"] < 5
    assert compile_cache.last_seconds("DDS") == 98.0
    (tmp_path / compile_cache.TIMES).write_text("[1, 2")
    assert compile_cache.last_seconds("DDS") is None
    compile_cache.remember("DDS", 3.0)
    assert compile_cache.last_seconds("DDS") == 3.0


def test_folders_of_other_versions_share_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "LIMIT", 250)
    ours, theirs, staging = tmp_path / "compiled-new", tmp_path / "compiled-old", tmp_path / "compiled-new" / "run-x"
    for folder in (staging, theirs / "run-old"):
        folder.mkdir(parents=True)
    for age, name in enumerate("abc"):
        (theirs / f"{name}-cache.1").write_bytes(b"0" * 100)
        os.utime(theirs / f"{name}-cache.1", (time.time() - 60 - age,) * 2)
    (staging / "d-cache").write_bytes(b"1" * 100)
    compile_cache.keep(ours, staging)
    assert [path.name[0] for path in sorted(tmp_path.glob("compiled-*/*-cache.*"))] == ["d", "a"]
    os.utime(theirs / "run-old", (time.time() - 8 * 24 * 3600,) * 2)
    for folder in compile_cache._folders(ours):
        compile_cache._sweep(folder)
    assert not (theirs / "run-old").exists()


def test_a_user_without_a_home_is_told_in_one_line(monkeypatch, capsys):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compile_cache, "_folder", [])
    monkeypatch.setattr(compile_cache.Path, "home", homeless)
    for name in ("XDG_CACHE_HOME", compile_cache.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert compile_cache.use() is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Could not determine home directory" in said and "Set HOME" in said


def test_no_compile_cache_turns_off_a_cache_of_jax_too(tmp_path):
    script = (
        "from padis_jax.cli.arguments import split_output_options\n"
        "import sys, jax, jax.numpy as jnp\n"
        "split_output_options(sys.argv[1:])\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((8, 8))).block_until_ready()\n"
    )
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", script, "--no-compile-cache"], env=env, check=True, capture_output=True)
    assert not list(tmp_path.iterdir())
    subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True)
    assert list(tmp_path.iterdir())


def test_samples_and_trials_have_words_of_their_own(tmp_path, monkeypatch, capsys):
    spent = [compile_cache.Spent(5.0, 2)]
    monkeypatch.setattr(compile_cache, "spent", lambda: spent[0])
    monkeypatch.setattr(compile_cache, "_folder", [tmp_path])
    with solver_progress(6, "DDS", OutputOptions(), of=(8, 8, 1), samples=3):
        spent[0] = compile_cache.Spent(12.0, 2)
    said = capsys.readouterr().err
    assert "DDS, 3 samples side by side: compiling or loading" in said and "3/3" in said
    assert compile_cache.last_seconds("DDS (8, 8, 1), 3 samples") == 7.0
    assert compile_cache.last_seconds("DDS (8, 8, 1)") is None  # of another program
    with trial_progress("DDS", OutputOptions(), of=(8, 8, 1)) as made:
        spent[0] = compile_cache.Spent(14.0, 2)
        made(None, None)
        made(None, None)
    said = capsys.readouterr().err
    assert "DDS, trials of --auto: compiling or loading" in said and "2trial" in said
    assert compile_cache.last_seconds("DDS (8, 8, 1), --auto") == 2.0
    with solver_progress(6, "DDS", OutputOptions(), of=(8, 8, 1), samples=3):
        pass
    assert "compiling or loading, 7 s when it last compiled" in capsys.readouterr().err
