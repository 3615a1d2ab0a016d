# %% [markdown]
# # How critical points hang together
#
# A list of critical points is not yet a landscape. Which minima are neighbours, over which saddles, how high are the
# barriers, and how were all these points born? The example is the network of notebook 02: two tanh units on XOR, nine
# parameters. Here the weight decay is an argument of the loss, so that it can be varied.

# %%
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from mlp_jax import critical, datasets, landscape, losses, mlp, mlp_symmetry, penalties, plots, tree

jax.config.update("jax_enable_x64", True)
plt.rcParams["figure.dpi"] = 80
key = jax.random.key(0)
args = (np.float64(0.01), *datasets.xor())


def fun(params, decay, x, y):
    return losses.mean(losses.squared_error(mlp.forward(params, x), y)) + decay * penalties.l2(params, 1.0)


def init(key):
    return mlp.init(key, (2, 2, 1))


def point(params, i):
    return jax.tree.map(lambda leaf: leaf[i], params)


# %% [markdown]
# ## All points
# `parameter=0` lets the census follow known points along branches in the weight decay, `args[0]`, to others.

# %%
maps = mlp_symmetry.maps(fun, init(key), args, activation=jnp.tanh)
branches = {"parameter": 0, "low": 1e-4, "high": 1.0}
census = critical.census(fun, init, key, num_starts=200, args=args, symmetries=maps, complete_sum=1, **branches)
print(census)

# %% [markdown]
# ## The graph
# From every saddle `critical.network` follows the gradient flow down to the points where it ends, and `classify` names
# each.

# %%
graph = critical.network(fun, census.params, key, args, symmetries=maps, number=4)
print(graph)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
plots.transition_network(left, graph, "descents from every saddle")
plots.disconnectivity(right, graph, "minima that merge at saddles")
# %% [markdown]
# Morse theory agrees: with weight decay the loss grows in every direction, so that a complete landscape is connected.
# The graph is that of all copies at once: modulo permutations and sign flips of the two units.
#
# ## A path between two minima
# Without any list, `critical.path` goes from one minimum to another. Its barrier is that of a saddle which `classify`
# confirms, and here as low as the best saddle of the graph.

# %%
low, other = graph.merges[0].parts
nearest = landscape.match_units(point(graph.params, other), point(graph.params, low), activation=jnp.tanh)
path = critical.path(fun, point(graph.params, low), nearest, key, args)
print("highest point of the path", np.max(path.values), "of the graph", graph.values[graph.highest(low, other)])
axes = plots.along_path(plt.figure(figsize=(5.5, 3.3)).subplots(), path)

# %% [markdown]
# ## Descents from a saddle
# The saddle where those two minima meet, on the plane through it and the ends of its descents. Seven of the nine
# dimensions are not shown: only the three marked points lie exactly in the plane.

# %%
saddle = point(graph.params, graph.merges[0].saddle)
below = critical.descents(fun, saddle, key, args)
top, unravel = tree.ravel(saddle)
paths = [np.asarray(jax.vmap(lambda params: tree.ravel(params)[0])(path) - top) for path in below.paths]
ends = np.stack([paths[0][-1] - paths[1][-1], paths[0][-1] + paths[1][-1]], axis=1)
plane = np.linalg.qr(ends)[0]  # the first direction is from one end to the other
t = np.linspace(-3.8, 3.8, 61)
values = landscape.plane(fun, saddle, unravel(plane[:, 0]), unravel(plane[:, 1]), t, t, args)
figure = plt.figure(figsize=(5, 4.5), dpi=70)
axes = plots.contours(figure.subplots(), t, t, values, log=True, num_levels=18)
axes.set(xlabel="from one end to the other", ylabel="across")
animation = plots.descents(axes, [path @ plane for path in paths], frames=24)
animation.save(pathlib.Path(tempfile.mkdtemp()) / "descents.gif", writer="pillow")

# %% [markdown]
# ## How points are born
# As the weight decay falls, minima and saddles appear in pairs at folds (circles), where the index of the two differs
# by one, and branches split at bifurcations (dotted). At a weight decay of 1 a single point is left.

# %%
diagram = critical.branches(fun, census.params, args, parameter=0, low=0.01, high=1.0, canonical=maps.canonical)
axes = plots.bifurcations(plt.figure(figsize=(6.5, 4)).subplots(), diagram)
axes.set(xlim=(0.0099, 0.04), ylim=(0.055, 0.15))
print(np.sort(np.concatenate([branch.folds for branch in diagram.branches])).round(4))

# %% [markdown]
# The experiments do the same for more decays and for digits: `python -m experiments.landscape_graph`, which also saves
# the animation, and `python -m experiments.births_of_saddles`.
