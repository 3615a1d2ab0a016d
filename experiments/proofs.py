"""Can the minima and saddles of networks on real data be proved, and up to how many parameters?

Finds critical points of tanh networks on XOR (squared error) and on all 1,797 digits (softmax cross-entropy), both
with weight decay, and asks `interval.certify` for a theorem about each: exactly one critical point in a box of stated
radius, of exactly this index. Minima come from L-BFGS and a proof's own Newton steps, saddles of a chosen index from
following eigenvectors. Every certificate is saved, and can be proved again with `interval.check`.
"""

from __future__ import annotations

import dataclasses
import functools
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import optax
import pandas as pd
import scipy.optimize
import tqdm

from experiments._shared import bars, command_line, tables, xor
from experiments._shared.classifier import Classifier, all_digits, classifier
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import critical, curvature, datasets, interval, mlp, plots, training, tree


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    weight_decay: float = 1e-2
    """Strength s of the penalty (s / 2) ‖θ‖², biases included."""
    xor_starts: int = 1000
    """Searches of a pass of the census of XOR; 100 when quick."""
    largest: int = 27
    """Hidden units of the largest network on digits: 27 are 2,035 parameters, 67 are 5,035, 128 are 9,610."""


Data = tuple[np.ndarray, np.ndarray]


class Case(NamedTuple):
    """A network on digits, the index wanted, and the epochs of training from where it is searched."""

    hidden: tuple[int, ...]
    wanted: int
    epochs: int = 0

    @property
    def network(self) -> str:
        """Return the sizes of the layers, such as 64-7-10."""
        return "-".join(map(str, (64, *self.hidden, 10)))


def cases(settings: Settings) -> list[Case]:
    """Return the searches on digits, by number of parameters."""
    if settings.quick:
        return [Case((2,), 0), Case((2,), 1, 60)]
    widths = [h for h in (7, 13, 27, 67, 128) if h <= settings.largest]
    saddles = [Case((7,), 1, 60), Case((7,), 2, 60), *(Case((h,), 20, 2) for h in widths)]
    found = [Case((5, 5, 5), 0), Case((7, 7), 0), *(Case((h,), 0) for h in widths), *saddles]
    return sorted(found, key=lambda case: case.hidden[0])  # so that the peak of memory is that of the case


def search(settings: Settings, model: Classifier, digits: Data, case: Case) -> mlp.Params:
    """Return params at, or for minima close to, a critical point of the index wanted."""
    init_key, train_key = jax.random.key(settings.seed), jax.random.key(settings.seed + 1)
    params = mlp.init(init_key, (64, *case.hidden, 10), dtype=jnp.float64)
    if case.wanted == 0:
        return descend(model.fun, digits, params)
    data = datasets.Examples(*map(jnp.asarray, digits))
    params, _ = training.train(
        train_key, model.batch_loss, params, data, optimizer=optax.sgd(0.1), batch_size=64, epochs=case.epochs
    )
    point = critical.find(model.fun, params, digits, index=case.wanted, hessian=model.hessian)
    return point.params


def descend(fun: Callable[..., jax.Array], digits: Data, params: mlp.Params) -> mlp.Params:
    """Return where L-BFGS ends: near a minimum, where the proof's own Newton steps take over."""
    vector, unravel = tree.ravel(params)
    objective = jax.jit(jax.value_and_grad(lambda v: fun(unravel(v), *digits)))
    options = {"maxiter": 5000, "maxfun": 10_000, "gtol": 1e-9, "ftol": 0, "maxcor": 50}
    result = scipy.optimize.minimize(
        lambda v: tuple(map(np.asarray, objective(v))), np.asarray(vector), jac=True, method="L-BFGS-B", options=options
    )
    return unravel(jnp.asarray(result.x))


def prove(settings: Settings, model: Classifier, digits: Data, case: Case) -> dict[str, Any]:
    """Search and prove, and return a row of the table with its certificate."""
    began = time.perf_counter()
    params = jax.block_until_ready(search(settings, model, digits, case))
    found = time.perf_counter()
    fast: dict[str, Any] = {"hessian": model.hessian, "enclosure": model.enclosure}
    with bars.bar("proof", "row") as progress:
        proof = interval.certify(model.fun, params, digits, reach=1e-3, progress=progress, **fast)
    ended = time.perf_counter()
    row = {"network": case.network, "parameters": proof.size, "wanted": case.wanted, **summary(proof)}
    seconds = {"search_seconds": found - began, "proof_seconds": ended - found}
    return {**row, **seconds, "peak_mb": peak_mb(), "proof": proof}


def summary(proof: interval.Certificate) -> dict[str, Any]:
    """Return what the table says of a certificate."""
    row: dict[str, Any] = {"kind": proof.kind, "index": proof.index}
    row["radius"] = np.nan if proof.radius is None else proof.radius
    row["unique_radius"] = np.nan if proof.unique_radius is None else proof.unique_radius
    for name in ("smallest", "nearest", "loss"):
        row[f"{name}_low"], row[f"{name}_high"] = getattr(proof, name) or (np.nan, np.nan)
    return row


def peak_mb() -> float:
    """Return the most memory this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def xor_rows(settings: Settings) -> list[dict[str, Any]]:
    """Prove every critical point in the census of a 2-2-1 network on XOR, modulo its discrete symmetries."""
    starts = 100 if settings.quick else settings.xor_starts
    args, _, census = xor.count(jax.random.key(settings.seed), "{0, 1}", settings.weight_decay, starts)
    proofs = interval.certify_many(xor.loss, census.params, args)
    return [
        {"parameters": 9, "copies": copies, **summary(proof), "proof": proof}
        for copies, proof in zip(census.orbit_sizes.tolist(), proofs, strict=True)
    ]


def xor_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row an index: how many points, how many proved, and the widest and narrowest of what was proved."""
    table = rows.groupby("index", dropna=False).agg(
        points=("kind", "size"),
        copies=("copies", "sum"),
        proved=("radius", "count"),
        largest_radius=("radius", "max"),
        least_unique_radius=("unique_radius", "min"),
        lowest_loss=("loss_low", "min"),
        highest_loss=("loss_high", "max"),
    )
    return table.reset_index()


def show(rows: pd.DataFrame) -> str:
    """Return the table of the digits as text."""

    def enclosure(name: str) -> list[str]:
        bounds = zip(rows[f"{name}_low"], rows[f"{name}_high"], strict=True)
        return [f"{(low + high) / 2:.6e} ± {(high - low) / 2:.0e}" for low, high in bounds]

    brief = rows.assign(smallest=enclosure("smallest"), nearest_to_0=enclosure("nearest"))
    columns = ["network", "parameters", "wanted", "kind", "index", "radius", "unique_radius", "smallest",
               "nearest_to_0", "search_seconds", "proof_seconds", "peak_mb"]  # fmt: skip
    formatters = dict.fromkeys(("radius", "unique_radius"), "{:.1e}".format) | {"peak_mb": "{:.0f}".format}
    formatters |= dict.fromkeys(("search_seconds", "proof_seconds"), "{:.1f}".format)
    return tables.text(brief[columns], "digits", formatters=formatters)


def draw(rows: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: seconds of a proof, and the two radii, against the number of parameters."""
    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    looks = ((plots.BLUE, "*"), (plots.ORANGE, "o"), (plots.GREEN, "^"), (plots.GREY, "x"))
    for k, (kind, group) in enumerate(rows.groupby("kind")):
        colour, marker = looks[k % len(looks)]
        left.loglog(group.parameters, group.proof_seconds, marker, color=colour, mfc="none", ms=8, label=kind)
    left.set(xlabel="parameters", ylabel="seconds of a proof", title="what a proof costs")
    radii = {"color": plots.BLUE, "ls": "none", "mfc": "none"}
    right.loglog(rows.parameters, rows.unique_radius, marker="o", label="no other critical point within", **radii)
    right.loglog(rows.parameters, rows.radius, marker="s", label="a critical point within", **radii)
    right.set(xlabel="parameters", ylabel="radius, largest coordinate", title="what it says")
    left.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")
    sizes = np.unique(rows.parameters)
    for axes in (left, right):
        axes.minorticks_off()
        axes.set_xticks([size for size in sizes if not ((0.85 * size <= sizes) & (sizes < size)).any()])  # with room
        axes.xaxis.set_major_formatter("{x:g}")
    left.legend(fontsize="small", framealpha=0.9)
    right.legend(fontsize="small", framealpha=0.9, loc="center")  # between the two radii
    return figure


def exponents(rows: pd.DataFrame) -> str:
    """Return the powers of P with which the seconds of proofs and the peak of memory grow, fitted to all sizes."""
    words = ""
    for kind, group in rows[rows["index"].notna()].groupby(rows.wanted.gt(0).map({True: "saddle", False: "minimum"})):
        columns = [jnp.asarray(group[name].to_numpy(float)) for name in ("parameters", "proof_seconds", "peak_mb")]
        powers = [float(curvature.log_log_slope(columns[0], y)) for y in columns[1:]]
        if np.all(np.isfinite(powers)):
            words += f", the seconds of a {kind} as P^{powers[0]:.1f}, memory as P^{powers[1]:.1f}"
    return words


def conclusion(rows: pd.DataFrame, on_xor: pd.DataFrame) -> str:
    """Return one sentence made from the numbers."""
    proved = rows[rows["index"].notna()]
    indices = ", ".join(str(i) for i in sorted(proved["index"].unique()))
    largest = max(proved.parameters, default=0)
    return (
        f"Proved: {on_xor.radius.notna().sum()} of {len(on_xor)} critical points on XOR modulo symmetry,"
        f" {len(proved)} of {len(rows)} on digits (index {indices or 'none'}), the largest with {largest} parameters"
        f"{exponents(rows)}."
    )


def run(settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Search, prove, print and save; return the tables of digits and of XOR."""
    folder = RunFolder("proofs", settings, settings.output, resume=settings.resume)
    xor_found = folder.kept("xor", lambda: xor_rows(settings))
    with jax.enable_x64(True):
        model, digits = classifier(settings.weight_decay), all_digits()
        found: list[dict[str, Any]] = []
        for case in tqdm.tqdm(cases(settings), unit="point", desc="digits", disable=None):
            found.append(folder.kept(f"point_{len(found)}", functools.partial(prove, settings, model, digits, case)))
    for number, row in enumerate(found):
        row["proof"].save(folder.path / f"digits_{number}_{row['network']}.json")
    for number, row in enumerate(xor_found):
        row["proof"].save(folder.path / f"xor_{number}.json")
    on_digits, on_xor = (
        pd.DataFrame(part).drop(columns="proof").astype({"index": "Int64"}) for part in (found, xor_found)
    )
    folder.table("digits", on_digits)
    folder.table("xor", on_xor)
    folder.figure("proofs", draw(on_digits))
    print(f"XOR, 2-2-1, tanh, squared error, weight decay {settings.weight_decay:g}:")
    print(tables.text(xor_table(on_xor), "xor"))
    print(f"\nDigits, 1,797 examples, tanh, softmax cross-entropy, weight decay {settings.weight_decay:g}:")
    print(show(on_digits))
    print(f"\n{found[-1]['network']}: {found[-1]['proof']}")
    folder.conclude(conclusion(on_digits, on_xor))
    return on_digits, on_xor


if __name__ == "__main__":
    command_line.start("proofs", run, Settings, __doc__)
