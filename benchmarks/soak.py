"""Do memory and the number of compiled programs stay constant during half an hour of sweeps and censuses?

    python -m benchmarks.soak                   30 minutes
    python -m benchmarks.soak --minutes 2

Every round has new keys, starts, learning rates and data of the same shapes. Memory may grow during the first fifth,
while caches fill; later growth is a leak.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.classifier import batch_loss
from benchmarks.side_by_side import machine, memory_now
from mlp_jax import critical, datasets, losses, mlp, mlp_symmetry, penalties, sweep

SETTLED = 0.2


def fun(params: Any, x: Any, y: Any) -> jax.Array:
    return losses.mean(losses.squared_error(mlp.forward(params, x), y)) + penalties.l2(params, 1e-2)


digits_init = functools.partial(mlp.init, sizes=(64, 8, 10))
xor_init = functools.partial(mlp.init, sizes=(2, 2, 1))


def one_sweep(number: int, data: datasets.Dataset) -> float:
    """Train 12 lanes at rates of this round; return the mean loss at the end, in nats."""
    rates = tuple((0.1 + 0.01 * (number % 7)) * np.array([1.0, 2.0]))
    result = sweep.run(
        jax.random.key(number), batch_loss, digits_init, data,
        batch_sizes=(16, 64), learning_rates=rates, seeds=3, epochs=2, optimizer=optax.sgd,
    )  # fmt: skip
    return float(result.loss[..., -1].mean())


def one_census(number: int, maps: mlp_symmetry.DiscreteMaps) -> int:
    """Return how many critical points of XOR were found from the starts of this round."""
    with jax.enable_x64(True):
        args = tuple(datasets.xor(coding=(0.0, 1.0 + 0.01 * (number % 5))))
        return len(
            critical.census(
                fun, xor_init, jax.random.key(number), num_starts=60, args=args, symmetries=maps, passes=1
            ).verdicts
        )


def memory_maps() -> int:
    return len(pathlib.Path("/proc/self/maps").read_text().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    minutes = parser.parse_args().minutes
    compiled = 0

    def count(name: str, *_: Any, **__: Any) -> None:
        nonlocal compiled
        compiled += name == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(count)
    data = datasets.load("digits")
    with jax.enable_x64(True):
        maps = mlp_symmetry.maps(fun, xor_init(jax.random.key(0)), tuple(datasets.xor()), activation=jnp.tanh)
    print(machine())
    print(f"{'minute':>7} {'rounds':>7} {'memory, MB':>11} {'maps':>6} {'programs compiled':>18}")
    began, number, shown, settled = time.perf_counter(), 0, -1.0, None
    while (passed := (time.perf_counter() - began) / 60) < minutes:
        assert np.isfinite(one_sweep(number, data))
        assert one_census(number, maps) > 0
        number += 1
        if settled is None and passed >= SETTLED * minutes:
            settled = (number, memory_now(), memory_maps(), compiled)
        if passed - shown >= minutes / 20:
            shown = passed
            print(f"{passed:7.1f} {number:7} {memory_now() / 1e6:11.0f} {memory_maps():6} {compiled:18}", flush=True)
    assert settled is not None
    rounds = number - settled[0]
    grown = memory_now() - settled[1]
    print(
        f"From round {settled[0]} to {number}: memory {grown / 1e6:+.1f} MB ({grown / max(1, rounds) / 1e3:+.2f} kB a"
        f" round), maps {memory_maps() - settled[2]:+}, programs compiled {compiled - settled[3]:+}."
    )


if __name__ == "__main__":
    main()
