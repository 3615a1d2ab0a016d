"""How fast is training beside torch, flax with optax, numpy, and JAX's own matrix products alone?

    python -m benchmarks.training [--quick] [--output FOLDER]

All ways run in turn, and the best of several rounds counts; torch runs at each thread count, and its best is compared.
Peers: `pip install -e '.[benchmarks]'`; one that is missing or fails is reported with the reason. Prints tables, and
writes a CSV and a figure to a new folder.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import optax
import pandas as pd
import tqdm

from benchmarks import side_by_side
from benchmarks import training_peers as peers
from benchmarks.classifier import batch_loss
from benchmarks.side_by_side import curves, seconds
from mlp_jax import mlp, training

OURS, UNBIASED, ALONE = "mlp_jax", "mlp_jax, no biases", "products alone, in a scan"


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark."""

    networks: tuple[str, ...] = ("784-30-10", "784-128-64-10")
    """Layer sizes."""
    batch_sizes: tuple[int, ...] = (8, 32, 128, 512, 2048)
    """Examples an update."""
    threads: tuple[int, ...] = (1, 2)
    """Thread counts for torch."""
    compile: bool = False
    """Whether to time torch.compile as well (its compilation, some tens of seconds for each, is not timed)."""
    rounds: int = 3
    """Timed calls of each way, in turn; the fastest counts."""
    examples: int = 32768
    """Examples seen in a call, from a data set of half as many; a quarter below batch 32, at least one batch."""
    limit: float = 8.0
    """A way whose first call takes longer than these seconds is not timed again."""


_OPTIMIZER = optax.sgd(peers.RATE)


def ours(sizes, inputs, targets, batch_size, updates, bias=True):
    params = jax.jit(functools.partial(mlp.init, sizes=tuple(sizes), bias=bias))(jax.random.key(0))
    data, epochs = jax.device_put((inputs, targets)), max(1, updates * batch_size // len(inputs))
    settings = {"optimizer": _OPTIMIZER, "batch_size": batch_size, "epochs": epochs}
    return lambda: training.train(jax.random.key(1), batch_loss, params, data, **settings)


def ways(settings: Settings, sizes, work):
    """Return the functions that make each way, by name."""
    made = {
        OURS: lambda: ours(sizes, *work),
        UNBIASED: lambda: ours(sizes, *work, bias=False),
        ALONE: lambda: peers.products_alone(sizes, work[0], *work[2:]),
    }
    for threads in settings.threads:
        torch = functools.partial(peers.torch_loop, sizes, *work, threads=threads)
        made[f"torch, threads: {threads}"] = torch
        if settings.compile:
            made[f"torch.compile, threads: {threads}"] = functools.partial(torch, compiled=True)
    made["flax and optax, jit a step"] = lambda: peers.flax_loop(sizes, *work)
    made["numpy, classical network"] = lambda: peers.numpy_loop(sizes, *work)
    return made


def rates(settings: Settings) -> pd.DataFrame:
    """Return one row for each network, batch size and way: examples a second, or the reason why it failed."""
    rng, rows, broken = np.random.default_rng(0), [], {}
    cases = [(network, size) for network in settings.networks for size in settings.batch_sizes]
    for network, batch_size in (bar := tqdm.tqdm(cases, unit="case", leave=False, disable=None)):
        sizes = tuple(map(int, network.split("-")))
        examples = max(settings.examples // (4 if batch_size < 32 else 1) // (100 if settings.quick else 1), 1)
        stored = max(examples // 2, batch_size) // batch_size * batch_size
        updates = max(1, examples // stored) * stored // batch_size
        inputs = rng.random((stored, sizes[0]), np.float32)
        work = (inputs, rng.integers(0, sizes[-1], stored).astype(np.int32), batch_size, updates)
        ready, best = {}, {}
        for name, make in ways(settings, sizes, work).items():
            if name in broken:
                continue
            try:
                run = make()
                best[name], _ = seconds(run)
                if best[name] <= settings.limit:  # slow ways run once
                    ready[name], best[name] = run, np.inf
            except Exception as error:  # a peer that fails is reported
                if name in (OURS, ALONE):
                    raise
                broken[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                bar.write(f"{name}: does not work here: {broken[name]}")
        for _ in range(1 if settings.quick else settings.rounds):
            for name, run in ready.items():
                seconds(run)  # not timed: threads of the previous way may still be spinning
                best[name] = min(best[name], seconds(run)[0])
        rows += [(network, batch_size, name, updates * batch_size / s, s / updates) for name, s in best.items()]
    return pd.DataFrame(rows, columns=["network", "batch_size", "way", "examples_per_second", "seconds_per_update"])


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return microseconds an update and the speed-up of mlp_jax, one column for each network and batch size."""
    wide = 1e6 * frame.pivot(index=["network", "batch_size"], columns="way", values="seconds_per_update")
    torch = [name for name in wide.columns if name.startswith("torch,")]
    every = [name for name in wide.columns if name.startswith("torch")]
    table = wide.copy()
    if torch:
        table["times torch, best threads"] = wide[torch].min(axis=1) / wide[OURS]
        table["times torch, compile too"] = wide[every].min(axis=1) / wide[OURS]
    table["share of products alone"] = wide[ALONE] / wide[OURS]
    order = {name: number for number, name in enumerate(dict.fromkeys(frame.network))}
    table = table.sort_index(key=lambda level: level.map(order) if level.name == "network" else level)
    table.index = [f"{network}, {size}" for network, size in table.index]
    return table.T.rename_axis("microseconds an update").reset_index()


def measure(settings: Settings) -> side_by_side.Report:
    frame = rates(settings)
    yield from (("training", frame), ("summary", summary(frame)))
    yield "training", curves(frame, "network", "batch_size", "examples_per_second", "way", "examples per second")


if __name__ == "__main__":
    side_by_side.run("training", Settings, measure, __doc__)
