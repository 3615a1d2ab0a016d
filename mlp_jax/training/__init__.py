"""One training run as one compiled scan over shuffled minibatches. Transformable.

- `train`: a run; `EarlyStopping`: when it ends before its last epoch
- `State`: what `record` sees; `History`: what a run keeps
- `order`, `apply`: the order of an epoch, and one update, for loops of your own
- `require_data`, `require_loss`, `widest_dtype`: the checks, for modules that train
"""

from mlp_jax.training.checks import require_data, require_loss, widest_dtype
from mlp_jax.training.early_stopping import EarlyStopping
from mlp_jax.training.scan import History, Loss, State, apply, train
from mlp_jax.training.shuffle import order

__all__ = [
    "EarlyStopping",
    "History",
    "Loss",
    "State",
    "apply",
    "order",
    "require_data",
    "require_loss",
    "train",
    "widest_dtype",
]
