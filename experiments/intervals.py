from mlp_jax.intervals import mean_interval, show  # noqa: D100, F401
