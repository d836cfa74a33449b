"""The loop. Modules and callbacks hook into it, none of them steps an optimizer."""
import torch


class Callback:
    """Does nothing; override what you need."""

    def on_fit_start(self, engine):
        pass

    def on_batch_end(self, engine, output):
        pass

    def on_validation_end(self, engine, val_loss):
        pass

    def on_epoch_end(self, engine):
        pass

    def on_fit_end(self, engine):
        pass


class Engine:
    """Engine(max_epochs=3, callbacks=[...]).fit(module, rows, val_rows)"""

    def __init__(self, max_epochs=1, extra_steps=0, gradient_clip_val=1.0, callbacks=()):
        self.max_epochs = max_epochs
        self.extra_steps = extra_steps
        self.gradient_clip_val = gradient_clip_val
        self.callbacks = list(callbacks)
        self.should_stop = False
        self.global_step = 0
        self.epoch = 0
        self.metrics = {}

    @property
    def estimated_updates(self):
        return self.max_epochs * max(1, len(self.rows) // 8)

    def fit(self, module, rows, val_rows=None):
        self.module, self.rows, self.val_rows = module, rows, val_rows
        module.engine = self
        self.optimizer, self.scheduler = module.configure_optimizers()
        self._notify('on_fit_start')
        self.epoch = 0
        while self.epoch < self.max_epochs and not self.should_stop:
            self._run_epoch()
            self.epoch += 1
        self._notify('on_fit_end')
        return self.metrics

    def _run_epoch(self):
        self.module.train()
        self.module.on_epoch_start()
        batches = list(self.rows.split(8))
        batches += batches[-1:] * self.extra_steps
        for index, batch in enumerate(batches):
            output = self._run_batch(batch.to(self.module.device), index)
            self._notify('on_batch_end', output)
        if self.val_rows is not None:
            self._validate()
        self.module.on_epoch_end()
        self._notify('on_epoch_end')

    def _run_batch(self, batch, index):
        output = self.module.training_step(batch, index)
        output['loss'].backward()
        self._clip_gradients()
        self._optimizer_step()
        output['loss'] = output['loss'].detach()
        return output

    def _clip_gradients(self):
        if self.gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.gradient_clip_val)

    def _optimizer_step(self):
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.scheduler.last_epoch < self.estimated_updates:
            self.scheduler.step()
        self.global_step += 1
        self.metrics['lr'] = self.scheduler.get_last_lr()[0]

    @torch.no_grad()
    def _validate(self):
        self.module.eval()
        total = 0.0
        for batch in self.val_rows.split(8):
            total += self.module.validation_step(batch.to(self.module.device)).item() * len(batch)
        self.module.train()
        self.metrics['val_loss'] = total / len(self.val_rows)
        self._notify('on_validation_end', self.metrics['val_loss'])

    def _notify(self, hook, *args):
        for callback in self.callbacks:
            getattr(callback, hook)(self, *args)
