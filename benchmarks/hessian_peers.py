"""The same Hessian and its products by torch.func, curvlinops, PyHessian and hessian-eigenthings, in float64.

Each function returns ways to compare; a package that is not installed gives a note instead. The network is the
same tanh MLP with the mean softmax cross-entropy, its parameters in the order of `tree.ravel`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from benchmarks.side_by_side import Way, find, seconds

_COLUMNS = 64  # that a peer makes at a time, where it can
_THREADS = (1, 2)


def dense(params, inputs: np.ndarray, targets: np.ndarray) -> list[Way]:
    """Return the ways to the whole matrix."""
    torch = find("torch")
    if torch is None:
        return [Way(name, None, "not installed") for name in ("torch.func.hessian", *_OPERATORS)]
    vector, loss, model = torch_problem(torch, params, inputs, targets)
    whole, gradient = torch.func.hessian(loss), torch.func.grad(loss)
    ways = [_at_best_threads(torch, "torch.func.hessian", lambda: whole(vector), lambda: gradient(vector))]
    for name, make in _OPERATORS.items():
        product = make(torch, model, inputs, targets)
        columns = product and _columns(torch, product, len(vector), many=name == "curvlinops")
        title = name if name == "curvlinops" else f"{name}, columns"
        ways.append(_at_best_threads(torch, title, columns, lambda p=product: p(vector)))
    return ways


def products(params, inputs: np.ndarray, targets: np.ndarray, direction: np.ndarray) -> list[Way]:
    """Return the ways to one Hessian-vector product, and torch's gradient."""
    torch = find("torch")
    if torch is None:
        return [Way(name, None, "not installed") for name in ("torch gradient", "torch.func", *_OPERATORS)]
    vector, loss, model = torch_problem(torch, params, inputs, targets)
    along, gradient = torch.from_numpy(direction.copy()), torch.func.grad(loss)
    runs = {
        "torch gradient": lambda: gradient(vector),
        "torch.func, jvp of grad": lambda: torch.func.jvp(gradient, (vector,), (along,))[1],
    }
    for name, make in _OPERATORS.items():
        operator = make(torch, model, inputs, targets)
        runs[name] = operator and (lambda o=operator: o(along))
    return [_at_best_threads(torch, name, run) for name, run in runs.items()]


def torch_problem(torch, params, inputs: np.ndarray, targets: np.ndarray) -> tuple[Any, Any, Any]:
    """Return the parameters as one vector, the loss as a function of it, and the same network as a module."""
    flat = [np.array(array, np.float64) for layer in params for array in layer]
    x, y = torch.from_numpy(np.asarray(inputs, np.float64)), torch.from_numpy(np.asarray(targets, np.int64))
    ends = list(itertools.pairwise(np.cumsum([0, *(array.size for array in flat)])))

    def outputs(arrays, z):
        for depth in range(0, len(arrays), 2):
            z = (torch.tanh(z) if depth else z) @ arrays[depth] + arrays[depth + 1]
        return z

    def loss(vector):
        arrays = [vector[a:b].reshape(array.shape) for (a, b), array in zip(ends, flat, strict=True)]
        return torch.nn.functional.cross_entropy(outputs(arrays, x), y)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.arrays = torch.nn.ParameterList([torch.from_numpy(array.copy()) for array in flat])

        def forward(self, z):
            return outputs(self.arrays, z)

    return torch.from_numpy(np.concatenate([array.ravel() for array in flat])), loss, Network()


def _curvlinops(torch, model, inputs, targets):
    curvlinops = find("curvlinops")
    if curvlinops is None:
        return None
    data = [(torch.from_numpy(inputs), torch.from_numpy(np.asarray(targets, np.int64)))]
    operator = curvlinops.HessianLinearOperator(
        model, torch.nn.CrossEntropyLoss(), list(model.parameters()), data, check_deterministic=False
    )
    return lambda vectors: operator @ vectors


def _pyhessian(torch, model, inputs, targets):
    pyhessian = find("pyhessian")
    if pyhessian is None:
        return None
    data = torch.from_numpy(inputs), torch.from_numpy(np.asarray(targets, np.int64))
    shapes, made = [p.shape for p in model.parameters()], []

    def product(vector):
        if not made:  # the graph of the gradient is built once, as in its own eigenvalue search
            made.append(pyhessian.hessian(model, torch.nn.CrossEntropyLoss(), data=data, cuda=False))
        pieces = vector.split([shape.numel() for shape in shapes])
        pieces = [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        parts = pyhessian.utils.hessian_vector_product(made[0].gradsH, made[0].params, pieces)
        return torch.cat([part.reshape(-1) for part in parts])

    return product


def _eigenthings(torch, model, inputs, targets):
    eigenthings = find("hessian_eigenthings")
    if eigenthings is None:
        return None
    data = [(torch.from_numpy(inputs), torch.from_numpy(np.asarray(targets, np.int64)))]
    return eigenthings.HessianOperator(model, data, eigenthings.supervised_loss(torch.nn.CrossEntropyLoss())).matvec


_OPERATORS = {"curvlinops": _curvlinops, "pyhessian": _pyhessian, "hessian-eigenthings": _eigenthings}


def _columns(torch, product, size, many):
    """Return a function that makes the matrix from products, many columns at a time where the package can."""
    unit = torch.eye(size, dtype=torch.float64)
    if many:
        starts = range(0, size, _COLUMNS)
        return lambda: torch.cat([product(unit[:, i : i + _COLUMNS]).detach() for i in starts], dim=1)
    return lambda: torch.stack([product(row).detach() for row in unit], dim=1)


def _at_best_threads(torch, name, run, trial=None) -> Way:
    """Return the way at the thread count at which `trial` (the run itself when None) is fastest."""
    if run is None:
        return Way(name, None, "not installed")
    times = {}
    for threads in _THREADS:
        torch.set_num_threads(threads)
        (trial or run)()
        times[threads] = min(seconds(trial or run)[0] for _ in range(3))
    best = min(times, key=lambda threads: times[threads])

    def at_best():
        torch.set_num_threads(best)
        return run().detach().numpy()

    return Way(name, at_best, note=f"{best} thread{'s' if best > 1 else ''}", slow=trial is not None)
