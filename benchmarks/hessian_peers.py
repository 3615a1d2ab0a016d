"""The same Hessian and its products by torch.func, curvlinops, PyHessian and hessian-eigenthings, in float64.

Each function returns ways to compare, with a note in place of a package that is not installed. The network is the
same tanh MLP with the mean softmax cross-entropy, its parameters in the order of `tree.ravel`.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.side_by_side import Way, seconds

# Columns that a peer makes at a time, where it can.
_COLUMNS = 64
_THREADS = (1, 2)


def dense(params: Any, inputs: np.ndarray, targets: np.ndarray) -> list[Way]:
    """Return the ways to the whole matrix."""
    names = ("torch.func.hessian", "curvlinops", "pyhessian, columns", "hessian-eigenthings, columns")
    torch = _find("torch")
    if torch is None:
        return [Way(name, None, "not installed") for name in names]
    vector, loss, model = _torch_problem(torch, params, inputs, targets)
    whole = torch.func.hessian(loss)
    ways = [_at_best_threads(torch, names[0], lambda: whole(vector), lambda: torch.func.grad(loss)(vector))]
    size = len(vector)
    for name, make in zip(names[1:], _OPERATORS.values(), strict=True):
        product = make(torch, model, inputs, targets)
        if product is None:
            ways.append(Way(name, None, "not installed"))
            continue
        columns = _columns(torch, product, size, many=name == "curvlinops")
        ways.append(_at_best_threads(torch, name, columns, lambda p=product: p(vector)))
    return ways


def products(params: Any, inputs: np.ndarray, targets: np.ndarray, direction: np.ndarray) -> list[Way]:
    """Return the ways to one Hessian-vector product, and torch's gradient."""
    torch = _find("torch")
    if torch is None:
        return [Way(name, None, "not installed") for name in ("torch gradient", "torch.func", *_OPERATORS)]
    vector, loss, model = _torch_problem(torch, params, inputs, targets)
    along = torch.from_numpy(direction.copy())
    gradient = torch.func.grad(loss)

    def product() -> Any:
        return torch.func.jvp(gradient, (vector,), (along,))[1]

    ways = [
        _at_best_threads(torch, "torch gradient", lambda: gradient(vector)),
        _at_best_threads(torch, "torch.func, jvp of grad", product),
    ]
    for name, make in _OPERATORS.items():
        operator = make(torch, model, inputs, targets)
        if operator is None:
            ways.append(Way(name, None, "not installed"))
        else:
            ways.append(_at_best_threads(torch, name, lambda o=operator: o(along)))
    return ways


def _find(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def _torch_problem(torch: Any, params: Any, inputs: np.ndarray, targets: np.ndarray) -> tuple[Any, Any, Any]:
    """Return the parameters as one vector, the loss as a function of it, and the same network as a module."""
    flat = [np.array(array, np.float64) for layer in params for array in layer]
    x, y = torch.from_numpy(np.asarray(inputs, np.float64)), torch.from_numpy(np.asarray(targets, np.int64))
    starts = np.cumsum([0, *(array.size for array in flat)])

    def loss(vector: Any) -> Any:
        pieces = [
            vector[a:b].reshape(array.shape) for (a, b), array in zip(itertools.pairwise(starts), flat, strict=True)
        ]
        z = x
        for depth in range(0, len(pieces), 2):
            z = (torch.tanh(z) if depth else z) @ pieces[depth] + pieces[depth + 1]
        return torch.nn.functional.cross_entropy(z, y)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.arrays = torch.nn.ParameterList([torch.from_numpy(array.copy()) for array in flat])

        def forward(self, z: Any) -> Any:
            for depth in range(0, len(self.arrays), 2):
                z = (torch.tanh(z) if depth else z) @ self.arrays[depth] + self.arrays[depth + 1]
            return z

    return torch.from_numpy(np.concatenate([array.ravel() for array in flat])), loss, Network()


def _curvlinops(torch: Any, model: Any, inputs: np.ndarray, targets: np.ndarray) -> Callable[[Any], Any] | None:
    curvlinops = _find("curvlinops")
    if curvlinops is None:
        return None
    data = [(torch.from_numpy(inputs), torch.from_numpy(np.asarray(targets, np.int64)))]
    operator = curvlinops.HessianLinearOperator(
        model, torch.nn.CrossEntropyLoss(), list(model.parameters()), data, check_deterministic=False
    )
    return lambda vectors: operator @ vectors


def _pyhessian(torch: Any, model: Any, inputs: np.ndarray, targets: np.ndarray) -> Callable[[Any], Any] | None:
    pyhessian = _find("pyhessian")
    if pyhessian is None:
        return None
    data = torch.from_numpy(inputs), torch.from_numpy(np.asarray(targets, np.int64))
    shapes = [p.shape for p in model.parameters()]
    sizes = [p.numel() for p in model.parameters()]
    made: list[Any] = []

    def product(vector: Any) -> Any:
        if not made:  # the graph of the gradient, once, as its own eigenvalue search does
            made.append(pyhessian.hessian(model, torch.nn.CrossEntropyLoss(), data=data, cuda=False))
        pieces = [piece.reshape(shape) for piece, shape in zip(vector.split(sizes), shapes, strict=True)]
        parts = pyhessian.utils.hessian_vector_product(made[0].gradsH, made[0].params, pieces)
        return torch.cat([part.reshape(-1) for part in parts])

    return product


def _eigenthings(torch: Any, model: Any, inputs: np.ndarray, targets: np.ndarray) -> Callable[[Any], Any] | None:
    eigenthings = _find("hessian_eigenthings")
    if eigenthings is None:
        return None
    data = [(torch.from_numpy(inputs), torch.from_numpy(np.asarray(targets, np.int64)))]
    operator = eigenthings.HessianOperator(model, data, eigenthings.supervised_loss(torch.nn.CrossEntropyLoss()))
    return operator.matvec


_OPERATORS = {"curvlinops": _curvlinops, "pyhessian": _pyhessian, "hessian-eigenthings": _eigenthings}


def _columns(torch: Any, product: Callable[[Any], Any], size: int, many: bool) -> Callable[[], Any]:
    """Return a function that makes the matrix from products, many columns at a time where the package can."""
    unit = torch.eye(size, dtype=torch.float64)

    def matrix() -> Any:
        if many:
            return torch.cat([product(unit[:, i : i + _COLUMNS]).detach() for i in range(0, size, _COLUMNS)], dim=1)
        return torch.stack([product(row).detach() for row in unit], dim=1)

    return matrix


def _at_best_threads(torch: Any, name: str, run: Callable[[], Any], trial: Callable[[], Any] | None = None) -> Way:
    """Return the way at the thread count at which `trial` (the run itself when None) is fastest."""
    times = {}
    for threads in _THREADS:
        torch.set_num_threads(threads)
        (trial or run)()
        times[threads] = min(seconds(trial or run)[0] for _ in range(3))
    best = min(times, key=lambda threads: times[threads])

    def at_best() -> np.ndarray:
        torch.set_num_threads(best)
        return run().detach().numpy()

    return Way(name, at_best, note=f"{best} thread{'s' if best > 1 else ''}", slow=trial is not None)
