"""The functions of `plots`."""

from __future__ import annotations

import warnings
from typing import Any

import matplotlib
import numpy as np
from hypothesis import strategies as st

from benchmarks.bad_input.arguments import BOOLEAN, DENSITY
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import integers, need, numbers, real, whole
from benchmarks.hostile_inputs import arrays, counts, reals, things
from mlp_jax import curvature

AXES = ("axes()", st.one_of(things(), st.just("axes(ncols=2)")))


def drawn(a: Any, result: Any, *series: np.ndarray) -> bool:
    """Return whether the axes given came back and can be drawn."""
    del series
    need(isinstance(a.axes, matplotlib.axes.Axes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result.figure.canvas.draw()
    return result is a.axes or isinstance(result, matplotlib.axes.Axes)


def rows_of(values: Any, *shape: int | None) -> np.ndarray:
    """Return numbers of a shape; None stands for any length."""
    array = numbers(values, len(shape), kinds="fiub")
    need(all(want in (None, got) for got, want in zip(array.shape, shape, strict=True)))
    return array


@call("plots.against_batch_size", axes=AXES, batch_sizes=("[8, 16]", arrays((2,))),
      samples=("[[1.0, 2.0], [2.0, 3.0]]", arrays((2, 2))), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    sizes = rows_of(a.batch_sizes, None)
    need(np.all((sizes > 0) & np.isfinite(sizes)))
    return drawn(a, result, rows_of(a.samples, len(sizes), None))


@call("plots.updates_to_target", axes=AXES, batch_sizes=("[8, 16]", arrays((2,))),
      updates=("[[50], [30]]", arrays((2, 1))), reached=("[[True], [False]]", arrays((2, 1))),
      min_updates=("10.0", reals()), min_examples=("320.0", reals()), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    sizes = rows_of(a.batch_sizes, None)
    need(np.all((sizes > 0) & np.isfinite(sizes)) and np.asarray(a.reached).dtype == bool)
    float(a.min_updates) + float(a.min_examples)
    return drawn(a, result, rows_of(a.updates, len(sizes), None), rows_of(a.reached, len(sizes), None))


@call("plots.heat_map", axes=AXES, rows=("[8, 16]", arrays((2,))), columns=("[0.1, 1.0]", arrays((2,))),
      values=("[[2.0, np.inf], [1.0, 3.0]]", arrays((2, 2))), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    return drawn(a, result, rows_of(a.values, len(rows_of(a.rows, None)), len(rows_of(a.columns, None))))


@call("plots.census_levels", axes=AXES, index=("[0, 1, 1]", arrays((3,))), loss=("[0.1, 0.2, 0.3]",
      arrays((3,))), copies=("[8, 8, 4]", arrays((3,))), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    integers(a.copies, 1), integers(a.index, 1)
    return drawn(a, result, rows_of(a.loss, len(a.index)), rows_of(a.copies, len(a.index)))


EDGES = st.one_of(things(), st.sampled_from(("[(2, 0, 9)]", "[(9, 0, 1)]", "[(2, None, None)]", "[(2, 0)]",
    "[(2, -1, 0)]", "[(2, 0.5, 1)]", "[]", "[('a', 0, 1)]", "[(2,)]")))  # fmt: skip


@call("plots.saddle_graph", axes=AXES, loss=("[0.1, 0.2, 0.3]", arrays((3,))), index=("[0, 0, 1]",
      arrays((3,))), edges=("[(2, 0, 1)]", EDGES), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    loss, index = rows_of(a.loss, None), integers(a.index, 1)
    need(len(loss) == len(index) and len(a.edges) >= 0)
    need(all(len(edge) == 3 and all(n is None or whole(n, 0, len(loss) - 1) >= 0 for n in edge) for edge in a.edges))
    return drawn(a, result)


@call("plots.loss_against_index", axes=AXES, index=("[0, 3]", arrays((2,))), loss=("[0.1, 0.2]",
      arrays((2,))), padded=(None, arrays((2,))), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    need(np.all(integers(a.index, 1) >= 0) and (a.padded is None or np.asarray(a.padded).dtype == bool))
    return drawn(a, result, rows_of(a.loss, len(a.index)))


@call("plots.eigenvalues", axes=AXES, values=("[-1.0, 1e-3, 2.0]", arrays((3,))),
      bound=(None, reals()), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    need(np.all(np.isfinite(rows_of(a.values, None))) and (a.bound is None or real(a.bound, 0) >= 0))
    return drawn(a, result)


@call("plots.spectral_density", axes=AXES, density=("None", st.one_of(things(), st.just(DENSITY))),
      values=("[0.0, 0.1, 2.0]", arrays((3,))), bins=(None, counts()), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    need(a.density is None or isinstance(a.density, curvature.Density))
    need(a.values is None or np.all(np.isfinite(numbers(a.values, kinds="fiub"))))
    return drawn(a, result) and whole(a.bins) > 0


@call("plots.training_curve", axes=AXES, steps=("[1, 2]", arrays((2,))), runs=("[[3.0, 1.0], [5.0, 1.0]]",
      arrays((2, 2))), weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    return drawn(a, result, rows_of(a.runs, None, len(rows_of(a.steps, None))))


@call("plots.profile", axes=AXES, offsets=("[0.0, 1.0]", arrays((2,))), values=("[2.0, 3.0]", arrays((2,))),
      weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    return drawn(a, result, rows_of(a.values, len(rows_of(a.offsets, None))))


ON_GRID = {"first_offsets": ("[-1.0, 0.0, 1.0]", arrays((3,))), "second_offsets": ("[0.0, 1.0]", arrays((2,))),
               "values": ("[[0.0, 1.0], [2.0, 0.5], [1.0, 3.0]]", arrays((3, 2)))}  # fmt: skip


@call("plots.contours", axes=AXES, **ON_GRID, trajectory=(None, arrays((4, 2))), num_levels=(None, counts()),
      log=BOOLEAN, weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    x, y = rows_of(a.first_offsets, None), rows_of(a.second_offsets, None)
    need(np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(rows_of(a.values, len(x), len(y))).all())
    need(a.trajectory is None or len(rows_of(a.trajectory, None, 2)))
    need(whole(a.num_levels, 2) and (not a.log or np.min(a.values) > 0))
    return drawn(a, result)


@call("plots.surface", axes=("axes(subplot_kw={'projection': '3d'})", st.one_of(things(), st.just("axes()"))),
      **ON_GRID, weight=0.4)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    x, y = rows_of(a.first_offsets, None), rows_of(a.second_offsets, None)
    rows_of(a.values, len(x), len(y))
    return drawn(a, result)
