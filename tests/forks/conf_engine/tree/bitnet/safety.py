"""When to stop."""
import math
from dataclasses import asdict, dataclass


class TrainingStopped(Exception):
    """The gate has tripped."""


@dataclass
class Gate:
    limit: float = 2.0
    tripped: bool = False

    def check(self, val_loss):
        """Raise once a validation loss is over the limit, or no number; and ever after."""
        self.tripped = self.tripped or math.isnan(val_loss) or val_loss > self.limit
        if self.tripped:
            raise TrainingStopped(f"validation loss {val_loss:.4f}, limit {self.limit}")

    def state(self):
        return asdict(self)

    def restore(self, state):
        for name, value in state.items():
            setattr(self, name, value)
