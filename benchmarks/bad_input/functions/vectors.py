"""The functions of `tree`, `display` and `intervals`."""

from __future__ import annotations

import html.parser
from typing import Any

import jax
import numpy as np
import scipy
from hypothesis import strategies as st

from benchmarks.bad_input.arguments import ARGS, BOOLEAN, KEY, LABEL, TREE, VECTOR
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import a_key, abstract, alike, floating, near, near_trees, need, numbers, whole
from benchmarks.hostile_inputs import arrays, counts, things
from mlp_jax import tree


@call("tree.ravel", tree=TREE)
def _(a: Any, result: Any) -> bool:
    vector, unravel = result
    if any(np.iscomplexobj(leaf) for leaf in jax.tree.leaves(a.tree)):
        expected = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(a.tree)])
        return near(np.real(vector), expected.real) and near(np.imag(vector), expected.imag)
    leaves = [numbers(leaf, kinds="fiub") for leaf in jax.tree.leaves(a.tree)]
    return near(vector, np.concatenate([*map(np.ravel, leaves), np.zeros(0)])) and near_trees(unravel(vector), a.tree)


@call("tree.size", tree=TREE)
def _(a: Any, result: Any) -> bool:
    return result == sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(a.tree))


@call("tree.dot", a=TREE, b=TREE)
def _(a: Any, result: Any) -> bool:
    alike(a.a, a.b)
    pairs = zip(jax.tree.leaves(a.a), jax.tree.leaves(a.b), strict=True)
    return near(result, sum(np.sum(numbers(x, kinds="fiub") * numbers(y, kinds="fiub")) for x, y in pairs))


@call("tree.norm", a=TREE)
def _(a: Any, result: Any) -> bool:
    with np.errstate(all="ignore"):
        leaves = [numbers(leaf, kinds="fiub").ravel() for leaf in jax.tree.leaves(a.a)]
        return near(result, np.sqrt(sum(leaf @ leaf for leaf in leaves)))


@call("tree.random_like", key=KEY, tree=TREE)
def _(a: Any, result: Any) -> bool:
    abstract(a.tree)
    alike(a.tree, result)
    return near_trees(result, tree.random_like(a_key(a.key), a.tree))


@call("tree.is_traced", tree=TREE)
def _(a: Any, result: Any) -> bool:
    return result is False


@call("tree.require_key", key=KEY)
def _(a: Any, result: Any) -> bool:
    return a_key(a.key) is not None and result is None


@call("tree.require_floating", "params", tree=TREE)
def _(a: Any, result: Any) -> bool:
    return len(floating(a.tree)) > 0 and result is None


@call("tree.require_floating_dtypes", "params", tree=TREE, name=("'params'", st.just("'params'")), abstract=BOOLEAN)
def _(a: Any, result: Any) -> bool:
    return len(abstract(a.tree)) > 0 and result is None


@call(
    "tree.require_numbers", "params", tree=TREE, name=("'params'", st.just("'params'")), real=BOOLEAN, abstract=BOOLEAN
)
def _(a: Any, result: Any) -> bool:
    kinds = "fiub" if a.real else "fiubc"
    leaves = [np.zeros(np.shape(leaf), jax.numpy.result_type(leaf)) for leaf in jax.tree.leaves(a.tree)]
    need(all(leaf.dtype.kind in kinds or jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating) for leaf in leaves))
    return result is None


@call("tree.require_like", "direction", tree=TREE, params=TREE, name=("'direction'", st.just("'direction'")))
def _(a: Any, result: Any) -> bool:
    alike(a.tree, a.params)
    return result is None


@call("tree.require_args", args=("(jnp.ones(2),)", st.one_of(ARGS[1], TREE[1].map("({},)".format))))
def _(a: Any, result: Any) -> bool:
    need(isinstance(a.args, tuple))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(a.args)]
    need(all(leaf.dtype.kind in "iubc" or np.all(np.isfinite(numbers(leaf))) for leaf in leaves))
    return result is None


@call("tree.count_not_finite", values=VECTOR)
def _(a: Any, result: Any) -> bool:
    return result == np.sum(~np.isfinite(numbers(a.values, kinds="fiub")))


@call("tree.count_examples", args=("(jnp.ones(2),)", st.one_of(ARGS[1], TREE[1].map("({},)".format))))
def _(a: Any, result: Any) -> bool:
    counts_ = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(a.args)}
    need(len(counts_) == 1 and not counts_ & {(), (0,)})
    return result == counts_.pop()[0]


@call("display.table", title=("'a < b'", things()), rows=("[('x', 1)]", st.one_of(things(),
      st.sampled_from(("[()]", "[('<b>', '&')]", "['xy']", "[(1, 2), None]")))), header=LABEL, note=LABEL)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    seen: list[str] = []
    parser = html.parser.HTMLParser()
    parser.handle_data = seen.append  # type: ignore[method-assign]  # the whole parser that is needed
    parser.feed(result)
    text = "".join(seen)
    cells = [] if hasattr(a.rows, "__next__") else [cell for row in a.rows for cell in row]  # an iterator is used up
    return all(cell in text for cell in (a.title, a.note, *cells) if isinstance(cell, str))


SAMPLES = ("[1.0, 2.0, 4.0]", arrays((3,), (4, 2)))
DIGITS = (None, counts(0))


@call("intervals.mean_interval", samples=SAMPLES, axis=(None, counts(-1)))
def _(a: Any, result: Any) -> bool:
    values, axis = numbers(a.samples, kinds="fiub"), whole(a.axis, -9)
    need(values.shape[axis])
    if values.shape[axis] < 2:
        return near(result[0], values.mean(axis)) and bool(np.all(np.isinf(result[1])))
    error = scipy.stats.sem(values, axis=axis)
    half = scipy.stats.t(values.shape[axis] - 1).isf(0.025) * error
    return near(result[0], values.mean(axis)) and near(result[1], half)


@call("intervals.show", samples=SAMPLES, digits=DIGITS)
def _(a: Any, result: Any) -> bool:
    values, digits = numbers(a.samples, 1, kinds="fiub"), whole(a.digits, 0)
    need(values.size)
    return result.startswith(f"{values.mean():.{digits}g} ± ")


@call("intervals.change", samples=SAMPLES, digits=DIGITS)
def _(a: Any, result: Any) -> bool:
    values = numbers(a.samples, 1, kinds="fiub")
    values, _ = values[np.isfinite(values)], whole(a.digits, 0)
    if values.size < 2:
        return result.startswith(("not measured", "no difference seen"))
    low, high = (values.mean() + side * scipy.stats.t(len(values) - 1).isf(0.025) * scipy.stats.sem(values)
                 for side in (-1, 1))  # fmt: skip
    return result.startswith("higher" if low > 0 else "lower" if high < 0 else "no difference seen")
