"""One run at a time in a folder, on the disk or in a bucket: lock.json, with host, process, begin and a heartbeat.

TensorStore writes the file only if its generation is still the one that was read, in buckets as on disks, so of two
runs that begin together one gets the lock. A lock whose process is gone from this host, or that has had no heartbeat
for `STALE` seconds, is taken over. A run that was suspended for so long finds out before it writes (`Lock.check`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from padis_jax.devices.mesh import is_leader
from padis_jax.errors import UserError, reason
from padis_jax.files import check_file, in_bucket, resolved

NAME = "lock.json"
BEAT, STALE = 30.0, 300.0  # seconds
_ANSWER = 60.0  # seconds within which a store has to answer
_HELD: set[str] = set()  # by this process


class Lock:
    """The lock of a folder, held by this process; see `locked`."""

    def __init__(self, folder: str | Path) -> None:
        import tensorstore  # takes most of a second, and a dry run needs none

        self.folder = folder
        path = os.path.join(folder, NAME)
        check_file(path)
        store = path if in_bucket(folder) else {"driver": "file", "path": str(resolved(folder) / NAME)}
        self._guard, self._done, self._token = threading.Lock(), threading.Event(), secrets.token_hex(8)
        host, place, begun = _this_host()
        self._content = {"host": host, "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S"), "place": place}
        self._content |= {"begun": begun, "token": self._token}
        with self._asking():
            self._store = tensorstore.KvStore.open(store).result(timeout=_ANSWER)
            self._generation = self._acquire()
        _HELD.add(self._token)
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._beats.start()

    def check(self) -> None:
        """To be called before something is written that another run must not find.

        Raises:
          UserError: if another run has taken the lock over.
        """
        with self._guard, self._asking():
            found = self._read()
        if found.stamp.generation != self._generation and _holder(found.value).get("token") != self._token:
            raise UserError(
                f"{self.folder}: {_named(_holder(found.value))} has taken over this folder, since this run gave no "
                f"sign of life for {STALE / 60:.0f} minutes; this one ends without writing"
            )

    def release(self) -> None:
        """Removes the lock, if it is still this run's."""
        self._done.set()
        self._beats.join()
        with contextlib.suppress(Exception):  # a disk that has gone by now
            self._write(None)
        _HELD.discard(self._token)

    def _acquire(self) -> bytes:
        found = self._read()
        if found.state == "value":
            holder = _holder(found.value)
            if not holder:
                raise UserError(
                    f"{self.folder}/{NAME}: is no lock of this program; move it, or choose another --workdir"
                )
            silent = abs(time.time() - holder["beat"])  # a clock that was ahead must not lock a folder for ever
            if silent < STALE and not _gone(holder):
                raise UserError(
                    f"{self.folder}: in use by another run ({_named(holder)}, last sign of life {silent:.0f} s ago); "
                    "wait for its end, or choose another --workdir"
                )
            print(
                f"note: {self.folder}: the lock of {_named(holder)}, which is gone or silent, is taken over",
                file=sys.stderr,
            )
        taken: bytes = self._put(self._now(), found.stamp.generation)
        if not taken:
            raise UserError(f"{self.folder}: another run begins there at this moment; choose another --workdir")
        return taken

    def _now(self) -> bytes:
        return json.dumps(self._content | {"beat": time.time()}).encode()

    def _read(self) -> Any:
        return self._store.read("").result(timeout=_ANSWER)

    def _put(self, value: bytes | None, generation: bytes) -> bytes:
        """The new generation; empty if the lock had another than `generation`."""
        written: bytes = self._store.write("", value, if_equal=generation).result(timeout=_ANSWER).generation
        return written

    def _write(self, value: bytes | None) -> None:
        with self._guard:
            if written := self._put(value, self._generation):
                self._generation = written
            elif _holder((found := self._read()).value).get("token") == self._token:  # touched, but not taken
                self._generation = found.stamp.generation

    def _beat(self) -> None:
        while not self._done.wait(BEAT):
            with contextlib.suppress(Exception):  # a full disk may have room by the next time
                self._write(self._now())

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # whatever a store raises, time limits included
            raise UserError(
                f"{self.folder}: {NAME}, which keeps a second run away, cannot be written ({reason(error)}); make room "
                "or choose another --workdir, or if no other run uses it, add --no-lock"
            ) from error


@contextlib.contextmanager
def locked(folder: str | Path, *, lock: bool = True) -> Iterator[Lock | None]:
    """Keeps other runs out of `folder` for the length of the block.

    Of several processes the first holds the lock, and None is given to the others. All must call this together.

    Args:
      folder: need not exist.
      lock: False keeps nobody out.

    Raises:
      UserError: if another run is at work there, or the lock cannot be written.
    """
    held, refused = None, ""
    if lock and is_leader():
        try:
            held = Lock(folder)
        except UserError as error:
            refused = str(error)
    if lock and jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.asarray(bool(refused))):
        refused = refused or f"{folder}: process 0 says why this run cannot begin"
    if refused:
        raise UserError(refused)
    try:
        yield held
    finally:
        if held is not None:
            held.release()


def _holder(value: bytes) -> dict[str, Any]:
    """What a lock says; empty if it is none."""
    try:
        found = json.loads(value)
        texts = (found[name] for name in ("host", "since", "place", "begun", "token"))
        right = all(isinstance(text, str) for text in texts) and isinstance(found["pid"], int)
        return found if right and isinstance(found["beat"], (int, float)) else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}, begun {holder['since']}" if holder else "another run"


def _gone(holder: dict[str, Any]) -> bool:
    """Whether the process has ended for certain: only a process of this host, and not of another container, is seen."""
    host, place, _ = _this_host()
    if (holder["host"], holder["place"]) != (host, place) or holder["token"] in _HELD:
        return False
    begun = _begun(holder["pid"])
    return holder["pid"] == os.getpid() or begun is None or begun != holder["begun"]


def _this_host() -> tuple[str, str, str]:
    """(its name, the space that its process numbers belong to, when this process began)."""
    try:
        place = os.readlink("/proc/self/ns/pid")
    except OSError:
        place = ""
    return socket.gethostname(), place, _begun(os.getpid()) or ""


def _begun(pid: int) -> str | None:
    """When a process began, since numbers are used again; "" if the system does not tell; None if it has ended."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:  # it is there, and another user's
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if fields[0] in "ZX" else fields[19]  # it has ended, and its parent has not looked yet
