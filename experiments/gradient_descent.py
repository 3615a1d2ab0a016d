"""How fast do gradient descent and its successors converge, and where do they diverge, in theory and when tuned?

On quadratics ½ xᵀ Q diag(λ) Qᵀ x with eigenvalues from 1/κ to 1, convergence rates are theorems. Q is a random
rotation, because methods with a rate for each coordinate gain if the axes are the coordinates. Learning rates that
theory does not give are tuned on separate starts, with the same number of tries for every method; the results are those
of fresh starts. Then step sizes around the edge of divergence are tried, also on x². *Stable*: how often does a step
raise the loss? *Robust*: how much do results vary over initial values? *Efficient*: is the gradient large far from the
minimum and small near it (one sigmoid unit, squared error against cross-entropy)?
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import pandas as pd
import tqdm

from experiments._shared import command_line, tables
from experiments._shared.descent import Fun, Make, descend
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import plots
from mlp_jax.confidence import mean_interval, show

DIMENSIONS, GOAL, TRIES = 10, 1e-8, np.geomspace(1e-6, 1e4, 31)
ALONG, SHARE = "Adagrad, not rotated", "η λ_max / 2"
ADAPTIVE = {"Adagrad": optax.adagrad, "RMSProp": optax.rmsprop, "Adam": optax.adam, ALONG: optax.adagrad}
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.YELLOW, plots.SKY, "black", plots.GREY)
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (8, 2, 1, 2, 1, 2)), (0, (8, 4)))


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    starts: int = 40
    """Starts of each measurement; tuning uses as many others."""
    conditions: tuple[float, ...] = (10.0, 100.0, 1000.0)
    """Condition numbers κ of the quadratics."""


def quadratic(x: jax.Array, eigenvalues: jax.Array, rotation: jax.Array) -> jax.Array:
    """Return ½ xᵀ Q diag(λ) Qᵀ x."""
    return 0.5 * jnp.sum(eigenvalues * (x @ rotation) ** 2)


def squared_sigmoid(x: jax.Array) -> jax.Array:
    """Return ½ (σ(w + b) − 0)²: one sigmoid unit, input 1, target 0."""
    return 0.5 * jax.nn.sigmoid(x[0] + x[1]) ** 2


def entropy_sigmoid(x: jax.Array) -> jax.Array:
    """Return −ln(1 − σ(w + b)), the cross-entropy of the same unit."""
    return jax.nn.softplus(x[0] + x[1])


def newton(_: Any, fun: Fun, args: tuple = ()) -> optax.GradientTransformation:
    """Return Newton's method, the full step −H⁻¹ g, as an optax transformation."""

    def update(gradient: jax.Array, state: Any, params: Any = None) -> tuple[jax.Array, Any]:
        return -jnp.linalg.solve(jax.hessian(fun)(params, *args), gradient), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def steps_to(values: np.ndarray, goal: float = GOAL) -> np.ndarray:
    """Return the step (last axis) from which all values are at most `goal` times the first; infinite if none."""
    above = ~(values <= goal * values[..., :1])
    last = values.shape[-1] - np.argmax(above[..., ::-1], -1)
    return np.where(above[..., -1], np.inf, last)


def rate_of(values: np.ndarray) -> float:
    """Return the factor of the distance in one step, late in a run: (value b / value a) ^ (½ / (b − a)).

    Step a is the one where the value is 1e-6 of the first, b the one where it is 1e-20, or the last.
    """
    first, last = (float(steps_to(values, goal)) for goal in (1e-6, 1e-20))
    end = len(values) - 1
    a, b = (int(first), int(min(last, end))) if np.isfinite(first) else (len(values) // 2, end)
    return 0.0 if b <= a or values[b] == 0 else float((values[b] / values[a]) ** (0.5 / (b - a)))


def tune(make: Make, starts: jax.Array, steps: int, args: tuple) -> float:
    """Return the rate with which most starts reach the goal; ties are broken by fewest steps, then lowest value."""
    values = np.asarray(descend(make, quadratic, starts, jnp.asarray(TRIES), steps, args))
    needed, last = steps_to(values), np.where(np.isfinite(values[..., -1]), values[..., -1], np.inf)
    order = np.lexsort((np.median(last, 1), np.median(needed, 1), -np.isfinite(needed).sum(1)))
    return float(TRIES[order[0]])


def theory(kappa: float) -> dict[str, tuple[Make, float, float]]:
    """Return the methods whose best settings for λ in [1/κ, 1] are known: optimiser, rate, factor of a step.

    The factors are the spectral radii of the linear iterations. Sources: Polyak (1964) for gradient descent and
    momentum, Nesterov (2004, section 2.2) for constant momentum.
    """
    low, root = 1 / kappa, math.sqrt(kappa)
    heavy = (root - 1) / (root + 1)
    return {
        "gradient descent": (optax.sgd, 2 / (1 + low), (kappa - 1) / (kappa + 1)),
        "momentum, best": (functools.partial(optax.sgd, momentum=heavy**2), 4 / (1 + math.sqrt(low)) ** 2, heavy),
        "Nesterov, best": (functools.partial(optax.sgd, momentum=heavy, nesterov=True), 1.0, 1 - 1 / root),
    }


def on_quadratics(settings: Settings, key: jax.Array) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return one row for each condition number and method, and one run of each for the largest condition number."""
    rows, traces = [], {}
    start_key, rotation_key = jax.random.split(key)
    tuning, fresh = jax.random.normal(start_key, (2, settings.starts, DIMENSIONS))
    rotation = jax.random.orthogonal(rotation_key, DIMENSIONS)
    for kappa in tqdm.tqdm(settings.conditions, unit="condition number", leave=False, disable=None):
        eigenvalues, steps = jnp.geomspace(1 / kappa, 1.0, DIMENSIONS), int(16 * kappa) + 200
        rotated, along = (eigenvalues, rotation), (eigenvalues, jnp.eye(DIMENSIONS))
        methods = theory(kappa)
        for name, make in ADAPTIVE.items():
            rate = tune(make, tuning, steps, along if name == ALONG else rotated)
            methods[name] = (make, rate, np.nan)
        methods["Newton"] = (functools.partial(newton, fun=quadratic, args=rotated), 1.0, 0.0)
        for name, (make, rate, factor) in methods.items():
            args = along if name == ALONG else rotated
            values = np.asarray(descend(make, quadratic, fresh, jnp.asarray([rate]), steps, args))[0]
            needed, shrunk = steps_to(values), mean_interval([rate_of(run) for run in values])
            reached = np.isfinite(needed)
            spent = mean_interval(needed[reached]) if reached.any() else (np.nan, np.nan)
            risen = np.mean(values[..., 1:] > values[..., :-1])
            rows.append((kappa, name, rate, reached.mean(), *map(float, (*spent, *shrunk, factor, risen))))
            traces[name] = values[0]
    columns = ["κ", "method", "rate", "reached", "steps", "steps ±", "factor", "factor ±", "theory", "rising steps"]
    return pd.DataFrame(rows, columns=columns), traces


def at_the_edge(settings: Settings, key: jax.Array) -> pd.DataFrame:
    """Return one row for each step size: the growth of ‖x‖ in a step, on x² and a quadratic, and max |1 − η λ|."""
    rows = []
    for name, eigenvalues in (("x²", jnp.array([2.0])), ("κ = 100", jnp.geomspace(0.01, 1.0, DIMENSIONS))):
        starts = jax.random.normal(key, (settings.starts, len(eigenvalues)))
        for share in (0.05, 0.5, 0.9, 0.99, 1.0, 1.01, 1.1, 1.5):
            rate = 2 * share / float(eigenvalues[-1])
            args = (eigenvalues, jnp.eye(len(eigenvalues)))
            runs = descend(optax.sgd, quadratic, starts, jnp.asarray([rate]), 400, args, points=True)
            norms = np.linalg.norm(np.asarray(runs[1])[0], axis=-1)
            # Over the last steps only the slowest mode is left. At η = ½ one step on x² ends at 0.
            grown = (norms[:, 400] / np.where(norms[:, 300] > 0, norms[:, 300], np.inf)) ** 0.01
            predicted, larger = np.max(np.abs(1 - rate * np.asarray(eigenvalues))), norms[:, 400] > norms[:, 0]
            rows.append((name, share, *map(float, mean_interval(grown)), predicted, np.mean(larger)))
    return pd.DataFrame(rows, columns=["function", SHARE, "growth a step", "±", "theory", "share that grew"])


def saturation(settings: Settings, key: jax.Array) -> pd.DataFrame:
    """Return one row for each loss: the gradient at a badly wrong unit, and the steps until its output is below .1."""
    rows = []
    starts = 2.0 + jnp.abs(jax.random.normal(key, (settings.starts, 2)))
    for name, fun in (("squared error", squared_sigmoid), ("cross-entropy", entropy_sigmoid)):
        far, near = (np.linalg.norm(jax.vmap(jax.grad(fun))(s), axis=1) for s in (starts, starts * 0 - 1.5))
        points = np.asarray(descend(optax.sgd, fun, starts, jnp.asarray([0.5]), 20_000, points=True)[1])[0]
        right = points.sum(-1) < math.log(0.1 / 0.9)
        needed = np.where(right.any(1), right.argmax(1), np.inf)
        spread = float(needed.max() / needed.min())
        rows.append((name, show(far, 2), f"{near.mean():.2g}", show(far / near, 2), show(needed), spread))
    columns = ["loss", "gradient far (output .98 and more)", "near (.05)", "far / near", "steps to output .1", "spread"]
    return pd.DataFrame(rows, columns=columns)


def draw(traces: dict[str, np.ndarray], edge: pd.DataFrame, kappa: float) -> matplotlib.figure.Figure:
    """Return the figure: runs on the quadratic, and growth at the edge of divergence."""
    figure = matplotlib.figure.Figure(figsize=(13, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for k, (name, values) in enumerate(traces.items()):
        shown = np.maximum(values / values[0], 1e-32)
        left.loglog(np.arange(len(shown)) + 1, shown, color=COLOURS[k], ls=LINES[k], label=name)
    left.set(xlabel="step + 1", ylabel="value / first value", title=f"descent on a quadratic, κ = {kappa:g}")
    left.set_ylim(1e-16, 10)
    left.legend(fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    for (name, part), marker, colour in zip(edge.groupby("function"), "so", (plots.ORANGE, plots.BLUE), strict=True):
        right.plot(part[SHARE], part["growth a step"], marker, color=colour, label=f"{name}: measured")
        right.plot(part[SHARE], part["theory"], "--", color=colour, lw=1, label=f"{name}: max |1 − η λ|")
    right.axhline(1, color="black", lw=0.7)
    right.axvline(1, color="black", lw=0.7)
    right.set(xlabel="learning rate η · λ_max / 2", ylabel="growth of ‖x‖ a step")
    right.set_title("gradient descent diverges above 1")
    right.legend(fontsize="small")
    return figure


def conclusion(quadratics: pd.DataFrame, edge: pd.DataFrame, sigmoid: pd.DataFrame) -> str:
    """Return what was found, as one sentence filled with numbers."""
    known, hard = quadratics[quadratics.theory > 0], quadratics[quadratics["κ"] == quadratics["κ"].max()]
    steps = ", ".join(f"{row.steps:.0f} ({row.method})" for row in hard[hard.reached == 1].itertuples())
    wrong = ((edge["growth a step"] > 1 + 1e-9) != (edge[SHARE] > 1)).sum()
    return (
        f"Found: measured factors a step are within {(known.factor - known.theory).abs().max():.1g} of theory in"
        f" {len(known)} cases; at κ = {hard['κ'].max():g} the steps of methods that converge from every start are"
        f" {steps}; runs grow exactly where η > 2/λ_max, with {wrong} exceptions in {len(edge)}; a badly wrong"
        f" sigmoid unit has {sigmoid['far / near'][0]} times the gradient of a nearly right one with squared error, and"
        f" {sigmoid['far / near'][1]} times with cross-entropy."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Run, measure, print and save; return the table of the quadratics."""
    folder = RunFolder("gradient_descent", settings, settings.output, resume=settings.resume)
    if settings.quick:
        settings = dataclasses.replace(settings, starts=min(8, settings.starts), conditions=settings.conditions[:2])
    keys = jax.random.split(jax.random.key(settings.seed), 4)
    with jax.enable_x64(True):
        quadratics, traces = folder.kept("quadratics", lambda: on_quadratics(settings, keys[0]))
        edge, sigmoid = at_the_edge(settings, keys[2]), saturation(settings, keys[3])
    for name, table in {"quadratics": quadratics, "edge": edge, "sigmoid": sigmoid}.items():
        folder.table(name, table)
    title = f"Quadratics in {DIMENSIONS} dimensions: steps to {GOAL:g} of the first value"
    print(f"{title}, {settings.starts} starts, 95 %:")
    print(tables.text(quadratics, "quadratics"))
    folder.figure("gradient_descent", draw(traces, edge, settings.conditions[-1]))
    folder.conclude(conclusion(quadratics, edge, sigmoid))
    return quadratics


if __name__ == "__main__":
    command_line.start("gradient_descent", run, Settings, __doc__)
