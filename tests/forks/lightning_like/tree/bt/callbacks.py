import math

from .engine import Callback


class SafetyGate(Callback):
    """Stops the run when the validation loss is above the threshold."""

    def __init__(self, threshold=1.0):
        self.threshold = threshold
        self.tripped = False

    def check(self, val_loss):
        """True if training may go on."""
        if val_loss > self.threshold or math.isnan(val_loss):
            self.tripped = True
        return not self.tripped

    def on_validation_end(self, engine, val_loss):
        if not self.check(val_loss):
            engine.should_stop = True
            print('safety gate: validation loss %.3f, stopping' % val_loss)

    def state_dict(self):
        return {'tripped': self.tripped}

    def load_state_dict(self, state):
        self.tripped = state['tripped']


class Progress(Callback):

    def on_epoch_end(self, engine):
        shown = ', '.join('%s %.4g' % item for item in sorted(engine.metrics.items()))
        print('epoch %d (%d updates): %s' % (engine.epoch, engine.global_step, shown))


class HeadReport(Callback):
    """How far back each head of the last layer looks, on average, at the end of an epoch."""

    def __init__(self):
        self.maps = None

    def on_batch_end(self, engine, output):
        self.maps = output['telemetry']['attention_maps']

    def on_epoch_end(self, engine):
        last = self.maps[-1]  # [B, H, T, T]
        T = last.size(-1)
        back = last.new_tensor(range(T))[:, None] - last.new_tensor(range(T))
        reach = (last * back).sum(-1).mean((0, 2))
        engine.metrics.update(('reach/%d' % i, value) for i, value in enumerate(reach.tolist()))
