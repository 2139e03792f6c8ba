"""A method is its file and one row: a toy method added here runs everywhere; flags are those of the chosen method."""

import dataclasses
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NETWORK, random_params, refused, write_weights

from padis_jax import patch_prior, reconstruct
from padis_jax.benchmark.__main__ import main as benchmark
from padis_jax.benchmark.methods import METHODS as BENCHMARK
from padis_jax.cli.sample import main as sample
from padis_jax.errors import UserError
from padis_jax.operators import from_functions
from padis_jax.patches import frame_for
from padis_jax.runs.config import Experiment
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.solvers import presets
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.dps import DPS
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.registry import METHODS, Method, name_of
from padis_jax.solvers.samples import draw_samples


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Toy:
    """Settings.

    Attributes:
      pull: share of D in the next state.
    """

    pull: float = 1.0


def toy_step(settings, problem, key, x, noise):
    denoised = problem.denoise(key, x, noise.sigma)
    residual = problem.measurement - problem.forward(problem.frame.crop(denoised))
    return x + settings.pull * (denoised - x), problem.fit(residual)


@pytest.fixture
def toy(monkeypatch):
    assert "toy" not in BENCHMARK  # so that a table that is made once would be found out
    monkeypatch.setitem(METHODS, "toy", Method(Toy, toy_step, 1.0, "Toy", "goes to D"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_weights(folder / "w.safetensors")
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    np.save(folder / "images.npy", np.float32(np.hypot(x, y) < 0.7)[None])
    return folder


def problem():
    """Half of every pixel, and a prior."""
    frame = frame_for((16, 16), 8)
    half = from_functions(lambda x: x / 2, image_shape=(16, 16, 1))
    return jnp.full((16, 16, 1), 0.2), half, patch_prior(NETWORK, random_params(), frame)


def test_a_toy_method_runs_from_python(toy):
    images = [reconstruct(0, *problem(), solver=solver, levels=2).image for solver in ("toy", Toy(), Toy(pull=0.5))]
    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[2] - images[1]).max() > 1e-3 and name_of(Toy()) == "toy"


def test_a_toy_method_runs_from_the_command_line_with_its_flags(toy, folder, tmp_path, capsys):
    args = ["--weights", str(folder / "w.safetensors"), "--image.path", str(folder / "images.npy"), "--problem", "sr2"]
    args += ["--tv.iterations", "5", "--solver.levels", "2", "--solver.average", "1", "--workdir", str(tmp_path)]
    sample(["--solver.pull", "0.25", *args, "--solver", "toy", "--json"])
    assert [row["method"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["nearest", "TV", "Toy"]
    about = json.loads((tmp_path / "config.json").read_text())["experiment"]["solver"]
    assert about["method"] == "toy" and about["settings"] == {"pull": 0.25} and about["levels"] == 2
    line = refused(sample, [*args, "--solver", "toy", "--solver.zeta", "1"], capsys)
    assert "--solver.zeta: toy has no such setting (a setting of dps, langevin, diffpir, predictor_corrector)" in line
    assert "pull" in line


def test_a_toy_method_runs_in_the_benchmark_and_stands_in_the_tables(toy, folder, tmp_path, capsys):
    files = ["--weights", str(folder / "w.safetensors"), "--ct", str(folder / "images.npy"), "--out", str(tmp_path)]
    benchmark(["--only", "sr2/toy", "--restore", "ct", *files, "--evaluations", "2", "--quiet"])
    text = (tmp_path / "results_only.md").read_text()
    assert "| toy |" in text and "`toy`: Toy with the patch prior" in text
    assert "| `toy` | counts, ct, few, small, noise | its own defaults | 50 | 0.2, 0.003 | tv |" in presets.markdown()


def test_a_name_or_an_object_chooses_the_method():
    arguments = problem()
    named = reconstruct(0, *arguments, solver="pnp_red", levels=2)
    given = reconstruct(0, *arguments, solver=PlugAndPlay(method="red"), levels=2)
    np.testing.assert_array_equal(named.image, given.image)
    assert named.evaluations == 2 and named.residual.shape == named.sigmas.shape == (2,)
    other = reconstruct(0, *arguments, solver=PlugAndPlay(), levels=2)
    assert np.abs(other.image - given.image).max() > 1e-5
    with pytest.raises(ValueError, match="solver is a dict: give a name"):
        reconstruct(0, *arguments, solver={}, levels=2)
    with pytest.raises(ValueError, match="average is 2, but runs of PnP-ADMM differ in their tilings only"):
        reconstruct(0, *arguments, solver="pnp_admm", levels=2, average=2)
    with pytest.raises(ValueError, match="runs of RED-diff each fit the mean of the posterior and draw no sample"):
        reconstruct(0, *arguments, solver="red_diff", levels=2, average=2)
    with pytest.raises(ValueError, match="runs of RED-diff each fit the mean"):
        draw_samples(0, *arguments, 2, solver="red_diff", levels=2)
    with pytest.raises(ValueError, match="--solver red_diff: its runs each fit the mean of the posterior"):
        Experiment(solver=SolverConfig("red_diff", average=2))


def test_settings_as_a_second_argument_work_for_one_release():
    arguments = problem()
    with pytest.warns(FutureWarning, match=r"give solver=DDS\(\.\.\.\)"):
        old = reconstruct(0, *arguments, solver="dds", settings=DDS(cg_steps=2), levels=2)
    new = reconstruct(0, *arguments, solver=DDS(cg_steps=2), levels=2)
    np.testing.assert_array_equal(old.image, new.image)
    with pytest.raises(ValueError, match="settings are DPS but solver is 'dds'"):
        reconstruct(0, *arguments, solver="dds", settings=DPS(), levels=2)


def test_an_int_is_the_key_of_that_seed():
    arguments = problem()
    first, second = (reconstruct(0, *arguments, levels=2).image for key in (7, jax.random.key(7)))
    np.testing.assert_array_equal(first, second)


def test_older_spellings_work_for_one_release(capsys):
    assert SolverConfig(name="dps", zeta=1.7) == SolverConfig("dps", zeta=1.7)
    assert SolverConfig("dds", churn=0.5) == SolverConfig("dds", eta=0.5)
    assert SolverConfig("ddnm", pinv_steps=3) == SolverConfig("ddnm", cg_steps=3)
    assert SolverConfig("pnp_admm", pnp_weight=0.1, pnp_sigma=0.2) == SolverConfig("pnp_admm", weight=0.1, sigma=0.2)
    notes = capsys.readouterr().err
    assert 'SolverConfig(name="dps") is now SolverConfig("dps")' in notes and "churn=...) is now" in notes
    from padis_jax.cli.solver_flags import parse_experiment
    from padis_jax.runs.config import Experiment

    old = ["--solver.name", "pnp_red", "--solver.pnp-weight=0.5"]
    found = parse_experiment(old, default=Experiment(), prog="p", description="").solver
    assert found == SolverConfig("pnp_red", weight=0.5)
    notes = capsys.readouterr().err.splitlines()
    assert notes == ["note: --solver.name is now --solver", "note: --solver.pnp-weight is now --solver.weight"]


def test_all_fields_of_every_method_can_be_reached():
    from padis_jax.cli.solver_flags import parse_experiment
    from padis_jax.runs.config import Experiment

    for name, row in METHODS.items():
        for field in row.fields:
            own = getattr(row.make(), field)
            flag, value = f"--solver.{field.replace('_', '-')}", None
            if isinstance(own, bool):
                words, value = [f"--solver.{'no-' if own else ''}{field.replace('_', '-')}"], not own
            elif isinstance(own, str):
                continue  # the choices of the types below
            else:
                value = 2 if isinstance(own, int) else {"low": -2.0, "high": 2.0}.get(field, 0.5)
                words = [flag, str(value)]
            config = parse_experiment(["--solver", name, *words], default=Experiment(), prog="p", description="")
            assert config.solver.settings == {field: value}, (name, field)
    for method, field, value in (
        ("dps", "step_form", "authors"),
        ("ddnm", "prior_step", "langevin"),
        ("daps", "sampler", "langevin"),
        ("predictor_corrector", "corrector", "paper"),
        ("predictor_corrector", "predictor", "reverse_diffusion"),
    ):
        words = ["--solver", method, f"--solver.{field.replace('_', '-')}", value]
        config = parse_experiment(words, default=Experiment(), prog="p", description="")
        assert config.solver.settings == {field: value}


def test_a_renamed_field_of_a_settings_class_works_with_a_line_that_says_the_new_name():
    with pytest.warns(FutureWarning, match=r"^DDS\(churn=...\) is now DDS\(eta=...\)$") as said:
        old = DDS(churn=0.5)
    assert old == DDS(eta=0.5) and said[0].filename == __file__
    with pytest.warns(FutureWarning, match=r"^DDS.churn is now DDS.eta$"):
        assert old.churn == 0.5
    with pytest.raises(UserError, match="DDS: churn is eta now: leave churn out"):
        DDS(churn=0.5, eta=0.5)
    assert "churn" not in inspect.signature(DDS).parameters and "churn" not in dataclasses.asdict(DDS())
