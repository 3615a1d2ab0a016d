"""Strict settings for the whole suite: float64 only where a test asks, strict promotion, a compilation cache."""

import gc
import importlib.metadata
import os
import pathlib

# Set before numpy and JAX are imported, and inherited by the processes of pytest-xdist. Tests are small and many:
# compiling them costs more than running them, and threads of two processes get in each other's way.
_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_multi_thread_eigen=false"
)
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones compile as fast without it, and refuse it
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _FLAGS)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")
jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(__file__).parent / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """Mixing dtypes by accident is an error, unless a test is marked implicit_promotion."""
    if request.node.get_closest_marker("implicit_promotion"):
        yield
    else:
        with jax.numpy_dtype_promotion("strict"):
            yield


def _memory_maps() -> int:
    """How many memory maps this process holds; 0 where the system does not say."""
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists():
        return 0
    with maps.open("rb") as lines:
        return sum(1 for _ in lines)


@pytest.fixture(autouse=True, scope="module")
def few_executables():
    """Drop compiled functions between modules once there are many.

    Each executable of XLA on a CPU holds several memory maps, and Linux allows a process 65,530 of them
    (vm.max_map_count): past that, compiling the next function ends the interpreter.
    """
    yield
    if _memory_maps() > 15_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """Float64 as the default for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def compilations():
    """A list with one entry for each program that XLA compiles."""
    names = []

    def listen(event, duration, **kwargs):
        if event.endswith("backend_compile_duration"):
            names.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(autouse=True)
def docstring_names(doctest_namespace):
    """Names that every docstring example may use without importing them."""
    doctest_namespace.update(jax=jax, jnp=jnp, np=np)
