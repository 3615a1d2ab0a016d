"""How long does a proof take by layer blocks, and from Hessian-vector products, beside an eigendecomposition?

    python -m benchmarks.proofs [--quick] [--hidden 8 27] [--output FOLDER]

Critical points of 64-h-10 tanh networks on 1,797 digits (softmax cross-entropy, weight decay .01), a minimum and
saddles: `interval.certify` with `mlp_hessian.enclosable` and without, in turn, and `numpy.linalg.eigh` of the Hessian.
The first call, which traces and tests the function, is apart. Saddles of high index come from 13 hidden units, to which
units of zeros are added, so that their index is higher than the one asked for. Then many critical points of a 2-2-1
network on XOR, one at a time and together.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pandas as pd

from benchmarks import side_by_side
from experiments._shared import xor
from experiments._shared.classifier import Classifier, all_digits, classifier
from mlp_jax import critical, interval, mlp, tree

# Above this index, points are searched in a network with few hidden units.
_LOW, _FEW = 3, 13


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark."""

    hidden: tuple[int, ...] = (8, 27)
    """Hidden units of the networks: 8 are 610 parameters, 27 are 2,035, 128 are 9,610, by layer blocks alone."""
    indices: tuple[int, ...] = (0, 3, 20)
    """Indices of the points that are searched for."""
    rounds: int = 3
    """Calls after the first."""


def tables(settings: Settings) -> side_by_side.Report:
    model, digits = classifier(1e-2), all_digits()
    rows = []
    for hidden in (2,) if settings.quick else settings.hidden:
        for index in settings.indices:
            params = point(model, digits, hidden, index)
            certify = functools.partial(interval.certify, model.fun, params, digits, hessian=model.hessian)
            matrix = np.asarray(model.hessian(params, *digits))
            ways = {
                "certify, by layer blocks": functools.partial(certify, enclosure=model.enclosure),
                "certify, from products": certify,
                "numpy.linalg.eigh": functools.partial(np.linalg.eigh, matrix),
            }
            if len(matrix) > 3000:
                ways = dict(list(ways.items())[:1])
            first = {name: side_by_side.seconds(run) for name, run in ways.items()}
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(1 if settings.quick else settings.rounds):
                for name, run in ways.items():
                    times[name].append(side_by_side.seconds(run)[0])
            proof = first["certify, by layer blocks"][1]
            for name, (seconds, result) in first.items():
                rows.append({
                    "P": tree.size(params), "asked": index, "index": proof.index, "way": name, "first_s": seconds,
                    "warm_s": float(np.median(times[name])), "unique_radius": getattr(result, "unique_radius", None),
                })  # fmt: skip
    table = pd.DataFrame(rows)
    table["times_eigh"] = table.warm_s / table.groupby(["P", "asked"]).warm_s.transform("min")
    yield "proofs", table
    labels = [f"P = {row.P:,}, index {row.index}: {row.way}" for row in table.itertuples()]
    yield "many small proofs", many(settings)
    yield "seconds", side_by_side.bars(labels, table.warm_s, "seconds, after the first call", log=True)


def point(model: Classifier, digits: tuple[np.ndarray, np.ndarray], hidden: int, index: int) -> mlp.Params:
    """Return the critical point that a search for an index finds; of high index with units of zeros."""
    searched = min(hidden, _FEW) if index > _LOW else hidden
    start = mlp.init(jax.random.key(0), (64, searched, 10))
    params = critical.find(model.fun, start, digits, index=index, hessian=model.hessian).params
    for _ in range(hidden - searched):
        params = mlp.add_unit(params, 0)
    return params


def many(settings: Settings) -> pd.DataFrame:
    """Return the milliseconds a point on XOR, after the first call: `certify` and `certify_many`."""
    args, number = xor.data("{0, 1}", 1e-2), 20 if settings.quick else 1500
    starts = jax.vmap(xor.init)(jax.random.split(jax.random.key(0), number))
    found = critical.find_many(xor.loss, starts, args)
    points = jax.tree.map(lambda leaf: np.asarray(leaf)[np.asarray(found.converged)], found.params)
    some = [jax.tree.map(lambda leaf, i=i: leaf[i], points) for i in range(18)]  # a census has as many
    first = jax.tree.map(lambda leaf: leaf[:18], points)
    ways = {
        "certify, one at a time": (18, lambda: [interval.certify(xor.loss, point, args) for point in some]),
        "certify_many, of a few": (18, lambda: interval.certify_many(xor.loss, first, args)),
        "certify_many, of many": (len(points[0].bias), lambda: interval.certify_many(xor.loss, points, args)),
    }
    rows = []
    for way, (count, run) in ways.items():
        run()
        seconds, proofs = zip(*(side_by_side.seconds(run) for _ in range(settings.rounds)), strict=True)
        rows.append({
            "way": way, "points": count, "proved": sum(proof.proved for proof in proofs[0]),
            "ms_a_point": 1e3 * float(np.median(seconds)) / count,
        })  # fmt: skip
    return pd.DataFrame(rows)


if __name__ == "__main__":
    side_by_side.run("benchmark_proofs", Settings, tables, __doc__)
