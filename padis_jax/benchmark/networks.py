"""The trained networks at hand, by what they are for; a method asks for one and says what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from padis_jax.baselines.file import CNN, SUPERVISED, Baseline, load_baseline
from padis_jax.errors import UserError
from padis_jax.problems.registry import PROBLEMS
from padis_jax.runs.config import DEFAULT_WEIGHTS
from padis_jax.weights import Weights, file_hash, load_weights

FLAGS = {
    ("patch", 1): "--weights",
    ("patch", 3): "--weights-rgb",
    ("whole", 1): "--weights-whole",
    ("whole", 3): "--weights-whole-rgb",
    ("cnn", 1): "--cnn",
    ("cnn", 3): "--cnn-rgb",
}


class Trained(NamedTuple):
    """A network from a file.

    Attributes:
      path: the file.
      digest: its SHA-256.
      content: Weights (patch, whole), or a Baseline (cnn, supervised).
    """

    path: str
    digest: str
    content: Any


@dataclasses.dataclass(frozen=True)
class Networks:
    """What is at hand.

    Attributes:
      by_kind: (kind, channels) -> network, for the kinds of `FLAGS`.
      supervised: problem -> network.
    """

    by_kind: Mapping[tuple[str, int], Trained] = dataclasses.field(default_factory=dict)
    supervised: Mapping[str, Trained] = dataclasses.field(default_factory=dict)

    def find(self, kind: str, channels: int, problem: str) -> Trained | None:
        """The network of that kind for images of that many channels and that problem, if there is one."""
        return self.supervised.get(problem) if kind == "supervised" else self.by_kind.get((kind, channels))


def load_networks(files: Mapping[tuple[str, int], str]) -> Networks:
    """Reads the files; a missing default is no error, a missing file that was named is one.

    Args:
      files: (kind, channels) -> path, or "" where there is none.

    Raises:
      UserError: for a file that cannot be read, or holds another kind of network.
    """
    found = {}
    for (kind, channels), path in files.items():
        if path and not (path == DEFAULT_WEIGHTS and not Path(path).exists()):
            content = load_baseline(path, CNN) if kind == "cnn" else load_weights(path)
            _check(FLAGS[kind, channels], path, content, kind, channels)
            digest = content.digest if isinstance(content, Weights) else file_hash(path)
            found[kind, channels] = Trained(path, digest, content)
    return Networks(found)


def with_supervised(networks: Networks, paths: Sequence[str]) -> Networks:
    """The same with files of studies.supervised.

    Args:
      networks: the others.
      paths: the files.

    Raises:
      UserError: for a file that cannot be read, or a network that was trained for none of the problems as they are now.
    """
    trained: dict[str, Trained] = {}
    for path in paths:
        baseline = load_baseline(path, SUPERVISED)
        problem = _trained_for(path, baseline)
        if problem in trained:
            raise UserError(f"--supervised {path}: {trained[problem].path} is for {problem} already: name one of them")
        trained[problem] = Trained(path, file_hash(path), baseline)
    return dataclasses.replace(networks, supervised=trained)


def _check(flag: str, path: str, content: Weights | Baseline[Any], kind: str, channels: int) -> None:
    config = content.network if isinstance(content, Weights) else content.config
    if config.image_channels != channels:
        raise UserError(f"{flag} {path}: trained on images of {config.image_channels} channels, not {channels}")
    if isinstance(content, Weights) and (content.frame.patch == 0) != (kind == "whole"):
        found, other = ("the whole-image model", "patch prior") if kind == "patch" else ("a patch prior", "whole image")
        raise UserError(f"{flag} {path}: holds {found}, but this flag is for the {other}")


def _trained_for(path: str, baseline: Baseline[Any]) -> str:
    """The problem whose measurements the network was trained on."""
    about = baseline.about
    name = about.get("problem")
    problem = PROBLEMS.get(name) if isinstance(name, str) else None
    if problem is None:
        raise UserError(
            f"--supervised {path}: trained for {about.get('scan') or 'an unknown scan'}, which is not a named problem; "
            "train with --problem NAME"
        )
    noise = {"sigma": problem.sigma, **({"protocol": "paper"} if problem.tomography else {})}
    for field, wanted in {"definition": problem.definition, **noise}.items():
        if about.get(field) != wanted:
            more = " --scan.protocol paper" if problem.tomography else ""
            raise UserError(
                f"--supervised {path}: trained for {name} with {field} {about.get(field)}, which is {wanted} in the "
                f"table; train with --problem {name}{more}, and without --noise"
            )
    return str(name)
