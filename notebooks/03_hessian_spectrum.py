# %% [markdown]
# # The spectrum of the Hessian
#
# During training a few eigenvalues leave the bulk. Are there as many as classes? And how accurate is the spectral
# density computed from matrix-vector products?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from mlp_jax import curvature, datasets, losses, mlp, mlp_hessian, plots, training

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## During training
# A `record` function chooses what to keep after each epoch; here the parameters.

# %%
data = datasets.load("digits")
x, y = data.train


def batch_loss(params, inputs, targets, weights, key):
    return losses.mean(losses.cross_entropy(mlp.forward(params, inputs), targets), weights)


start = mlp.init(jax.random.key(0), (64, 8, 10))
params, history = training.train(
    jax.random.key(1),
    batch_loss,
    start,
    data.train,
    optimizer=optax.sgd(0.3),
    batch_size=50,
    epochs=40,
    record=lambda state: state.params,
)

# %% [markdown]
# The exact Hessian, 610 × 610, at the start and after 1, 5 and 40 epochs:


# %%
def spectrum(params):
    matrix = mlp_hessian.dense(params, x, y, loss=losses.cross_entropy, activation=jnp.tanh)
    return np.linalg.eigvalsh(matrix)


spectra = {0: spectrum(start)}
for epoch in (1, 5, 40):
    spectra[epoch] = spectrum(jax.tree.map(lambda leaf, e=epoch: leaf[e - 1], history.record))
axes = plt.figure(figsize=(6, 3.5)).subplots()
colors = (plots.GREY, plots.ORANGE, plots.GREEN, plots.BLUE)
for (epoch, values), style, color in zip(spectra.items(), ("o:", "s-.", "^--", ".-"), colors, strict=True):
    axes.plot(np.arange(1, 21), values[::-1][:20], style, color=color, ms=4, label=f"epoch {epoch}")
axes.axvline(9.5, color="black", lw=0.8, label="classes − 1")
axes.set(xlabel="rank from the top", ylabel="eigenvalue", yscale="log", xticks=(1, 5, 10, 15, 20))
axes.legend()

# %% [markdown]
# ## Exact against quadrature
# `curvature.spectral_density` needs only Hessian-vector products, so it works for millions of parameters. Here the
# exact spectrum is known, and the two can be compared.


# %%
def fun(params, x, y):
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y))


@jax.jit
def density_at(params, key, x, y):
    return curvature.spectral_density(curvature.hessian(fun, params, (x, y)), params, key, num_probes=10, num_steps=80)


density = density_at(params, jax.random.key(2), x, y)
plots.spectral_density(plt.figure(figsize=(6, 3.5)).subplots(), density, spectra[40])
# %% [markdown]
# Every estimate has a standard error over its random probes. The mean eigenvalue, and the share above .1:

# %%
share = density.expectation(lambda values: values > 0.1)
print(f"mean eigenvalue: exact {spectra[40].mean():.5f}, quadrature", end=" ")
mean = density.expectation(lambda values: values)
print(f"{mean.value:.5f} ± {mean.stderr:.5f}")
print(f"share above .1: exact {np.mean(spectra[40] > 0.1):.4f}, quadrature {share.value:.4f} ± {share.stderr:.4f}")

# %% [markdown]
# It does not determine the signs of eigenvalues near zero, where most of them are: Lanczos resolves the ends of a
# spectrum first. `curvature.inertia` counts signs, with an error bound.

# %% [markdown]
# ## Both ends, to full accuracy
# Each eigenpair has a residual: an eigenvalue lies within that distance.

# %%
matvec = curvature.hessian(fun, params, (x, y))
curvature.eigenpairs(matvec, params, jax.random.key(3), smallest=3, largest=9)

# %% [markdown]
# ## One layer at a time
# `curvature.restrict` makes the function of a part of the parameters, such as a layer; its Hessian is a block of all.
# `curvature.overlap` gives the share of a gradient in the space of some eigenvectors, or compares two such spaces.

# %%
for name, where in (("whole", lambda p: p), ("layer 1", lambda p: p[0]), ("layer 2", lambda p: p[1])):
    part_fun, part = curvature.restrict(fun, params, where)
    top = curvature.eigenpairs(
        curvature.hessian(part_fun, part, (params, x, y)), part, jax.random.key(6), largest=9, dense_limit=0
    )
    share = curvature.overlap(jax.grad(part_fun)(part, params, x, y), top.vectors)
    print(f"{name}: largest eigenvalue {top.values[-1]:.3f}; {share:.0%} of the gradient in the top nine directions")

# %% [markdown]
# `python -m experiments.spectrum_by_layer` follows them through training.

# %% [markdown]
# ## Outliers against the number of classes
# A network for the first 2, 5 and all 10 classes, and the largest ratio between neighbours among its top eigenvalues.

# %%
for classes in (2, 5, 10):
    few = datasets.Examples(x[y < classes], y[y < classes])
    trained, _ = training.train(
        jax.random.key(4),
        batch_loss,
        mlp.init(jax.random.key(5), (64, 8, classes)),
        few,
        optimizer=optax.sgd(0.3),
        batch_size=50,
        epochs=40,
    )
    top = np.linalg.eigvalsh(mlp_hessian.dense(trained, *few, loss=losses.cross_entropy, activation=jnp.tanh))[::-1][
        :25
    ]
    print(f"{classes} classes: the largest gap is after eigenvalue {1 + np.argmax(top[:-1] / top[1:])}")

# %% [markdown]
# `python -m experiments.hessian_spectrum` repeats this for many seeds, with intervals.
