"""What can be said of a network of 79,510 parameters, and how fast?

    python -m benchmarks.large [--quick] [--parts eigenpairs verdict point digits] [--output FOLDER]

784-100-10, tanh, softmax cross-entropy, on 4,000 digits of MNIST, trained by 20 epochs of SGD (rate .1, batches of 32).

- eigenpairs: the ten largest, in float32, where training ended; first call and warm.
- verdict: that of `classify` where training ended; first call and warm.
- point: with weight decay 1e-3 in training and loss, a critical point from where training ended, and its verdict.
- digits: of 64-128-10 and 64-266-10 (weight decay 1e-2, 1,797 digits), a critical point from the initialisation, and
  its verdict from products.

`--quick` takes 400 digits and two hidden units.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from benchmarks import classifier, side_by_side
from benchmarks.side_by_side import seconds
from experiments._shared import classifier as networks
from experiments._shared.bars import bar
from mlp_jax import critical, curvature, datasets, losses, mlp, penalties, training, tree

DECAY = 1e-3


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark."""

    parts: tuple[str, ...] = ("eigenpairs", "verdict", "point", "digits")
    """Tables to make."""


def loss(params: mlp.Params, x: jax.Array, y: jax.Array, decay: Any, weights: Any = None) -> jax.Array:
    return losses.mean(classifier.per_example(params, x, y), weights) + decay * penalties.l2(params, 1.0)


def trained(quick: bool, decay: float) -> tuple[mlp.Params, tuple[np.ndarray, np.ndarray, Any]]:
    """Return params in float32 where training ended, and the arguments of the loss."""
    data = datasets.load("mnist5000").train
    data = jax.tree.map(lambda leaf: leaf[:400], data) if quick else data
    init_key, train_key = jax.random.split(jax.random.key(0))
    batch_loss = lambda params, x, y, weights, key: loss(params, x, y, np.float32(decay), weights)
    start = mlp.init(init_key, (784, 2 if quick else 100, 10), dtype=jnp.float32)
    settings: dict[str, Any] = {"optimizer": optax.sgd(0.1), "batch_size": 32, "epochs": 20}
    params, _ = training.train(train_key, batch_loss, start, data, **settings)
    return jax.tree.map(np.asarray, params), (data.inputs, data.targets, np.float32(decay))


def _gradient_norm(params: mlp.Params, args: tuple) -> float:
    return float(tree.norm(jax.jit(jax.grad(loss))(params, *args)))


def _row(work: str, times: list[float], params: mlp.Params, said: str, products: Any) -> dict[str, Any]:
    warm = times[1] if len(times) > 1 else np.nan
    return {
        "work": work,
        "P": tree.size(params),
        "first_s": times[0],
        "warm_s": warm,
        "products": products,
        "said": said,
    }


def eigenpairs(quick: bool) -> pd.DataFrame:
    with jax.enable_x64(False):
        params, args = trained(quick, 0.0)

        def search() -> curvature.Eigenpairs:
            matvec = jax.tree_util.Partial(_product, params, args)
            with bar("eigenpairs", "product") as progress:
                return curvature.eigenpairs(matvec, params, jax.random.key(0), largest=10, progress=progress)

        (first, _), (warm, pairs) = seconds(search), seconds(search)
    said = f"{int(np.sum(pairs.converged))} of 10 within {pairs.tolerance:.1e}"
    return pd.DataFrame([_row("ten largest eigenpairs, float32", [first, warm], params, said, pairs.num_matvecs)])


def _product(params: mlp.Params, args: tuple, vector: mlp.Params) -> mlp.Params:
    return curvature.hessian(loss, params, args)(vector)


def _named(params: mlp.Params, args: tuple, calls: list[int], fun: Callable[..., jax.Array] = loss) -> critical.Verdict:
    with bar("verdict", "product") as progress:

        def counted(done: int, total: int) -> None:
            calls.append(done)
            progress(done, total)

        return critical.classify(fun, params, args, evidence="lanczos", progress=counted)


def verdict(quick: bool) -> pd.DataFrame:
    with jax.enable_x64(False):
        params, args = trained(quick, 0.0)
        calls: list[int] = []
        first, _ = seconds(functools.partial(_named, params, args, []))
        warm, said = seconds(functools.partial(_named, params, args, calls))
        size = _gradient_norm(params, args)
    words = f"{said.kind}, gradient {size:.2g}"
    return pd.DataFrame([_row("verdict where training ended", [first, warm], params, words, calls[-1])])


def point(quick: bool) -> pd.DataFrame:
    params, args = trained(quick, DECAY)
    return pd.DataFrame(_found("where training ended", loss, params, args))


def digits(quick: bool) -> pd.DataFrame:
    model, args = networks.classifier(1e-2), networks.all_digits()
    starts = (mlp.init(jax.random.key(0), (64, hidden, 10)) for hidden in ((2,) if quick else (128, 266)))
    rows = (_found("the initialisation", model.fun, params, args) for params in starts)
    return pd.DataFrame(list(itertools.chain.from_iterable(rows)))


def _found(where: str, fun: Callable[..., jax.Array], params: mlp.Params, args: tuple) -> list[dict[str, Any]]:
    """Return the rows of a search, and of the verdict on the point that it finds."""

    def search() -> critical.Point:
        with bar("search", "step") as progress:
            return critical.find(fun, params, args, progress=progress)

    took, found = seconds(search)
    words = f"{found.reason}; gradient {float(found.gradient_norm):.1e}"
    rows = [_row(f"search from {where}", [took], params, words, np.nan)]
    calls: list[int] = []
    took, named = seconds(functools.partial(_named, found.params, args, calls, fun))
    words = f"{named.kind}; smallest {named.smallest:.2e}; {named.evidence}"
    return [*rows, _row("its verdict", [took], params, words, calls[-1])]


def measure(settings: Settings) -> side_by_side.Report:
    makers: dict[str, Callable[[bool], pd.DataFrame]] = {
        "eigenpairs": eigenpairs, "verdict": verdict, "point": point, "digits": digits,
    }  # fmt: skip
    chosen = {name: functools.partial(make, settings.quick) for name, make in makers.items()}
    yield from side_by_side.parts(chosen, settings.parts)


if __name__ == "__main__":
    side_by_side.run("benchmark_large", Settings, measure, __doc__)
