"""The progress bar of a solver, which counts the steps even where nothing is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from padis_jax.cli.arguments import OutputOptions


class Progress:
    """To be called by a solver with (steps done, steps in all, info); `done` of `total` steps are behind it."""

    def __init__(self, bar: tqdm, total: int) -> None:
        self.done, self.total, self._bar = 0, total, bar

    def __call__(self, done: int, total: int, info: Any) -> None:
        """Moves the bar."""
        self._bar.update(done - self.done)
        self._bar.set_postfix(residual=f"{float(info.residual):.4f}")
        self.done = done


@contextlib.contextmanager
def solver_progress(steps: int, name: str, output: OutputOptions) -> Iterator[Progress]:
    """A Progress whose bar is on stderr, unless the program is to be quiet or read by machines."""
    with tqdm(total=steps, desc=name, unit="step", disable=output.silent) as bar:
        yield Progress(bar, steps)
