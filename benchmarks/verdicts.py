"""Is any verdict wrong? The confusion table over ten thousand points of known inertia.

    python -m benchmarks.verdicts [--quick] [--only known|adversarial|outside] [--output FOLDER]

Prints a table of the truth against the verdicts of `critical.classify`, the rate of abstentions on points that are
nondegenerate modulo symmetry, and separate tables of adversarial cases and cases from outside, by family. Writes the
points and tables.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tqdm

from benchmarks import known_points, outside_points, side_by_side
from benchmarks.known_points import Case
from benchmarks.side_by_side import seconds
from mlp_jax import critical

NON_ANSWERS = ("undetermined", "degenerate", "nonsmooth", "not critical", "error")


@dataclasses.dataclass(frozen=True)
class Settings(side_by_side.Settings):
    """Settings of the benchmark; `quick` takes a tenth of the points."""

    only: Literal["known", "adversarial", "outside"] | None = None
    """One of the three sets; all of them when not given."""


def families(share: float) -> dict[str, list[Case]]:
    """Return the points of known inertia, by family."""
    number = lambda count: max(1, round(share * count))
    conds, every = (1.0, 10.0, 100.0, 1e3), max(1, round(1 / share))
    return {
        "linear network": list(itertools.islice(known_points.linear(conds, 3), 0, None, every)),
        "linear network with biases": list(itertools.islice(known_points.biased(conds, 3), 0, None, every)),
        "tilted network": list(known_points.tilted(number(2500))),
        "manufactured": list(known_points.manufactured(number(1500))),
        "split unit": list(known_points.split(number(500))),
        "padded network": list(known_points.padded(number(1200))),
        "polynomial": list(known_points.polynomials(number(1500))),
        "spurious minimum of XOR": list(known_points.xor_spurious(number(200))),
    }


def _one_small(generator: np.random.Generator, size: int, smallest: float) -> np.ndarray:
    values = np.exp(generator.uniform(np.log(1e-2), 0, size))
    values[0] = smallest * generator.choice([-1.0, 1.0])
    return values


def single_precision(x, matrix):
    """½ xᵀ A x, computed in float32."""
    low = x.astype(jnp.float32)
    return (low @ matrix.astype(jnp.float32) @ low / 2).astype(x.dtype)


quadratic = lambda x, matrix: x @ matrix @ x / 2
# Its gradient at 0 lies in the null space of the Hessian, and is not zero.
flat_slope = lambda x, slope: x[0] ** 3 + slope * x[0] + x[1] ** 2
corner = lambda x, slope, curvature: curvature * x[0] ** 2 / 2 + slope * jnp.abs(x[0]) + x[1] ** 2
null_and_small = lambda x, matrix: x @ matrix @ x / 2 + jnp.sum(x[:3] ** 4) / 4


def _symmetric(generator: np.random.Generator, values: np.ndarray) -> np.ndarray:
    rotation = np.linalg.qr(generator.standard_normal((len(values), len(values))))[0]
    matrix = (rotation * values) @ rotation.T
    return (matrix + matrix.T) / 2


def _small(count: int, fun, dtype: type, smallest: float) -> Iterator[Case]:
    for number in range(count):
        generator = np.random.default_rng(number)
        values = _one_small(generator, 6, smallest)
        negative = int(np.sum(values < 0))
        args = (_symmetric(generator, values),)
        yield Case(fun, np.zeros(6, dtype), args, (negative, 0, 6 - negative), True, {})


def _off(cases: Iterator[Case], distance: float) -> Iterator[Case]:
    for number, case in enumerate(cases):
        draw = np.random.default_rng(number).standard_normal(np.shape(case.params))
        yield case._replace(params=case.params + distance * draw / np.linalg.norm(draw))


def _null_clusters(count: int) -> Iterator[Case]:
    for number in range(count):
        generator, matrix = np.random.default_rng(number), np.zeros((7, 7))
        values = np.r_[-(10 ** generator.uniform(-9, -3)), generator.uniform(0.1, 1, 3)]
        matrix[3:, 3:] = _symmetric(generator, values)
        yield Case(null_and_small, np.zeros(7), (matrix,), (1, 3, 3), False, {})


def mirrored(x, values, normal):
    """½ Σ values y², with y the reflection of x in a plane."""
    y = x - 2 * normal * (normal @ x)
    return jnp.sum(values * y**2) / 2


def _graded(count: int) -> Iterator[Case]:
    """Yield spectra whose weakest one to three eigenvalues are far below the largest, for evidence from products."""
    for number in range(count):
        generator = np.random.default_rng(number)
        size, sign = int(generator.choice([400, 1200])), generator.choice([-1.0, 1.0])
        top, weak = int(generator.integers(1, size // 2)), int(generator.integers(1, 4))
        large = np.arange(1, top + 1.0) ** -generator.uniform(0.3, 2)
        bulk = 10 ** generator.uniform(-6, -1) * generator.uniform(0.5, 2, size - top)
        values = np.append(large, bulk)
        values[-weak:] = 10 ** generator.uniform(-9, -2) * generator.choice([-1.0, 1.0], weak, p=[0.4, 0.6])
        negative = int(np.sum(sign * values < 0))
        normal = generator.standard_normal(size)
        args = sign * values, normal / np.linalg.norm(normal)
        truth = negative, 0, size - negative
        yield Case(mirrored, np.zeros(size), args, truth, True, {"evidence": "lanczos", "key": jax.random.key(number)})


def adversarial(share: float) -> dict[str, list[Case]]:
    """Return hard cases, by name; their verdicts may withhold the kind, but must not be wrong."""
    count = max(1, round(200 * share))
    slopes, signs = np.geomspace(1e-12, 1e-2, count), itertools.cycle((np.float64(1), np.float64(-1)))
    gauges = known_points.linear((1e4, 1e6, 1e8), 1, known_points.SHAPES[:3])
    tilted = known_points.tilted
    members: dict[str, Iterator[Case]] = {
        "an eigenvalue of ±1e-9 relative": tilted(count, spectrum=lambda g, n, _: _one_small(g, n, 1e-9)),
        "float32 inputs, eigenvalue ±1e-9": _small(count, quadratic, np.float32, 1e-9),
        "a float32 cast inside, eigenvalue ±1e-3": _small(count, single_precision, np.float64, 1e-3),
        "a float32 cast inside, eigenvalue ±1e-9": _small(count, single_precision, np.float64, 1e-9),
        "off by 1e-6": _off(tilted(count, smallest=1e-2), 1e-6),
        "off by 1e-2": _off(tilted(count, smallest=1e-2), 1e-2),
        "gradient-flat": (Case(flat_slope, np.zeros(2), (slope,), None, False, {}) for slope in slopes),
        "a kink under the point": (
            Case(corner, np.zeros(2), pair, None, False, {}) for pair in zip(slopes, signs, strict=False)
        ),
        "null cluster beside a small negative eigenvalue": _null_clusters(count),
        "gauge of condition 1e4 to 1e8": itertools.islice(gauges, count),
        "weak modes beside large ones, from products": _graded(count),
    }
    return {name: list(cases) for name, cases in members.items()}


def outside(share: float, count: int = 125) -> dict[str, list[Case]]:
    """Return the cases that come from wrong verdicts found elsewhere, by mechanism; a third of each has no fault."""
    return {name: list(make(max(12, round(share * count)))) for name, make in outside_points.FAMILIES.items()}


def known(case: Case) -> str:
    """Return the correct kind."""
    if case.truth is None:
        return "not a smooth critical point"
    negative, zero, positive = case.truth
    if negative and positive:
        return "saddle"
    name = "minimum" if positive else "maximum"
    return name if not zero else f"{name} modulo symmetry" if case.answerable else "degenerate"


def is_wrong(case: Case, verdict: critical.Verdict) -> bool:
    """Return whether any claim of the verdict is false."""
    if case.truth is None:
        return verdict.kind not in NON_ANSWERS
    negative, zero, positive = case.truth
    if verdict.kind in ("not critical", "nonsmooth"):
        return False  # counted as an abstention
    if verdict.inertia.negative > negative or verdict.inertia.positive > positive:
        return True
    if verdict.index not in (None, negative) or not verdict.index_range[0] <= negative <= verdict.index_range[1]:
        return True
    if verdict.kind.startswith(("minimum", "maximum")):
        other = negative if verdict.kind.startswith("minimum") else positive
        return other > 0 or (zero > 0 and not (case.answerable and "modulo" in verdict.kind))
    if verdict.kind == "saddle":
        return negative == 0 or positive == 0
    if verdict.kind == "degenerate saddle":
        return zero == 0 and (negative == 0 or positive == 0)
    return verdict.kind == "degenerate" and zero == 0


def row(family: str, case: Case) -> dict:
    """Classify a point. An exception counts as a withheld kind."""

    def attempt():
        try:
            return critical.classify(case.fun, case.params, case.args, **case.options)
        except Exception as exception:
            return exception

    took, verdict = seconds(attempt)
    failed = isinstance(verdict, Exception)
    said = "error" if failed else verdict.kind
    result = {
        "family": family, "known": known(case), "said": said, "wrong": not failed and is_wrong(case, verdict),
        "abstained": case.answerable and said in NON_ANSWERS, "answerable": case.answerable,
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(case.params)),
        "true_negative": None if case.truth is None else case.truth[0],
    }  # fmt: skip
    result |= {name: None if failed else getattr(verdict, name) for name in ("index", "smallest", "bound")}
    reason = f"{type(verdict).__name__}: {verdict}" if failed else verdict.reason
    return result | {"seconds": took, "reason": reason}


def judge(cases: dict[str, list[Case]]) -> pd.DataFrame:
    """Classify every point; return one row for each."""
    pairs = [(family, case) for family, members in cases.items() for case in members]
    return pd.DataFrame([row(*pair) for pair in tqdm.tqdm(pairs, unit="point", disable=None)])


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each family: points, wrong, abstentions, time."""
    grouped = rows.groupby("family", sort=False)
    said = grouped.said.agg(lambda s: ", ".join(f"{k} {v}" for k, v in collections.Counter(s).most_common()))
    sums = grouped[["wrong", "answerable", "abstained"]].sum()
    return sums.assign(points=grouped.size(), median_ms=1e3 * grouped.seconds.median(), said=said).reset_index()


def measure(settings: Settings) -> side_by_side.Report:
    sets = {"known": families, "adversarial": adversarial, "outside": outside}
    for name in (settings.only,) if settings.only else sets:
        with jax.enable_x64(True):
            cases = sets[name](0.1 if settings.quick else 1.0)
        rows = judge(cases)
        yield from ((name, rows), (f"{name}_summary", summary(rows)))
        if name == "known":
            yield "confusion", pd.crosstab(rows.known, rows.said).reset_index()
        answerable, abstained = int(rows.answerable.sum()), int(rows.abstained.sum())
        print(
            f"\n{name}: {len(rows)} points, {int(rows.wrong.sum())} named wrongly; abstained on {abstained} of"
            f" {answerable} that are nondegenerate modulo symmetry ({abstained / max(answerable, 1):.2%})."
        )


if __name__ == "__main__":
    side_by_side.run("verdicts", Settings, measure, __doc__)
