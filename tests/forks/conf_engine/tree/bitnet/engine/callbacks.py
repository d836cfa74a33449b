"""What watches a run."""


class Callback:
    def on_begin(self, engine): ...

    def on_update(self, engine, loss): ...

    def on_epoch(self, engine, epoch, val_loss): ...

    def on_end(self, engine): ...


class History(Callback):
    def __init__(self):
        self.losses, self.rates, self.val_losses = [], [], []

    def on_update(self, engine, loss):
        self.losses.append(loss)
        self.rates.append(engine.optimizer.param_groups[0]["lr"])

    def on_epoch(self, engine, epoch, val_loss):
        self.val_losses.append(val_loss)


class Progress(Callback):
    def __init__(self, every=50):
        self.every = every

    def on_update(self, engine, loss):
        if engine.updates % self.every == 0:
            print(f"{engine.updates:6d} loss {loss:.4f} lr {engine.schedule.get_last_lr()[0]:.2e}")

    def on_epoch(self, engine, epoch, val_loss):
        print(f"epoch {epoch}: validation {val_loss:.4f}")


class GateCallback(Callback):
    def __init__(self, gate):
        self.gate = gate

    def on_epoch(self, engine, epoch, val_loss):
        self.gate.check(val_loss)
