"""How often do random starts reach a critical point, and how long does a start take: one at a time, or many at once?

    python -m benchmarks.finders [--quick] [--output FOLDER]

Two problems: XOR by a tanh 2-2-1 network with weight decay .01 (9 parameters), and a linear 16-4-16 autoencoder (128
parameters). A start succeeds when the search reports convergence and the gradient, evaluated in numpy without this
project, is below 1e-12 of its size at the start; for the autoencoder the loss must also be that of one of its critical
classes, known in closed form. scipy's Levenberg–Marquardt on the same gradient and Hessian is measured beside.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pandas as pd
import scipy
import scipy.optimize
import tqdm
import tyro

from experiments._shared.run_folder import RunFolder
from mlp_jax import critical, datasets, losses, mlp, penalties, tree


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    num_xor: int = 1000
    """Starts on XOR for find_many."""
    num_alone: int = 50
    """Of these, starts for find in a loop, and for scipy."""
    num_autoencoder: int = 40
    """Starts on the autoencoder."""
    repeats: int = 3
    """Timed repeats, the ways taking turns; the fastest counts."""
    seed: int = 0
    quick: bool = False
    """A tenth of the starts, one repeat."""
    output: pathlib.Path | None = None


def xor_loss(params: mlp.Params, x: jax.Array, y: jax.Array, decay: float) -> jax.Array:
    return losses.mean(losses.squared_error(mlp.forward(params, x), y)) + penalties.l2(params, decay)


def autoencoder_loss(params: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.sum((x @ params[0] @ params[1] - x) ** 2) / (2 * len(x))


def xor_gradient(params: Any, x: np.ndarray, y: np.ndarray, decay: float) -> np.ndarray:
    """The gradient of `xor_loss` in numpy."""
    (w, b), (v, c) = params
    hidden = np.tanh(x @ w + b)
    error = (hidden @ v + c - y) / len(x)
    back = error @ v.T * (1 - hidden**2)
    parts = (x.T @ back + decay * w, back.sum(0) + decay * b, hidden.T @ error + decay * v, error.sum(0) + decay * c)
    return np.concatenate([part.ravel() for part in parts])


def autoencoder_gradient(params: Any, x: np.ndarray) -> np.ndarray:
    first, second = params
    error = (x @ first @ second - x) / len(x)
    return np.concatenate([(x.T @ error @ second.T).ravel(), ((x @ first).T @ error).ravel()])


def class_losses(x: np.ndarray, hidden: int) -> np.ndarray:
    """The loss of every critical class of a linear autoencoder: ½ tr S − ½ Σ of at most `hidden` eigenvalues of S."""
    values = np.linalg.eigvalsh(x.T @ x / len(x))
    subsets = itertools.chain.from_iterable(itertools.combinations(values, q) for q in range(hidden + 1))
    return np.sort([(values.sum() - sum(subset)) / 2 for subset in subsets])


@dataclasses.dataclass(frozen=True)
class Problem:
    """A loss, its data, random starts, and a check that does not use the code under test."""

    name: str
    fun: Callable[..., jax.Array]
    args: tuple
    starts: Any
    gradient: Callable[..., np.ndarray]
    is_known: Callable[[Any], bool]

    @property
    def num(self) -> int:
        """Number of starts."""
        return len(jax.tree.leaves(self.starts)[0])

    def start(self, i: int) -> Any:
        """Start number i, as params."""
        return jax.tree.map(lambda leaf: leaf[i], self.starts)

    def succeeds(self, start: Any, end: Any, converged: bool) -> bool:
        """Return whether a search that says it converged did, by numpy alone."""
        size = np.linalg.norm(self.gradient(start, *self.args))
        small = np.linalg.norm(self.gradient(end, *self.args)) < 1e-12 * size
        return bool(converged and small and self.is_known(end))


def xor_problem(num: int, seed: int) -> Problem:
    data = datasets.synthetic.xor()
    args = (np.asarray(data.inputs, float), np.asarray(data.targets, float).reshape(-1, 1), 0.01)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed), num)
        draw = jax.vmap(lambda key: mlp.init(key, (2, 2, 1), bias_init=jax.nn.initializers.normal(1.0)))
        starts = jax.tree.map(np.asarray, draw(keys))
    return Problem("XOR, tanh 2-2-1, weight decay .01 (P = 9)", xor_loss, args, starts, xor_gradient, lambda _: True)


def autoencoder_problem(num: int, seed: int) -> Problem:
    generator = np.random.default_rng(seed)
    x = np.linalg.qr(generator.standard_normal((64, 16)))[0] * 8 * np.linspace(1, 2, 16)
    starts = 0.5 * generator.standard_normal((num, 16, 4)), 0.5 * generator.standard_normal((num, 4, 16))
    known = class_losses(x, 4)

    def is_known(params: Any) -> bool:
        loss = np.sum((x @ params[0] @ params[1] - x) ** 2) / (2 * len(x))
        return bool(np.min(np.abs(known - loss)) < 1e-10 * known[-1])

    name = "linear autoencoder 16-4-16 (P = 128)"
    return Problem(name, autoencoder_loss, (x,), starts, autoencoder_gradient, is_known)


Way = Callable[[Problem, int], tuple[list[Any], list[bool]]]


def many(**settings: Any) -> Way:
    def run(problem: Problem, num: int) -> tuple[list[Any], list[bool]]:
        starts = jax.tree.map(lambda leaf: leaf[:num], problem.starts)
        points = critical.find_many(problem.fun, starts, problem.args, **settings)
        ends = [jax.tree.map(lambda leaf, i=i: leaf[i], points.params) for i in range(num)]
        return ends, points.converged.tolist()

    return run


def alone(problem: Problem, num: int) -> tuple[list[Any], list[bool]]:
    points = [critical.find(problem.fun, problem.start(i), problem.args) for i in range(num)]
    return [point.params for point in points], [bool(point.converged) for point in points]


def by_scipy(problem: Problem) -> Way:
    """MINPACK's Levenberg–Marquardt on the gradient, with the exact Hessian, both compiled."""
    with jax.enable_x64(True):
        unravel = tree.ravel(jax.tree.map(jnp.asarray, problem.start(0)))[1]
        gradient = jax.jit(jax.grad(lambda v, args: problem.fun(unravel(v), *args)))
        hessian = jax.jit(jax.hessian(lambda v, args: problem.fun(unravel(v), *args)))

    def solve(i: int) -> Any:
        end = scipy.optimize.root(
            lambda v: np.asarray(gradient(v, problem.args)),
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(problem.start(i))]),
            jac=lambda v: np.asarray(hessian(v, problem.args)),
            method="lm",
            options={"xtol": 1e-15, "ftol": 1e-15},
        )
        return jax.tree.map(np.asarray, unravel(jnp.asarray(end.x)))

    def run(problem: Problem, num: int) -> tuple[list[Any], list[bool]]:
        with jax.enable_x64(True):
            # What it reports is not asked: its test is of the last step, not of the gradient.
            return [solve(i) for i in range(num)], [True] * num

    return run


def measure(problem: Problem, ways: dict[str, tuple[Way, int]], repeats: int, bar: tqdm.tqdm) -> pd.DataFrame:
    """Run every way once to compile, then in turns; return success rates and the fastest time a start."""
    outcomes, fastest, first = {}, dict.fromkeys(ways, np.inf), {}
    for turn in range(repeats + 1):
        for name, (way, num) in ways.items():
            bar.set_postfix_str(f"{problem.name}: {name}")
            began = time.perf_counter()
            outcomes[name] = way(problem, num)
            seconds = time.perf_counter() - began
            if turn:
                fastest[name] = min(fastest[name], seconds)
            else:
                first[name] = seconds
            bar.update()
    rows = []
    for name, (_, num) in ways.items():
        good = [
            problem.succeeds(problem.start(i), end, converged)
            for i, (end, converged) in enumerate(zip(*outcomes[name], strict=True))
        ]
        false = sum(c and not g for c, g in zip(outcomes[name][1], good, strict=True))
        rows.append(
            {
                "problem": problem.name,
                "way": name,
                "starts": num,
                "success": np.mean(good),
                "standard_error": np.sqrt(np.mean(good) * (1 - np.mean(good)) / num),
                "converged_wrongly": false if name != "scipy root(lm)" else np.nan,
                "ms_a_start": 1e3 * fastest[name] / num,
                "first_call_s": first[name],
            }
        )
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    labels = [f"{row.way}\n{row.problem.split('(')[1].rstrip(')')}" for row in table.itertuples()]
    left.barh(labels, table.success, xerr=table.standard_error, color="#0072B2")
    left.set_xlabel("share of random starts that reach a critical point")
    left.set_xlim(0, 1.05)
    right.barh(labels, table.ms_a_start, color="#D55E00")
    right.set_xscale("log")
    right.set_xlabel("milliseconds a start, warm")
    left.invert_yaxis()
    return figure


def run(settings: Settings) -> pd.DataFrame:
    if settings.quick:
        settings = dataclasses.replace(
            settings, num_xor=settings.num_xor // 10, num_alone=settings.num_alone // 10,
            num_autoencoder=settings.num_autoencoder // 10, repeats=1,
        )  # fmt: skip
    folder = RunFolder("benchmark_finders", settings, settings.output)
    xor, autoencoder = settings.num_xor, settings.num_autoencoder
    on_xor, on_autoencoder = xor_problem(xor, settings.seed), autoencoder_problem(autoencoder, settings.seed)
    ways_xor: dict[str, tuple[Way, int]] = {
        "find in a loop": (alone, settings.num_alone),
        "find_many": (many(), xor),
        "scipy root(lm)": (by_scipy(on_xor), settings.num_alone),
        "find_many, Newton-MR": (many(method=critical.newton_mr), xor),
        "find_many, index 0": (many(index=0), xor),
    }
    ways_autoencoder: dict[str, tuple[Way, int]] = {
        "find_many": (many(), autoencoder),
        "find_many, Newton-MR": (many(method=critical.newton_mr), autoencoder),
        "scipy root(lm)": (by_scipy(on_autoencoder), autoencoder),
    }
    total = (settings.repeats + 1) * len(ways_xor) + 2 * len(ways_autoencoder)
    with tqdm.tqdm(total=total, desc="measuring") as bar:
        table = pd.concat(
            [
                measure(on_xor, ways_xor, settings.repeats, bar),
                measure(on_autoencoder, ways_autoencoder, 1, bar),
            ]
        )
    folder.table("finders", table)
    folder.figure("finders", draw(table))
    print(table.to_string(index=False, na_rep="-", float_format="{:.3f}".format))
    times = table[table.problem.str.contains("XOR")].set_index("way").ms_a_start
    print(
        f"\nfind_many takes {times['find_many']:.3f} ms a start at P = 9, find in a loop {times['find in a loop']:.3f}:"
        f" {times['find in a loop'] / times['find_many']:.0f} times as long."
    )
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, OPENBLAS_NUM_THREADS={os.environ.get('OPENBLAS_NUM_THREADS')},"
        f" Python {platform.python_version()}, jax {jax.__version__}, numpy {np.__version__}, scipy"
        f" {scipy.__version__}; results in {folder.path}"
    )
    return table


if __name__ == "__main__":
    run(tyro.cli(Settings, description=__doc__))
