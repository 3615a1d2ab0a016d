"""How critical points hang together: as a graph, as a tree, along a path, and along branches in a parameter."""

from __future__ import annotations

import collections

import matplotlib.axes
import numpy as np

from mlp_jax.critical import Branches, Network, Path
from mlp_jax.plots.colours import BLUE, GREEN, GREY, ORANGE, PURPLE

# Distance between saddles with the same ends, which would lie on each other; that between leaves is 1.
_APART = 0.13
# Number of leaves above which their labels are small.
_MANY = 12
# Names, colours and line styles of branches of index 0, 1, 2 and more.
_BRANCHES = (
    ("minimum", BLUE, "-"), ("index 1", ORANGE, "--"), ("index 2", PURPLE, "-."), ("higher index", GREEN, ":"),
)  # fmt: skip


def disconnectivity(axes: matplotlib.axes.Axes, network: Network, title: str = "") -> matplotlib.axes.Axes:
    """Draw the tree of minima, whose branches merge at the value of the lowest known saddle that joins them.

    Becker & Karplus (1997). Below a leaf are its number and its copies. Parts of an incomplete network that no known
    saddle joins are trees of their own.

    Examples
    --------
    >>> import matplotlib.figure
    >>> from mlp_jax import critical
    >>> found = critical.network(lambda x: jnp.sum((x**2 - 1) ** 2), np.zeros((1, 1)), jax.random.key(0))
    >>> axes = disconnectivity(matplotlib.figure.Figure().subplots(), found)
    >>> [line.get_ydata().tolist() for line in axes.lines][:2]
    [[0.0, 1.0], [0.0, 1.0]]
    """
    leaves = _leaves(network)
    place: dict[int, float] = {leaf: float(number) for number, leaf in enumerate(leaves)}
    base = {leaf: float(network.values[leaf]) for leaf in leaves}
    for saddle, parts in network.merges:
        level = float(network.values[saddle])
        for part in parts:
            axes.plot([place[part]] * 2, [base[part], level], color=GREY, lw=1.2)
        ends = [place[part] for part in parts]
        axes.plot([min(ends), max(ends)], [level, level], color=ORANGE, lw=1.6, label="lowest saddle that joins")
        for part in parts[1:]:
            del base[part]
        place[parts[0]], base[parts[0]] = float(np.mean(ends)), level
    low, high = float(np.min(network.values)), max(base.values())
    for part, level in base.items():
        axes.plot([place[part]] * 2, [level, high + 0.05 * (high - low or 1.0)], color=GREY, lw=1.2)
    for number, leaf in enumerate(leaves):
        marker, color, label = ("*", BLUE, "minimum") if network.indices[leaf] == 0 else ("o", ORANGE, "saddle")
        axes.plot(number, network.values[leaf], marker, color=color, ms=9, label=label)
    _legend(axes, ("minimum", "saddle", "lowest saddle that joins"))
    _label(axes, [f"{leaf}\n×{network.copies[leaf]}" for leaf in leaves])
    axes.margins(x=0.2)
    axes.set(xlabel="minimum, and its copies", ylabel="loss (with penalty)", title=title)
    return axes


def transition_network(axes: matplotlib.axes.Axes, network: Network, title: str = "") -> matplotlib.axes.Axes:
    """Draw every critical point at its value, and lines from each saddle to the points where descents from it end.

    An end that is not known is a dotted stub. Minima are ordered as the leaves of `disconnectivity`.

    Examples
    --------
    >>> import matplotlib.figure
    >>> from mlp_jax import critical
    >>> found = critical.network(lambda x: jnp.sum((x**2 - 1) ** 2), np.zeros((1, 1)), jax.random.key(0))
    >>> axes = transition_network(matplotlib.figure.Figure().subplots(), found)
    >>> sorted(text.get_text() for text in axes.get_legend().get_texts())
    ['index 1', 'minimum']
    """
    place, values = _places(network), network.values
    low, high = float(np.min(values)), float(np.max(values))
    for saddle, end, number, _ in network.edges:
        x, y = place[saddle], values[saddle]
        if end is None:
            axes.plot([x, x + 0.05], [y, y - 0.06 * (high - low or 1.0)], ":", color=GREY, lw=1.2, zorder=1)
        else:
            style = "-" if network.indices[saddle] == 1 else "--"
            axes.plot([x, place[end]], [y, values[end]], style, color=GREY, lw=0.6 + 0.2 * number, zorder=1)
    looks = {0: (BLUE, "*", 130, "minimum"), 1: (ORANGE, "o", 30, "index 1")}
    for node, index in enumerate(network.indices):
        color, marker, size, label = looks.get(-1 if index is None else index, (PURPLE, "s", 24, "higher index"))
        axes.scatter(place[node], values[node], size, color=color, marker=marker, zorder=3, label=label)
    _legend(axes, ("minimum", "index 1", "higher index"))
    _label(axes, list(map(str, _leaves(network))))
    axes.margins(x=0.15)
    axes.set(xlabel="minimum", ylabel="loss (with penalty)", title=title)
    return axes


def along_path(axes: matplotlib.axes.Axes, path: Path, title: str = "") -> matplotlib.axes.Axes:
    """Draw the loss along a path against its length, with its saddles and the two minima.

    Examples
    --------
    >>> import matplotlib.figure
    >>> from mlp_jax import critical
    >>> wells = lambda x: (x[0] ** 2 - 1) ** 2 + x[1] ** 2
    >>> found = critical.path(wells, np.array([-1.0, 0.0]), np.array([1.0, 0.0]), jax.random.key(0))
    >>> along_path(matplotlib.figure.Figure().subplots(), found).get_title()
    'barriers 1 and 1'
    """
    axes.plot(path.lengths, path.values, "-", color=GREY, lw=1.4, zorder=1)
    ends = [0, len(path.values) - 1]
    axes.scatter(path.lengths[ends], path.values[ends], 120, color=BLUE, marker="*", zorder=3, label="minimum")
    inner = path.values[1:-1]
    tops = 1 + np.flatnonzero((inner >= path.values[:-2]) & (inner > path.values[2:]))
    if path.connected:
        axes.scatter(path.lengths[tops], path.values[tops], 30, color=ORANGE, zorder=3, label="saddle of index 1")
    first, last = path.barriers
    axes.legend(fontsize="small")
    heading = title or (f"barriers {first:.4g} and {last:.4g}" if path.connected else "not connected")
    axes.set(xlabel="length along the path", ylabel="loss (with penalty)", title=heading)
    return axes


def bifurcations(
    axes: matplotlib.axes.Axes, diagram: Branches, title: str = "", *, label: str = "weight decay"
) -> matplotlib.axes.Axes:
    """Draw the loss of every branch against the parameter (log), with its index as colour and line style.

    Folds, where two points are born, are hollow circles; a vertical dotted line is where branches meet. diagram: from
    `critical.branches`; label: the name of the parameter.

    Examples
    --------
    >>> import matplotlib.figure
    >>> from mlp_jax import critical
    >>> fun = lambda x, p: x**4 / 4 - (p - 1) * x**2 / 2
    >>> found = critical.branches(fun, np.array([1.0]), (2.0,), parameter=0, low=0.5, high=3.0)
    >>> bifurcations(matplotlib.figure.Figure().subplots(), found).get_xscale()
    'log'
    """
    for value in np.unique(diagram.bifurcations.round(12)):
        axes.axvline(value, ls=":", lw=0.6, color=GREY, zorder=0, label="bifurcation")
    for branch in diagram.branches:
        cuts = 1 + np.flatnonzero(np.diff(branch.indices))
        for part in np.split(np.arange(len(branch.indices)), cuts):
            name, color, style = _BRANCHES[min(int(branch.indices[part[0]]), len(_BRANCHES) - 1)]
            seen = np.arange(part[0], min(part[-1] + 2, len(branch.indices)))  # to the first point of the next part
            axes.plot(branch.parameter[seen], branch.values[seen], style, color=color, lw=1.2, label=name)
        rises = np.diff(branch.parameter) > 0
        for turn in 1 + np.flatnonzero(rises[1:] != rises[:-1]):
            axes.plot(branch.parameter[turn], branch.values[turn], "o", mfc="none", color="black", ms=4, label="fold")
    _legend(axes, (*(name for name, *_ in _BRANCHES), "fold", "bifurcation"))
    axes.set(xscale="log", xlabel=label, ylabel="loss (with penalty)", title=title)
    return axes


def _legend(axes: matplotlib.axes.Axes, names: tuple[str, ...]) -> None:
    """Draw a legend in which each of the names that occurs is listed once, in this order."""
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    shown = [name for name in names if name in handles]
    axes.legend([handles[name] for name in shown], shown, fontsize="small", framealpha=0.9)


def _label(axes: matplotlib.axes.Axes, labels: list[str]) -> None:
    """Label the leaves; where there are many, in small print, without the copies."""
    many = len(labels) > _MANY
    axes.set_xticks(range(len(labels)), [label.partition("\n")[0] if many else label for label in labels])
    if many:
        axes.tick_params("x", labelsize=5, labelrotation=90)


def _leaves(network: Network) -> list[int]:
    """Return the minima, and other parts with nothing known below them, in the order of the tree."""
    order = {node: [node] for node, index in enumerate(network.indices) if index == 0}
    for _, parts in network.merges:
        joined = [leaf for part in parts for leaf in order.pop(part, [part])]
        order[parts[0]] = joined
    return [leaf for leaves in order.values() for leaf in leaves]


def _places(network: Network) -> list[float]:
    """Return where to draw each node: a saddle between the points below it, beside others with the same ends."""
    place = {leaf: float(number) for number, leaf in enumerate(_leaves(network))}
    taken: collections.Counter[float] = collections.Counter()
    for node in range(len(network.values)):
        if node not in place:
            ends = {end for end in network.joins(node) if end is not None}
            middle = round(float(np.mean([place[end] for end in ends])), 2) if ends else float(len(place))
            number = taken[middle]
            taken[middle] += 1
            side = 1 if number % 2 else -1
            place[node] = middle + side * _APART * ((number + 1) // 2 + (middle == round(middle)) * 0.5)
    return [place[node] for node in range(len(network.values))]
