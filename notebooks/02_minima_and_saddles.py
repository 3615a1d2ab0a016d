# %% [markdown]
# # Minima and saddles
#
# How many critical points does a loss have, and by how much do saddles outnumber minima? The example is a small
# network: two tanh units on XOR, nine parameters, with weight decay.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mlp_jax import critical, datasets, landscape, losses, mlp, mlp_symmetry, penalties, plots

# %%
jax.config.update("jax_enable_x64", True)  # your own configuration: the library never changes it
x, y = datasets.xor()


def fun(params, x, y):
    return losses.mean(losses.squared_error(mlp.forward(params, x), y)) + penalties.l2(params, 1e-2)


def init(key):
    return mlp.init(key, (2, 2, 1))


# %% [markdown]
# ## A census
# Hidden units may be permuted, and flipped in sign, without changing the network: every critical point has copies.
# `mlp_symmetry.maps` finds and checks those symmetries, and `critical.census` lists each point once.

# %%
maps = mlp_symmetry.maps(fun, init(jax.random.key(0)), (x, y), activation=jnp.tanh)
census = critical.census(fun, init, jax.random.key(0), num_starts=500, args=(x, y), symmetries=maps, complete_sum=1)
census

# %% [markdown]
# With weight decay the loss grows in every direction, so by the theorem of Poincaré and Hopf Σ copies · (−1)^index is
# 1 for a complete list: the last line above. It is necessary, not sufficient.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
plots.census_levels(left, census.indices, census.values, census.orbit_sizes, "levels, width = copies")
plots.loss_against_index(right, census.indices, census.values).set_ylabel("loss (with penalty)")
# %%
table = pd.DataFrame({"index": census.indices, "loss": census.values, "copies": census.orbit_sizes})
table.groupby("index").agg(points=("loss", "size"), copies=("copies", "sum"), lowest=("loss", "min"))

# %% [markdown]
# ## What a saddle connects
# From a saddle of index 1 the loss falls on both sides. Along its lowest eigenvector:

# %%
number = census.indices.index(1)
saddle = jax.tree.map(lambda leaf: leaf[number], census.params)
plane = landscape.eigenvector_plane(fun, saddle, (x, y), key=jax.random.key(1))
t = np.linspace(-1.5, 1.5, 101)
axes = plots.profile(plt.figure(figsize=(5, 3.2)).subplots(), t, landscape.line(fun, saddle, plane.first, t, (x, y)))
axes.axvline(0, color=plots.GREY)
axes.set_title(f"index 1: λ = {plane.values[0]:.3f} along this line")
# %% [markdown]
# ## When second order does not decide
# In that case the verdict says so, and what higher orders show; it never guesses. A quartic minimum, a cubic saddle,
# and a valley that a symmetry explains:

# %%
critical.classify(lambda p: p[0] ** 2 + p[1] ** 4, jnp.zeros(2))

# %%
critical.classify(lambda p: p[0] ** 2 + p[1] ** 3, jnp.zeros(2))

# %%
critical.classify(lambda p: (p[0] - p[1]) ** 2, jnp.ones(2), symmetries=lambda p: jnp.ones((1, 2)))
