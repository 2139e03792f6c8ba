"""The progress bar of a solver, which counts the steps even where nothing is shown.

Until the first steps are done it says that the program is being compiled, or loaded where an earlier run has kept it,
and how long compiling took when it last had to be; its forecast does not count that time.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from padis_jax.cli.arguments import OutputOptions
from padis_jax.devices import compile_cache


class _Compilation:
    """Takes the time that compiling takes out of a bar's, and shows its name instead of `_waiting`."""

    def __init__(self, bar: tqdm, name: str, what: str) -> None:
        self._bar, self._name, self._what = bar, name, what
        self._before, self._first = compile_cache.spent(), True

    def passed(self) -> None:
        """Whatever has been compiled since the last call; after the first the bar counts."""
        spent, before = compile_cache.spent(), self._before
        seconds, self._before = spent.seconds - before.seconds, spent
        if self._first and spent.loaded == before.loaded:
            compile_cache.remember(self._what, seconds)
        if not self._bar.disable:
            if self._first:
                self._bar.set_description(self._name, refresh=False)
            self._bar.start_t += seconds
            self._bar.last_print_t += seconds
        self._first = False


class Progress:
    """To be called by a solver with (steps done, steps in all, info); `done` of `total` steps are behind it.

    `what` is compiled, and known by that at the next start.
    """

    def __init__(self, bar: tqdm, total: int, name: str, what: str = "") -> None:
        self.done, self.total, self._bar = 0, total, bar
        self._compilation = _Compilation(bar, name, what or name)

    def __call__(self, done: int, total: int, info: Any) -> None:
        """Moves the bar."""
        if not self.done:
            self.compiled()
        self._bar.update(done - self.done)
        if hasattr(info, "residual"):
            self._bar.set_postfix(residual=f"{float(info.residual):.4f}")
        self.done = done

    def compiled(self) -> None:
        """Everything is: from here on the bar counts."""
        self._compilation.passed()


@contextlib.contextmanager
def solver_progress(
    steps: int, name: str, output: OutputOptions, *, of: object = "", samples: int = 0
) -> Iterator[Progress]:
    """A Progress whose bar is on stderr, unless the program is to be quiet or read by machines.

    Args:
      steps: of the solver.
      name: of the solver.
      output: how the program speaks.
      of: what else decides what is compiled, such as the shape of the image.
      samples: side by side in one program, whose steps cannot be counted: the bar is of samples, and ends with all.
    """
    what = f"{name} {of}, {samples} samples" if samples else f"{name} {of}"
    side = f"{name}, {samples} samples side by side" if samples else name
    unit = "sample" if samples else "step"
    with tqdm(total=samples or steps, desc=_waiting(side, what), unit=unit, disable=output.silent) as bar:
        progress = Progress(bar, steps, side, what)
        yield progress
        if samples:
            progress.compiled()
            bar.update(samples)


@contextlib.contextmanager
def trial_progress(name: str, output: OutputOptions, *, of: object = "") -> Iterator[Callable[..., None]]:
    """What `auto.choose` calls with each trial: a bar of those that were made, whose number it does not know."""
    what = f"{name} {of}, --auto"
    with tqdm(desc=_waiting(f"{name}, trials of --auto", what), unit="trial", disable=output.silent) as bar:
        progress = Progress(bar, 0, f"{name}, trials of --auto", what)

        def made(trial: object, image: object) -> None:
            if not bar.n:
                progress.compiled()
            bar.update()

        yield made


def _waiting(name: str, what: str) -> str:
    """The bar's words until it counts."""
    last = compile_cache.last_seconds(what)
    return f"{name}: compiling or loading" + (f", {last:.0f} s when it last compiled" if last is not None else "")


class SliceProgress:
    """A bar over the slices of a volume, with the time left; what is compiled for the first of them does not count."""

    def __init__(self, bar: tqdm, name: str, what: str) -> None:
        self._bar, self._compilation = bar, _Compilation(bar, name, what)

    def kept(self, count: int) -> None:
        """Of slices that are done from before."""
        self._bar.initial = self._bar.n = self._bar.last_print_n = count
        self._bar.refresh()

    def line(self, record: dict[str, Any]) -> None:
        """Moves the bar by a slice: a line of the manifest."""
        self._compilation.passed()
        if not self._bar.disable:
            if record["status"] == "failed":
                self._bar.write(f"{record['item']}: failed: {record['reason']}", file=sys.stderr)
            else:
                shown = record["rows"][-1]
                score = {name: f"{shown[name]:.4g}" for name in ("psnr", "residual") if shown.get(name) is not None}
                self._bar.set_postfix(slice=record["slice"], **score, refresh=False)
        self._bar.update()


@contextlib.contextmanager
def slice_progress(slices: int, name: str, output: OutputOptions, *, of: object = "") -> Iterator[SliceProgress]:
    """A SliceProgress whose bar is on stderr, unless the program is to be quiet or read by machines.

    Args:
      slices: of the volume.
      name: of the solver.
      output: how the program speaks.
      of: what else decides what is compiled.
    """
    what, quiet = f"{name} {of}, slices", output.silent
    with tqdm(total=slices, desc=_waiting(name, what), unit="slice", smoothing=0, mininterval=0, disable=quiet) as bar:
        yield SliceProgress(bar, name, what)
