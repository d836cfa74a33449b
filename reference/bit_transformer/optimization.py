"""The optimizer and its learning-rate schedule."""

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR


def configure_optimizer(
    model: nn.Module, lr: float = 1e-3, weight_decay: float = 0.01, total_steps: int | None = None
) -> tuple[AdamW, OneCycleLR]:
    """AdamW, and the OneCycle schedule of its learning rate over total_steps updates.

    lr is the schedule's peak. Matrices decay; biases, norms and embeddings do not. Raises TypeError
    without total_steps: no schedule can guess how long a run is.
    """
    if total_steps is None:
        raise TypeError("configure_optimizer needs total_steps, the number of optimizer updates of the run")
    optimizer = make_adamw(model, lr, weight_decay)
    return optimizer, OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps)


def make_adamw(model: nn.Module, lr: float = 1e-3, weight_decay: float = 0.01) -> AdamW:
    """AdamW at a constant rate. Matrices decay; biases, norms and embeddings do not."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.dim() > 1 and id(parameter) not in embeddings]
    kept = [parameter for parameter in trained if parameter.dim() < 2 or id(parameter) in embeddings]
    return AdamW([{"params": decayed}, {"params": kept, "weight_decay": 0.0}], lr=lr, weight_decay=weight_decay)
