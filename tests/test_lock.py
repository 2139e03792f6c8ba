"""One run at a time in a folder: who is alive keeps it, and what a dead run has left is taken over with a line."""

import json
import os
import subprocess
import sys
import time

import pytest
import tensorstore

from padis_jax import lock
from padis_jax.errors import UserError
from padis_jax.files import write_json
from padis_jax.lock import NAME, locked


def _write(folder, **changes):
    """A lock as another run left it."""
    folder.mkdir(exist_ok=True)
    host, place, _ = lock._this_host()
    holder = {"host": host, "pid": 1, "since": "2026-01-01 00:00:00", "place": place, "begun": lock._begun(1)}
    (folder / NAME).write_text(json.dumps(holder | {"token": "other", "beat": time.time()} | changes))


def test_the_second_is_kept_out_until_the_first_has_ended(tmp_path, capsys):
    with locked(tmp_path / "run") as held:
        content = json.loads((tmp_path / "run" / NAME).read_text())
        assert content["pid"] == os.getpid() and content["host"] and content["beat"]
        with (
            pytest.raises(UserError, match=f"in use by another run .process {os.getpid()} on"),
            locked(tmp_path / "run"),
        ):
            pass
        held._write(held._now())  # a heartbeat
        os.utime(tmp_path / "run" / NAME)  # another generation, but the same lock
        held.check()
        held._write(held._now())
        held.check()
    assert not list((tmp_path / "run").iterdir()) and capsys.readouterr().err == ""
    with locked(tmp_path / "run", lock=False) as held:
        assert held is None


@pytest.mark.parametrize("folder", ["..", "../run", "link/../run"])
def test_the_folder_may_be_named_by_a_way_back(tmp_path, monkeypatch, folder):
    """Back from where a link leads, not from where it lies."""
    for name in ("here", "away/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "here" / "link").symlink_to(tmp_path / "away" / "deep")
    monkeypatch.chdir(tmp_path / "here")
    where = {"..": tmp_path, "../run": tmp_path / "run"}.get(folder, tmp_path / "away" / "run")
    with locked(folder):
        write_json(f"{folder}/a.json", {})
        assert sorted(p.name for p in where.iterdir() if p.is_file()) == ["a.json", NAME]


DEAD = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True).stdout
STALE = {
    "process gone": {"pid": int(DEAD)},
    "number used again": {"begun": "1"},
    "this process's number": {"pid": os.getpid(), "begun": lock._begun(os.getpid())},
    "silent": {"host": "elsewhere", "beat": time.time() - 301},
    "silent, though its process is there": {"beat": time.time() - 301},
    "a clock that was ahead": {"host": "elsewhere", "beat": time.time() + 1e6},
}
ALIVE = {
    "process of this host": {},
    "another host": {"host": "elsewhere", "pid": int(DEAD)},
    "another container": {"place": "pid:[1]", "pid": int(DEAD)},
}


@pytest.mark.parametrize("name", STALE)
def test_a_stale_lock_is_taken_over_with_a_line(tmp_path, capsys, name):
    _write(tmp_path, **STALE[name])
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "is taken over" in errors and "begun 2026-01-01" in errors


@pytest.mark.parametrize("name", ALIVE)
def test_who_may_be_alive_keeps_the_folder(tmp_path, name):
    _write(tmp_path, **ALIVE[name])
    before = (tmp_path / NAME).read_text()
    with pytest.raises(UserError, match="in use by another run"), locked(tmp_path):
        pass
    assert (tmp_path / NAME).read_text() == before


@pytest.mark.parametrize("text", ["", "[]", "null", '{"pid": 3}', "[" * 100_000, "mine"])
def test_a_file_of_that_name_that_is_no_lock_stays(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match="is no lock of this program"), locked(tmp_path):
        pass
    assert (tmp_path / NAME).read_text() == text


def test_a_run_that_lost_its_lock_writes_no_more(tmp_path):
    """It was suspended for longer than a lock lives: the other's lock stays when it ends."""
    with locked(tmp_path) as held:
        _write(tmp_path)
        with pytest.raises(UserError, match="process 1 on .* has taken over this folder"):
            held.check()
        held._write(held._now())
    assert json.loads((tmp_path / NAME).read_text())["token"] == "other"


def test_of_two_that_begin_together_one_gets_it(tmp_path, monkeypatch):
    """The other one's lock appears between looking and writing."""
    put = lock.Lock._put
    monkeypatch.setattr(lock.Lock, "_put", lambda self, *args: (_write(tmp_path), put(self, *args))[1])
    with pytest.raises(UserError, match="another run begins there"), locked(tmp_path):
        pass
    assert json.loads((tmp_path / NAME).read_text())["token"] == "other"


def test_heartbeats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with locked(tmp_path):
        first = json.loads((tmp_path / NAME).read_text())["beat"]
        end = time.monotonic() + 5
        while json.loads((tmp_path / NAME).read_text())["beat"] == first and time.monotonic() < end:
            time.sleep(0.02)
        assert json.loads((tmp_path / NAME).read_text())["beat"] > first


def test_a_bucket_is_locked_by_generation(monkeypatch):
    """There is no bucket here: TensorStore's store in memory knows generations like one."""
    store, asked, original = tensorstore.KvStore.open("memory://").result(), [], tensorstore.KvStore.open

    class Opened:
        def __init__(self, address):
            asked.append(address)

        def result(self, timeout):
            return store / "lock.json"

    monkeypatch.setattr(tensorstore.KvStore, "open", Opened)
    with locked("gs://bucket/run") as held:
        assert asked == ["gs://bucket/run/lock.json"]
        with pytest.raises(UserError, match="in use by another run"), locked("gs://bucket/run"):
            pass
        held._write(held._now())
        held.check()
    assert store.read("lock.json").result().state == "missing"
    monkeypatch.setattr(tensorstore.KvStore, "open", original)
    with pytest.raises(UserError, match="if no other run uses it, add --no-lock"), locked("gs://"):
        pass


def test_of_several_processes_the_first_holds_the_lock_and_all_hear_of_a_refusal(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(lock.jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        lock.multihost_utils, "broadcast_one_to_all", lambda value: told.append(bool(value)) or told[-1]
    )
    with locked(tmp_path):
        with pytest.raises(UserError, match="in use by another run"), locked(tmp_path):
            pass
    assert told == [False, True]
    monkeypatch.setattr(lock, "is_leader", lambda: False)
    with locked(tmp_path / "other") as held:
        assert held is None and not (tmp_path / "other").exists()
    monkeypatch.setattr(lock.multihost_utils, "broadcast_one_to_all", lambda _: True)  # the first was refused
    with pytest.raises(UserError, match="process 0 says why"), locked(tmp_path):
        pass
