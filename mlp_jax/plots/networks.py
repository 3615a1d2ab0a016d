"""How critical points hang together: the saddles between minima as a graph, and as a tree."""

from __future__ import annotations

import collections

import matplotlib.axes
import numpy as np

from mlp_jax.critical import Network
from mlp_jax.plots.colours import BLUE, GREY, ORANGE, PURPLE

# Distance between saddles with the same ends, which would lie on each other; that between leaves is 1.
_APART = 0.13


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
        axes.plot([min(ends), max(ends)], [level, level], color=ORANGE, lw=1.6)
        for part in parts[1:]:
            del base[part]
        place[parts[0]], base[parts[0]] = float(np.mean(ends)), level
    low, high = float(np.min(network.values)), max(base.values())
    for part, level in base.items():
        axes.plot([place[part]] * 2, [level, high + 0.05 * (high - low or 1.0)], color=GREY, lw=1.2)
    for number, leaf in enumerate(leaves):
        minimum = network.indices[leaf] == 0
        axes.plot(number, network.values[leaf], "*" if minimum else "o", color=BLUE if minimum else ORANGE, ms=9)
    axes.set_xticks(range(len(leaves)), [f"{leaf}\n×{network.copies[leaf]}" for leaf in leaves])
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
    names = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))  # each name once
    axes.legend(names.values(), names.keys(), fontsize="small", framealpha=0.9)
    leaves = _leaves(network)
    axes.set_xticks(range(len(leaves)), [str(leaf) for leaf in leaves])
    axes.margins(x=0.15)
    axes.set(xlabel="minimum", ylabel="loss (with penalty)", title=title)
    return axes


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
