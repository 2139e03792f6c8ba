"""Settings: through JSON and back, and one clear line for what is unknown, mistyped or out of range."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from padis_jax.config import Config, DataConfig, OptimiserConfig, RunConfig, load_config_file
from padis_jax.errors import UserError
from padis_jax.experiment import Experiment, ImageConfig, ScanConfig, SolverConfig, TVConfig
from padis_jax.fields import check_fields
from padis_jax.serialization import from_json

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_configs_survive_json(path):
    kind = Experiment if "Experiment(" in path.read_text() else Config
    config = load_config_file(path, kind)
    again = from_json(kind, json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config and hash(again) == hash(config)  # a static argument of the training step
    assert f"--config configs/{path.name}" in path.read_text()  # its docstring gives the command


def test_an_experiment_survives_json():
    experiment = Experiment(image=ImageConfig("a.npy", 3), scan=ScanConfig(views=7, protocol="paper"), seed=9)
    assert from_json(Experiment, json.loads(json.dumps(dataclasses.asdict(experiment)))) == experiment


def test_absent_fields_take_their_defaults_and_integers_pass_for_floats():
    config = from_json(Config, {"optimiser": {"learning_rate": 1}, "data": {"low": None, "test": [1, 2]}})
    assert config.run == RunConfig()
    assert config.optimiser.learning_rate == 1.0 and isinstance(config.optimiser.learning_rate, float)
    assert config.data.test == (1, 2) and config.data.low is None


@pytest.mark.parametrize(
    "value, message",
    [
        ({"runn": {}}, "config: unknown field 'runn'; known fields: data, network, noise, optimiser, patches, run"),
        ({"run": {"stepz": 3}}, "config.run: unknown field 'stepz'; known fields: checkpoint_every"),
        ({"run": 3}, "config.run: expected fields, got int"),
        ([1], "config: expected fields, got list"),
        (None, "config: expected fields, got NoneType"),
        ({"run": {"steps": "3"}}, "config.run.steps is '3': expected int"),
        ({"run": {"steps": 3.5}}, "config.run.steps is 3.5: expected int"),
        ({"run": {"steps": True}}, "config.run.steps is True: expected int"),
        ({"run": {"tensorboard": 1}}, "config.run.tensorboard is 1: expected bool"),
        ({"run": {"steps": 0}}, "run.steps is 0"),
        ({"data": {"path": 7}}, "config.data.path is 7: expected str"),
        ({"data": {"low": "air", "high": 1.0}}, "config.data.low is 'air': expected float"),
        ({"data": {"test": 3}}, "config.data.test is 3: expected a list"),
        ({"data": {"test": [1, "2"]}}, r"config.data.test\[1\] is '2': expected int"),
        ({"network": {"dtype": "int3"}}, "config.network.dtype is 'int3': use one of"),
        ({"network": {"dropout": -1.0}}, "config.network: network.dropout is -1.0"),
        ({"optimiser": {"learning_rate": float("nan")}}, "optimiser.learning_rate is nan: it must be a finite number"),
        ({"data": None}, "config.data: expected fields, got NoneType"),
        ({"patches": {"sizes": [10, 32, 56]}}, "a patch of 10 pixels does not suit 4 levels"),
    ],
)
def test_what_does_not_fit_is_named(value, message):
    with pytest.raises(UserError, match=message) as refused:
        from_json(Config, value)
    assert "\n" not in str(refused.value)


def test_fixed_numbers_of_entries_are_checked():
    with pytest.raises(UserError, match="has 3 entries: expected 2"):
        from_json(_Pair, {"sides": [1, 2, 3]})


@dataclasses.dataclass(frozen=True)
class _Pair:
    sides: tuple[int, int] = (0, 0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DataConfig(low=1.0), "data.low and data.high belong together"),
        (lambda: DataConfig(limit=-1), "data.limit is -1"),
        (lambda: OptimiserConfig(learning_rate=0.0), "optimiser.learning_rate is 0.0"),
        (lambda: OptimiserConfig(learning_rate=float("nan")), "optimiser.learning_rate is nan"),
        (lambda: OptimiserConfig(ema_half_life=float("inf")), "optimiser.ema_half_life is inf"),
        (lambda: OptimiserConfig(clip_norm=-1.0), "must not be negative"),
        (lambda: OptimiserConfig(final_fraction=1.5), r"final_fraction in \[0, 1\]"),
        (lambda: RunConfig(keep=0), "run.keep is 0"),
        (lambda: RunConfig(seed=-1), "run.seed is -1"),
        (lambda: ScanConfig(views=0), "views is 0"),
        (lambda: ScanConfig(protocol="papers"), "scan.protocol is 'papers': use one of honest, paper"),
        (lambda: ScanConfig(photons=0.0), "photons is 0"),
        (lambda: TVConfig(weight=-1.0), "tv.weight is -1"),
        (lambda: TVConfig(iterations=0), "iterations is 0"),
        (lambda: Experiment(tilings=0), "tilings is 0"),
        (lambda: Experiment(patch_batch=-1), "patch_batch is -1"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


KINDS = (Config, *(f.default_factory for f in dataclasses.fields(Config)), Experiment)
KINDS += tuple(type(value) for value in vars(Experiment()).values() if dataclasses.is_dataclass(value))
WRONG = ("4", True, None, 2.5, math.nan, math.inf, [1], {"a": 1}, 3, b"x", [1, 2, "x"], [None], object(), TVConfig)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_value_of_another_type_passes_a_constructor(kind):
    """The refusal names the field; what is accepted is of its type, and can be hashed."""
    accepted = {}
    for field in dataclasses.fields(kind):
        for value in WRONG:
            try:
                made = kind(**{field.name: value})
            except ValueError as error:
                named = field.name in str(error).replace("-", "_") or kind is SolverConfig
                assert named and "\n" not in str(error), (field.name, value, str(error))
            else:
                check_fields(made)
                hash(made)
                accepted.setdefault(field.name, []).append(value)
    assert not [name for name, values in accepted.items() if len(values) > len(WRONG) // 2], accepted


def test_a_nested_config_must_be_one():
    for value in (3, "x", [1], None, ScanConfig(), TVConfig):
        with pytest.raises(UserError, match="^tv is .*: it must be a TVConfig$"):
            Experiment(tv=value)
    with pytest.raises(UserError, match="^run is 3: it must be a RunConfig$"):
        Config(run=3)


def test_a_choice_of_types_survives_json():
    changed = Experiment(image=ImageConfig(index="60:70"), patch_batch="auto")
    again = json.loads(json.dumps({"image": dataclasses.asdict(changed.image), "patch_batch": "auto"}))
    assert from_json(Experiment, again) == changed
    with pytest.raises(UserError, match="config.patch_batch is 'all': expected int"):
        from_json(Experiment, {"patch_batch": "all"})


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no such Python file; configs/ has examples"),
        ("config = (", "SyntaxError"),
        ("import no_such_module_of_ours", "ModuleNotFoundError: No module named 'no_such_module_of_ours'"),
        ("from padis_jax.config import Config\nConfig(runn=3)", "TypeError.*runn"),
        ("from padis_jax.config import *\nconfig = Config(run=RunConfig(steps=0))", "run.steps is 0"),
        ("", "must define `config`, a padis_jax.config.Config"),
        ("config = {'steps': 3}", "must define `config`"),
        ("from padis_jax.experiment import Experiment\nconfig = Experiment()", "must define `config`"),
        ("import sys\nsys.exit('stop')", "SystemExit: stop"),
    ],
)
def test_config_files_that_do_not_work(tmp_path, text, message):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as refused:
        load_config_file(path, Config)
    assert f"--config {path}: " in str(refused.value)


def test_a_config_file_must_be_python(tmp_path):
    for name in ("settings.json", "folder"):
        path = tmp_path / name
        path.mkdir() if name == "folder" else path.write_text("{}")
        with pytest.raises(UserError, match="no such Python file"):
            load_config_file(path, Config)
