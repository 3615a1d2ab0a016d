"""What a sweep returns: arrays with named axes, and a table of one row a lane. Host-level."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from mlp_jax.tree import PyTree


@dataclasses.dataclass(frozen=True)
class Result:
    """What a sweep returns: numpy arrays with the leading axes `axes`.

    axes
        ("batch_size", "learning_rate", names of settings ..., "seed").
    coordinates
        The values along each axis, by name; "learning_rate" is (batch_size, learning_rate) where each batch size has
        its own.
    updates, examples
        (batch_size, record) updates made and examples visited at each record.
    loss
        (*axes, record) mean over the examples visited since the record before: the loss of their batch before its
        update. Infinite from the record on in which a lane diverged.
    record
        The pytree that `record` returned, each leaf (*axes, record, ...); None without `record`.
    diverged_at
        (*axes) number of the first update, from 1, whose batch had a loss that is not finite; the last update where
        parameters ended not finite though every loss was. 0: the lane did not diverge.
    params
        The parameters at the end, each leaf (*axes, ...).
    """

    axes: tuple[str, ...]
    coordinates: dict[str, np.ndarray]
    updates: np.ndarray
    examples: np.ndarray
    loss: np.ndarray
    record: PyTree
    diverged_at: np.ndarray
    params: PyTree

    def table(self) -> Any:
        """Return a pandas table, one row a lane.

        Columns: the axes; `updates`; `diverged` and `diverged_at`; `loss` at the last record; and each scalar that
        `record` returned, at the last record, under its name: missing where the lane diverged.

        Raises
        ------
        ImportError
            pandas is not installed.

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
            # One dimension along its own axis; rates of each batch size along the first two.
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
