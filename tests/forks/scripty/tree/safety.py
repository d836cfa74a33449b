# one gate for the whole process. GATE is also what goes into checkpoints.

GATE = {"limit": 2.0, "tripped": False}


class Stopped(Exception):
    pass


def gate_ok(val_loss):
    """False once a validation loss was too high (or nan). Stays False until gate_reset()."""
    if val_loss != val_loss or val_loss > GATE["limit"]:
        GATE["tripped"] = True
    return not GATE["tripped"]


def gate_reset():
    GATE["tripped"] = False


def gate_load(state):
    GATE.update(state)
