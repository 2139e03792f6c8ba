"""The progress bar of a solver, which counts the steps even where nothing is shown.

Until the first steps are done it says that the program is being compiled, and how long that took when it last had to
be; its forecast does not count that time.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from padis_jax.cli.arguments import OutputOptions
from padis_jax.devices import compile_cache


class Progress:
    """To be called by a solver with (steps done, steps in all, info); `done` of `total` steps are behind it."""

    def __init__(self, bar: tqdm, total: int, name: str) -> None:
        self.done, self.total, self._bar, self._name = 0, total, bar, name
        self._before = compile_cache.spent()

    def __call__(self, done: int, total: int, info: Any) -> None:
        """Moves the bar."""
        if not self.done:
            self._compiled()
        self._bar.update(done - self.done)
        self._bar.set_postfix(residual=f"{float(info.residual):.4f}")
        self.done = done

    def _compiled(self) -> None:
        spent = compile_cache.spent()
        seconds = spent.seconds - self._before.seconds
        if spent.loaded == self._before.loaded:
            compile_cache.remember(self._name, seconds)
        if not self._bar.disable:
            self._bar.set_description(self._name, refresh=False)
            self._bar.start_t += seconds
            self._bar.last_print_t += seconds


@contextlib.contextmanager
def solver_progress(steps: int, name: str, output: OutputOptions) -> Iterator[Progress]:
    """A Progress whose bar is on stderr, unless the program is to be quiet or read by machines."""
    last = compile_cache.last_seconds(name)
    what = f"{name}: compiling" + (f", {last:.0f} s when it last had to" if last is not None else "")
    with tqdm(total=steps, desc=what, unit="step", disable=output.silent) as bar:
        yield Progress(bar, steps, name)


class SliceProgress:
    """A bar over the slices of a volume, with the time left; what is compiled for the first of them does not count."""

    def __init__(self, bar: tqdm, name: str) -> None:
        self._bar, self._name = bar, name
        self._before = compile_cache.spent()

    def kept(self, count: int) -> None:
        """Of slices that are done from before."""
        self._bar.initial = self._bar.n = self._bar.last_print_n = count
        self._bar.refresh()

    def line(self, record: dict[str, Any]) -> None:
        """Moves the bar by a slice: a line of the manifest."""
        if not self._bar.disable:
            spent = compile_cache.spent()
            seconds, self._before = spent.seconds - self._before.seconds, spent
            self._bar.start_t += seconds
            self._bar.last_print_t += seconds
            if record["status"] == "failed":
                self._bar.write(f"{record['item']}: failed: {record['reason']}", file=sys.stderr)
            else:
                shown = record["rows"][-1]
                score = {name: f"{shown[name]:.4g}" for name in ("psnr", "residual") if shown.get(name) is not None}
                self._bar.set_postfix(slice=record["slice"], **score, refresh=False)
        self._bar.update()


@contextlib.contextmanager
def slice_progress(slices: int, name: str, output: OutputOptions) -> Iterator[SliceProgress]:
    """A SliceProgress whose bar is on stderr, unless the program is to be quiet or read by machines."""
    with tqdm(total=slices, desc=name, unit="slice", smoothing=0, mininterval=0, disable=output.silent) as bar:
        yield SliceProgress(bar, name)
