"""The same eigenpairs by SciPy, matfree, torch, hessian-eigenthings and PyHessian, in float64.

Every search returns (values ascending, rows (k, P), number of products), for the lowest and the highest `count`
eigenpairs; the number is None if it is not known. A package that is not installed gives None.
"""

from __future__ import annotations

import warnings

import jax
import numpy as np
import scipy.sparse.linalg

from benchmarks.hessian_peers import torch_problem
from benchmarks.side_by_side import find


class TooManyProducts(Exception):
    """A search exceeded its number of products."""


class Counted(scipy.sparse.linalg.LinearOperator):
    """A product as a SciPy operator that counts its calls."""

    def __init__(self, product, size: int, limit: int):
        super().__init__(np.float64, (size, size))
        self._product, self.products, self._limit = product, 0, limit

    def _matvec(self, vector):
        self.products += 1
        if self.products > self._limit:
            raise TooManyProducts(f"not in {self._limit} products")
        return np.asarray(self._product(vector.ravel()))


def eigsh_both_ends(operator: Counted, count: int, basis: int | None, tolerance: float):
    """Return the pairs of one call with which="BE". SciPy's tolerance is relative to each eigenvalue."""
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    values, vectors = scipy.sparse.linalg.eigsh(operator, 2 * count, which="BE", ncv=basis, tol=tolerance, v0=start)
    return values, vectors.T, operator.products


def eigsh_two_calls(operator: Counted, count: int, basis: int | None, tolerances: tuple[float, float]):
    """Return the pairs of a call for the lowest and one for the highest."""
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    found = []
    for which, tolerance in zip(("SA", "LA"), tolerances, strict=True):
        ncv = basis if which == "SA" else None
        found.append(scipy.sparse.linalg.eigsh(operator, count, which=which, ncv=ncv, tol=tolerance, v0=start))
    return _joined(found, operator.products)


def lobpcg(operator: Counted, count: int, tolerance: float, steps: int):
    """Return the pairs of LOBPCG without a preconditioner; `tolerance` is that of the residual."""
    start = np.random.default_rng(0).standard_normal((operator.shape[0], count))
    with warnings.catch_warnings():  # the table says that it did not converge
        warnings.simplefilter("ignore")
        solve = scipy.sparse.linalg.lobpcg
        found = [solve(operator, start, tol=tolerance, maxiter=steps, largest=largest) for largest in (False, True)]
    return _joined(found, operator.products)


def _joined(found, products):
    ordered = [(values[order], vectors[:, order].T) for values, vectors in found for order in [np.argsort(values)]]
    return *map(np.concatenate, zip(*ordered, strict=True)), products


def matfree(product, size: int, count: int, steps: int, *data):
    """Return a search by matfree's Lanczos with full reorthogonalisation, whose number of steps must be given."""
    decomp, eig = find("matfree.decomp"), find("matfree.eig")
    if decomp is None:
        return None
    solver = jax.jit(lambda v, *d: eig.eigh_partial(decomp.tridiag_sym(steps, custom_vjp=False))(product, v, *d))
    start = jax.numpy.asarray(np.random.default_rng(0).standard_normal(size))

    def run():
        values, rows = (np.asarray(a) for a in solver(start, *data))
        order = np.argsort(values)
        ends = np.concatenate([order[:count], order[-count:]])
        return values[ends], rows[ends], steps

    return run


def of_torch(params, inputs: np.ndarray, targets: np.ndarray, decay: float, count: int, steps: int):
    """Return the searches that run in torch; weight decay is ½ · decay · ‖params‖², as everywhere here."""
    torch, eigenthings, pyhessian = map(find, ("torch", "hessian_eigenthings", "pyhessian"))
    names = ("torch.func.hessian + eigh", f"hessian-eigenthings lanczos, {steps} steps", "PyHessian eigenvalues")
    if torch is None:
        return dict.fromkeys(names)
    inputs, targets = np.array(inputs), np.array(targets, np.int64)
    vector, plain, model = torch_problem(torch, params, inputs, targets)
    data = torch.from_numpy(inputs), torch.from_numpy(targets)

    def model_loss(outputs, y):
        squares = sum(p.square().sum() for p in model.parameters())
        return torch.nn.functional.cross_entropy(outputs, y) + decay / 2 * squares

    def whole():
        values, vectors = torch.linalg.eigh(torch.func.hessian(lambda v: plain(v) + decay / 2 * (v @ v))(vector))
        ends = [*range(count), *range(len(values) - count, len(values))]
        return values[ends].numpy(), vectors[:, ends].T.numpy(), len(vector)

    operator = eigenthings and eigenthings.HessianOperator(model, [data], eigenthings.supervised_loss(model_loss))

    def lanczos():
        found = []
        for which in ("SA", "LA"):
            pairs = eigenthings.lanczos(operator, k=count, max_iter=steps, reorthogonalize=True, which=which, seed=0)
            found.append((pairs.eigenvalues.numpy(), pairs.eigenvectors.numpy().T))
        return _joined(found, 2 * steps)

    def power_iteration():
        torch.set_default_dtype(torch.float64)
        try:
            made = pyhessian.hessian(model, model_loss, data=data, cuda=False)
            values, vectors = made.eigenvalues(maxIter=1000, tol=1e-14, top_n=count)
        finally:
            torch.set_default_dtype(torch.float32)
        rows = np.stack([np.concatenate([part.detach().numpy().ravel() for part in vector]) for vector in vectors])
        order = np.argsort(values)
        return np.asarray(values)[order], rows[order], None

    searches = (whole, eigenthings and lanczos, pyhessian and power_iteration)
    return dict(zip(names, searches, strict=True))
