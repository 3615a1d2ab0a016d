"""How fast do gradient descent and its successors go down, where do they diverge, and what do theory and tuning say?

x² first; then quadratics ½ xᵀ Q diag(λ) Qᵀ x with eigenvalues from 1/κ to 1, where rates are theorems, rotated at
random because rates of their own for each coordinate fit axes that lie along them; then Rosenbrock's valley.
Learning rates that theory does not give are tuned on starts of their own, with the same number of tries for every
method, and the figures are of fresh starts. *Efficient*: is the gradient large far from the minimum and small near it
(one sigmoid unit, squared error against cross-entropy)? *Stable*: how often does a step raise the loss? *Robust*: how
far do results spread over initial values?
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import matplotlib.axes
import matplotlib.figure
import numpy as np
import optax
import pandas as pd
import tqdm
import tyro

from experiments._shared import command_line
from experiments._shared.run_folder import RunFolder
from mlp_jax import plots
from mlp_jax.confidence import mean_interval, show

Fun = Callable[..., jax.Array]
Make = Callable[[Any], optax.GradientTransformation]

DIMENSIONS, GOAL, TRIES = 10, 1e-8, np.geomspace(1e-6, 1e4, 31)
ALONG = "Adagrad, not rotated"
METHODS: dict[str, Make] = {
    "gradient descent": optax.sgd,
    "momentum .9": functools.partial(optax.sgd, momentum=0.9),
    "Nesterov .9": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "Adagrad": optax.adagrad,
    "RMSProp": optax.rmsprop,
    "Adam": optax.adam,
}
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.YELLOW, plots.SKY, "black", plots.GREY)
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (8, 2, 1, 2, 1, 2)), (0, (8, 4)))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the run; each is written to settings.json."""

    quick: bool = False
    """Eight starts and the two smaller condition numbers."""
    seed: int = 0
    """Of the starts."""
    starts: int = 40
    """Starts of each measurement; as many others are used to tune."""
    conditions: tuple[float, ...] = (10.0, 100.0, 1000.0)
    """Condition numbers κ of the quadratics."""
    output: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new folder for the results; runs/gradient_descent-DATE-TIME when not given."""
    resume: bool = False
    """Go on with the run that was stopped in the folder of --output."""


def quadratic(x: jax.Array, eigenvalues: jax.Array, rotation: jax.Array) -> jax.Array:
    """Return ½ xᵀ Q diag(λ) Qᵀ x."""
    return 0.5 * jnp.sum(eigenvalues * (x @ rotation) ** 2)


def rosenbrock(x: jax.Array) -> jax.Array:
    """Return (1 − x₀)² + 100 (x₁ − x₀²)², with its minimum 0 at (1, 1)."""
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def newton(_: Any, fun: Fun, args: tuple = ()) -> optax.GradientTransformation:
    """Return Newton's method as an optax transformation: the step −H⁻¹ g, whole."""

    def update(gradient: jax.Array, state: Any, params: Any = None) -> tuple[jax.Array, Any]:
        return -jnp.linalg.solve(jax.hessian(fun)(params, *args), gradient), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@functools.partial(jax.jit, static_argnames=("make", "fun", "steps"))
def descend(
    make: Make, fun: Fun, starts: jax.Array, rates: jax.Array, steps: int, args: tuple = ()
) -> tuple[jax.Array, jax.Array]:
    """Return values (rates, starts, steps + 1) and points (rates, starts, steps + 1, d) of every run."""

    def one(rate: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
        optimizer = make(rate)

        def step(carry: tuple, _: None) -> tuple[tuple, tuple]:
            x, state = carry
            value, gradient = jax.value_and_grad(fun)(x, *args)
            updates, state = optimizer.update(gradient, state, x)
            return (optax.apply_updates(x, updates), state), (value, x)

        _, trace = jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps + 1)
        return trace

    return jax.vmap(lambda rate: jax.vmap(lambda start: one(rate, start))(starts))(rates)


def steps_to(values: np.ndarray, goal: float = GOAL) -> np.ndarray:
    """Return the step (last axis) from which on all values are at most `goal` times the first; infinite if none.

    Examples
    --------
    >>> steps_to(np.array([[1.0, 0.2, 0.5, 0.1, 0.1], [1.0, 0.1, 0.1, 0.1, 0.9]]), 0.25).tolist()
    [3.0, inf]
    """
    above = ~(values <= goal * values[..., :1])
    last = values.shape[-1] - np.argmax(above[..., ::-1], -1)
    return np.where(above[..., -1], np.inf, last)


def share_rising(values: np.ndarray) -> float:
    """Return the share of steps (last axis) that raise the value.

    Examples
    --------
    >>> share_rising(np.array([[3.0, 2.0, 2.5, 1.0, 0.5]]))
    0.25
    """
    return float(np.mean(values[..., 1:] > values[..., :-1]))


def rate_of(values: np.ndarray) -> float:
    """Return the factor by which one step shrinks the distance, late in a run: √(value b / value a) a step.

    From the step where the value is 1e-6 of the first one to where it is 1e-20, or to the end.

    Examples
    --------
    >>> round(rate_of(0.81 ** np.arange(200.0)), 6)
    0.9
    """
    first, last = (float(steps_to(values, goal)) for goal in (1e-6, 1e-20))
    end = len(values) - 1
    a, b = (int(first), int(min(last, end))) if np.isfinite(first) else (len(values) // 2, end)
    if b <= a or values[b] == 0:
        return 0.0
    return float((values[b] / values[a]) ** (0.5 / (b - a)))


def tune(make: Make, fun: Fun, starts: jax.Array, steps: int, args: tuple = ()) -> float:
    """Return the rate with which most starts reach the goal; of several, that of fewest steps, then of lowest value."""
    values = np.asarray(descend(make, fun, starts, jnp.asarray(TRIES), steps, args)[0])
    needed, last = steps_to(values), np.where(np.isfinite(values[..., -1]), values[..., -1], np.inf)
    order = np.lexsort((np.median(last, 1), np.median(needed, 1), -np.isfinite(needed).sum(1)))
    return float(TRIES[order[0]])


def theory(kappa: float) -> dict[str, tuple[Make, float, float]]:
    """Return the methods whose best settings for λ in [1/κ, 1] are known: optimiser, its rate, factor a step.

    Polyak (1964) for gradient descent and momentum; Nesterov (2004, section 2.2) with its constant momentum. The
    factors are the spectral radii of the linear iterations.
    """
    low, root = 1 / kappa, math.sqrt(kappa)
    heavy = (root - 1) / (root + 1)
    return {
        "gradient descent": (optax.sgd, 2 / (1 + low), (kappa - 1) / (kappa + 1)),
        "momentum, best": (functools.partial(optax.sgd, momentum=heavy**2), 4 / (1 + math.sqrt(low)) ** 2, heavy),
        "Nesterov, best": (functools.partial(optax.sgd, momentum=heavy, nesterov=True), 1.0, 1 - 1 / root),
    }


def on_quadratics(settings: Settings, conditions: tuple[float, ...], key: jax.Array) -> tuple[pd.DataFrame, dict]:
    """Return one row a condition number and method, and a run of each for the largest condition number."""
    rows, traces = [], {}
    start_key, rotation_key = jax.random.split(key)
    tuning, fresh = jax.random.normal(start_key, (2, settings.starts, DIMENSIONS))
    rotation = jax.random.orthogonal(rotation_key, DIMENSIONS)
    for kappa in tqdm.tqdm(conditions, unit="condition number", leave=False, disable=None):
        eigenvalues = jnp.geomspace(1 / kappa, 1.0, DIMENSIONS)
        steps = int(16 * kappa) + 200
        known = theory(kappa)
        tuned: dict[str, Make] = {name: METHODS[name] for name in ("Adagrad", "RMSProp", "Adam")}
        tuned[ALONG] = optax.adagrad
        tuned["Newton"] = functools.partial(newton, fun=quadratic, args=(eigenvalues, rotation))
        for name in (*known, *tuned):
            args = (eigenvalues, jnp.eye(DIMENSIONS) if name == ALONG else rotation)
            if name in known:
                make, rate, factor = known[name]
            else:
                make, factor = tuned[name], 0.0 if name == "Newton" else np.nan
                rate = 1.0 if name == "Newton" else tune(make, quadratic, tuning, steps, args)
            values = np.asarray(descend(make, quadratic, fresh, jnp.asarray([rate]), steps, args)[0])[0]
            needed = steps_to(values)
            factors = [rate_of(run) for run in values]
            mean, half = mean_interval(factors)
            reached, width = mean_interval(needed[np.isfinite(needed)]) if np.isfinite(needed).any() else (np.nan,) * 2
            rows.append(
                {
                    "κ": kappa,
                    "method": name,
                    "rate": rate,
                    "reached": np.mean(np.isfinite(needed)),
                    "steps": float(reached),
                    "steps ±": float(width),
                    "factor": float(mean),
                    "factor ±": float(half),
                    "theory": factor,
                    "rising steps": share_rising(values),
                }
            )
            traces[name] = values[0]
    return pd.DataFrame(rows), traces


def on_rosenbrock(settings: Settings, steps: int, key: jax.Array) -> tuple[pd.DataFrame, dict]:
    """Return one row a method, and the path of each from (−1.2, 1)."""
    low, high = jnp.array([-2.0, -1.0]), jnp.array([2.0, 3.0])
    tuning, fresh = jax.random.uniform(key, (2, settings.starts, 2), minval=low, maxval=high)
    rows, paths = [], {}
    methods: dict[str, Make] = {**METHODS, "Newton": functools.partial(newton, fun=rosenbrock)}
    for name, make in tqdm.tqdm(methods.items(), unit="method", leave=False, disable=None):
        rate = 1.0 if name == "Newton" else tune(make, rosenbrock, tuning[:10], steps)
        starts = jnp.concatenate([jnp.array([[-1.2, 1.0]]), fresh])
        values, points = (np.asarray(a)[0] for a in descend(make, rosenbrock, starts, jnp.asarray([rate]), steps))
        needed = steps_to(values[1:])
        ends = values[1:, -1]
        last = np.log10(np.maximum(np.where(np.isfinite(ends), ends, 1e300), 1e-32))
        mean, half = mean_interval(needed[np.isfinite(needed)]) if np.isfinite(needed).any() else (np.nan, np.nan)
        rows.append(
            {
                "method": name,
                "rate": rate,
                "diverged": np.mean(~np.isfinite(ends)),
                "reached": np.mean(np.isfinite(needed)),
                "steps": float(mean),
                "steps ±": float(half),
                "slowest / fastest": needed.max() / needed.min() if np.isfinite(needed).any() else np.nan,
                "log₁₀ last, median": np.median(last),
                "last, 90 % − 10 %": np.subtract(*np.quantile(last, [0.9, 0.1])),
                "rising steps": share_rising(values[1:]),
            }
        )
        paths[name] = points[0]
    return pd.DataFrame(rows), paths


def at_the_edge(settings: Settings, key: jax.Array) -> pd.DataFrame:
    """Return one row a step size: the measured growth of ‖x‖ a step, on x² and on a quadratic, and max |1 − η λ|."""
    rows = []
    for name, eigenvalues in (("x²", jnp.array([2.0])), ("κ = 100", jnp.geomspace(0.01, 1.0, DIMENSIONS))):
        starts = jax.random.normal(key, (settings.starts, len(eigenvalues)))
        top = float(eigenvalues[-1])
        for share in (0.05, 0.5, 0.9, 0.99, 1.0, 1.01, 1.1, 1.5):
            rates = jnp.asarray([2 * share / top])
            points = np.asarray(
                descend(optax.sgd, quadratic, starts, rates, 400, (eigenvalues, jnp.eye(len(eigenvalues))))[1]
            )[0]
            norms = np.linalg.norm(points, axis=-1)
            # Over the last steps, when the slowest mode is all that is left; nothing is left of x² after one step at ½.
            grown = (norms[:, 400] / np.where(norms[:, 300] > 0, norms[:, 300], np.inf)) ** 0.01
            mean, half = mean_interval(grown)
            predicted = np.max(np.abs(1 - 2 * share / top * np.asarray(eigenvalues)))
            rows.append((name, share, float(mean), float(half), predicted, np.mean(norms[:, 400] > norms[:, 0])))
    columns = ["function", "η λ_max / 2", "growth a step", "±", "theory", "share that grew"]
    return pd.DataFrame(rows, columns=columns)


def squared_sigmoid(x: jax.Array) -> jax.Array:
    """Return ½ (σ(w + b) − 0)²: one sigmoid unit, input 1, target 0."""
    return 0.5 * jax.nn.sigmoid(x[0] + x[1]) ** 2


def entropy_sigmoid(x: jax.Array) -> jax.Array:
    """Return −ln(1 − σ(w + b)), the cross-entropy of the same unit."""
    return jax.nn.softplus(x[0] + x[1])


def saturation(settings: Settings, key: jax.Array) -> pd.DataFrame:
    """Return one row a loss: the gradient where the unit is badly wrong, and the steps until its output is below .1."""
    rows = []
    starts = 2.0 + jnp.abs(jax.random.normal(key, (settings.starts, 2)))
    for name, fun in (("squared error", squared_sigmoid), ("cross-entropy", entropy_sigmoid)):
        gradient = jax.vmap(jax.grad(fun))
        far, near = (np.linalg.norm(gradient(s), axis=1) for s in (starts, starts * 0 - 1.5))
        points = np.asarray(descend(optax.sgd, fun, starts, jnp.asarray([0.5]), 20_000)[1])[0]
        right = points.sum(-1) < math.log(0.1 / 0.9)
        needed = np.where(right.any(1), right.argmax(1), np.inf)
        spread = float(needed.max() / needed.min())
        rows.append((name, show(far, 2), f"{near.mean():.2g}", show(far / near, 2), show(needed), spread))
    columns = ["loss", "gradient far (output .98 and more)", "near (.05)", "far / near", "steps to output .1", "spread"]
    return pd.DataFrame(rows, columns=columns)


def draw(traces: dict, paths: dict, edge: pd.DataFrame, kappa: float) -> matplotlib.figure.Figure:
    """Return the figure: runs on the quadratic, paths on Rosenbrock, growth at the edge, and the two gradients."""
    figure = matplotlib.figure.Figure(figsize=(13, 9), layout="constrained")
    (left, right), (edges, sigmoid) = figure.subplots(2, 2)
    for k, (name, values) in enumerate(traces.items()):
        shown = np.maximum(values / values[0], 1e-32)
        left.loglog(np.arange(len(shown)) + 1, shown, color=COLOURS[k], ls=LINES[k], label=name)
    left.set(
        xlabel="step + 1",
        ylabel="value / first value",
        title=f"descent on a quadratic, κ = {kappa:g}",
        ylim=(1e-16, 10),
    )
    _valley(right, paths)
    for (name, part), marker, colour in zip(
        edge.groupby("function", sort=False), "os", (plots.BLUE, plots.ORANGE), strict=True
    ):
        edges.plot(part["η λ_max / 2"], part["growth a step"], marker, color=colour, label=f"{name}: measured")
        edges.plot(part["η λ_max / 2"], part["theory"], "--", color=colour, lw=1, label=f"{name}: max |1 − η λ|")
    edges.axhline(1, color="black", lw=0.7)
    edges.axvline(1, color="black", lw=0.7)
    edges.set(
        xlabel="learning rate η · λ_max / 2", ylabel="growth of ‖x‖ a step", title="gradient descent diverges above 1"
    )
    z = np.linspace(-4, 6, 200)
    for fun, name, colour, line in (
        (squared_sigmoid, "squared error", plots.ORANGE, "--"),
        (entropy_sigmoid, "cross-entropy", plots.BLUE, "-"),
    ):
        slope = jax.vmap(jax.grad(fun))(jnp.stack([jnp.asarray(z), 0 * z], axis=1))
        sigmoid.plot(z, np.asarray(slope)[:, 0], color=colour, ls=line, label=name)
    sigmoid.set(
        xlabel="input of the sigmoid (target: output 0, far to the left)",
        ylabel="gradient",
        title="gradient of a sigmoid unit that is wrong",
    )
    left.legend(fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))  # the curves fill the axes
    for axes in (right, edges, sigmoid):
        axes.legend(fontsize="small", framealpha=0.9)  # a frame, since contours run below one
    return figure


def _valley(axes: matplotlib.axes.Axes, paths: dict) -> None:
    x, y = np.meshgrid(np.linspace(-1.8, 1.8, 200), np.linspace(-0.8, 2.6, 200))
    levels = np.geomspace(0.1, 2000, 10)
    axes.contour(x, y, rosenbrock(jnp.stack([x, y])), levels=levels, colors=plots.GREY, linewidths=0.5)
    for k, (name, points) in enumerate(paths.items()):
        axes.plot(*points[:3000].T, color=COLOURS[k], ls=LINES[k], lw=1.2, label=name)
    axes.plot(1, 1, "*", color="black", ms=10)
    axes.set(xlabel="x₀", ylabel="x₁", title="paths on Rosenbrock, from (−1.2, 1)", xlim=(-1.8, 1.8), ylim=(-0.8, 2.6))


def conclusion(quadratics: pd.DataFrame, valley: pd.DataFrame, edge: pd.DataFrame, sigmoid: pd.DataFrame) -> str:
    """Return what was found, in words made from the numbers."""
    known = quadratics[quadratics.theory > 0]
    off = (known.factor - known.theory).abs()
    hard = quadratics[quadratics["κ"] == quadratics["κ"].max()].set_index("method")
    steps = ", ".join(f"{name} {'does not arrive' if np.isnan(n) else f'{n:.0f}'}" for name, n in hard.steps.items())
    best = hard.steps["momentum, best"]
    slower = [name for name in ("Adagrad", "RMSProp", "Adam") if not hard.steps[name] <= best]
    wrong = int(((edge["growth a step"] > 1 + 1e-9) != (edge["η λ_max / 2"] > 1)).sum())
    done = valley[valley.reached == 1].sort_values("steps")
    arrived = ", ".join(f"{row['method']} {row['steps']:.0f} ± {row['steps ±']:.0f}" for _, row in done.iterrows())
    failed = ", ".join(
        f"{row['method']} ({100 * row['reached']:.0f} % of starts)" for _, row in valley[valley.reached < 1].iterrows()
    )
    rising = hard["rising steps"]
    tuned = pd.concat([quadratics[quadratics.theory.isna()], valley[valley.method != "Newton"]])
    edges = tuned[np.isin(tuned.rate, (TRIES[0], TRIES[-1]))].method.unique()
    return (
        f"Found: measured factors a step are within {off.max():.1g} of theory in {len(known)} cases. Steps at"
        f" κ = {quadratics['κ'].max():g}: {steps}. Runs grow exactly where η > 2/λ_max, with {wrong} exceptions in"
        f" {len(edge)}. Rosenbrock: {arrived} steps{'; not from every start: ' + failed if failed else ''}."
        f" Efficient: a badly wrong sigmoid unit has {sigmoid.iloc[0, 3]} times the gradient of a nearly right one with"
        f" squared error, {sigmoid.iloc[1, 3]} times with cross-entropy. Stable: of their steps gradient descent raises"
        f" the loss in {100 * rising['gradient descent']:.1f} %, Adam in {100 * rising['Adam']:.0f} %. Where this"
        f" differs from the notes: {len(slower)} of 3 optimisers with adaptive rates took longer than momentum with the"
        f" settings of theory; Adagrad takes {hard.steps['Adagrad']:.0f} steps, and {hard.steps[ALONG]:.0f} where the"
        " axes of the quadratic are those of the coordinates, which its rates are made for."
        f" Rates at the edge of those tried: {', '.join(edges) or 'none'}."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Descend, measure, print and save; return the table of the quadratics."""
    folder = RunFolder("gradient_descent", settings, settings.output, resume=settings.resume)
    if settings.quick:
        settings = dataclasses.replace(settings, starts=min(8, settings.starts), conditions=settings.conditions[:2])
    keys = jax.random.split(jax.random.key(settings.seed), 4)
    with jax.enable_x64(True):
        quadratics, traces = folder.kept("quadratics", lambda: on_quadratics(settings, settings.conditions, keys[0]))
        steps = 2_000 if settings.quick else 30_000
        valley, paths = folder.kept("rosenbrock", lambda: on_rosenbrock(settings, steps, keys[1]))
        edge, sigmoid = at_the_edge(settings, keys[2]), saturation(settings, keys[3])
        figure = draw(traces, paths, edge, settings.conditions[-1])
    tables = {"quadratics": quadratics, "rosenbrock": valley, "edge": edge, "sigmoid": sigmoid}
    titles = (
        f"Quadratics in {DIMENSIONS} dimensions, steps to {GOAL:g} of the first value, {settings.starts} starts, 95 %:",
        f"Rosenbrock, steps to {GOAL:g} of the first value:",
        "At the edge of divergence:",
        "One sigmoid unit that is badly wrong, η = .5:",
    )
    for title, (name, table) in zip(titles, tables.items(), strict=True):
        folder.table(name, table)
        print(f"{title}\n{table.to_string(index=False, float_format='{:.4g}'.format)}\n")
    folder.figure("gradient_descent", figure)
    folder.conclude(conclusion(*tables.values()))
    return quadratics


def main() -> None:
    """Read the command line and run."""
    command_line.start("gradient_descent", run, Settings, __doc__)


if __name__ == "__main__":
    main()
