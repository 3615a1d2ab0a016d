"""How fast are the exact Hessian, its products and its inertia, compared with other tools?

    python -m benchmarks.hessian [--quick] [--parts dense product ...] [--output FOLDER]

This project and its peers in one run, in turn: same data, float64, same result (the relative difference is printed).
Peers: `pip install -e '.[benchmarks]'`; one that is missing is reported as not installed. Prints tables, and writes
each as CSV, with figures, to a new folder.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.linalg.lapack

from benchmarks import hessian_peers, side_by_side
from benchmarks.classifier import mean_loss, per_example, tilted_loss
from benchmarks.side_by_side import Way, compare, curves, exponent, seconds
from mlp_jax import critical, curvature, datasets, losses, mlp, mlp_hessian, penalties, tree

PARTS = ("dense", "growth", "product", "inertia", "verdict")
_OURS = "mlp_hessian.dense"


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark."""

    parts: tuple[str, ...] = PARTS
    """Which tables to make."""
    rounds: int = 5
    """Warm calls of each way."""


def network(sizes, bias=True):
    """Return float64 parameters with random biases, or without biases."""
    params = mlp.init(jax.random.key(0), sizes, bias=bias)
    draw = np.random.default_rng(0).standard_normal
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a) if a.ndim > 1 else 0.1 * draw(a.shape), float), params)


def digits(num=1797):
    """Return `num` digits, repeated if there are fewer."""
    data = datasets.load("digits")
    inputs = np.concatenate([part.inputs for part in data]).astype(np.float64)
    targets = np.concatenate([part.targets for part in data]).astype(np.int64)
    return np.resize(inputs, (num, inputs.shape[1])), np.resize(targets, num)


ours = lambda *args: Way(_OURS, lambda: mlp_hessian.dense(*args, loss=losses.cross_entropy))


def by_columns(params, x, y, block):
    """Return jvp of grad for a block of columns at a time; None: `curvature.dense_hessian`, which chooses."""
    if block is None:
        run = functools.partial(curvature.dense_hessian, mean_loss, params, (x, y))
        return Way("curvature.dense_hessian", run, slow=tree.size(params) > 2000)
    vector, unravel = tree.ravel(params)

    @jax.jit
    def columns(v, x, y):
        gradient = jax.grad(lambda u: mean_loss(unravel(u), x, y))
        product = jax.linearize(gradient, v)[1]
        units = jnp.arange(v.size)
        return jax.lax.map(lambda i: product(jnp.zeros_like(v).at[i].set(1)), units, batch_size=block)

    return Way(f"jvp of grad, {block} columns", lambda: columns(vector, x, y), slow=tree.size(params) > 2000)


def dense_table(sizes: tuple[int, ...], num: int, rounds: int, peers: bool, bias: bool = True) -> pd.DataFrame:
    params, (x, y) = network(sizes, bias), digits(num)
    vector, unravel = tree.ravel(params)
    whole = jax.jit(jax.hessian(lambda v, x, y: mean_loss(unravel(v), x, y)))
    ways = [ours(params, x, y), *(by_columns(params, x, y, block) for block in (16, 64, None))]
    if peers:
        ways += [Way("jax.hessian", lambda: whole(vector, x, y)), *hessian_peers.dense(params, x, y)]
    table = compare(ways, rounds, "jax.hessian" if peers else "curvature.dense_hessian")
    bound = side_by_side.gemm_seconds(num * len(vector) ** 2 / 2, 500 if num < 1000 else 3000)
    table.insert(0, "network", "-".join(map(str, sizes)) + ("" if bias else ", no biases"))
    table["times_ours"] = table.warm_s / table.warm_s[0]
    table["times_gemm_bound"] = table.warm_s / bound
    print(f"GEMM bound {1e3 * bound:.1f} ms, {num * len(vector) ** 2 / 2 / bound / 1e9:.1f}e9 multiply-adds/s")
    return table


def growth_table(quick: bool, rounds: int) -> pd.DataFrame:
    """Return warm seconds against P (width) and against N, for this project and for columns."""
    rows = []
    widths, numbers = ((2, 4), (50, 100)) if quick else ((4, 8, 16, 32, 64), (450, 900, 1797, 3594, 7188))
    cases = [("P", (64, h, 10), 100 if quick else 1797) for h in widths]
    cases += [("N", (64, 8 if quick else 16, 10), n) for n in numbers]
    for grows, sizes, num in cases:
        params, (x, y) = network(sizes), digits(num)
        size = tree.size(params)
        ways = [ours(params, x, y)]
        if size < 3000:
            ways.append(by_columns(params, x, y, 16))
        for row in compare(ways, rounds, _OURS).to_dict("records"):
            grown = size if grows == "P" else num
            rows.append(
                {"grows": grows, "size": grown, "P": size, "N": num, "way": row["way"], "warm_s": row["warm_s"]}
            )
    table = pd.DataFrame(rows)
    for (grows, way), part in table.groupby(["grows", "way"]):
        print(f"time of {way} grows as {grows}^{exponent(list(part['size']), list(part.warm_s)):.2f}")
    return table


def product_table(quick: bool, rounds: int) -> pd.DataFrame:
    """Return seconds of a Hessian-vector product on random data of the shape of MNIST, beside a gradient."""
    num, sizes = (500, (784, 8, 10)) if quick else (60_000, (784, 128, 10))
    generator = np.random.default_rng(0)
    x, y = generator.random((num, sizes[0])), generator.integers(0, 10, num)
    params, xj, yj = network(sizes), jnp.asarray(x), jnp.asarray(y)
    vector, unravel = tree.ravel(params)
    direction = unravel(jnp.asarray(generator.standard_normal(vector.size)))
    flat = lambda p: tree.ravel(p)[0]
    gradient = jax.jit(lambda p, x, y: flat(jax.grad(mean_loss)(p, x, y)))
    plain = jax.jit(lambda p, v, x, y: flat(curvature.hessian(mean_loss, p, (x, y))(v)))
    stream = jax.jit(
        lambda p, v, x, y: flat(curvature.hessian_of_mean(per_example, p, (x, y), chunk_size=max(1, num // 20))(v))
    )
    # Made outside jit from a jitted function, so that products are compiled calls too.
    once = curvature.hessian(jax.jit(mean_loss), params, (xj, yj))
    ways = [
        Way("curvature.hessian, linearised once", lambda: flat(once(direction))),
        Way("curvature.hessian, plain", lambda: plain(params, direction, xj, yj)),
        Way("curvature.hessian_of_mean, 20 chunks", lambda: stream(params, direction, xj, yj)),
        Way("gradient", lambda: gradient(params, xj, yj), "not a product"),
        *hessian_peers.products(params, x, y, np.asarray(tree.ravel(direction)[0])),
    ]
    table = compare(ways, rounds, "curvature.hessian, plain")
    is_gradient = table.way.str.contains("gradient")
    table.loc[is_gradient, "difference"] = np.nan
    table["times_gradient"] = table.warm_s / float(table.warm_s[table.way == "gradient"].iloc[0])
    table["times_linearised"] = table.warm_s / table.warm_s[0]
    return table


def inertia_table(quick: bool) -> pd.DataFrame:
    """Return seconds of inertia beside bare LAPACK, for a definite Hessian and an indefinite one."""
    params, (x, y) = network((64, 8 if quick else 128, 10)), digits(100 if quick else 1797)
    making, matrix = seconds(lambda: mlp_hessian.dense(params, x, y, loss=losses.cross_entropy))
    matrix = np.array(matrix)
    low = float(np.linalg.norm(matrix, 1))
    rows = [("mlp_hessian.dense, with compilation", making, "")]
    for what, decay in (("definite", 1.1 * low), ("indefinite", 1e-6)):
        shifted = matrix + decay * np.eye(len(matrix))
        took, counts = seconds(lambda m=shifted: curvature.inertia(m))
        rows.append((f"curvature.inertia, {what}", took, counts[:3]))
        for name in ("dpotrf", "dsytrf") if what == "definite" else ("dsytrf",):
            copy, factorise = np.asfortranarray(shifted), getattr(scipy.linalg.lapack, name)
            options = {"lower": 1, "overwrite_a": 1} | ({"lwork": 64 * len(copy)} if name == "dsytrf" else {})
            took, _ = seconds(lambda f=factorise, m=copy, o=options: f(m, **o)[0])
            rows.append((f"{name}, {what}", took, ""))
    return pd.DataFrame(rows, columns=["what", "seconds", "counts"]).assign(P=len(matrix))


def verdict_row(width, num, decay):
    """Classify a critical point, from the call to the sentence, in a process of its own: time and memory above it."""
    with jax.enable_x64(True):
        params, (x, y) = network((64, width, 10)), digits(num)
        strength = jnp.asarray(decay)
        penalty = functools.partial(penalties.l2, strength=decay)
        zero = jax.tree.map(jnp.zeros_like, params)
        tilt = jax.jit(jax.grad(tilted_loss))(params, x, y, zero, strength)

        matrix = lambda p, x, y, *_: mlp_hessian.dense(p, x, y, loss=losses.cross_entropy, penalty=penalty)
        before = side_by_side.memory_now()
        start = time.perf_counter()
        verdict = critical.classify(tilted_loss, params, (x, y, tilt, strength), hessian=matrix)
        print(verdict, flush=True)
        took = time.perf_counter() - start
        peak = side_by_side.memory_peak() - before
    size = tree.size(params)
    return {"P": size, "N": num, "decay": decay, "kind": verdict.kind, "seconds": took,
            "peak_GB": peak / 1e9, "peak_in_P2_float64": peak / (8 * size**2)}  # fmt: skip


def verdict_table(quick: bool) -> pd.DataFrame:
    width, num = (8, 200) if quick else (128, 1797)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = [pool.apply(verdict_row, (width, num, decay)) for decay in (1e-2, 10.0)]
    return pd.DataFrame(rows)


def measure(settings: Settings) -> side_by_side.Report:
    quick, rounds = settings.quick, 1 if settings.quick else settings.rounds
    small, deep, num = ((64, 4, 10), (64, 4, 4, 10), 100) if quick else ((64, 16, 10), (64, 32, 32, 10), 1797)
    makers = {
        "dense": lambda: pd.concat(
            [
                dense_table(small, num, rounds, True),
                dense_table(small, num, rounds, False, bias=False),
                dense_table(deep, num, rounds, quick),
            ]
        ),
        "growth": lambda: growth_table(quick, rounds),
        "product": lambda: product_table(quick, rounds),
        "inertia": lambda: inertia_table(quick),
        "verdict": lambda: verdict_table(quick),
    }
    for part, table in side_by_side.parts(makers, settings.parts):
        yield part, table
        if part == "growth":
            yield part, curves(table, "grows", "size", "warm_s", "way", "seconds, warm")


if __name__ == "__main__":
    side_by_side.run("hessian", Settings, measure, __doc__)
