"""How often do random starts reach a critical point, and how long does one take, alone and among many?

    python -m benchmarks.finders [--quick] [--output FOLDER]

Two problems: XOR by a tanh 2-2-1 network with weight decay .01 (9 parameters), and a linear 16-4-16 autoencoder (128
parameters). A start succeeds when the search reports convergence and the gradient, evaluated in numpy without this
project, is below 1e-12 of its size at the start; for the autoencoder the loss must also be that of one of its critical
classes, known in closed form. For comparison, scipy's Levenberg–Marquardt runs on the same gradient and Hessian.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.optimize
import tqdm

from benchmarks import side_by_side
from benchmarks.side_by_side import seconds
from mlp_jax import critical, datasets, losses, mlp, penalties, tree


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark; `quick` takes a tenth of the starts, and one repeat."""

    num_xor: int = 1000
    """Starts on XOR for find_many."""
    num_alone: int = 50
    """Of these, starts for find in a loop, and for scipy."""
    num_autoencoder: int = 40
    """Starts on the autoencoder."""
    repeats: int = 3
    """Timed repeats, the ways taking turns; the fastest counts."""
    seed: int = 0


xor_loss = lambda params, x, y, decay: (
    losses.mean(losses.squared_error(mlp.forward(params, x), y)) + penalties.l2(params, decay)
)
autoencoder_loss = lambda params, x: jnp.sum((x @ params[0] @ params[1] - x) ** 2) / (2 * len(x))


def xor_gradient(params, x, y, decay):
    """The gradient of `xor_loss` in numpy."""
    (w, b), (v, c) = params
    hidden = np.tanh(x @ w + b)
    error = (hidden @ v + c - y) / len(x)
    back = error @ v.T * (1 - hidden**2)
    parts = (x.T @ back + decay * w, back.sum(0) + decay * b, hidden.T @ error + decay * v, error.sum(0) + decay * c)
    return np.concatenate([part.ravel() for part in parts])


def autoencoder_gradient(params, x):
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
        """Return whether a search that claims convergence converged, by numpy alone."""
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
    def run(problem, num):
        starts = jax.tree.map(lambda leaf: leaf[:num], problem.starts)
        points = critical.find_many(problem.fun, starts, problem.args, **settings)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], points.params) for i in range(num)], points.converged.tolist()

    return run


def alone(problem, num):
    points = [critical.find(problem.fun, problem.start(i), problem.args) for i in range(num)]
    return [point.params for point in points], [bool(point.converged) for point in points]


def by_scipy(problem: Problem) -> Way:
    """MINPACK's Levenberg–Marquardt on the gradient, with the exact Hessian, both compiled."""
    with jax.enable_x64(True):
        unravel = tree.ravel(jax.tree.map(jnp.asarray, problem.start(0)))[1]
    fun = lambda v, args: problem.fun(unravel(v), *args)
    gradient, hessian = jax.jit(jax.grad(fun)), jax.jit(jax.hessian(fun))

    def solve(i):
        start = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(problem.start(i))])
        options = {"xtol": 1e-15, "ftol": 1e-15}
        end = scipy.optimize.root(
            lambda v: np.asarray(gradient(v, problem.args)), start, method="lm", options=options,
            jac=lambda v: np.asarray(hessian(v, problem.args)),
        )  # fmt: skip
        return jax.tree.map(np.asarray, unravel(jnp.asarray(end.x)))

    def run(problem, num):
        with jax.enable_x64(True):
            # Its own report is ignored: it tests the last step, not the gradient.
            return [solve(i) for i in range(num)], [True] * num

    return run


def measure(problem: Problem, ways: dict[str, tuple[Way, int]], repeats: int) -> pd.DataFrame:
    """Run every way once to compile, then in turns; return success rates and the fastest time a start."""
    times, outcomes = {name: [] for name in ways}, {}
    for name, (way, num) in tqdm.tqdm(list(ways.items()) * (repeats + 1), desc=problem.name, leave=False, disable=None):
        took, outcomes[name] = seconds(lambda way=way, num=num: way(problem, num))
        times[name].append(took)
    rows = []
    for name, (_, num) in ways.items():
        ends, converged = outcomes[name]
        good = [problem.succeeds(problem.start(i), *end) for i, end in enumerate(zip(ends, converged, strict=True))]
        wrongly = sum(c and not g for c, g in zip(converged, good, strict=True))
        rows.append({
            "problem": problem.name, "way": name, "starts": num, "success": np.mean(good),
            "standard_error": np.sqrt(np.mean(good) * (1 - np.mean(good)) / num),
            "converged_wrongly": wrongly if name != "scipy root(lm)" else np.nan,
            "ms_a_start": 1e3 * min(times[name][1:]) / num, "first_call_s": times[name][0],
        })  # fmt: skip
    return pd.DataFrame(rows)


def tables(settings: Settings) -> side_by_side.Report:
    share, repeats = (10, 1) if settings.quick else (1, settings.repeats)
    xor, loop, autoencoder = (n // share for n in (settings.num_xor, settings.num_alone, settings.num_autoencoder))
    on_xor, on_autoencoder = xor_problem(xor, settings.seed), autoencoder_problem(autoencoder, settings.seed)
    newton = many(method=critical.newton_mr)
    ways_xor = {
        "find in a loop": (alone, loop), "find_many": (many(), xor), "scipy root(lm)": (by_scipy(on_xor), loop),
        "find_many, Newton-MR": (newton, xor), "find_many, index 0": (many(index=0), xor),
    }  # fmt: skip
    ways_autoencoder = {
        "find_many": (many(), autoencoder), "find_many, Newton-MR": (newton, autoencoder),
        "scipy root(lm)": (by_scipy(on_autoencoder), autoencoder),
    }  # fmt: skip
    table = pd.concat([measure(on_xor, ways_xor, repeats), measure(on_autoencoder, ways_autoencoder, 1)])
    labels = [f"{row.way}, {row.problem.split('(')[1].rstrip(')')}" for row in table.itertuples()]
    yield "finders", table
    yield "success", side_by_side.bars(labels, table.success, "share of random starts that reach a critical point")
    yield "milliseconds", side_by_side.bars(labels, table.ms_a_start, "milliseconds a start, warm", log=True)


if __name__ == "__main__":
    side_by_side.run("benchmark_finders", Settings, tables, __doc__)
