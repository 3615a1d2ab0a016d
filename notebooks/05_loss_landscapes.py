# %% [markdown]
# # Loss landscapes
#
# Pictures of a loss along lines and planes through parameter space. They illustrate; a verdict comes from
# `critical.classify`.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from mlp_jax import critical, datasets, landscape, losses, mlp, penalties, plots, training, tree

jax.config.update("jax_enable_x64", True)
plt.rcParams["figure.dpi"] = 80
data = datasets.load("digits")
args = tuple(data.train)


def fun(params, x, y):
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y)) + penalties.l2(params, 1e-2)


def batch_loss(params, x, y, weights, key):
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y), weights) + penalties.l2(params, 1e-2)


def train(key):
    return training.train(
        jax.random.fold_in(key, 1),
        batch_loss,
        mlp.init(key, (64, 5, 10)),
        data.train,
        optimizer=optax.sgd(0.1),
        batch_size=50,
        epochs=30,
        record=lambda state: state.params,
    )


end, history = train(jax.random.key(0))

# %% [markdown]
# ## Filter-normalised random directions
# Each filter of the direction has the norm of the network's filter, so that networks of different scale can be compared
# (Li et al. 2018).

# %%
directions = [landscape.filter_normalized(tree.random_like(jax.random.key(seed), end), end) for seed in (1, 2)]
t = np.linspace(-1, 1, 31)
values = landscape.plane(fun, end, *directions, t, t, args)
figure = plt.figure(figsize=(10, 4), layout="constrained")
plots.contours(figure.add_subplot(1, 2, 1), t, t, values).set_title("levels of the loss (nats, with penalty)")
plots.surface(figure.add_subplot(1, 2, 2, projection="3d"), t, t, values)
# %% [markdown]
# ## The plane of a training run
# The plane of the two directions in which the run moves most, with the run in it.

# %%
plane = landscape.principal_plane(history.record)
print("shares of the movement:", np.round(plane.explained, 3))
low, high = plane.coordinates.min(axis=0), plane.coordinates.max(axis=0)
margin = 0.3 * (high - low)
s, t = (np.linspace(low[i] - margin[i], high[i] + margin[i], 31) for i in (0, 1))
values = landscape.plane(fun, end, plane.first, plane.second, s, t, args)
axes = plt.figure(figsize=(5.5, 4)).subplots()
plots.contours(axes, s, t, values, trajectory=plane.coordinates, log=True)
axes.set_title("training, on levels of the loss (nats, with penalty)")
# %% [markdown]
# ## Between two solutions
# The straight line between two networks from different starts; then again after the hidden units of the second are
# permuted and sign-flipped to match the first, which does not change the function.

# %%
other, _ = train(jax.random.key(7))
matched = landscape.match_units(other, end, activation=jnp.tanh)
fractions = np.linspace(0, 1, 51)
axes = plt.figure(figsize=(5.5, 3.3)).subplots()
for ends, name, color, style in (
    (other, "as trained", plots.ORANGE, "--"),
    (matched, "units matched", plots.BLUE, "-"),
):
    along = landscape.interpolation(fun, end, ends, fractions, args)
    label = f"{name}: barrier {landscape.barrier(along, fractions):.3f}"
    plots.profile(axes, fractions, along, label, color=color, line=style)
axes.set(xlabel="from one solution to the other", ylabel="loss (nats, with penalty)")
axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)  # above: the curves fill the axes
# %% [markdown]
# ## A saddle
# Random directions miss the few descent directions. The lowest and highest eigenvectors of the Hessian show them.
# From small weights a descent of the gradient norm ends at a saddle of high index.

# %%
start = jax.tree.map(lambda leaf: 0.1 * leaf, mlp.init(jax.random.key(3), (64, 5, 10)))
saddle = critical.find(fun, start, args=args, method=critical.levenberg_marquardt)
verdict = critical.classify(fun, saddle.params, args=args)
verdict

# %%
ends = landscape.eigenvector_plane(fun, saddle.params, args, key=jax.random.key(0))
random = tree.random_like(jax.random.key(4), saddle.params)
random = jax.tree.map(lambda leaf: leaf / tree.norm(random), random)
t = np.linspace(-1, 1, 61)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
for direction, name, color, style in (
    (ends.first, f"lowest eigenvector, λ = {ends.values[0]:.2g}", plots.ORANGE, "--"),
    (random, "a random direction", plots.GREY, ":"),
    (ends.second, f"highest eigenvector, λ = {ends.values[1]:.2g}", plots.BLUE, "-"),
):
    plots.profile(left, t, landscape.line(fun, saddle.params, direction, t, args), name, color=color, line=style)
left.legend(fontsize="small")
values = landscape.plane(fun, saddle.params, ends.first, ends.second, t, t, args)
plots.contours(right, t, t, values)
right.set(xlabel="lowest eigenvector", ylabel="highest eigenvector", title="levels of the loss (nats, with penalty)")
left.set(ylabel="loss (nats, with penalty)", title="along lines through the saddle")
