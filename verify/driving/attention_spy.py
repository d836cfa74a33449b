"""A spy on torch's scaled_dot_product_attention. In child processes only."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


class AttentionSpy(TorchFunctionMode):
    """Notes the arguments of each scaled_dot_product_attention; `instead` may compute something else."""

    def __init__(self, instead: Callable[[dict[str, Any]], Tensor] | None = None) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []
        self._instead = instead

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        if str(getattr(func, "__name__", "")).partition(".")[0] != "scaled_dot_product_attention":
            return func(*args, **kwargs or {})
        given = dict(zip(ARGUMENTS, args, strict=False)) | (kwargs or {})
        self.calls.append(given)
        return self._instead(given) if self._instead else func(*args, **kwargs or {})
