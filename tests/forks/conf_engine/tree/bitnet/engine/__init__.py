from .callbacks import Callback, GateCallback, History, Progress
from .loop import Engine
from .precision import Precision

__all__ = ["Callback", "Engine", "GateCallback", "History", "Precision", "Progress"]
