"""A theorem as a value: it prints as a statement, and is saved as plain JSON."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np

from mlp_jax import _files, display

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A theorem about one critical point, or a refusal. `print(certificate)` is its statement.

    proved
        Whether the theorem holds. If not, all fields but `reason`, `size`, `location` and `displacement` are unset.
    reason
        Why the proof was refused, or how the theorem was proved.
    size
        Number of parameters, P.
    location
        (P,) float64, in the order of `tree.ravel`: the centre of the boxes.
    displacement
        Largest |params − location|: how far polishing moved the centre.
    index
        Number of negative eigenvalues of the Hessian at the critical point.
    null
        Number of symmetry directions, along which the Hessian is 0; 0 for a nondegenerate point.
    radius
        The critical point is within this of location, in every coordinate.
    unique_radius
        It is the only critical point within this of location, in every coordinate; with symmetries, the only one on
        the slice through location.
    smallest, nearest, largest
        Enclosures of eigenvalues of the Hessian at the critical point: the smallest, one nearest to 0 (to within its
        enclosure, without symmetry directions), and the largest.
    loss
        Enclosure of fun at the critical point.
    precision
        Bits of the gradient's enclosure; the Hessian is enclosed in float64.
    assumptions
        What the theorem rests on besides the computation.
    data
        SHA-256 of args, their shapes and dtypes.
    """

    proved: bool
    reason: str
    size: int
    location: np.ndarray
    displacement: float
    index: int | None = None
    null: int | None = None
    radius: float | None = None
    unique_radius: float | None = None
    smallest: Interval | None = None
    nearest: Interval | None = None
    largest: Interval | None = None
    loss: Interval | None = None
    precision: int | None = None
    assumptions: tuple[str, ...] = ()
    data: str = ""

    @property
    def kind(self) -> str:
        """`minimum`, `maximum` or `saddle`, with ` modulo symmetry` if there are any; `not proved` for a refusal."""
        if self.index is None or self.null is None:
            return "not proved"
        positive = self.size - self.index - self.null
        name = "minimum" if self.index == 0 else "maximum" if positive == 0 else "saddle"
        return name + (" modulo symmetry" if self.null else "")

    def __str__(self) -> str:
        if not self.proved:
            return f"Not proved ({self.size} parameters): {self.reason}."
        assert self.index is not None
        assert self.null is not None
        slice_ = " on the slice across the symmetry orbit" if self.null else ""
        zeros = f", {self.null} zero (the symmetries)" if self.null else ""
        name = {"minimum": "strict local minimum", "maximum": "strict local maximum"}.get(self.kind, self.kind)
        lines = [
            f"Theorem. Within {self.unique_radius:.3g} of the location, in each of its {self.size} coordinates, fun has"
            f" exactly one critical point{slice_}.",
            f"It lies within {self.radius:.3g} of the location. Its Hessian has exactly {self.index} negative{zeros}"
            f" and {self.size - self.index - self.null} positive eigenvalues: a {name} of index {self.index}.",
            f"Eigenvalues: smallest in {_show(self.smallest)}, nearest to 0 in {_show(self.nearest)}, largest in"
            f" {_show(self.largest)}; loss in {_show(self.loss)}.",
            f"Proof: {self.reason}.",
            *(f"Assuming that {assumption}." for assumption in self.assumptions),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        if not self.proved:
            return display.table("Not proved", [("parameters", self.size), ("why", self.reason)])
        rows = [
            ("statement", f"exactly one critical point within {self.unique_radius:.3g} of the location"),
            ("parameters", self.size),
            ("index", self.index),
            ("where", f"within {self.radius:.3g} of the location, in each coordinate"),
            ("smallest eigenvalue", _show(self.smallest)),
            ("nearest to 0", _show(self.nearest)),
            ("largest eigenvalue", _show(self.largest)),
            ("loss", _show(self.loss)),
            ("proof", self.reason),
            *(("assuming that", assumption) for assumption in self.assumptions),
        ]
        if self.null:
            rows.insert(3, ("symmetry directions", f"{self.null}; the point is the only one on the slice across them"))
        return display.table(f"Theorem: {self.kind}", rows, note="print() gives the statement in full.")

    def save(self, path: str | pathlib.Path) -> None:
        """Write the certificate as JSON, from which `load` reads every number bit for bit."""
        fields = {**dataclasses.asdict(self), "location": self.location.tolist()}
        text = json.dumps(fields, indent=1, allow_nan=False) + "\n"
        _files.write(pathlib.Path(path), lambda file: file.write(text.encode()))


def load(path: str | pathlib.Path) -> Certificate:
    """Return a certificate that `Certificate.save` wrote. It is only a claim until `check` proves it again.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file; it is not a certificate.

    Examples
    --------
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "point.json"
    >>> Certificate(False, "an example", 1, np.zeros(1), 0.0).save(path)
    >>> print(load(path))
    Not proved (1 parameters): an example.
    """
    text = pathlib.Path(path).read_text()
    names = {field.name for field in dataclasses.fields(Certificate)}
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict) or set(fields) != names:
            raise ValueError(f"expected the fields {', '.join(sorted(names))}")
        location = np.array(fields["location"], np.float64)
        if location.shape != (fields["size"],) or not np.all(np.isfinite(location)):
            raise ValueError(f"expected a location of {fields['size']} finite numbers")
    except (TypeError, ValueError) as error:
        raise ValueError(f"path: got {path}, which is not a certificate: {error}.") from None
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return Certificate(**{**fields, **lists, "location": location})


def _show(interval: Interval | None) -> str:
    return "unknown" if interval is None else f"[{interval[0]:.12g}, {interval[1]:.12g}]"
