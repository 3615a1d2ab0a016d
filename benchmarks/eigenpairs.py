"""How fast are the ten lowest and ten highest eigenpairs of a Hessian at a true minimum, and which searches miss some?

    python -m benchmarks.eigenpairs [--quick] [--parts small large examples traps] [--minimum FILE] [--output FOLDER]

This project and its peers in one run, float64, a tanh network with softmax cross-entropy and weight decay 1e-3, at a
minimum where the gradient is at its rounding level. A search delivers when every one of its 20 residuals, computed
here from the vectors that it returned, is at most 1e-8 ‖H‖ and its values are those at the ends of the spectrum.
small: digits without constant pixels, 16 units. large: 784-32-10 on 5,000 images of MNIST, products only.
examples: the 50 largest eigenvalues for 104 parameters and a million examples.
traps: known spectra on which other tools go wrong, 20 seeds each. Prints tables, writes each as CSV, and a figure.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import statistics
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.sparse.linalg
import tqdm
import tyro

from benchmarks import eigenpairs_peers as peers
from benchmarks import side_by_side
from benchmarks.side_by_side import seconds
from benchmarks.true_minimum import minimise
from mlp_jax import curvature, datasets, losses, mlp, mlp_hessian, penalties, tree

PARTS = ("small", "large", "examples", "traps")
_DECAY, _TOLERANCE, _COUNT, _SEEDS = 1e-3, 1e-8, 10, 20
Search = Callable[[], tuple[np.ndarray, np.ndarray, int]]


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark."""

    parts: tuple[str, ...] = PARTS
    """Which tables to make."""
    rounds: int = 5
    """Warm calls of each search of the small problem, in turn; the large one is run once, warm."""
    limit: int = 3000
    """Products allowed to each search of the large problem."""
    minimum: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the minimum of the large problem is kept between runs; searched for when the file is not there."""


def fun(params, x, y):
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y)) + penalties.l2(params, _DECAY)


class Problem:
    """The Hessian at a minimum of a network with one hidden layer."""

    def __init__(self, name: str, hidden: int, num: int | None, file: pathlib.Path | None = None):
        parts = datasets.load(name)
        inputs = np.concatenate([part.inputs for part in parts]).astype(np.float64)[:num]
        if name == "digits":
            inputs = inputs[:, inputs.std(axis=0) > 0]
        self.data = jnp.asarray(inputs), jnp.asarray(np.concatenate([part.targets for part in parts])[:num])
        start = mlp.init(jax.random.key(0), (inputs.shape[1], hidden, 10), dtype=jnp.float64)
        self.size, self.unravel = tree.size(start), tree.ravel(start)[1]
        if file is not None and file.exists():
            self.params = self.unravel(jnp.asarray(np.load(file)))
        else:
            took, (self.params, _, products) = seconds(lambda: minimise(fun, start, self.data))
            print(f"minimum of {name} found in {took:.0f} s with {products} products")
            if file is not None:
                np.save(file, np.asarray(tree.ravel(self.params)[0]))
        gradient = float(tree.norm(jax.jit(jax.grad(fun))(self.params, *self.data)))
        self.matvec = jax.jit(lambda p, x, y: curvature.hessian(fun, p, (x, y)))(self.params, *self.data)
        self.product = jax.jit(lambda v: tree.ravel(self.matvec(self.unravel(v)))[0])
        print(f"{name}: {self.size} parameters, {len(inputs)} examples, gradient norm {gradient:.1e}", flush=True)

    def matrix(self) -> Callable[[], np.ndarray]:
        """Return a function that makes the whole matrix by jax.hessian."""
        whole = jax.jit(jax.hessian(lambda v, x, y: fun(self.unravel(v), x, y)))
        vector = tree.ravel(self.params)[0]
        return lambda: np.asarray(whole(vector, *self.data))


def ours(p: Problem, **options: Any) -> Search:
    """Return the search of this project; `run.method` is the method that it chose."""

    def run() -> tuple[np.ndarray, np.ndarray, int]:
        key = jax.random.key(0)
        pairs = curvature.eigenpairs(
            p.matvec, p.params, key, smallest=_COUNT, largest=_COUNT, tolerance=_TOLERANCE, **options
        )
        flags = f"{pairs.method}; {int(pairs.converged.sum())} flagged converged, complete {pairs.complete}"
        run.note = flags
        rows = np.asarray(jax.vmap(lambda v: tree.ravel(v)[0])(pairs.vectors))
        return np.asarray(pairs.values), rows, pairs.num_matvecs

    return run


def by_scipy(p: Problem, search: Callable[..., Any], *options: Any, limit: int = 10**6) -> Search:
    return lambda: search(peers.Counted(p.product, p.size, limit), _COUNT, *options)


def small_searches(p: Problem, norm: float, low: float, steps: int) -> dict[str, Search | None]:
    penalty, whole = functools.partial(penalties.l2, strength=_DECAY), p.matrix()
    fast = functools.partial(mlp_hessian.dense, p.params, *p.data, loss=losses.cross_entropy, penalty=penalty)

    def by_matrix():
        values, vectors = np.linalg.eigh(whole())
        ends = np.r_[:_COUNT, p.size - _COUNT : p.size]
        return values[ends], vectors[:, ends].T, p.size

    # SciPy's tolerance is relative to each eigenvalue: as loose as the residual demanded allows.
    both = (_TOLERANCE * norm / low, _TOLERANCE)
    return {
        "ours, hessian=mlp_hessian.dense": ours(p, hessian=fast, block_size=2 * _COUNT),
        "ours, products alone": ours(p, dense_limit=0),
        "jax.hessian + numpy eigh": by_matrix,
        "scipy eigsh BE": by_scipy(p, peers.eigsh_both_ends, None, _TOLERANCE),
        **{f"scipy eigsh BE, ncv {n}": by_scipy(p, peers.eigsh_both_ends, n, _TOLERANCE) for n in (120, 400)},
        **{f"scipy eigsh SA + LA, ncv {n}": by_scipy(p, peers.eigsh_two_calls, n, both) for n in (120, 300)},
        "scipy lobpcg": by_scipy(p, peers.lobpcg, _TOLERANCE * norm, 100),
        f"matfree, {steps} steps": peers.matfree(p.product, p.size, _COUNT, steps),
        **peers.of_torch(p.params, *map(np.asarray, p.data), _DECAY, _COUNT, steps),
    }


def large_searches(p: Problem, norm: float, low: float, limit: int) -> dict[str, Search | None]:
    loose, long = _TOLERANCE * norm / low, min(800, p.size - 1)
    both = (loose, _TOLERANCE)
    return {
        "ours, products alone": ours(p, dense_limit=0),
        "ours, blocks of 4": ours(p, dense_limit=0, block_size=4),
        f"scipy eigsh BE, ncv {long}": by_scipy(p, peers.eigsh_both_ends, long, loose, limit=limit),
        f"scipy eigsh SA + LA, ncv {long // 2}": by_scipy(p, peers.eigsh_two_calls, long // 2, both, limit=limit),
        "scipy eigsh SA + LA": by_scipy(p, peers.eigsh_two_calls, None, both, limit=limit),
        "scipy eigsh BE": by_scipy(p, peers.eigsh_both_ends, None, loose, limit=limit),
    }


def attempt(search: Search) -> Any:
    try:
        return search()
    except (peers.TooManyProducts, scipy.sparse.linalg.ArpackNoConvergence) as error:
        return error


def measure(p: Problem, searches: dict[str, Search | None], rounds: int, truth: np.ndarray) -> pd.DataFrame:
    """Time all searches in turn; report the first call separately if more rounds follow."""
    times: dict[str, list[float]] = {name: [] for name in searches}
    found: dict[str, Any] = {}
    for index in tqdm.trange(rounds + 1, desc="rounds", leave=False, disable=None):
        for name, search in searches.items():
            slow = len(times[name]) > 1 and times[name][-1] > 5
            if search is None or isinstance(found.get(name), Exception) or slow:
                continue
            took, found[name] = seconds(functools.partial(attempt, search))
            times[name].append(took)
            if index == rounds:
                tqdm.tqdm.write(f"{name}: {times[name][-1]:.2f} s")
    rows = [_row(p, name, search, found.get(name), times[name], truth) for name, search in searches.items()]
    table = pd.DataFrame(rows)
    table["products"] = table.products.astype("Int64")
    table["times_ours"] = table.warm_s / table.warm_s[0]
    return table


def _row(p: Problem, name: str, search, result, times: list[float], truth: np.ndarray) -> dict[str, Any]:
    norm = truth[-1]
    row: dict[str, Any] = {"search": name, "P": p.size, "delivers": False, "note": getattr(search, "note", "")}
    if search is None:
        return row | {"note": "not installed"}
    row |= {"first_s": times[0], "warm_s": statistics.median(times[1:] or times)}
    if isinstance(result, Exception):
        return row | {"note": str(result)}
    values, vectors, products = result
    pairs = zip(values, vectors, strict=True)
    residuals = [float(jnp.linalg.norm(p.product(jnp.asarray(v)) - w * v)) for w, v in pairs]
    row |= {"products": products, "residual": max(residuals) / norm}
    if len(values) != len(truth):
        return row | {"note": f"{len(values)} pairs, by size alone: no low end"}
    away = float(np.max(np.abs(np.sort(values) - truth))) / norm
    skew = float(np.max(np.abs(vectors @ vectors.T - np.eye(len(values)))))
    return row | {"delivers": max(row["residual"], away) <= _TOLERANCE and skew < 1e-6, "value_error": away}


def small_table(quick: bool, rounds: int) -> pd.DataFrame:
    p = Problem("digits", 2 if quick else 16, 200 if quick else None)
    values = np.linalg.eigvalsh(p.matrix()())
    truth = np.concatenate([values[:_COUNT], values[-_COUNT:]])
    searches = small_searches(p, truth[-1], truth[_COUNT - 1], 100 if quick else 800)
    return measure(p, searches, 1 if quick else rounds, truth)


def large_table(quick: bool, limit: int, file: pathlib.Path | None) -> pd.DataFrame:
    """Compare on the large problem; the reference is the agreement of two converged searches from different starts."""
    p = Problem("mnist5000", 1 if quick else 32, 300 if quick else None, file)
    warm_up = ours(p, dense_limit=0, block_size=3)
    truth = warm_up()[0]
    print(f"eigenvalues {', '.join(f'{v:.4g}' for v in truth)}; by blocks of 3, {warm_up.note}", flush=True)
    return measure(p, large_searches(p, truth[-1], truth[_COUNT - 1], limit), 0, truth)


def examples_table(quick: bool) -> pd.DataFrame:
    """Time the 50 largest eigenvalues of 5-10-4 on a million random inputs with four classes, at the start."""
    x = jax.random.normal(jax.random.key(0), (10_000 if quick else 1_000_000, 5))
    data, start = (x, jnp.argmax(x[:, :4], axis=1)), mlp.init(jax.random.key(1), (5, 10, 4), dtype=jnp.float64)
    vector, unravel = tree.ravel(start)
    product = jax.jit(lambda v, x, y: tree.ravel(curvature.hessian(fun, start, (x, y))(unravel(v)))[0])
    penalty = functools.partial(penalties.l2, strength=_DECAY)
    fast = functools.partial(mlp_hessian.dense, start, *data, loss=losses.cross_entropy, penalty=penalty)

    def by_scipy() -> np.ndarray:
        counted = peers.Counted(lambda v: product(v, *data), vector.size, 10**6)
        return np.sort(scipy.sparse.linalg.eigsh(counted, 50, which="LA", return_eigenvectors=False))

    ways = [
        side_by_side.Way("ours, mlp_hessian.dense + numpy eigvalsh", lambda: np.linalg.eigvalsh(fast())[-50:]),
        side_by_side.Way("scipy eigsh LA", by_scipy, slow=True),
    ]
    return side_by_side.compare(ways, 1 if quick else 3, ways[1].name)


def traps() -> dict[str, tuple[np.ndarray, int, int]]:
    """Return spectra, and the numbers of smallest and largest eigenvalues requested."""
    draw = np.random.default_rng(0)
    cases = {
        "extremes ±3": (np.concatenate([[-3, 3], np.linspace(-0.5, 0.5, 98)]), 1, 1),
        "400 zeros and one -1e-4": (np.concatenate([[-1e-4], np.zeros(400), draw.uniform(0.5, 2, 99)]), 1, 0),
        "100 once, ten asked for": (np.concatenate([[100, 40, 30, 25, 20], np.linspace(0, 10, 195)]), 0, 10),
        "[1, 10], 50 dimensions": (np.linspace(1, 10, 50), 5, 5),
        "multiplicity 5 at both ends": (np.concatenate([[-2] * 5, [7] * 5, np.linspace(0, 5, 190)]), 7, 6),
        "spikes, 2000 dimensions": (
            np.concatenate([draw.normal(size=1990) * 1e-2, [-1, -0.6, -0.3, 0.5, 1, 2, 4, 8, 16, 32]]), 3, 7),
    }  # fmt: skip
    cases |= {f"dimension {size}": (np.array([-1, 0.5, 2])[:size], 1, size - 1) for size in (1, 2, 3)}
    return {name: (np.sort(np.asarray(spectrum, float)), low, high) for name, (spectrum, low, high) in cases.items()}


def traps_table(quick: bool) -> pd.DataFrame:
    """Count the seeds for which all values are right, flagged, and complete; products alone."""
    rows = []
    for name, (spectrum, low, high) in tqdm.tqdm(traps().items(), desc="traps", leave=False, disable=None):
        diagonal = jnp.asarray(np.random.default_rng(1).permutation(spectrum))
        matvec = jax.tree_util.Partial(jnp.multiply, diagonal)
        truth = np.concatenate([spectrum[:low], spectrum[len(spectrum) - high :]])
        norm, right, products = np.max(np.abs(spectrum)), 0, []
        for seed in range(2 if quick else _SEEDS):
            pairs = curvature.eigenpairs(
                matvec, diagonal, jax.random.key(seed), smallest=low, largest=high, dense_limit=0
            )
            same = np.allclose(pairs.values, truth, rtol=0, atol=_TOLERANCE * norm)
            right += bool(same and pairs.complete and np.all(pairs.converged))
            products.append(pairs.num_matvecs)
        rows.append({"spectrum": name, "asked": f"{low} + {high}", "seeds": len(products), "right": right,
                     "products": f"{min(products)} to {max(products)}"})  # fmt: skip
    return pd.DataFrame(rows)


def tables(settings: Settings) -> side_by_side.Report:
    makers = {
        "small": lambda: small_table(settings.quick, settings.rounds),
        "large": lambda: large_table(settings.quick, settings.limit, settings.minimum),
        "examples": lambda: examples_table(settings.quick),
        "traps": lambda: traps_table(settings.quick),
    }
    for part, table in side_by_side.parts(makers, settings.parts):
        yield part, table
        if part in ("small", "large"):
            shown = table[table.warm_s.notna()]
            colours = ["tab:blue" if delivered else "lightgrey" for delivered in shown.delivers]
            label = f"P = {shown.P.iloc[0]}: seconds, warm (grey: does not deliver)"
            yield part, side_by_side.bars(shown.search, shown.warm_s, label, log=True, color=colours)


if __name__ == "__main__":
    side_by_side.run("eigenpairs", Settings, tables, __doc__)
