# %% [markdown]
# # Proofs
#
# A verdict is an estimate with an error bound. A certificate is a theorem: this box contains exactly one critical
# point, of exactly this index. The proof evaluates the program traced by JAX in ball arithmetic and applies the
# theorem of Newton and Kantorovich.

# %%
import pathlib
import tempfile

import jax
import jax.numpy as jnp

from mlp_jax import critical, datasets, interval, losses, mlp, mlp_census, penalties

jax.config.update("jax_enable_x64", True)
x, y = datasets.xor()


def fun(params, x, y):
    return losses.mean(losses.squared_error(mlp.forward(params, x), y)) + penalties.l2(params, 1e-2)


# %% [markdown]
# ## A minimum and a saddle

# %%
start = mlp.init(jax.random.key(0), (2, 2, 1))
minimum = critical.find(fun, start, args=(x, y), index=0)
certificate = interval.certify(fun, minimum.params, args=(x, y))
certificate

# %%
print(certificate)

# %%
saddle = critical.find(fun, start, args=(x, y), index=1)
print(interval.certify(fun, saddle.params, args=(x, y)))

# %% [markdown]
# ## A refusal
# x⁴ has a minimum at 0, but its Hessian is zero there: the theorem does not apply, and nothing is claimed.

# %%
interval.certify(lambda p: jnp.sum(p**4), jnp.zeros(2))

# %% [markdown]
# ## A verdict with a proof
# `classify(evidence="proved")` includes a certificate.

# %%
verdict = critical.classify(fun, minimum.params, args=(x, y), evidence="proved")
verdict

# %% [markdown]
# ## Saved, and checked by someone else
# A certificate is saved as plain JSON. For the reader it is a claim; `check` proves it again from the function and
# data.

# %%
path = pathlib.Path(tempfile.mkdtemp()) / "minimum.json"
certificate.save(path)
read = interval.load(path)
print(interval.check(read, fun, start, (x, y)))

# %% [markdown]
# ## A complete list
# For a function of few parameters `complete` proves that there are no other critical points in a box. Himmelblau's
# function has nine, and Rastrigin's has 529 here.


# %%
def himmelblau(p):
    return (p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2


print(interval.complete(himmelblau, -6 * jnp.ones(2), 6 * jnp.ones(2)))


# %%
def rastrigin(p):
    return 20 + jnp.sum(p**2 - 10 * jnp.cos(2 * jnp.pi * p))


interval.complete(rastrigin, -5 * jnp.ones(2), 6 * jnp.ones(2))

# %% [markdown]
# For a tanh network with one hidden layer, squared error and weight decay, a priori bounds hold at every critical
# point, so that the list is that of all of parameter space. `python -m experiments.complete_lists` has more of them.

# %%
print(mlp_census.complete(x, y[:, 0], 1, 0.02))

# %% [markdown]
# ## On data
# The wine data set, three classes, and a 13-4-3 network of 71 parameters, in a second or two. `python -m
# experiments.proofs` does the same on 1,797 digits, with up to 2,035 parameters.

# %%
data = datasets.standardize(datasets.load("wine"))


def wine_fun(params, x, y):
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y)) + penalties.l2(params, 1e-2)


point = critical.find(wine_fun, mlp.init(jax.random.key(1), (13, 4, 3)), args=tuple(data.train), index=0)
interval.certify(wine_fun, point.params, args=tuple(data.train))
