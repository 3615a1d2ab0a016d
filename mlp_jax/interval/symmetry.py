"""Critical points modulo a continuous symmetry: a slice across the orbit, and fun augmented by a term for it.

Let ∇fun(θ)ᵀΞ(θ) = 0 for all θ, Ξ the tangents (P, s), and F(θ) = fun(θ) + σ/2 ‖Vᵀ(θ − c)‖² with V (P, s), σ > 0.
Where Ξ(θ)ᵀV is nonsingular, ∇F = 0 implies 0 = Ξᵀ∇F = σ (ΞᵀV) Vᵀ(θ − c), hence Vᵀ(θ − c) = 0 and ∇fun = 0: in a box
where that holds throughout, the critical points of F are those of fun on the slice Vᵀ(θ − c) = 0. There H_fun Ξ = 0,
and R^P is the sum of the ranges of Ξ and V⊥, in which H_F = H_fun + σVVᵀ is block diagonal: σ(ΞᵀV)(VᵀΞ), which is
positive, and H_fun on V⊥. So H_fun has the inertia of H_F, with s positive eigenvalues replaced by zeros.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import flint
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree

from mlp_jax.interval import ball, enclosures, multiprecision, spectra
from mlp_jax.interval.ball import Array, Ball, Refusal
from mlp_jax.interval.interpreter import Tie, evaluate
from mlp_jax.interval.program import Program, flatten
from mlp_jax.tree import PyTree

_TEST_POINTS = 3
_BITS = 512


class Tangents(NamedTuple):
    """Tangents as a program from a point to rows (s, P), and the rows that are used."""

    program: Program
    rows: tuple[int, ...]

    def on(self, box: Ball) -> Ball:
        """Return the tangents at every point of a box, (s, P)."""
        ties: dict[int, Tie] = {}
        found = evaluate(self.program, [box], ball, ties)[0]
        if ties:
            raise Refusal("symmetries: the box does not decide a maximum in them")
        return Ball(found.mid[list(self.rows)], found.radius[list(self.rows)])


class Slice(NamedTuple):
    """Normals V of a slice, (P, s), and the weight σ of ‖Vᵀ(θ − c)‖² / 2."""

    tangents: Tangents
    normals: Array
    weight: float

    def augment(self, matrix: Ball) -> Ball:
        """Return the Hessian of F from that of fun."""
        normals = ball.exact(self.normals)
        outer = ball.matmul(normals, ball.exact(self.normals.T))
        return enclosures.symmetric(ball.add(matrix, ball.mul(ball.exact(self.weight), outer)))

    def require_transversal(self, box: Ball) -> None:
        """Raise Refusal unless Ξ(θ)ᵀV is nonsingular at every point of a box."""
        product = ball.matmul(self.tangents.on(box), ball.exact(self.normals))
        try:
            inverse = np.linalg.inv(product.mid)
        except np.linalg.LinAlgError as error:
            raise Refusal("symmetries: the tangents are dependent here") from error
        defect = ball.sub(ball.exact(np.eye(len(inverse))), ball.matmul(ball.exact(inverse), product))
        if not spectra.norm(defect) < 1:
            raise Refusal("symmetries: the tangents do not cross the slice everywhere in the box")


def trace(symmetries: Callable[[PyTree], PyTree], params: PyTree) -> Tangents:
    """Return the tangents as a program. Call it inside `jax.enable_x64(True)`.

    TypeError or ValueError unless they are floating point, with the shape of params and a leading axis. Refusal where
    JAX cannot trace them.
    """
    vector, unravel = ravel_pytree(params)
    try:
        made = jax.eval_shape(symmetries, params)
    except jax.errors.TracerArrayConversionError as error:
        raise Refusal("symmetries: they are computed by numpy, which JAX cannot trace") from error
    leaves = jax.tree.leaves(made)
    if not leaves or any(not leaf.shape or leaf.shape[0] != leaves[0].shape[0] for leaf in leaves):
        shapes = [leaf.shape for leaf in leaves]
        raise ValueError(f"symmetries: got leaves of shapes {shapes}, expected a leading axis on every leaf.")
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        raise TypeError(f"symmetries: got dtypes {[leaf.dtype for leaf in leaves]}, expected real floating point.")
    size = sum(math.prod(leaf.shape[1:]) for leaf in leaves)
    if size != vector.size:
        raise ValueError(f"symmetries: got tangents of {size} numbers, expected the {vector.size} of params.")

    def rows(v: jax.Array) -> jax.Array:
        return jnp.concatenate(
            [x.reshape(x.shape[0], math.prod(x.shape[1:])) for x in jax.tree.leaves(symmetries(unravel(v)))], axis=1
        )

    closed = jax.make_jaxpr(rows)(jax.ShapeDtypeStruct(vector.shape, jnp.float64))
    return Tangents(flatten(closed), tuple(range(leaves[0].shape[0])))


def valid(tangents: Tangents, point: Array, gradient: Callable[[Array], Array], bits: int) -> Tangents | None:
    """Return the tangents that are independent at a point, and along which fun is constant at random points near it.

    Constant: ⟨∇fun, ξ⟩, computed with `bits` bits, is 0 to half of them, relative to ‖∇fun‖ ‖ξ‖.
    """
    generator = np.random.default_rng(0)
    kept = list(tangents.rows)
    with multiprecision.bits(bits):
        for _ in range(_TEST_POINTS):
            there = point + 0.1 * (0.1 + np.abs(point)) * generator.standard_normal(point.shape)
            slope = gradient(there)
            rows = evaluate(tangents.program, [there], multiprecision)[0]
            kept = [k for k in kept if orthogonal(rows[k], slope, 2.0 ** (-bits / 2))]
    if not kept:
        return None
    here = Tangents(tangents.program, tuple(kept)).on(ball.exact(point)).mid
    _, triangle, order = scipy.linalg.qr(here.T, mode="economic", pivoting=True)
    sizes = np.abs(np.diag(triangle))
    rank = int(np.sum(sizes > 1e-9 * max(sizes[0], 1e-300)))
    return Tangents(tangents.program, tuple(kept[k] for k in sorted(order[:rank]))) if rank else None


def require_constant(tangents: Tangents, box: Ball, gradient: Program, data: list[Array]) -> None:
    """Raise Refusal unless fun is constant along the tangents at a random point of a box where both are analytic."""
    tangents.on(box)
    with multiprecision.bits(_BITS):
        there = multiprecision.random_point(box, np.random.default_rng(1))
        slope = evaluate(gradient, [there, *data], multiprecision)[0]
        rows = evaluate(tangents.program, [there], multiprecision)[0]
        if not all(orthogonal(rows[k], slope, 2.0**-64) for k in tangents.rows):
            raise Refusal("symmetries: fun is not constant along all of them here")


def orthogonal(row: Array, slope: Array, tolerance: float) -> bool:
    """Return whether |⟨a, b⟩| of two arrays of arbs is at most a share of ‖a‖ ‖b‖."""
    product = sum((a * b for a, b in zip(row.tolist(), slope.tolist(), strict=True)), flint.arb(0))
    squares = [sum((a * a for a in values.tolist()), flint.arb(0)) for values in (row, slope)]
    size = (squares[0] * squares[1]).sqrt()
    return bool(abs(product) <= size * tolerance) or bool(size == 0)


def slice_at(tangents: Tangents, center: Array, matrix: Array) -> Slice:
    """Return the slice through a point, across the tangents there, weighted like the Hessian."""
    here = tangents.on(ball.exact(center)).mid
    normals = np.linalg.qr(here.T)[0]
    size = float(np.mean(np.abs(np.diag(matrix))))
    return Slice(tangents, normals, 2.0 ** round(np.log2(size)) if size > 0 else 1.0)
