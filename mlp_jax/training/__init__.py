"""One training run as one compiled scan over shuffled minibatches. Transformable.

- `train`: a run; `EarlyStopping`: when to stop it before its last epoch
- `Loss`, `State`, `History`: the protocol of a loss, the argument of `record`, the result of a run
- `order`, `apply`: the order of an epoch, and one update, for your own loops
"""

from mlp_jax.training._loop import State, apply
from mlp_jax.training.early_stopping import EarlyStopping
from mlp_jax.training.scan import History, Loss, train
from mlp_jax.training.shuffle import order

__all__ = ["EarlyStopping", "History", "Loss", "State", "apply", "order", "train"]
__dir__ = __all__.copy
