# %% [markdown]
# # Batch sizes
#
# Many runs at once: every batch size × learning rate × seed is a lane of one compiled program, and for one seed all
# batch sizes have the same start and the same order of examples.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from mlp_jax import datasets, gradient_noise, losses, mlp, plots, sweep

data = datasets.load("digits")
sizes, rates = (8, 32, 128, 512), (0.03, 0.1, 0.3, 1.0, 3.0)


def loss(params, inputs, targets, weights, key):
    return losses.mean(losses.cross_entropy(mlp.forward(params, inputs), targets), weights)


def init(key):
    return mlp.init(key, (64, 16, 10))


def record(x, y, state):
    return {"test_accuracy": jnp.mean(losses.accuracy(mlp.forward(state.params, x), y))}


# %% [markdown]
# ## At equal numbers of epochs
# Learning rates are tuned on separate seeds, and the results are from fresh seeds: the best of many noisy numbers
# is biased.

# %%
search = sweep.run(
    jax.random.key(0), loss, init, data, batch_sizes=sizes, learning_rates=rates, seeds=range(4), epochs=15
)
search

# %%
last = search.loss[..., -1].mean(axis=-1)  # (batch size, learning rate)
axes = plots.heat_map(plt.figure(figsize=(5, 3)).subplots(), sizes, rates, np.log10(last), "log₁₀ training loss (nats)")
axes.set(xlabel="learning rate", ylabel="batch size")
# %%
best = {size: (rates[i],) for size, i in zip(sizes, np.argmin(last, axis=1), strict=True)}
fresh = sweep.run(
    jax.random.key(0),
    loss,
    init,
    data,
    batch_sizes=sizes,
    learning_rates=best,
    seeds=range(100, 108),
    epochs=15,
    record=jax.tree_util.Partial(record, *data.test),
)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for i, (size, look) in enumerate(zip(sizes, ("-", "--", "-.", ":"), strict=True)):
    color = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE)[i]
    plots.training_curve(left, fresh.examples[i], fresh.loss[i, 0], f"batch {size}", color=color, line=look)
left.set(xlabel="examples seen", ylabel="training loss (nats)", yscale="log")
left.legend(fontsize="small")
plots.against_batch_size(right, sizes, 100 * fresh.record["test_accuracy"][:, 0, :, -1])
right.set_ylabel("test accuracy, %")

# %% [markdown]
# At equal epochs a larger batch makes fewer updates. Equal updates or equal time give other results: `python -m
# experiments.batch_sizes` measures all three, with paired intervals.
#
# ## The noise of the gradient
# The ratio tr Σ / ‖G‖² is the batch size at which noise and signal are equal (McCandlish et al. 2018).


# %%
def per_example(params, x, y):
    return losses.cross_entropy(mlp.forward(params, x), y)


noise = jax.jit(lambda p, x, y: gradient_noise.exact(per_example, p, (x, y)))
for name, params in (
    ("at the start", init(jax.random.key(3))),
    ("after 15 epochs at batch 32", jax.tree.map(lambda leaf: jnp.asarray(leaf[1, 0, 0]), fresh.params)),
):
    print(f"{name}: noise scale {noise(params, *data.train).scale:.3g} examples")
