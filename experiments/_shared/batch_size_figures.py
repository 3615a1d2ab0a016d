"""The figures of the batch-size comparison."""

from __future__ import annotations

from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from experiments._shared.batch_size_report import Measured, final
from experiments._shared.batch_size_sharpness import RADII
from mlp_jax import plots
from mlp_jax.plots import BLUE, GREY, ORANGE

COLOURS = {"epochs": BLUE, "updates": ORANGE, "time": plots.GREEN}
MARKERS = {"epochs": "o", "updates": "s", "time": "^"}


def draw(measured: Measured) -> dict[str, matplotlib.figure.Figure]:
    """Return the six figures by name."""
    return {
        "updates_to_target": _one(lambda axes: _draw_target(axes, measured)),
        "loss_by_batch_size_and_rate": _draw_search(measured),
        "accuracy_by_budget": _draw_budgets(measured),
        "noise_scale": _one(lambda axes: _draw_noise(axes, measured)),
        "sharpness": _draw_sharpness(measured),
        "time": _draw_times(measured),
    }


def _figure(width: float = 6, height: float = 4) -> matplotlib.figure.Figure:
    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def _one(draw_on: Any) -> matplotlib.figure.Figure:
    figure = _figure()
    draw_on(figure.subplots())
    return figure


def _draw_target(axes: Any, measured: Measured) -> None:
    fit = measured.tradeoff
    floor, examples = (fit.min_updates, fit.min_examples) if fit else (float("nan"), float("nan"))
    sizes = measured.batch_sizes
    plots.updates_to_target(axes, sizes, measured.updates_to_target, measured.reached, floor, examples)
    critical = f"; critical batch size {fit.critical_batch_size:.3g}" if fit else ""
    axes.set_title(f"to validation accuracy {100 * measured.target:.1f} %{critical}", fontsize="medium")


def _draw_search(measured: Measured) -> matplotlib.figure.Figure:
    figure = _figure(5.2 * len(measured.tuned), 4)
    for axes, (budget, tuned) in zip(figure.subplots(1, len(measured.tuned)), measured.tuned.items(), strict=True):
        loss = np.where(tuned.search.diverged_at > 0, np.inf, tuned.search.record["validation_loss"][..., -1]).mean(-1)
        with np.errstate(divide="ignore"):
            values = np.log10(loss)
        rates, label = tuned.search.coordinates["learning_rate"], "log₁₀ validation loss (nats)"
        plots.heat_map(axes, measured.batch_sizes, rates, values, label)
        axes.set(xlabel="learning rate", ylabel="batch size")
        lost = "" if np.all(np.isfinite(loss)) else "; ×: diverged"
        axes.set_title(f"equal {budget}; circled: chosen{lost}", fontsize="medium")
    return figure


def _draw_budgets(measured: Measured) -> matplotlib.figure.Figure:
    figure = _figure(10, 4)
    left, right = figure.subplots(1, 2)
    for budget, tuned in measured.tuned.items():
        look = {"color": COLOURS[budget], "marker": MARKERS[budget], "label": f"equal {budget}"}
        plots.against_batch_size(left, measured.batch_sizes, 100 * final(tuned, "test_accuracy"), **look)
        plots.against_batch_size(right, measured.batch_sizes, final(tuned, "train_loss"), **look)
    left.set(ylabel="test accuracy (%)")
    right.set(ylabel="training loss (nats)", yscale="log")
    left.legend(frameon=False)
    for axes in (left, right):
        axes.set_title("tuned rates, fresh seeds, mean and 95 % interval", fontsize="medium")
    return figure


def _draw_noise(axes: Any, measured: Measured) -> None:
    shades = np.linspace(0.15, 0.85, len(measured.batch_sizes))
    for number, size in enumerate(measured.batch_sizes):
        epochs = measured.noise_examples[number] / measured.num_examples
        scale = np.median(measured.noise.scale[number], axis=0)
        look = {"color": matplotlib.colormaps["viridis"](shades[number]), "marker": "os^DvP"[number % 6], "ms": 4}
        axes.plot(epochs, scale, label=f"{size}", **look)
        axes.axhline(size, color=matplotlib.colormaps["viridis"](shades[number]), lw=0.6, ls=":")
    axes.set(xlabel="epoch", ylabel="gradient noise scale (examples)", yscale="log")
    axes.set_title("exact, on the training examples; dotted: the batch size", fontsize="medium")
    axes.legend(title="trained with batch", fontsize="small", title_fontsize="small", framealpha=0.9)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(alpha=0.3)


def _draw_sharpness(measured: Measured) -> matplotlib.figure.Figure:
    figure = _figure(10, 4)
    left, right = figure.subplots(1, 2)
    for budget, sharpness in measured.sharpness.items():
        look = {"color": COLOURS[budget], "marker": MARKERS[budget], "label": f"after equal {budget}"}
        plots.against_batch_size(left, measured.batch_sizes, sharpness.eigenvalue, **look)
        plots.against_batch_size(right, measured.batch_sizes, sharpness.keskar[0], **look)
    left.set(ylabel="largest Hessian eigenvalue of the training loss")
    right.set(ylabel=f"Keskar sharpness, ε = {RADII[0]:g}")
    several = all(sharpness.eigenvalue.shape[1] > 1 for sharpness in measured.sharpness.values())
    for axes in (left, right):
        title = f"at the end of training, {'mean and 95 % interval' if several else 'one seed'}"
        axes.set_title(title, fontsize="medium")
    left.legend(frameon=False)
    return figure


def _draw_times(measured: Measured) -> matplotlib.figure.Figure:
    figure = _figure(10, 4)
    sequential, parallel, per_epoch = measured.times
    for axes, factor, title in zip(figure.subplots(1, 2), (1.0, per_epoch), ("an update", "an epoch"), strict=True):
        for values, label, colour, marker in (
            (sequential, "one example at a time", GREY, "s"), (parallel, "whole batch", BLUE, "o"),
        ):  # fmt: skip
            samples, look = 1e3 * (values * factor)[:, None], {"color": colour, "marker": marker}
            plots.against_batch_size(axes, measured.batch_sizes, samples, label, **look)
        axes.set(yscale="log", ylabel=f"milliseconds for {title}")
        axes.set_title(f"time of {title}, fastest run", fontsize="medium")
        axes.legend(frameon=False)
    return figure
