"""The verdict on a point: its name, and the numbers that decided."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mlp_jax import display
from mlp_jax.critical.evidence.higher_order import HigherOrder
from mlp_jax.curvature import Inertia

if TYPE_CHECKING:
    from mlp_jax.interval import Certificate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a point is, and the numbers that decided. `print(verdict)` is a sentence; `explain()` says why.

    kind
        `minimum`, `maximum`, `saddle`, `minimum modulo symmetry`, `maximum modulo symmetry`, `degenerate saddle`,
        `degenerate`, `not critical`, `nonsmooth` or `undetermined`.
    index
        Number of negative eigenvalues, where every other mode is resolved or explained by symmetry; else None.
    index_range
        Smallest and largest index that the resolved modes leave possible.
    inertia
        (negative, unresolved, positive, bound) of the Hessian; see `curvature.inertia`. It holds for every Hessian
        within `distance`; for a point that is not critical, at the point itself.
    gradient_norm, gradient_error
        ‖g‖₂, and the norm of a bound on its rounding.
    flatness
        ‖H p + g‖ / ‖g‖ with p the minimum-residual Newton step (meaningless where ‖g‖ is within rounding).
    distance
        Radius around params that contains, by estimate, exactly one critical point (or one symmetry orbit);
        infinite for a point that is not critical.
    bound
        Relative size below which an eigenvalue of the scaled Hessian is unresolved.
    rounding, change
        The parts of the bound due to rounding, and to the change of the Hessian over `distance`.
    smallest, largest
        Extreme eigenvalues of the Hessian itself, unscaled; NaN for one that a large matrix does not show soon.
    symmetries, unit
        Number of independent valid tangents; unit roundoff of the coarsest type that `fun` computes in.
    higher_order
        The change of the function along null modes, where it decides; see `HigherOrder`. Otherwise None.
    evidence
        `dense`: the Hessian matrix; `lanczos`: Hessian-vector products, with their number and the probability that a
        `minimum` is wrong; `proved`: the theorem in `certificate`.
    certificate
        The theorem or refusal of `interval.certify`; None where no proof was asked for.
    reason
        The decision in words.
    """

    kind: str
    index: int | None = None
    index_range: tuple[int, int]
    inertia: Inertia
    gradient_norm: float
    gradient_error: float
    flatness: float
    distance: float
    bound: float
    rounding: float
    change: float
    smallest: float
    largest: float
    symmetries: int = 0
    higher_order: HigherOrder | None = None
    unit: float
    evidence: str
    reason: str
    certificate: Certificate | None = None

    @property
    def name(self) -> str:
        """The kind, with the index of a saddle: `saddle of index 3`."""
        return self.kind if self.kind != "saddle" else f"{self.kind} of index {_range(self.index_range)}"

    def __str__(self) -> str:
        negative, unresolved, positive, _ = self.inertia
        return (
            f"{self.name}: {self.reason}."
            f" Eigenvalues: {negative} negative, {unresolved} unresolved, {positive} positive,"
            f" from {self.smallest:.6g} to {self.largest:.6g}, relative bound {self.bound:.1e};"
            f" gradient norm {self.gradient_norm:.1e}, flatness {self.flatness:.1e},"
            f" distance {self.distance:.1e}; evidence: {self.evidence}{self._unproved}."
        )

    @property
    def _unproved(self) -> str:
        """Why a proof that was asked for does not hold, in words."""
        if self.certificate is None or self.certificate.proved:
            return ""
        return f" (not proved: {self.certificate.reason})"

    def _repr_html_(self) -> str:
        negative, unresolved, positive, _ = self.inertia
        rows = [
            ("why", self.reason),
            ("eigenvalues", f"{negative} negative, {unresolved} unresolved, {positive} positive"),
            ("smallest, largest", f"{self.smallest:.6g}, {self.largest:.6g}"),
            ("relative bound", f"{self.bound:.1e}"),
            ("gradient norm", f"{self.gradient_norm:.1e}, its rounding {self.gradient_error:.1e}"),
            ("flatness", f"{self.flatness:.1e}"),
            ("distance", f"{self.distance:.1e}"),
            ("evidence", self.evidence + self._unproved),
        ]
        return display.table(self.name, rows, note="explain() says which number decided.")

    def explain(self) -> str:
        """Return step by step which numbers decided.

        Examples
        --------
        >>> from mlp_jax import critical
        >>> print(critical.classify(lambda x: x[0] ** 2 - x[1] ** 2, jnp.zeros(2)).explain().splitlines()[0])
        1. Is it critical? The gradient norm 0.0e+00 is within its rounding, 4.8e-15: yes.
        """
        what = f"What is it? {self.name}{self._unproved}: {self.reason}."
        return f"1. {self._why_critical()}\n2. {self._why_signs()}\n3. {what}"

    def _why_critical(self) -> str:
        question = f"Is it critical? The gradient norm {self.gradient_norm:.1e} is"
        if self.gradient_norm <= self.gradient_error:
            return f"{question} within its rounding, {self.gradient_error:.1e}: yes."
        above = f"{question} above its rounding, {self.gradient_error:.1e}"
        newton = f"the Newton step leaves {self.flatness:.1e} of it"
        if self.distance < float("inf"):
            return f"{above}, but {newton} and places the critical point within {self.distance:.1e}: yes."
        if self.kind == "not critical" and self.flatness < 0.5:
            return f"{above}; {newton} if the Hessian stays as it is, but on that way it changes its signs: no."
        return f"{above}, and {newton}: {'no' if self.kind == 'not critical' else self.kind}."

    def _why_signs(self) -> str:
        negative, unresolved, positive, bound = self.inertia
        if bound == float("inf"):
            return "Which signs are sure? None is claimed here."
        here = self.kind == "not critical"  # then the bound is that of the point itself
        are = "eigenvalue is" if negative == 1 else "eigenvalues are"
        change = "" if here else f" {self.change:.1e} from its change over the distance,"
        return (
            f"Which signs are sure? The scaled Hessian {'here ' if here else ''}(largest entries 1) may be wrong by"
            f" {bound:.1e}: {self.rounding:.1e} from rounding at unit {self.unit:.1e},{change} the rest from the"
            f" factorisation. Beyond that {negative} {are} negative and"
            f" {positive} positive; {unresolved} are not resolved."
        )


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
