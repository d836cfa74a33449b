"""Training scripts in four shapes, right ones, and each defect in each of them."""

import textwrap

WEIGHTS, USED = "each-update-is-the-mean-over-its-group", "each-gradient-is-used-once"
BEATS, TOTAL = "schedulers-step-with-the-updates", "the-stated-total-is-that-of-the-run"
CLIPS, HELD = "gradients-are-clipped-once-and-whole", "the-optimizer-holds-what-learns"
RATES, ROWS = "computed-rates-reach-the-optimizer", "each-row-is-seen-once-a-pass"
EVALUATION, AUTOCAST = "evaluation-is-evaluation", "autocast-is-around-forward"
REPEATS, MASKS, MAPS = "random-numbers-do-not-repeat", "masks-are-not-built-again", "attention-keeps-no-map"
FINITE, SEED, DEFAULTS = "losses-are-finite", "the-order-is-that-of-the-seed", "defaults-stay-as-they-are"

HEAD = """
    import argparse
    import random
    import numpy
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
    from torch.utils.data import DataLoader, Sampler, TensorDataset
    torch.manual_seed(0)
    random.seed(0)
    numpy.random.seed(0)
    settings = argparse.Namespace(rate=0.05)
    rows, targets = torch.randn(104, 8), torch.randint(0, 4, (104,))
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer, self.drop = nn.Linear(8, 16), nn.Linear(16, 4), nn.Dropout(0.1)
        def forward(self, x):
            return self.outer(self.drop(F.relu(self.inner(x))))
    class Along(Sampler):
        def __init__(self, order):
            self.order = order
        def __len__(self):
            return 104
        def __iter__(self):
            return iter(self.order)
"""  # 26 micro-batches of 4 rows, 7 updates an epoch, the last of each epoch of two micro-batches

SHAPES = {
    "script": """
        model = Net()
        <model>
        optimizer = torch.optim.SGD(<params>, lr=settings.rate, momentum=0.9)
        <optimizer>
        scheduler = <scheduler>
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        loader = DataLoader(TensorDataset(rows, targets), batch_size=4, <order>)
        for epoch in range(3):
            <begin>
            for i, (x, y) in enumerate(loader):
                size = <size>
                <before>
                <loss>
                <backward>
                if <when>:
                    <update>
            <evaluation>
    """,
    "functions": """
        def batches():
            <order>
            for first in range(0, 104, 4):
                part = <part>
                yield rows[part], targets[part]
        def rate(step):
            return max(0.0, 1.0 - step / <total>)
        def evaluate(model):
            <evaluation>
        def train(model, optimizer, scheduler, scaler):
            for epoch in range(3):
                <begin>
                for i, (x, y) in enumerate(batches()):
                    size = <size>
                    <before>
                    <loss>
                    <backward>
                    if <when>:
                        <update>
                evaluate(model)
        def main():
            model = Net()
            <model>
            optimizer = torch.optim.AdamW(<params>, lr=settings.rate)
            <optimizer>
            train(model, optimizer, <scheduler>, torch.amp.GradScaler("cpu", init_scale=64.0))
        main()
    """,
    "class": """
        class Trainer:
            def __init__(self):
                model = self.model = Net()
                <model>
                self.optimizer = optimizer = torch.optim.Adam(<params>, lr=settings.rate)
                self.model = model
                <optimizer>
                self.scheduler = <scheduler>
                self.loader = DataLoader(TensorDataset(rows, targets), batch_size=4, <order>)
                self.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
            def micro_batch(self, i, x, y, size):
                model, optimizer, scheduler, scaler = self.model, self.optimizer, self.scheduler, self.scaler
                <before>
                <loss>
                <backward>
            def update(self, i):
                model, optimizer, scheduler, scaler = self.model, self.optimizer, self.scheduler, self.scaler
                <update>
            def evaluate(self):
                model = self.model
                <evaluation>
            def epoch(self):
                loader = self.loader
                <begin>
                for i, (x, y) in enumerate(loader):
                    self.micro_batch(i, x, y, <size>)
                    if <when>:
                        self.update(i)
            def fit(self):
                for _ in range(3):
                    self.epoch()
                    self.evaluate()
        Trainer().fit()
    """,
    "while": """
        model = Net()
        <model>
        held = <params>
        heavy, light = [each for each in held if each.dim() > 1], [each for each in held if each.dim() < 2]
        optimizers = [torch.optim.SGD(heavy, lr=settings.rate), torch.optim.AdamW(light, lr=settings.rate)]
        schedulers = <scheduler>
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        i, epoch = 0, 0
        while epoch < 3:
            if i == 0:
                order = list(range(104))
                <begin>
                <order>
            part = <part>
            x, y = rows[part], targets[part]
            size = <size>
            <before>
            <loss>
            <backward>
            if <when>:
                <update>
            i += 1
            if i == 26:
                i, epoch = 0, epoch + 1
                <evaluation>
    """,
}  # fmt: skip

Slot = str | dict[str, str]  # what it has, or what it has in each shape, "" being the others
SCALED = {"": "scaler.step(optimizer)", "while": "[scaler.step(each) for each in optimizers]"}
WHOLE = {"": "scaler.unscale_(optimizer)", "while": "[scaler.unscale_(each) for each in optimizers]"}
CLIP = "nn.utils.clip_grad_norm_(model.parameters(), 1.0)"
STEP = {"": "optimizer.step()", "while": "[each.step() for each in optimizers]"}
BEAT = {"": "scheduler.step()", "while": "[each.step() for each in schedulers]"}
ZERO = {"": "optimizer.zero_grad()", "while": "[each.zero_grad() for each in optimizers]"}
MIXED = "with torch.autocast('cpu', torch.bfloat16):\n    (F.cross_entropy(model(x), y) / size).backward()"
QUIET = "model.eval()\nwith torch.no_grad():\n    F.cross_entropy(model(rows), targets)\nmodel.train()"
RIGHT: dict[str, Slot] = {
    "model": "",
    "params": "list(model.parameters())",
    "optimizer": "",
    "scheduler": {
        "": "OneCycleLR(optimizer, 0.05, total_steps=<total>)",
        "functions": "LambdaLR(optimizer, rate)",
        "while": "[OneCycleLR(each, 0.05, total_steps=<total>) for each in optimizers]",
    },
    "loss": "loss = F.cross_entropy(model(x), y)",
    "total": "21",
    "begin": "",
    "order": {
        "": "shuffle=True",
        "functions": "order = torch.randperm(104)",
        "while": "random.shuffle(order)",
    },
    "part": {"functions": "order[first:first + 4]", "while": "order[4 * i:4 * i + 4]"},
    "size": "4 if i < 24 else 2",
    "before": "",
    "backward": "(loss / size).backward()",
    "when": "(i + 1) % 4 == 0 or i == 25",
    "update": "<clip>\n<step>\n<beat>\n<zero>",
    "evaluation": QUIET,
    "clip": CLIP,
    "step": STEP,
    "beat": BEAT,
    "zero": ZERO,
    "scaled": SCALED,
    "whole": WHOLE,
}

AGAIN = {
    "": "loader.sampler.generator = torch.Generator().manual_seed(5)",
    "functions": "torch.manual_seed(5)",
    "while": "random.seed(5)",
}
LOADED = ("script", "class")
UNSEEDED = "generator = torch.Generator()\ngenerator.seed()\nloader.sampler.generator = generator"
ANEW = {
    "": "if epoch == 1:\n    optimizer = torch.optim.SGD(list(model.parameters()), lr=0.05)",
    "class": "if self.scheduler.last_epoch == 7:\n    self.optimizer = torch.optim.SGD(list(self.model.parameters()), lr=0.05)",
    "while": "if epoch == 1:\n    optimizers = [torch.optim.SGD(each, lr=0.05) for each in (heavy, light)]",
}
LEFT = QUIET.removesuffix("model.train()")
FIRST = {"": LEFT, "class": "model = self.model\n" + LEFT}
SQUARE = "q = torch.ones(1, 1, 64, 4, requires_grad=True)\n"
DEFECTS: dict[str, tuple[set[str], dict[str, Slot]]] = {
    "undivided": ({WEIGHTS}, {"backward": "loss.backward()"}),
    "divided twice": ({WEIGHTS}, {"backward": "(loss / size / size).backward()"}),
    "last group divided by all": ({WEIGHTS}, {"size": "4"}),
    "first group of one": ({WEIGHTS, USED}, {"when": "i % 4 == 0"}),
    "last group carried on": ({WEIGHTS, USED}, {"when": "(i + 1) % 4 == 0"}),
    "last group dropped": ({USED}, {"when": "(i + 1) % 4 == 0", "before": "if i == 0:\n    <zero>"}),
    "mean of means": ({WEIGHTS}, {"before": "y = y.masked_fill(torch.arange(4) < i % 3, -100)"}),
    "never zeroed": ({USED}, {"update": "<clip>\n<step>\n<beat>"}),
    "zeroed each time": ({USED}, {"before": "<zero>"}),
    "zeroed before the step": ({USED}, {"update": "<clip>\n<zero>\n<step>\n<beat>"}),
    "clipped after": ({CLIPS}, {"update": "<step>\n<clip>\n<beat>\n<zero>"}),
    "clipped early": ({CLIPS}, {"backward": "<clip>\n(loss / size).backward()", "update": "<step>\n<beat>\n<zero>"}),
    "clipped while scaled": (
        {CLIPS},
        {"backward": "scaler.scale(loss / size).backward()", "update": "<clip>\n<scaled>\nscaler.update()\n<beat>\n<zero>"},
    ),
    "clipped at times": ({CLIPS}, {"update": "if i % 8 == 7:\n    <clip>\n<step>\n<beat>\n<zero>"}),
    "scheduler first": ({BEATS}, {"update": "<clip>\n<beat>\n<step>\n<zero>"}),
    "scheduler each time": ({BEATS}, {"backward": "(loss / size).backward()\n<beat>", "update": "<clip>\n<step>\n<zero>", "total": "78"}),
    "scheduler twice": ({BEATS}, {"update": "<clip>\n<step>\n<beat>\n<beat>\n<zero>", "total": "42"}),
    "total too large": ({TOTAL}, {"total": "26"}),
    "total of floors": ({TOTAL}, {"total": "(3 * 26 // 4)"}),
    "not all held": ({HELD}, {"params": "list(model.outer.parameters())"}),
    "another model's": ({HELD}, {"params": "list(Net().parameters())"}),
    "copied since": ({HELD}, {"params": "(kept, model := Net())[0]", "model": "kept = list(model.parameters())"}),
    "a row twice": (
        {ROWS},
        {"order": dict.fromkeys(LOADED, "sampler=Along([*range(100), 1, 2, 3, 4])"), "part": {"functions": "order[first:first + 5]", "while": "order[4 * i:4 * i + 5]"}},
    ),
    "a row never": (
        {ROWS},
        {"order": dict.fromkeys(LOADED, "sampler=Along(list(range(103)))"), "part": {"functions": "order[first:min(first + 4, 103)]", "while": "order[:103][4 * i:4 * i + 4]"}},
    ),
    "the same order": ({ROWS}, {"begin": AGAIN}),
    "evaluation with dropout": ({EVALUATION}, {"evaluation": "with torch.no_grad():\n    F.cross_entropy(model(rows), targets)"}),
    "evaluation with a graph": ({EVALUATION}, {"evaluation": "model.eval()\nF.cross_entropy(model(rows), targets)\nmodel.train()"}),
    "evaluation goes on": ({EVALUATION}, {"evaluation": QUIET.removesuffix("model.train()")}),
    "evaluated first, and left so": ({EVALUATION}, {"begin": FIRST, "evaluation": "pass"}),
    "evaluation seeds": ({REPEATS}, {"evaluation": "torch.manual_seed(1)\n" + QUIET}),
    "seeded each time": ({REPEATS}, {"before": "torch.manual_seed(3)"}),
    "another default type": ({DEFAULTS}, {"evaluation": QUIET + "\ntorch.set_default_dtype(torch.float64)"}),
    "backward under autocast": ({AUTOCAST}, {"backward": MIXED}),
    "loss is not finite": ({FINITE}, {"backward": "(loss / size * (float('nan') if i > 20 else 1.0)).backward()"}),
    "mask each time": ({MASKS}, {"before": "torch.ones(64, 64).tril()"}),
    "dense mask": (
        {MASKS},
        {"before": SQUARE + "if i == 1:\n    F.scaled_dot_product_attention(q, q, q, torch.ones(64, 64).tril() > 0)"},
    ),
    "rate that arrives nowhere": (
        {RATES},
        {"evaluation": QUIET + "\nsettings.rate *= 0.5", "scheduler": {"": "LambdaLR(optimizer, lambda _: 1.0)", "while": "[LambdaLR(each, lambda _: 1.0) for each in optimizers]"}},
    ),
    "optimizer made anew": ({BEATS}, {"begin": ANEW}),
    "order of no seed": ({SEED}, {"begin": dict.fromkeys(LOADED, UNSEEDED), "order": {"functions": "order = numpy.random.default_rng().permutation(104)", "while": "random.Random().shuffle(order)"}}),
    "map kept": ({MAPS}, {"before": SQUARE + "(q @ q.mT).softmax(-1)"}),
}  # fmt: skip

VARIANTS: dict[str, dict[str, Slot]] = {
    "as it is": {},
    "zeroed first": {"before": "if i % 4 == 0:\n    <zero>", "update": "<clip>\n<step>\n<beat>"},
    "not clipped": {"update": "<step>\n<beat>\n<zero>"},
    "gradients divided": {
        "backward": "loss.backward()",
        "size": "4 if i < 24 else 2",
        "clip": "[each.grad.div_(4 if i < 24 else 2) for each in model.parameters()]\n" + CLIP,
    },
    "sums of targets": {"loss": "loss = F.cross_entropy(model(x), y, reduction='sum') / len(x)"},
    "written out": {"loss": "loss = -model(x).log_softmax(-1).gather(1, y[:, None]).mean()"},
    "in bfloat16": {"loss": "with torch.autocast('cpu', torch.bfloat16):\n    loss = F.cross_entropy(model(x), y)"},
    "scaled": {
        "backward": "scaler.scale(loss / size).backward()",
        "update": "<whole>\n<clip>\n<scaled>\nscaler.update()\n<beat>\n<zero>",
    },
    "a constant rate": {"beat": "pass"},
    "in order": {"order": {"": "shuffle=False", "functions": "order = list(range(104))", "while": "order.sort()"}},
    "without dropout": {"model": "model.drop.p = 0.0"},
}


def script(shape: str, **slots: Slot) -> str:
    """A training script in a shape, right but for what slots say otherwise."""
    text = textwrap.dedent(SHAPES[shape])
    while any(f"<{name}>" in text for name in RIGHT):
        for name, right in RIGHT.items():
            value = _told(slots[name], shape) if name in slots else None
            value = _told(right, shape) if value is None else value
            text = "\n".join(_filled(line, f"<{name}>", value or "") for line in text.splitlines())
    return textwrap.dedent(HEAD) + text + "\n"


def _told(slot: Slot, shape: str) -> str | None:
    """What a slot has in a shape; None where it says nothing of that."""
    return slot if isinstance(slot, str) else slot.get(shape, slot.get(""))


def _filled(line: str, slot: str, value: str) -> str:
    """A line with its slot filled; all lines of what fills it go in as far as it does."""
    if line.strip() != slot:
        return line.replace(slot, value)
    return textwrap.indent(value or "pass", line[: len(line) - len(line.lstrip())])
