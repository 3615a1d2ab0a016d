"""Proofs: a critical point and its index as a theorem, by ball arithmetic over a function's jaxpr.

- `certify`: prove that exactly one critical point lies near params, and its index, or say why not; `certify_many`
- `complete`: prove that a list holds all critical points in a box; `expected_boxes`: at what cost; `load_list`, `agree`
- `check`: prove a saved certificate again; `load`: read one; `Certificate`: the theorem as a value

Inside, from numbers to theorems: `ball`, `elementary` and `multiprecision` (arithmetic), `program` (a jaxpr as a flat
list), `movement`, `maxima` and `interpreter` (rules for primitives), `enclosures` (value, gradient and Hessian on a
box), `analytic` (functions without corners anywhere), `smoothness` (boxes without corners and jumps), `trust` (rules
and Hessians taken on trust), `factorisation` and `spectra` (verified signs and eigenvalues), `symmetry` (slices across
orbits), `boxes`, `proof`, `batches`, `theorems`; and for lists `slopes`,
`derivatives`, `contraction`, `branching`, `systems`, `completeness`, `listing`.
"""

import importlib.util

if importlib.util.find_spec("flint") is None:
    raise ImportError('mlp_jax.interval needs the package flint: pip install "mlp_jax[proofs]".')

from mlp_jax.interval.ball import Ball, Refusal
from mlp_jax.interval.certificate import Certificate, load
from mlp_jax.interval.completeness import Completeness, agree, load_list
from mlp_jax.interval.listing import complete, expected_boxes
from mlp_jax.interval.theorems import certify, certify_many, check

__all__ = [
    "Ball", "Certificate", "Completeness", "Refusal", "agree", "certify", "certify_many", "check", "complete",
    "expected_boxes", "load", "load_list",
]  # fmt: skip
__dir__ = __all__.copy
