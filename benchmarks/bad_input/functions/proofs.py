"""The functions of `interval`."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from benchmarks.bad_input.arguments import AT, BOOLEAN, KNOWN_POINT, MATRICES, POINT_ARGS, SYMMETRIES, in_file
from benchmarks.bad_input.calls import call
from benchmarks.bad_input.oracles import floating, near, need, no_data, numbers, real, truth, whole
from benchmarks.bad_input.sources import FILES, NAMES, saddle
from benchmarks.hostile_inputs import arrays, counts, damages, functions, functions_of, paths, reals, things
from mlp_jax import interval

CERTIFICATE = "interval.certify(saddle, jnp.zeros(2))"


def holds(certificate: Any, fun: Any) -> bool:
    """Return whether what a certificate says of a function of `power`, or of the saddle, is true."""
    if not certificate.proved:
        return len(certificate.reason) > 10
    ours = fun is saddle or "watched" in repr(fun) or "jit" in repr(fun).lower()
    known = (2, -1.0, 0.0, 1.0) if ours else truth(fun)
    if known is None:
        return False
    order, sign, place, factor = known
    inside = np.all(np.abs(certificate.location - [place, 0]) <= certificate.radius)
    ends = sorted((2.0 * factor, 2.0 * sign * factor))
    around = [certificate.smallest[0] <= ends[0] <= certificate.smallest[1]]
    around += [
        certificate.largest[0] <= ends[1] <= certificate.largest[1],
        certificate.loss[0] <= 0 <= certificate.loss[1],
    ]
    return bool(order == 2 and certificate.null == 0 and certificate.index == (sign < 0) and inside and all(around))


@call("interval.certify", "Hessian", fun=("saddle", st.one_of(functions_of("saddle"), KNOWN_POINT)), params=AT,
      args=POINT_ARGS, symmetries=(None, SYMMETRIES), hessian=(None, MATRICES), reach=(None, reals()),
      bits=(None, counts()), wide=BOOLEAN, weight=1.5)  # fmt: skip
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    floating(a.params)
    real(a.reach, 0)
    whole(a.bits, 2)
    need(callable(a.fun) and all(f is None or callable(f) for f in (a.symmetries, a.hessian)))
    return holds(result, a.fun)


FIELDS = (
    "proved",
    "reason",
    "size",
    "location",
    "displacement",
    "index",
    "null",
    "radius",
    "unique_radius",
    "smallest",
    "nearest",
    "largest",
    "loss",
    "precision",
    "assumptions",
    "data",
)
VALUES = st.one_of(
    reals(), counts(0), things(), st.sampled_from(("(0.0, 1.0)", "(nan, nan)", "(1.0, 0.0)",
        "np.array([1.0, 0.0])", "np.array([nan, 0.0])", "(-inf, inf)", "[0.0]", "'x'", "True", "False", "()")),
)  # fmt: skip


@functools.cache
def good_certificate() -> Any:
    """Return a theorem about the saddle."""
    return interval.certify(saddle, jnp.zeros(2))


def tampered(**fields: Any) -> Any:
    """Return that theorem with some of its fields replaced."""
    return dataclasses.replace(good_certificate(), **fields)


NAMES |= {"tampered": tampered}
TAMPERED = st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=2).map(
    lambda fields: f"tampered({', '.join(f'{name}={value}' for name, value in fields.items())})"
)


@call("interval.check", "Hessian", "args", certificate=("tampered()", st.one_of(TAMPERED, TAMPERED, things())),
      fun=("saddle", st.one_of(functions(), KNOWN_POINT)), params=("jnp.ones(2)", arrays((2,))), args=POINT_ARGS,
      symmetries=(None, SYMMETRIES))  # fmt: skip
def _(a: Any, result: Any) -> bool:
    no_data(a.args)
    floating(a.params)
    need(callable(a.fun) and (a.symmetries is None or callable(a.symmetries)))
    old = a.certificate
    implied = not result.proved or (
        old.index == result.index
        and old.null == result.null
        and result.radius <= old.radius
        and old.unique_radius <= result.unique_radius
        and old.loss[0] <= result.loss[1]
        and old.loss[1] >= result.loss[0]
    )
    return holds(result, a.fun) and bool(implied)


def certificate_json(**fields: Any) -> bytes:
    """Return that theorem as JSON with some of its fields replaced; None removes one."""
    good_certificate().save(FILES / "good.json")
    values = json.loads((FILES / "good.json").read_text())
    (FILES / "good.json").unlink()
    values.update(fields)
    return json.dumps({name: value for name, value in values.items() if value != "absent"}).encode()


NAMES |= {"certificate_json": certificate_json}
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.text(max_size=4), st.just(10**400)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)
CHANGED_JSON = st.dictionaries(st.sampled_from((*FIELDS, "more")), st.one_of(JSON, st.just("absent")), max_size=2).map(
    lambda fields: f"certificate_json(**{fields!r})"
)


@call(
    "interval.load",
    "data",
    "nowhere",
    path=(
        "file(certificate_json())",
        in_file(
            st.one_of(
                CHANGED_JSON,
                CHANGED_JSON,
                damages("certificate_json()"),
                JSON.map(lambda value: f"{json.dumps(value)!r}.encode()"),
                st.sampled_from(("b'[' * 100_000", "b'\\xff\\xfe'", "b''", "b'{}'", "b'null'", "b'\\xef\\xbb\\xbf{}'")),
            )
        ),
    ),
    weight=3,
)
def _(a: Any, result: Any) -> bool:
    fields = json.loads(pathlib.Path(a.path).read_text())
    need(set(fields) == set(FIELDS) and isinstance(fields["proved"], bool) and isinstance(fields["reason"], str))
    location = numbers(fields["location"], 1, finite=True)
    need(isinstance(fields["size"], int) and fields["size"] == len(location))
    real(fields["displacement"], 0)
    for name in ("index", "null", "precision"):
        need(not fields["proved"] or isinstance(fields[name], int))
    for name in ("radius", "unique_radius"):
        need(not fields["proved"] or real(fields[name], 0) >= 0)
    for name in ("smallest", "nearest", "largest", "loss"):
        need(not fields["proved"] or (len(fields[name]) == 2 and real(fields[name][0]) <= real(fields[name][1])))
    need(isinstance(fields["assumptions"], list) and all(isinstance(x, str) for x in fields["assumptions"]))
    need(isinstance(fields["data"], str))
    return near(result.location, location) and isinstance(str(result), str)


@call(
    "interval.Certificate.save",
    "certificate",
    self=("tampered()", st.just("tampered(index=None)")),
    path=(
        "str(FILES / 'written')",
        st.one_of(
            paths(),
            st.sampled_from(("FILES / 'written'", "FILES", "FILES / 'none' / 'written'", "FILES / ('w' * 250)")),
        ),
    ),
    weight=0.5,
)
def _(a: Any, result: Any) -> bool:
    read = interval.load(a.path)
    pathlib.Path(a.path).unlink()
    same = [name for name in FIELDS if name != "location"]
    return all(getattr(read, name) == getattr(a.self, name) for name in same) and near(read.location, a.self.location)


NAMES |= {"FILES": FILES}
