"""Tab shows what a user may call, and nothing else."""

import importlib
import pkgutil
import types

import pytest

import mlp_jax

MODULES = [info.name for info in pkgutil.iter_modules(mlp_jax.__path__) if not info.name.startswith("_")]


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_shows_its_own_names_only(name):
    module = importlib.import_module(f"mlp_jax.{name}")
    shown = [shown for shown in dir(module) if not shown.startswith("_")]
    assert shown == sorted(module.__all__)
    for public in shown:
        value = getattr(module, public)
        assert not isinstance(value, types.ModuleType)
        assert getattr(value, "__module__", "mlp_jax").startswith("mlp_jax"), public


def test_the_package_shows_its_modules():
    assert [name for name in dir(mlp_jax) if not name.startswith("_")] == sorted(MODULES)
