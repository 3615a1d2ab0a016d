"""Functional MLPs in JAX, and the critical points of their losses.

Modules are the namespaces:

- `require`: checks of arguments, shared by all
- `tree`: vector-space operations on pytrees
- `devices`: means, sums and maps over the devices of a mesh, in one process or several
- `display`: results as tables in notebooks
- `intervals`: 95 % intervals over seeds
- `checkpoint`: save and restore any state
- `mlp`: init, forward: the network
- `losses`: per-example losses, weighted mean, accuracy
- `penalties`: terms added to a loss
- `schedules`: warm-up followed by any schedule of optax
- `backpropagation`: the chain rule written out
- `datasets`: data, with shapes checked
- `training`: one run as one compiled scan
- `sweep`: many runs at once: batch sizes, learning rates, seeds
- `gradient_noise`: noise scale, and updates against examples
- `curvature`: Hessians of any function of any pytree, and their inertia
- `mlp_hessian`: the exact Hessian of an MLP loss, fast
- `mlp_symmetry`: the symmetries of an MLP and its loss, and its kinks
- `interval`: proofs of critical points and their index
- `critical`: critical points: find them, and classify them
- `landscape`: the loss along lines and planes, for pictures
- `plots`: figures on an Axes
"""
