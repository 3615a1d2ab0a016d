"""What share of an accelerator's limits do Hessians, products, training and sweeps reach, and how fast is torch there?

    python -m benchmarks.gpu [--quick] [--output FOLDER]

Uses JAX's default device: a GPU needs `pip install -U 'jax[cuda13]'` (or the release that fits its driver), and the
peers a CUDA build of torch. Limits are measured in the same run: multiply-adds a second of large matrix products in
float32 and float64, bytes a second of a copy. Float32 is float32 on both sides: rounding the factors of a product to
10 bits (TF32), JAX's default on some GPUs, is off, as in torch. A critical point is classified on the
device and on the CPU: the verdicts must be the same. Without an accelerator it runs on the CPU, and says so.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import tqdm

from benchmarks import side_by_side
from benchmarks.classifier import batch_loss, mean_loss, tilted_loss
from benchmarks.side_by_side import find, first_and_warm, seconds
from mlp_jax import critical, curvature, losses, mlp, mlp_hessian, sweep, training, tree

RATE = 0.01
_init = functools.partial(mlp.init, sizes=(64, 32, 10))


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark."""

    calls: int = 5
    """Warm calls of each way; the median counts."""


class Way(NamedTuple):
    """One way to do the work, and the least number of multiply-adds for it."""

    work: str
    dtype: str
    name: str
    multiply_adds: float
    run: Callable[[], Any]


def limits(quick: bool, calls: int) -> tuple[dict[str, float], float]:
    """Return multiply-adds a second of matrix products by dtype, and bytes a second of a copy."""
    # The fastest of three shapes; random, because a matrix of ones draws less power and runs faster.
    shapes = [(256, 256, 256)] if quick else [(4096, 4096, 4096), (8192, 8192, 8192), (65536, 1024, 1024)]
    multiply, rates = jax.jit(functools.partial(jnp.matmul, precision="highest")), {}
    for dtype, (rows, inner, columns) in itertools.product(("float32", "float64"), shapes):
        a, b = (jax.random.normal(jax.random.key(0), shape, dtype) for shape in ((rows, inner), (inner, columns)))
        rate = rows * inner * columns / first_and_warm(functools.partial(multiply, a, b), calls)[1]
        rates[dtype] = max(rate, rates.get(dtype, 0.0))
    long = jax.random.normal(jax.random.key(0), 2**20 if quick else 2**28, jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    return rates, 2 * long.nbytes / first_and_warm(functools.partial(copy, long), calls)[1]


def problem(sizes, num, dtype):
    generator = np.random.default_rng(0)
    params = mlp.init(jax.random.key(0), sizes, dtype=dtype)
    return params, generator.random((num, sizes[0])).astype(dtype), generator.integers(0, sizes[-1], num)


def _each_example(sizes: tuple[int, ...], first: int, other: int) -> int:
    """Return the multiply-adds an example, with so many products with the first weight and with each other one."""
    weights = [a * b for a, b in itertools.pairwise(sizes)]
    return first * weights[0] + other * sum(weights[1:])


class TorchProblem:
    """The same network, data and loss in torch, on its accelerator if it has one."""

    def __init__(self, torch: Any, params: mlp.Params, x: np.ndarray, y: np.ndarray) -> None:
        self.torch, self.device = torch, "cuda" if torch.cuda.is_available() else "cpu"
        self.leaves, (self.x,), (self.y,) = self.move(params), self.move(x), self.move(y)

    def move(self, arrays: Any) -> tuple:
        """Return the leaves of a pytree as tensors on the device."""
        return tuple(self.torch.tensor(np.asarray(leaf), device=self.device) for leaf in jax.tree.leaves(arrays))

    def loss(self, leaves: tuple, x: Any, y: Any) -> Any:
        """Mean softmax cross-entropy of the tanh network."""
        z = x
        for depth in range(0, len(leaves), 2):
            z = (self.torch.tanh(z) if depth else z) @ leaves[depth] + leaves[depth + 1]
        return self.torch.nn.functional.cross_entropy(z, y)

    def wait(self, result: Any) -> Any:
        """Return the result when it is ready."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()
        return result

    def hessian(self) -> Any:
        """All second derivatives, as torch.func nests them."""
        return self.wait(self.torch.func.hessian(self.loss)(self.leaves, self.x, self.y))

    def product(self, direction: tuple) -> Any:
        """The Hessian times a direction."""
        gradient = self.torch.func.grad(self.loss)
        along = lambda leaves: gradient(leaves, self.x, self.y)
        return self.wait(self.torch.func.jvp(along, (self.leaves,), (direction,))[1])

    def train_together(self, batch_size: int, seeds: int, epochs: int) -> Any:
        """Plain SGD of one network a seed, all in one vmap, each with its own order of examples."""
        torch = self.torch
        noise = lambda leaf: 0.1 * torch.randn(seeds, *leaf.shape, device=self.device)
        leaves = tuple(leaf + noise(leaf) for leaf in self.leaves)
        gradient = torch.func.vmap(torch.func.grad(self.loss))
        for _ in range(epochs):
            order = torch.rand(seeds, len(self.x), device=self.device).argsort(1)
            for rows in order.split(batch_size, 1):
                steps = gradient(leaves, self.x[rows], self.y[rows])
                leaves = tuple(leaf - RATE * step for leaf, step in zip(leaves, steps, strict=True))
        return self.wait(leaves)

    def train(self, batch_size: int) -> Any:
        """One epoch of plain SGD."""
        leaves = [leaf.clone().requires_grad_() for leaf in self.leaves]
        optimizer = self.torch.optim.SGD(leaves, lr=RATE)
        for rows in self.torch.randperm(len(self.x), device=self.device).split(batch_size):
            optimizer.zero_grad()
            self.loss(tuple(leaves), self.x[rows], self.y[rows]).backward()
            optimizer.step()
        return self.wait(leaves)


def hessian_ways(quick: bool) -> list[Way]:
    params, x, y = problem((64, 8, 10) if quick else (64, 128, 10), 100 if quick else 60_000, np.float64)
    way = functools.partial(Way, "dense Hessian", "float64")
    each = tree.size(params) ** 2 / 2
    ways = [way("mlp_jax", len(x) * each, lambda: mlp_hessian.dense(params, x, y, loss=losses.cross_entropy))]
    if torch := find("torch"):
        # torch.func.hessian holds every column of every example at once, so it gets fewer examples.
        few = min(len(x), 1000)
        there = TorchProblem(torch, params, x[:few], y[:few])
        ways.append(way(f"torch.func.hessian, {few} examples", few * each, there.hessian))
    return ways


def product_ways(quick: bool, dtype: str) -> list[Way]:
    sizes = (64, 8, 10) if quick else (784, 1024, 1024, 10)
    params, x, y = problem(sizes, 100 if quick else 60_000, np.dtype(dtype))
    call = jax.jit(lambda p, v, x, y: curvature.hessian(mean_loss, p, (x, y))(v))
    direction = tree.random_like(jax.random.key(1), params)  # not the parameters: XLA would see the same product twice
    # Forward 1, its tangent 2, backward 1, its tangent 2, the tangent of the weight's gradient 2; inputs have none.
    least = len(x) * _each_example(sizes, first=3, other=8)
    way = functools.partial(Way, "Hessian-vector product", dtype, multiply_adds=least)
    ways = [way(name="mlp_jax", run=functools.partial(call, params, direction, jnp.asarray(x), jnp.asarray(y)))]
    if torch := find("torch"):
        there = TorchProblem(torch, params, x, y)
        ways.append(way(name="torch.func, jvp of grad", run=functools.partial(there.product, there.move(direction))))
    return ways


def training_ways(quick: bool, batch_size: int) -> list[Way]:
    sizes = (64, 8, 10) if quick else (784, 1024, 1024, 10)
    params, x, y = problem(sizes, 200 if quick else 60_000, np.float32)
    data, optimizer = (jnp.asarray(x), jnp.asarray(y)), optax.sgd(RATE)
    train = functools.partial(training.train, optimizer=optimizer, batch_size=batch_size, epochs=1)
    call = jax.jit(lambda key, p, data: train(key, batch_loss, p, data)[0])
    work = f"training, an epoch at batch {batch_size}"
    way = functools.partial(Way, work, "float32", multiply_adds=len(x) * _each_example(sizes, first=2, other=3))
    ways = [way(name="mlp_jax", run=functools.partial(call, jax.random.key(0), params, data))]
    if torch := find("torch"):
        there = TorchProblem(torch, params, x, y)
        ways.append(way(name="torch, eager", run=functools.partial(there.train, batch_size)))
    return ways


def sweep_ways(quick: bool) -> list[Way]:
    params, x, y = problem((64, 32, 10), 200 if quick else 10_000, np.float32)
    seeds, sizes, epochs = (2, (32, 64), 1) if quick else (64, (32, 64, 128, 256, 512, 1024), 5)
    run = functools.partial(
        sweep.run, jax.random.key(0), batch_loss, _init, (jnp.asarray(x), jnp.asarray(y)), batch_sizes=sizes,
        learning_rates=(RATE,), seeds=seeds, epochs=epochs,
    )  # fmt: skip
    lanes = len(sizes) * seeds
    work = lanes * epochs * len(x) * _each_example((64, 32, 10), first=2, other=3)
    way = functools.partial(Way, f"sweep, {lanes} lanes", "float32", multiply_adds=work)
    ways = [way(name="mlp_jax", run=lambda: run().loss)]
    if torch := find("torch"):
        there = TorchProblem(torch, params, x, y)
        each = lambda: [there.train_together(size, seeds, epochs) for size in sizes]
        ways.append(way(name="torch.func, vmap over seeds", run=each))
    return ways


def work_table(quick: bool, calls: int, most: dict[str, float]) -> pd.DataFrame:
    """Return one row a way, with its share of the rate of matrix products."""
    makers = [
        lambda: hessian_ways(quick),
        *(functools.partial(product_ways, quick, dtype) for dtype in ("float32", "float64")),
        *(functools.partial(training_ways, quick, batch) for batch in ((32,) if quick else (128, 2048))),
        lambda: sweep_ways(quick),
    ]
    rows = []
    for make in tqdm.tqdm(makers, unit="task", leave=False, disable=None):
        for way in make():
            first, warm = first_and_warm(way.run, calls)
            share = way.multiply_adds / most[way.dtype] / warm
            rows.append({"work": way.work, "dtype": way.dtype, "way": way.name, "first_s": first, "warm_s": warm,
                         "share_of_gemm_rate": share})  # fmt: skip
    return pd.DataFrame(rows)


def verdict_table(quick: bool) -> pd.DataFrame:
    """Classify a saddle and a minimum on the default device and on the CPU, in float64."""
    params, x, y = problem((64, 4 if quick else 16, 10), 100 if quick else 1797, np.float64)
    zero, rows = jax.tree.map(jnp.zeros_like, params), []
    for decay in (1e-3, 10.0):
        tilt = jax.jit(jax.grad(tilted_loss))(params, x, y, zero, jnp.asarray(decay))
        for device in dict.fromkeys((jax.devices()[0], jax.devices("cpu")[0])):
            there, *args = jax.device_put((params, x, y, tilt, np.float64(decay)), device)
            with jax.default_device(device):
                classify = functools.partial(critical.classify, tilted_loss, there, tuple(args))
                first, verdict = seconds(classify)
                warm, _ = seconds(classify)
            rows.append({
                "device": device.device_kind, "decay": decay, "kind": verdict.kind, "index": verdict.index,
                "smallest": float(verdict.smallest), "bound": float(verdict.bound), "first_s": first, "warm_s": warm,
            })  # fmt: skip
    return pd.DataFrame(rows)


def measure(settings: Settings) -> side_by_side.Report:
    quick, calls, device = settings.quick, 1 if settings.quick else settings.calls, jax.devices()[0]
    print(f"device: {device.device_kind}" + ("" if device.platform != "cpu" else " (no accelerator: not a GPU figure)"))
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        most, copied = limits(quick, calls)
        for dtype, rate in most.items():
            print(f"limit: {rate / 1e12:.3g}e12 multiply-adds/s in {dtype}")
        print(f"limit: {copied / 1e9:.3g} GB/s")
        work = work_table(quick, calls, most)
        yield "work", work
        verdicts = verdict_table(quick)
    yield "verdicts", verdicts
    labels = [f"{row.work}, {row.dtype}: {row.way}" for row in work.itertuples()]
    yield (
        "work",
        side_by_side.bars(labels, 100 * work.share_of_gemm_rate, "% of the rate of large matrix products here"),
    )


if __name__ == "__main__":
    verdicts = side_by_side.run("gpu", Settings, measure, __doc__)["verdicts"]
    if any(part.kind.nunique() > 1 for _, part in verdicts.groupby("decay")):
        raise SystemExit("Verdicts on the device and on the CPU are NOT the same.")
    print("Verdicts on the device and on the CPU are the same.")
