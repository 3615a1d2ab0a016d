"""Are small batches noisier, slower per epoch, and better in the end than large ones, when each is tuned?

Every batch size gets the same search of learning rates on validation examples, for equal epochs, equal updates and
equal time. The chosen rates run again from fresh seeds, and differences, paired by seed, have 95 % intervals. Also
measured: the time of an update, example by example and as a batch; the time of an epoch; updates to a target (runs that
miss it are censored, not dropped); exact gradient noise; the largest Hessian eigenvalue and Keskar's sharpness at the
end.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np
import tqdm

from experiments._shared import batch_size_figures as figures
from experiments._shared import batch_size_protocol as protocol
from experiments._shared import batch_size_report as report
from experiments._shared import command_line, tables
from experiments._shared.batch_size_sharpness import measure_sharpness
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import datasets, gradient_noise


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    data: str = "digits"
    """digits, mnist (5,000 images), mnist1d, …; a folder with the files of MNIST or Fashion-MNIST; or an .npz file with
    x_train, y_train, x_test and y_test. Targets are class numbers; inputs are used as they are, so scale them first."""
    hidden: tuple[int, ...] = (32,)
    """Widths of the hidden tanh layers."""
    batch_sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    """Increasing; "small" is the first, "large" the last."""
    rates: tuple[float, ...] = tuple(2.0**power for power in range(-5, 4))
    """Learning rates tried for each batch size."""
    tuning_seeds: int = 3
    """Runs of each rate in the search."""
    seeds: int = 10
    """Fresh runs of each chosen rate."""
    epochs: int = 40
    """The budget of equal epochs; the budget of equal time is what the smallest batch takes for them."""
    updates: int = 1000
    """The budget of equal updates, and the limit of runs to the target."""
    target: float | None = None
    """Validation accuracy to reach; if not given, the lowest mean of the tuned batch sizes after equal epochs."""
    noise_seeds: int = 3
    """Runs in which the gradient noise is measured."""
    sharpness_seeds: int = 5
    """Runs of each batch size, for equal epochs and for equal updates, whose final sharpness is measured."""
    rounds: int = 5
    """Timed runs; the fastest counts."""

    def shortened(self) -> Settings:
        """Return the settings of a quick run: those that were chosen, and short ones for the others."""
        short: dict[str, Any] = {
            "batch_sizes": self.batch_sizes[::2], "rates": self.rates[2::2], "tuning_seeds": 2, "seeds": 3,
            "epochs": 4, "updates": 60, "noise_seeds": 1, "sharpness_seeds": 1, "rounds": 1,
        }  # fmt: skip
        kept = {name: value for name, value in short.items() if getattr(self, name) == getattr(Settings, name)}
        return dataclasses.replace(self, **kept)


def load(data: str) -> datasets.Dataset:
    """Return a data set by its name, folder or .npz file."""
    try:
        if pathlib.Path(data).is_dir():
            found = datasets.load_folder(data)
        elif data.endswith(".npz"):
            found = datasets.load_npz(data)
        else:
            found = datasets.load("mnist5000" if data == "mnist" else data)
    except (OSError, ValueError) as error:
        raise ValueError(f"data: {error}") from error
    if found.train.targets.ndim > 1:
        raise ValueError(f"data: got floating-point targets in {data}, expected class numbers as integers.")
    return found


def measure(settings: Settings, problem: protocol.Problem, folder: RunFolder, bar: tqdm.tqdm) -> report.Measured:
    """Make all measurements, in pieces that the folder keeps."""
    sizes, seeds = settings.batch_sizes, settings.tuning_seeds
    fresh = range(100, 100 + settings.seeds)
    key, noise_key = jax.random.split(jax.random.key(settings.seed))
    run = protocol.runner(key, problem, sizes, bar)

    bar.set_description("timing")
    times = folder.kept("times", lambda: protocol.measure_times(key, problem, sizes, settings.rounds, bar))
    bar.update()
    tuned = {}
    for name, budget in _budgets(settings, times).items():
        bar.set_description(f"tuning for equal {name}")
        shortest = min(np.min(list(b.values()) if isinstance(b, dict) else b) for b in budget.values())
        tune = functools.partial(protocol.tune, run, problem, settings.rates, seeds, fresh, budget)
        tuned[name] = folder.kept(f"equal_{name}", functools.partial(tune, int(min(10, shortest))))
        bar.update()
    bar.set_description("runs to a target")
    target = settings.target
    if target is None:
        target = float(report.final(tuned["epochs"], "validation_accuracy").mean(1).min())
    to_target = functools.partial(
        protocol.tune_updates_to_target, run, problem, settings.rates, seeds, fresh, settings.updates, target
    )
    at_target, updates, reached = folder.kept("target", functools.partial(to_target, min(200, settings.updates)))
    bar.update()
    bar.set_description("gradient noise")
    rates = {size: (float(rate),) for size, rate in zip(sizes, tuned["epochs"].rates, strict=True)}
    record = jax.tree_util.Partial(protocol.noise, *problem.train)
    recorded = {"epochs": settings.epochs, "record": record, "records": min(10, settings.epochs)}
    noise_seeds = range(100, 100 + settings.noise_seeds)
    noisy = folder.kept("noise", lambda: run(learning_rates=rates, seeds=noise_seeds, **recorded))
    bar.update()
    bar.set_description("sharpness")
    sharpness = {}
    for name in ("epochs", "updates"):
        at_end = functools.partial(measure_sharpness, noise_key, problem, tuned[name].runs.params)
        sharpness[name] = folder.kept(f"sharpness_{name}", functools.partial(at_end, settings.sharpness_seeds, bar))
    bar.update()
    return report.Measured(
        batch_sizes=sizes,
        num_examples=len(problem.train.inputs),
        num_classes=problem.sizes[-1],
        times=times,
        tuned=tuned,
        correct={name: protocol.correct(problem, one.runs.params)[:, 0] for name, one in tuned.items()},
        noise=jax.tree.map(lambda a: a[:, 0], noisy.record),
        noise_examples=noisy.examples,
        sharpness=sharpness,
        target=target,
        at_target=at_target,
        updates_to_target=updates,
        reached=reached,
        tradeoff=_fit(sizes, updates, reached),
    )


def _budgets(settings: Settings, times: protocol.Times) -> dict[str, dict[str, Any]]:
    """Return the three budgets as arguments of `sweep.run`."""
    seconds = settings.epochs * times.parallel[0] * times.updates_per_epoch[0]
    in_time = {size: max(1, round(seconds / t)) for size, t in zip(settings.batch_sizes, times.parallel, strict=True)}
    return {
        "epochs": {"epochs": settings.epochs},
        "updates": {"updates": settings.updates},
        "time": {"updates": in_time},
    }


def _fit(sizes: tuple[int, ...], updates: np.ndarray, reached: np.ndarray) -> gradient_noise.Tradeoff | None:
    grid = np.broadcast_to(np.array(sizes)[:, None], updates.shape)
    if reached.sum() < 3 or np.sum(reached.any(axis=1)) < 2:
        return None
    return gradient_noise.fit_tradeoff(grid.ravel(), updates.ravel(), reached.ravel())


def conclusion(measured: report.Measured, table: Any) -> str:
    """Return what was found, as one sentence filled with numbers."""
    decided = [cell for cell in table.holds if "," not in cell]
    wide = [cell for cell in table.holds if "," in cell]
    whole = sum(cell == "yes" for cell in decided) + sum(cell.count("yes") == 3 for cell in wide)
    part = sum(0 < cell.count("yes") < 3 for cell in wide)
    fit = measured.tradeoff
    critical = "too few runs to fit a critical batch size"
    if fit is not None:
        low, high = np.exp(np.log(fit.critical_batch_size) + np.array([-1.96, 1.96]) * fit.stderr[2])
        critical = f"critical batch size {fit.critical_batch_size:.3g}, 95 % interval {low:.3g} to {high:.3g}"
    noise = np.median(measured.noise.scale[..., -1])
    at_edge = sum(tuned.at_edge.sum() for tuned in measured.tuned.values())
    hit = measured.reached
    return (
        f"Found: of the twelve claims {whole} hold here, {part} under only some of the three budgets;"
        f" {hit.sum()} of {hit.size} runs reach {100 * measured.target:.1f} % validation accuracy ({critical});"
        f" the median gradient noise scale at the end is {noise:.3g} examples;"
        f" {at_edge} of {3 * len(measured.batch_sizes)} tuned rates are at the edge of the search."
    )


def run(settings: Settings) -> report.Measured:
    """Measure, print and save; return the measurements."""
    settings = settings.shortened() if settings.quick else settings
    if list(settings.batch_sizes) != sorted(set(settings.batch_sizes)) or len(settings.batch_sizes) < 2:
        raise ValueError(f"batch_sizes: got {settings.batch_sizes}, expected two or more, increasing.")
    problem = protocol.make_problem(load(settings.data), settings.hidden)
    count = len(problem.train.inputs)
    if settings.batch_sizes[-1] > count:
        raise ValueError(f"batch_sizes: got {settings.batch_sizes}, expected at most the {count} examples to train on.")
    folder = RunFolder("batch_sizes", settings, settings.output, resume=settings.resume)
    with tqdm.tqdm(total=7, leave=False, disable=None) as bar:
        measured = measure(settings, problem, folder, bar)
    table = report.cells(measured)
    by_size, pairs = report.by_batch_size(measured), report.pairs_table(measured)
    for name, frame in {"cells": table, "by_batch_size": by_size, "pairs": pairs}.items():
        folder.table(name, frame)
    for name, tuned in measured.tuned.items():
        folder.table(f"search_equal_{name}", tuned.search.table())
        folder.table(f"runs_equal_{name}", tuned.runs.table())
    for name, figure in figures.draw(measured).items():
        folder.figure(name, figure)
    device, examples = jax.devices()[0], measured.num_examples
    print(f"{settings.data}, {examples} examples to train on; device {device.platform}: {device.device_kind}\n")
    print(tables.text(by_size.set_index("batch").T, "by_batch_size", index=True))
    print("\nHow much better smaller batches are than larger ones, paired by seed, with 95 % intervals")
    print("(training loss in nats; test accuracy as a share, whose interval also covers the choice of test examples):")
    print(tables.text(pairs, "pairs", float_format="{:.2g}".format))
    print("\nThe claim, the measurement, and whether the claim holds here:\n")
    print(report.six_rows(table, settings.batch_sizes[0], settings.batch_sizes[-1]))
    folder.conclude(conclusion(measured, table))
    return measured


if __name__ == "__main__":
    command_line.start("batch_sizes", run, Settings, __doc__)
