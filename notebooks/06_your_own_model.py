# %% [markdown]
# # Your own model
#
# `fun` is any differentiable function `(params, *args) -> scalar` of any pytree. A flax or equinox model enters in a
# closure, without a wrapper. The same small network, written four times, gets the same verdict each time.

# %%
import equinox
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from mlp_jax import critical, curvature, datasets

jax.config.update("jax_enable_x64", True)
x, y = datasets.load("iris").train
x = (x - x.mean(axis=0)) / x.std(axis=0)


def loss(logits, y):
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])


def decay(params):
    return 0.005 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


# %% [markdown]
# ## Plain functions


# %%
def model(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


draw = np.random.default_rng(0).standard_normal
plain = {"w1": draw((4, 3)) / 2, "b1": np.zeros(3), "w2": draw((3, 3)) / 2, "b2": np.zeros(3)}


def plain_fun(params, x, y):
    return loss(model(params, x), y) + decay(params)


point = critical.find(plain_fun, plain, args=(x, y))
critical.classify(plain_fun, point.params, args=(x, y))

# %% [markdown]
# ## Flax linen
# `params` is the result of `module.init`, or `state.params` of a `TrainState`.


# %%
class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        hidden = jnp.tanh(linen.Dense(3, param_dtype=float)(x))
        return linen.Dense(3, param_dtype=float)(hidden)


module = Linen()


def linen_fun(variables, x, y):
    return loss(module.apply(variables, x), y) + decay(variables)


variables = {  # as module.init makes them; here with the numbers of the plain network
    "params": {
        "Dense_0": {"kernel": plain["w1"], "bias": plain["b1"]},
        "Dense_1": {"kernel": plain["w2"], "bias": plain["b2"]},
    }
}
linen_point = critical.find(linen_fun, variables, args=(x, y))
print(critical.classify(linen_fun, linen_point.params, args=(x, y)))

# %% [markdown]
# ## Flax nnx
# Split the model once; the state is the pytree.


# %%
class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, 3, param_dtype=float, rngs=rngs)
        self.out = nnx.Linear(3, 3, param_dtype=float, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


network = Nnx(nnx.Rngs(0))
network.hidden.kernel[...], network.hidden.bias[...] = jnp.asarray(plain["w1"]), jnp.asarray(plain["b1"])
network.out.kernel[...], network.out.bias[...] = jnp.asarray(plain["w2"]), jnp.asarray(plain["b2"])
graph, state = nnx.split(network)


def nnx_fun(state, x, y):
    return loss(nnx.merge(graph, state)(x), y) + decay(state)


nnx_point = critical.find(nnx_fun, state, args=(x, y))
print(critical.classify(nnx_fun, nnx_point.params, args=(x, y)))

# %% [markdown]
# ## Equinox
# Partition the model into its arrays and the rest.

# %%
mlp = equinox.nn.MLP(4, 3, 3, 1, activation=jnp.tanh, key=jax.random.key(0), dtype=float)
mlp = equinox.tree_at(
    lambda m: (m.layers[0].weight, m.layers[0].bias, m.layers[1].weight, m.layers[1].bias),
    mlp,
    tuple(jnp.asarray(a) for a in (plain["w1"].T, plain["b1"], plain["w2"].T, plain["b2"])),
)
arrays, rest = equinox.partition(mlp, equinox.is_inexact_array)


def equinox_fun(arrays, x, y):
    return loss(jax.vmap(equinox.combine(arrays, rest))(x), y) + decay(arrays)


equinox_point = critical.find(equinox_fun, arrays, args=(x, y))
print(critical.classify(equinox_fun, equinox_point.params, args=(x, y)))

# %% [markdown]
# ## The same numbers
# The same network written in four ways has the same eigenvalues, whatever the order of the parameters.

# %%
for name, fun, params in (
    ("plain", plain_fun, point.params),
    ("linen", linen_fun, linen_point.params),
    ("nnx", nnx_fun, nnx_point.params),
    ("equinox", equinox_fun, equinox_point.params),
):
    values = np.linalg.eigvalsh(curvature.dense_hessian(fun, params, args=(x, y)))
    print(f"{name:8} {np.array2string(values[[0, 1, -2, -1]], precision=12)}")
