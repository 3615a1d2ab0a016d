# %% [markdown]
# # Quickstart
#
# A network is pure functions, a loss is a function of a pytree, curvature depends only on that function, and a critical
# point gets a verdict that can be trusted.

# %%
import functools

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
# `training.train` is one compiled run, and it is pure, so it can be mapped with `vmap`, here over seeds. Its loss takes
# weights, because the last batch of an epoch may be padded, and a key for dropout.


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
# ## Did training end at a minimum?
# The loss over all the training data, as a function `(params, *args) -> scalar`. Data goes in `args`, so that a
# second call compiles nothing. `hessian` is optional; this one is the exact Hessian of an MLP from layer blocks, many
# times faster than `jax.hessian`.


# %%
def penalty(params):
    return penalties.l2(params, 1e-2)


def fun(params, x, y):
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y)) + penalty(params)


hessian = functools.partial(mlp_hessian.dense, loss=losses.cross_entropy, activation=jnp.tanh, penalty=penalty)
args = tuple(data.train)
end = jax.tree.map(lambda leaf: leaf[0], trained)
critical.classify(fun, end, args, hessian=hessian)

# %% [markdown]
# No: the gradient at the end of training is not zero, so the Hessian there does not classify a point. Search for the
# critical point, and classify that.

# %%
point = critical.find(fun, end, args, index=0, hessian=hessian)
verdict = critical.classify(fun, point.params, args, hessian=hessian)
verdict

# %%
print(verdict.explain())

# %% [markdown]
# ## A saddle
# The same search with another index. It starts at the minimum, perturbed by noise.

# %%
moved = jax.tree.map(lambda leaf, noise: leaf + 0.3 * noise, point.params, mlp.init(jax.random.key(5), (64, 4, 10)))
saddle = critical.find(fun, moved, args, index=1, hessian=hessian)
critical.classify(fun, saddle.params, args, hessian=hessian)

# %% [markdown]
# The eigenvalues of both, in float64.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
with jax.enable_x64(True):
    for axes, at, title in ((left, point, "minimum"), (right, saddle, "saddle of index 1")):
        plots.eigenvalues(axes, np.linalg.eigvalsh(hessian(at.params, *args)), title)

# %% [markdown]
# `05_loss_landscapes` draws the loss along such eigenvectors, so that a saddle looks like one.
