"""The result of a sweep: arrays with named axes, and a table with a row for each lane. Host-level."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from mlp_jax import display
from mlp_jax.tree import PyTree

_HEADER = ("batch size", "learning rate", "lanes", "diverged", "mean loss", "least", "largest")
_SHOWN = 40  # rows that print() shows


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """Numpy arrays with the leading axes `axes`.

    axes, coordinates
        ("batch_size", "learning_rate", names of settings ..., "seed"), and the values along each by name;
        "learning_rate" is (batch_size, learning_rate) if each batch size has its own. A batch size that changes along
        the run is the function that was given.
    updates, examples
        (batch_size, record) updates made and examples visited at each record.
    loss
        (*axes, record) mean of the batch losses since the record before, as in `training.History`. Infinite from the
        record on in which a lane diverged.
    record
        The pytree that `record` returned, each leaf (*axes, record, ...); None without `record`.
    diverged_at
        (*axes) as in `training.History`, but parameters are tested once, at the end of the run.
    params
        The final parameters, each leaf (*axes, ...).
    """

    axes: tuple[str, ...]
    coordinates: dict[str, np.ndarray]
    updates: np.ndarray
    examples: np.ndarray
    loss: np.ndarray
    record: PyTree
    diverged_at: np.ndarray
    params: PyTree

    def __str__(self) -> str:
        rows = [" ".join(f"{cell:>13}" for cell in row) for row in (_HEADER, *self._rows())]
        return "\n".join([self._summary(), *rows])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return display.table(self._summary(), self._rows(), _HEADER, "table() has one row a lane.")

    def _summary(self) -> str:
        sizes = " × ".join(f"{n} {name}" for n, name in zip(self.diverged_at.shape, self.axes, strict=True))
        more = len(self.diverged_at) * self.diverged_at.shape[1] - _SHOWN
        unseen = f"; {more} more rows not shown" if more > 0 else ""
        return f"{self.diverged_at.size} lanes: {sizes}; {int(np.sum(self.diverged_at > 0))} diverged{unseen}"

    def _rows(self) -> list[tuple[str, ...]]:
        """Return a row for each batch size and learning rate: the last loss, over the lanes that did not diverge."""
        rates = np.broadcast_to(self.coordinates["learning_rate"], self.diverged_at.shape[:2])
        rows: list[tuple[str, ...]] = []
        for i, j in list(np.ndindex(rates.shape))[:_SHOWN]:
            stopped = self.diverged_at[i, j].ravel() > 0
            last = self.loss[i, j, ..., -1].ravel()[~stopped]
            spread = (f"{last.mean():.5g}", f"{last.min():.5g}", f"{last.max():.5g}") if last.size else ("", "", "")
            size, rate = self.coordinates["batch_size"][i], rates[i, j]
            rows.append(
                (f"{getattr(size, '__name__', size)}", f"{rate:.4g}", f"{stopped.size}", f"{stopped.sum()}", *spread)
            )
        return rows

    def table(self) -> Any:
        """Return a pandas table with a row for each lane; ImportError without pandas.

        Columns: the axes; `updates`; `diverged` and `diverged_at`; and, at the last record, `loss` and each scalar of
        `record` by name, missing where the lane diverged.

        Examples
        --------
        >>> one = np.ones((1, 2, 1, 1))
        >>> result = Result(("batch_size", "learning_rate", "seed"),
        ...                 {"batch_size": np.array([8]), "learning_rate": np.array([0.1, 9.0]), "seed": np.array([0])},
        ...                 updates=np.array([[5]]), examples=np.array([[40]]), loss=one,
        ...                 record={"accuracy": 0.5 * one}, diverged_at=np.array([[[0], [3]]]), params=())
        >>> result.table()[["learning_rate", "updates", "diverged", "accuracy"]].values.tolist()
        [[0.1, 5, False, 0.5], [9.0, 5, True, <NA>]]
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError('Result.table needs the package pandas: pip install "mlp_jax[experiments]".') from error
        lanes = self.diverged_at.shape
        columns: dict[str, Any] = {}
        for axis, name in enumerate(self.axes):
            values = self.coordinates[name]
            # Along its own axis; along the first two for rates of each batch size.
            shape = values.shape if values.ndim == 2 else (*[1] * axis, len(values))
            columns[name] = np.broadcast_to(values.reshape(*shape, *[1] * (len(lanes) - len(shape))), lanes).ravel()
        last = self.updates[:, -1].reshape(-1, *[1] * (len(lanes) - 1))
        columns["updates"] = np.broadcast_to(last, lanes).ravel()
        diverged = self.diverged_at.ravel() > 0
        columns |= {"diverged": diverged, "diverged_at": self.diverged_at.ravel(), "loss": self.loss[..., -1].ravel()}
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.record):
            if np.ndim(leaf) == len(lanes) + 1:
                name = jax.tree_util.keystr(path, simple=True, separator=".") or "record"
                columns[name] = pd.Series(leaf[..., -1].ravel()).convert_dtypes().mask(diverged, pd.NA)
        return pd.DataFrame(columns)
