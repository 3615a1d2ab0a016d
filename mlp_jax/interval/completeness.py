"""A list of critical points as a theorem: that it is complete. It prints as a statement, and is saved as plain JSON."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from mlp_jax import _files, display

_ARRAYS = (
    "low", "high", "points", "radii", "copies", "index", "undecided_low", "undecided_high", "undecided_share",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Completeness:
    """The theorem that some points are all there are, or a refusal. `print(completeness)` is its statement.

    complete
        Whether the theorem holds. If not, the points are critical points all the same, but there may be others.
    reason
        How the theorem was proved, or why the proof was refused.
    subject
        What is listed: `fun has … critical points`, or `the map has … zeros`.
    region
        Where: in words.
    low, high
        (n,): the corners of the box that was searched.
    points, radii
        (k, P): one point is within `radii[i]` of `points[i]` in every coordinate.
    copies
        (k,): how many points symmetries make of each, itself included; 1 without symmetries.
    index
        (k,): the number of negative eigenvalues of the Hessian at each; −1 for the zeros of a map.
    boxes
        Boxes that were tested.
    seconds
        The time that took.
    undecided_low, undecided_high, undecided_share
        Boxes that were neither excluded nor inside a box with exactly one point, (m, n), and their shares of the
        volume: empty if the list is complete. `complete(…, resume=refusal)` goes on with them.
    assumptions
        What the theorem rests on besides the computation.
    data
        SHA-256 of args, their shapes and dtypes.
    """

    complete: bool
    reason: str
    subject: tuple[str, str]
    region: str
    low: np.ndarray
    high: np.ndarray
    points: np.ndarray
    radii: np.ndarray
    copies: np.ndarray
    index: np.ndarray
    boxes: int
    seconds: float
    undecided_low: np.ndarray
    undecided_high: np.ndarray
    undecided_share: np.ndarray
    assumptions: tuple[str, ...]
    data: str

    @property
    def count(self) -> int:
        """How many points there are, with all their copies."""
        return int(np.sum(self.copies))

    @property
    def indices(self) -> dict[int, int]:
        """How many points have each index, with all their copies."""
        known = np.unique(self.index[self.index >= 0])
        return {int(index): int(np.sum(self.copies[self.index == index])) for index in known}

    @property
    def degree(self) -> int:
        """Σ (−1)^index over all points: 1 for a complete list of a function that grows in all directions (Morse)."""
        return sum(number * (-1) ** index for index, number in self.indices.items())

    def __str__(self) -> str:
        holder, noun = self.subject
        what = f"{self.count} {noun if self.count != 1 else noun.removesuffix('s')}"
        by_index = ", ".join(f"{number} of index {index}" for index, number in self.indices.items())
        what += f": {by_index}" if by_index else ""
        if self.count > len(self.points):
            what += f" ({len(self.points)} modulo symmetry)"
        if not self.complete:
            where = self.region[0].lower() + self.region[1:]
            return f"Not proved: {self.reason}. Found so far {where}: {what}; {self.boxes:,} boxes tested."
        lines = [
            f"Theorem. {self.region}, {holder} has exactly {what}.",
            f"Proof: {self.reason}; {self.boxes:,} boxes.",
            *(f"Assuming that {assumption}." for assumption in self.assumptions),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            ("where", self.region),
            (self.subject[1], self.count),
            *((f"of index {index}", number) for index, number in self.indices.items()),
            ("modulo symmetry", len(self.points)),
            ("boxes", f"{self.boxes:,}"),
            ("proof" if self.complete else "why", self.reason),
            *(("assuming that", assumption) for assumption in self.assumptions),
        ]
        title = "Theorem: a complete list" if self.complete else "Not proved complete"
        return display.table(title, rows, note="print() gives the statement in full.")

    def save(self, path: str | pathlib.Path) -> None:
        """Write the list as JSON, from which `load_list` reads every number bit for bit."""
        fields = dataclasses.asdict(self)
        fields |= {name: getattr(self, name).tolist() for name in _ARRAYS}
        text = json.dumps(fields, indent=1, allow_nan=False) + "\n"
        _files.write(pathlib.Path(path), lambda file: file.write(text.encode()))


def load_list(path: str | pathlib.Path) -> Completeness:
    """Return a list that `Completeness.save` wrote. It is only a claim until the proof is run again (`agree`).

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file; it is not a list.

    Examples
    --------
    >>> import jax.numpy as jnp, tempfile
    >>> from mlp_jax import interval
    >>> found = interval.complete(lambda x: x**3 - 3 * x, jnp.array(-2.0), jnp.array(2.0))
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "list.json"
    >>> found.save(path)
    >>> agree(load_list(path), found)
    True
    """
    names = {field.name for field in dataclasses.fields(Completeness)}
    text = pathlib.Path(path).read_text()
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict) or set(fields) != names:
            raise ValueError(f"expected the fields {', '.join(sorted(names))}")
        size = len(fields["low"])
        arrays: dict[str, Any] = {name: np.array(fields[name], np.float64) for name in _ARRAYS}
        for name in ("undecided_low", "undecided_high"):
            arrays[name] = arrays[name].reshape(-1, size)
        for name in ("copies", "index"):
            arrays[name] = arrays[name].astype(np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path: got {path}, which is not a list of critical points: {error}.") from None
    lists = {name: tuple(fields[name]) for name in ("subject", "assumptions")}
    return Completeness(**{**fields, **arrays, **lists})


def agree(old: Completeness, new: Completeness) -> bool:
    """Return whether a new proof implies an old list: complete, of the same data and box, with the same points."""
    if not (new.complete and old.data == new.data and len(old.points) == len(new.points)):
        return False
    if not (np.array_equal(old.low, new.low) and np.array_equal(old.high, new.high) and old.indices == new.indices):
        return False
    near = np.abs(old.points[:, None] - new.points) <= 2 * (old.radii[:, None] + new.radii)
    return bool(np.all(np.sum(np.all(near, axis=2), axis=1) == 1))
