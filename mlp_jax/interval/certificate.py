"""What was proved, as a value: it prints as a theorem, and is saved as plain JSON."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from mlp_jax import _checks, display

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A theorem about one critical point, or a refusal. `print(certificate)` is its statement.

    proved
        Whether the theorem holds; all else but `reason`, `size`, `location` and `displacement` is None when not.
    reason
        What decided, in words: why it was refused, or by what it was proved.
    size
        Number of parameters, P.
    location
        (P,) float64, in the order of `tree.ravel`: the centre that the radii are about.
    displacement
        Largest |params − location|: how far polishing moved the centre.
    index
        Number of negative eigenvalues of the Hessian at the critical point.
    null
        Number of symmetry directions, along which the Hessian is exactly 0; 0 for a nondegenerate point.
    radius
        The critical point is within this of location, in every coordinate.
    unique_radius
        It is the only one within this of location, in every coordinate; with symmetries, the only one on the slice
        through location.
    smallest, nearest, largest
        Enclosures of eigenvalues of the Hessian at the critical point: the least, one than which none is nearer to 0 by
        more than the width of its enclosure (symmetry directions aside), and the greatest.
    loss
        Enclosure of fun at the critical point.
    precision
        Bits in which the gradient was enclosed; the Hessian is enclosed in float64.
    assumptions
        What the theorem rests on besides what was computed.
    data
        SHA-256 of args and of their shapes and dtypes.
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
        """Name of the point: `minimum`, `maximum`, `saddle`, with ` modulo symmetry`; `not proved` after a refusal."""
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
        """Write the certificate as JSON; every number is read back bit for bit.

        Raises
        ------
        TypeError, ValueError
            The path is none that a file can have, or a field is none that a certificate has.
        OSError
            The file cannot be written, or the path is that of something else, such as a folder or a device.
        """
        target = pathlib.Path(path)
        require_fields(self)
        fields = {**dataclasses.asdict(self), "location": self.location.tolist()}
        try:
            if target.exists() and not target.is_file():
                raise FileExistsError(f"path: got {target}, which is no file, expected a file to write.")
            partial = target.with_name(f".{target.name}.partial")
            partial.write_text(json.dumps(fields, indent=1, allow_nan=False) + "\n")
            partial.replace(target)
        except OSError as error:
            if error.errno is None:
                raise
            why = f"path: the certificate cannot be written: {error.strerror}"
            raise OSError(error.errno, why, str(path)) from None


def load(path: str | pathlib.Path) -> Certificate:
    """Read a certificate that `Certificate.save` wrote. It is a claim: `check` proves it again.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    TypeError, ValueError
        The path is none, or the file is not a certificate.

    Examples
    --------
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "point.json"
    >>> Certificate(False, "an example", 1, np.zeros(1), 0.0).save(path)
    >>> print(load(path))
    Not proved (1 parameters): an example.
    """
    file = pathlib.Path(path)
    fields = _read(file)
    names = {field.name for field in dataclasses.fields(Certificate)}
    if not isinstance(fields, dict) or set(fields) != names:
        raise ValueError(
            f"path: got {file}, a file that is not a certificate, expected the fields {', '.join(sorted(names))}."
        )
    for name in (*_INTERVALS, "assumptions"):
        fields[name] = tuple(fields[name]) if isinstance(fields[name], list) else fields[name]
    location = fields["location"]
    if not isinstance(location, list) or not all(_is_number(x) for x in location):
        raise ValueError(f"path: got {file} with a location that is no list of finite numbers, expected a certificate.")
    certificate = Certificate(**{**fields, "location": np.asarray(location, dtype=np.float64)})
    try:
        require_fields(certificate)
    except (TypeError, ValueError) as error:
        raise ValueError(f"path: got {file}, a file that is not a certificate ({error})") from None
    return certificate


def _read(file: pathlib.Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (ValueError, RecursionError) as error:  # no JSON, no text, or lists in lists without end
        got = " ".join(str(error).split())
        raise ValueError(f"path: got {file}, which is not JSON ({got}), expected a certificate.") from None
    except OSError as error:
        raise OSError(error.errno, f"path: the certificate cannot be read: {error.strerror}", str(file)) from None


_INTERVALS = ("smallest", "nearest", "largest", "loss")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(0 <= value < 2**63)


def _is_interval(value: Any) -> bool:
    return type(value) is tuple and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]


def require_fields(certificate: Certificate) -> None:
    """Raise ValueError unless every field has the type and range that one of `certify` has: it is a claim all the same.

    Examples
    --------
    >>> require_fields(Certificate(False, "an example", 1, np.zeros(1), 0.0))
    """
    c = certificate
    claims = {
        **{name: _is_count(getattr(c, name)) for name in ("index", "null", "precision")},
        **{name: _is_number(getattr(c, name)) and getattr(c, name) >= 0 for name in ("radius", "unique_radius")},
        **{name: _is_interval(getattr(c, name)) for name in _INTERVALS},
    }
    held = {
        "proved": type(c.proved) is bool,
        "reason": type(c.reason) is str,
        "size": _is_count(c.size),
        "location": isinstance(c.location, np.ndarray)
        and c.location.dtype == np.float64
        and c.location.ndim == 1
        and bool(np.all(np.isfinite(c.location))),
        "displacement": _is_number(c.displacement) and c.displacement >= 0,
        "assumptions": type(c.assumptions) is tuple and all(type(text) is str for text in c.assumptions),
        "data": type(c.data) is str,
        **(claims if c.proved is True else {name: ok or getattr(c, name) is None for name, ok in claims.items()}),
    }
    for name, ok in held.items():
        if not ok:
            got = _checks.describe(getattr(c, name))
            raise ValueError(f"certificate.{name}: got {got}, expected what `certify` puts there.")
    if c.location.size != c.size:
        raise ValueError(f"certificate.location: got {c.location.size} numbers, expected {c.size}, the size.")


def _show(interval: Interval | None) -> str:
    return "unknown" if interval is None else f"[{interval[0]:.12g}, {interval[1]:.12g}]"
