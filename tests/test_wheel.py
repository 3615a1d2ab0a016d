"""The wheel holds the package alone, with its types and licence, and works without any extra."""

import pathlib
import subprocess
import sys
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
VERDICT = """
import jax.numpy as jnp
from mlp_jax import critical
print(critical.classify(lambda x: x[0] ** 2 - x[1] ** 2, jnp.zeros(2)).kind)
"""


def run(*command, **settings):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_package_with_its_types_and_licence_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"mlp_jax", "mlp_jax-0.2.0.dist-info"}
    assert "mlp_jax/py.typed" in names
    assert "mlp_jax-0.2.0.dist-info/licenses/LICENSE" in names


@pytest.mark.slow
def test_the_wheel_classifies_a_point_in_a_fresh_environment_without_extras(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    assert run(python, "-c", VERDICT, cwd=tmp_path) == "saddle\n"
