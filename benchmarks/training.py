"""How fast is training beside torch, flax with optax, numpy, and JAX's own matrix products alone?

    python -m benchmarks.training [--quick] [--output FOLDER]

One run, every way in turn, the best of some rounds; torch at each thread count, and its best is compared. Peers:
`pip install -e '.[benchmarks]'`; one that is missing or fails is reported with the reason. Prints tables, and writes
a CSV and a figure to a new folder.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import matplotlib.figure
import numpy as np
import optax
import pandas as pd
import tqdm
import tyro

from benchmarks import training_peers as peers
from benchmarks.classifier import batch_loss
from experiments._shared.run_folder import RunFolder
from mlp_jax import mlp, training

OURS, ALONE = "mlp_jax", "products alone, in a scan"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    quick: bool = False
    """A hundredth of the work, one round: to see that everything runs."""
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
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/training-DATE-TIME when not given."""


def ours(sizes: Sequence[int], inputs: np.ndarray, targets: np.ndarray, batch_size: int, updates: int) -> Callable:
    params = jax.jit(functools.partial(mlp.init, sizes=tuple(sizes)))(jax.random.key(0))
    data = jax.device_put((inputs, targets))
    epochs = max(1, updates * batch_size // len(inputs))

    def run() -> Any:
        return jax.block_until_ready(
            training.train(
                jax.random.key(1), batch_loss, params, data, optimizer=_OPTIMIZER, batch_size=batch_size, epochs=epochs
            )
        )

    return run


_OPTIMIZER = optax.sgd(peers.RATE)


def ways(settings: Settings, sizes: Sequence[int], work: tuple) -> dict[str, Callable[[], Callable]]:
    """Return, by name, what makes each way."""
    made: dict[str, Callable[[], Callable]] = {
        OURS: lambda: ours(sizes, *work),
        ALONE: lambda: peers.products_alone(sizes, work[0], *work[2:]),
    }
    for threads in settings.threads:
        made[f"torch, threads: {threads}"] = functools.partial(peers.torch_loop, sizes, *work, threads=threads)
        if settings.compile:
            made[f"torch.compile, threads: {threads}"] = functools.partial(
                peers.torch_loop, sizes, *work, threads=threads, compiled=True
            )
    made["flax and optax, jit a step"] = lambda: peers.flax_loop(sizes, *work)
    made["numpy, classical network"] = lambda: peers.numpy_loop(sizes, *work)
    return made


def measure(settings: Settings, bar: tqdm.tqdm) -> pd.DataFrame:
    """Return one row a network, batch size and way: examples a second, or why there are none."""
    rng, rows = np.random.default_rng(0), []
    broken: dict[str, str] = {}
    for network in settings.networks:
        sizes = tuple(map(int, network.split("-")))
        for batch_size in settings.batch_sizes:
            examples = max(settings.examples // (4 if batch_size < 32 else 1) // (100 if settings.quick else 1), 1)
            stored = max(examples // 2, batch_size) // batch_size * batch_size
            updates = max(1, examples // stored) * stored // batch_size
            inputs = rng.random((stored, sizes[0]), np.float32)
            work = (inputs, rng.integers(0, sizes[-1], stored).astype(np.int32), batch_size, updates)
            ready: dict[str, Callable] = {}
            best: dict[str, float] = {}
            for name, make in ways(settings, sizes, work).items():
                if name in broken:
                    continue
                try:
                    ready[name] = make()
                    began = time.perf_counter()
                    ready[name]()
                    seconds = time.perf_counter() - began
                    if seconds > settings.limit:
                        best[name] = seconds  # once is enough, and more than it is worth
                        del ready[name]
                except Exception as error:  # a peer that does not work here is a result, and is printed
                    if name in (OURS, ALONE):
                        raise
                    broken[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                    ready.pop(name, None)
                bar.update()
            best |= dict.fromkeys(ready, np.inf)
            for _ in range(1 if settings.quick else settings.rounds):
                for name, run in ready.items():
                    run()  # not timed: the threads of the way before may still be spinning
                    began = time.perf_counter()
                    run()
                    best[name] = min(best[name], time.perf_counter() - began)
            rows += [(network, batch_size, name, updates * batch_size / s, s / updates) for name, s in best.items()]
    for name, reason in broken.items():
        bar.write(f"{name}: does not work here: {reason}")
    return pd.DataFrame(rows, columns=["network", "batch_size", "way", "examples_per_second", "seconds_per_update"])


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row a network and batch size: microseconds an update of each way, and ratios."""
    wide = 1e6 * frame.pivot(index=["network", "batch_size"], columns="way", values="seconds_per_update")
    torch = [name for name in wide.columns if name.startswith("torch,")]
    every = [name for name in wide.columns if name.startswith("torch")]
    table = wide.round(1)
    if torch:
        table["times torch, best threads"] = (wide[torch].min(axis=1) / wide[OURS]).round(2)
        table["times torch, compile too"] = (wide[every].min(axis=1) / wide[OURS]).round(2)
    table["share of products alone"] = (wide[ALONE] / wide[OURS]).round(2)
    order = {name: number for number, name in enumerate(dict.fromkeys(frame.network))}
    return table.sort_index(key=lambda level: level.map(order) if level.name == "network" else level)


def draw(frame: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the rates of every way against the batch size, one panel a network."""
    networks = list(dict.fromkeys(frame.network))
    figure = matplotlib.figure.Figure(figsize=(5.5 * len(networks), 4.5), layout="constrained")
    for axes, network in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks, strict=True):
        for number, (name, part) in enumerate(frame[frame.network == network].groupby("way", sort=False)):
            marker, line = "osD^vP*X"[number % 8], "--" if name == ALONE else "-"
            axes.plot(part.batch_size, part.examples_per_second, line, marker=marker, label=name)
        axes.set_xscale("log", base=2)
        axes.set(yscale="log", xlabel="batch size", ylabel="examples per second", title=network)
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def run(settings: Settings) -> pd.DataFrame:
    """Time, print and save; return the table."""
    print(peers.machine())
    folder = RunFolder("training", settings, settings.output)
    number = len(settings.networks) * len(settings.batch_sizes) * (4 + len(settings.threads) * (1 + settings.compile))
    with tqdm.tqdm(total=number, unit="way", leave=False, disable=None) as bar:
        frame = measure(settings, bar)
    folder.table("training", frame)
    folder.figure("training", draw(frame))
    table = summary(frame)
    print("Microseconds an update (float32, best of the rounds), and how many times faster mlp_jax is:")
    print(table.T.to_string())
    print(f"Written to {folder.path}")
    return frame


if __name__ == "__main__":
    run(tyro.cli(Settings, description=__doc__))
