# %% [markdown]
# # Quickstart
#
# A network is pure functions, a loss is a function of a pytree, curvature sees only that function, and a critical
# point gets a verdict that can be trusted.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from mlp_jax import critical, datasets, losses, mlp, mlp_hessian, penalties, plots, training

# %% [markdown]
# ## Data and a network
# 1,797 handwritten digits of 8 × 8 pixels. Parameters are a tuple of layers, `Layer(weight, bias)`.

# %%
data = datasets.load("digits")
data

# %%
params = mlp.init(jax.random.key(0), (64, 4, 10))
jax.tree.map(jnp.shape, params)

# %% [markdown]
# ## Train many seeds at once
# `training.train` is one compiled run, and it is pure: `vmap` it over whatever you like, here seeds. Its loss takes
# weights, because the last batch of an epoch may be padded, and a key, for dropout.


# %%
def batch_loss(params, inputs, targets, weights, key):
    logits = mlp.forward(params, inputs, activation=jnp.tanh)
    return losses.mean(losses.cross_entropy(logits, targets), weights) + penalties.l2(params, 1e-2)


def train_one(key):
    init_key, run_key = jax.random.split(key)
    start = mlp.init(init_key, (64, 4, 10))
    return training.train(run_key, batch_loss, start, data.train, optimizer=optax.sgd(0.3), batch_size=50, epochs=30)


trained, history = jax.jit(jax.vmap(train_one))(jax.random.split(jax.random.key(1), 8))
axes = plots.training_curve(plt.figure(figsize=(5, 3)).subplots(), np.arange(1, 31), history.loss, "8 seeds")
axes.set(xlabel="epoch", ylabel="loss (nats, with penalty)")
axes.legend()

# %% [markdown]
# ## Is the end a minimum?
# The loss over all the training data, as a function `(params, *args) -> scalar`. Data goes in `args`, so that a
# second call compiles nothing.


# %%
def fun(params, x, y):
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y)) + penalties.l2(params, 1e-2)


end = jax.tree.map(lambda leaf: leaf[0], trained)
critical.classify(fun, end, args=tuple(data.train))

# %% [markdown]
# No: the gradient of a trained network is small, not zero, and a Hessian there says little. So go to the critical
# point itself, and ask again.

# %%
point = critical.find(fun, end, args=tuple(data.train), index=0)
verdict = critical.classify(fun, point.params, args=tuple(data.train))
verdict

# %%
print(verdict.explain())

# %% [markdown]
# ## And a saddle
# The same search with another index. It starts at the minimum, moved by noise.

# %%
moved = jax.tree.map(lambda leaf, noise: leaf + 0.5 * noise, point.params, mlp.init(jax.random.key(5), (64, 4, 10)))
saddle = critical.find(fun, moved, args=tuple(data.train), index=1, max_steps=300)
critical.classify(fun, saddle.params, args=tuple(data.train))

# %% [markdown]
# The eigenvalues of both. `mlp_hessian.dense` is the exact Hessian of an MLP loss from layer blocks, many times
# faster than `jax.hessian`; it computes in float64 here because a verdict's points are float64.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
with jax.enable_x64(True):
    for axes, at, title in ((left, point, "minimum"), (right, saddle, "saddle")):
        matrix = mlp_hessian.dense(
            at.params,
            *datasets.load("digits").train,
            loss=losses.cross_entropy,
            activation=jnp.tanh,
            penalty=lambda p: penalties.l2(p, 1e-2),
        )
        plots.eigenvalues(axes, np.linalg.eigvalsh(matrix), title)

# %% [markdown]
# `05_loss_landscapes` draws the loss along such eigenvectors, so that a saddle looks like one.
