"""Training that was written to mislead: what is patched all the same, and what is refused for its true reason."""

import textwrap

import pytest

from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome

MODEL = """\
import torch
from torch import nn


class BitTransformerLM(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, bits):
        return self.head(bits[..., None].float())
"""
LOSS = "loss = F.cross_entropy(logits[:, :-1].reshape(-1, 2), batch[:, 1:].reshape(-1))"
HEAD = "import torch\nimport torch.nn.functional as F\n\nfrom .model import BitTransformerLM\n\n\n"
CLI = """\
import argparse

from .training import train


def main(model, data):
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.1)
    args = parser.parse_args()
    train(model, data, epochs=args.epochs, lr=args.lr)
"""


def training(
    inner=f"logits = model(batch)\n{LOSS}\nloss.backward()", signature="model, data, epochs=2, lr=0.1", before=""
):
    body = textwrap.indent(inner, " " * 12)
    return (
        f"{HEAD}{before}def train({signature}):\n    opt = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        f"    for _ in range(2):\n        for batch in data.split(2):\n{body}\n            opt.step()\n            opt.zero_grad()\n"
    )


@pytest.fixture
def outcome(tmp_path):
    """What applying a task does to a tree of these files, and their texts then."""

    def apply(task, **files):
        package = tmp_path / "bit_transformer"
        package.mkdir()
        for name, text in {"model": MODEL, "training": training(), **files}.items():
            (package / f"{name}.py").write_text(text)
        planned = plan(open_tree(tmp_path), [task_named(task)])
        for change in planned.changes:
            compile(change.after, change.path, "exec")
        texts = {change.path.rpartition("/")[2]: change.after.decode() for change in planned.changes}
        return planned.outcomes[0], texts

    return apply


REFUSED = {
    "a child class takes fields by position": (
        {
            "training": "from dataclasses import dataclass\n\n"
            + training(
                "print(cfg.epochs, cfg.lr)\nlogits = model(batch)\n" + LOSS + "\nloss.backward()",
                signature="model, data, cfg: 'Base'",
                before="@dataclass\nclass Base:\n    epochs: int = 1\n    lr: float = 0.1\n\n\n"
                "@dataclass\nclass More(Base):\n    note: str = ''\n\n\nMORE = More(2, 0.1, 'a note')\n\n\n",
            )
        },
        "makes one by position: a field would move what follows",
    ),
    "fields are unpacked": (
        {
            "training": "from dataclasses import astuple, dataclass\n\n"
            + training(
                "epochs, lr = astuple(cfg)\nprint(cfg.epochs)\nlogits = model(batch)\n" + LOSS + "\nloss.backward()",
                signature="model, data, cfg: 'Config'",
                before="@dataclass\nclass Config:\n    epochs: int = 1\n    lr: float = 0.1\n\n\n",
            )
        },
        "astuple is used in this tree",
    ),
    "entries are counted": (
        {
            "training": training(
                "print(CFG['epochs'], CFG['lr'])\nlogits = model(batch)\n" + LOSS + "\nloss.backward()",
                before="CFG = {'epochs': 1, 'lr': 0.1}\nEPOCHS, LR = CFG.values()\n\n\n",
            )
        },
        "values of CFG, which is to have one more",
    ),
    "the name is a module on the way": (
        {
            "cli": CLI.replace("from .training", "from torch import amp\n\nfrom .training")
            .replace(
                "def main(model, data):",
                "def launch(model, data, epochs, lr):\n    print(amp)\n    train(model, data, epochs=epochs, lr=lr)\n\n\ndef main(model, data):",
            )
            .replace(
                "    train(model, data, epochs=args.epochs, lr=args.lr)\n",
                "    launch(model, data, args.epochs, args.lr)\n",
            )
        },
        "amp, which is to be an option here, means something else",
    ),
    "the flag is there for something else": (
        {"cli": CLI.replace("    args =", '    parser.add_argument("--amp", type=float, default=1.0)\n    args =')},
        "option --amp, which is there for something else",
    ),
    "another flag has that name too": (
        {"cli": CLI.replace("    args =", '    parser.add_argument("--mixed", "--amp")\n    args =')},
        "option --amp, which is there for something else",
    ),
    "a command line reaches the loop by an unseen way": (
        {
            "cli": CLI.replace(
                "    train(model, data, epochs=args.epochs, lr=args.lr)",
                "    LOOPS['plain'](model, data, epochs=args.epochs, lr=args.lr)",
            ).replace("def main", "LOOPS = {'plain': train}\n\n\ndef main")
        },
        "how the options of the command line get here is not seen",
    ),
    "who goes on from a yield would be under it": (
        {"training": training(f"logits = model(batch)\nyield logits\n{LOSS}\nloss.backward()")},
        "yield between forward and loss",
    ),
    "another forward between": (
        {
            "training": training(
                f"logits = model(batch)\nwith torch.no_grad():\n    seen = model(data)\n{LOSS}\nloss = loss + 0 * logits.sum()\nloss.backward()"
            )
        },
        "another forward between forward and loss",
    ),
    "they share a line": ({"training": training(f"logits = model(batch); {LOSS}\nloss.backward()")}, "share a line"),
    "two backwards of one forward": (
        {
            "training": training(
                f"logits = model(batch)\nz = logits.pow(2).mean()\n{LOSS}\nz.backward(retain_graph=True)\nloss.backward()"
            )
        },
        "forward and loss of several backwards",
    ),
    "a scaler without autocast": (
        {"training": training(f"logits = model(batch)\n{LOSS}\ntorch.amp.GradScaler('cpu').scale(loss).backward()")},
        "a loss that is scaled, needless in bfloat16",
    ),
    "turned on for all": (
        {"training": training(before="torch.set_autocast_enabled('cpu', True)\n\n\n")},
        "no option is seen that turns it on",
    ),
    "a decorator turns it on": (
        {
            "model": MODEL.replace(
                "    def forward", "    @torch.autocast('cpu', dtype=torch.bfloat16)\n    def forward"
            )
        },
        "no option is seen that turns it on",
    ),
    "turned on by the machine": (
        {
            "training": training(
                f"with torch.autocast('cpu', torch.bfloat16, enabled=torch.cuda.is_available()):\n    logits = model(batch)\n    {LOSS}\nloss.backward()"
            )
        },
        "no option turns it on",
    ),
    "float16 where there is CUDA": (
        {
            "training": training(
                f"with torch.autocast(batch.device.type, enabled=lr > 0):\n    logits = model(batch)\n    {LOSS}\nloss.backward()"
            )
        },
        "it has no dtype",
    ),
    "the loss is made outside": (
        {
            "training": training(
                "with torch.autocast('cpu', torch.bfloat16, enabled=lr > 0):\n    logits = model(batch)\nloss = -logits.log_softmax(-1).mean()\nloss.backward()"
            )
        },
        "the loss is made outside of it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_wrong_is_refused(outcome, name):
    files, reason = REFUSED[name]
    made, texts = outcome("task-3", **files)
    assert (made.outcome, texts) == (Outcome.REFUSED, {})
    assert reason in made.reason


@pytest.mark.parametrize(
    "owned",
    [
        pytest.param("        self.amp = 0.5\n", id="attribute"),
        pytest.param("        pass\n\n    def amp(self):\n        return 1\n", id="method"),
        pytest.param("        pass\n\n    @property\n    def amp(self):\n        return 1\n", id="property"),
        pytest.param("        pass\n\n    __slots__ = ('model', 'epochs', '__dict__')\n", id="slots"),
    ],
)
def test_an_attribute_of_that_name_is_not_overwritten(outcome, owned):
    text = f"""\
{HEAD}class Trainer:
    def __init__(self, model, epochs=1):
        self.model = model
        self.epochs = epochs
{owned}
    def run(self, data):
        for batch in data:
            logits = self.model(batch)
            {LOSS}
            loss.backward()
"""
    made, texts = outcome("task-3", training=text)
    assert (made.outcome, texts) == (Outcome.REFUSED, {})
    assert "has a amp of its own" in made.reason


def test_each_command_that_hands_options_on_asks_for_it(outcome):
    text = CLI.replace(
        '    parser.add_argument("--epochs", type=int, default=2)\n    parser.add_argument("--lr", type=float, default=0.1)\n',
        """\
    sub = parser.add_subparsers(dest="command")
    one = sub.add_parser("train")
    one.add_argument("--epochs", type=int, default=2)
    one.add_argument("--lr", type=float, default=0.1)
    other = sub.add_parser("tune")
    other.add_argument("--epochs", type=int, default=2)
    other.add_argument("--lr", type=float, default=0.1)
    third = sub.add_parser("score")
    third.add_argument("--limit", type=int)
""",
    )
    made, texts = outcome("task-3", cli=text)
    assert made.outcome is Outcome.APPLIED, made.reason
    assert [line.split(".")[0].strip() for line in texts["cli.py"].splitlines() if '"--amp"' in line] == [
        "one",
        "other",
    ]


def test_options_that_exclude_others_are_no_neighbours(outcome):
    text = CLI.replace(
        '    parser.add_argument("--epochs"',
        '    pick = parser.add_mutually_exclusive_group()\n    pick.add_argument("--epochs"',
    )
    made, texts = outcome("task-3", cli=text)
    assert made.outcome is Outcome.APPLIED, made.reason
    assert 'parser.add_argument("--amp"' in texts["cli.py"]


def test_a_command_line_that_the_loop_is_given_whole_is_read_there(outcome):
    made, texts = outcome(
        "task-3",
        training=training(
            "print(args.epochs, args.lr)\nlogits = model(batch)\n" + LOSS + "\nloss.backward()",
            signature="model, data, args",
        ),
        cli=CLI.replace("epochs=args.epochs, lr=args.lr", "args"),
    )
    assert made.outcome is Outcome.APPLIED, made.reason
    assert "with autocast(next(model.parameters()).device, args.amp):" in texts["training.py"]
    assert 'parser.add_argument("--amp", choices=("off", "bf16"), default="off"' in texts["cli.py"]


def test_options_under_names_of_their_own_are_followed(outcome):
    text = CLI.replace(
        "    train(model, data, epochs=args.epochs, lr=args.lr)",
        "    epochs, lr = args.epochs, args.lr\n    train(model, data, epochs=epochs, lr=lr)",
    )
    made, texts = outcome("task-3", cli=text)
    assert made.outcome is Outcome.APPLIED, made.reason
    assert "train(model, data, epochs=epochs, lr=lr, amp=args.amp)" in texts["cli.py"]


def test_the_command_line_that_asks_for_most_is_told_or_none(outcome):
    wrapped = CLI.replace("parser.parse_args()", "Options(vars(parser.parse_args()))").replace(
        "def main(", "class Options:\n    def __init__(self, given):\n        self.__dict__ = given\n\n\ndef main("
    )
    other = "\n".join(line for line in CLI.splitlines() if "--lr" not in line).replace(", lr=args.lr", "") + "\n"
    made, texts = outcome("task-3", cli=wrapped, tune=other)
    assert (made.outcome, texts) == (Outcome.REFUSED, {})
    assert "how the options of the command line get here is not seen" in made.reason


SCRIPT = f"""\
import argparse

import torch
import torch.nn.functional as F

from .model import BitTransformerLM

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()
model = BitTransformerLM()
opt = torch.optim.SGD(model.parameters(), lr=args.lr)
for _ in range(args.epochs):
    for batch in torch.randint(0, 2, (6, 10)).split(2):
        logits = model(batch)
        {LOSS}
        opt.zero_grad()
        loss.backward()
        opt.step()
"""


def test_a_script_reads_its_own_command_line(outcome):
    made, texts = outcome("task-3", training=SCRIPT)
    assert made.outcome is Outcome.APPLIED, made.reason
    text = texts["training.py"]
    assert (
        "        with autocast(next(model.parameters()).device, args.amp):\n            logits = model(batch)\n" in text
    )
    assert text.index("def autocast") < text.index("parser =")


def test_a_script_compiles_its_model_before_its_loop(outcome):
    made, texts = outcome("task-8", training=SCRIPT)
    assert made.outcome is Outcome.APPLIED, made.reason
    assert "if args.compile:\n    compile_where_supported(model, args.compile_policy)\nfor _ in" in texts["training.py"]


def test_a_closure_is_compiled_before_it_is_called(outcome):
    text = training(
        f"def closure():\n    logits = model(batch)\n    {LOSS}\n    loss.backward()\n    return loss\nopt.step(closure)"
    )
    made, texts = outcome("task-8", training=text)
    assert made.outcome is Outcome.APPLIED, made.reason
    assert (
        "    if compile:\n        compile_where_supported(model, compile_policy)\n    for _ in" in texts["training.py"]
    )


def test_each_model_of_a_run_is_compiled(outcome):
    text = training(
        "fake = model(batch)\nscore = critic(fake).mean()\nscore.backward()\n"
        "real = critic(batch).mean()\nreal.backward()",
        signature="model, critic, data",
        before="",
    ).replace("    opt =", "    critic.train()\n    opt =")
    made, texts = outcome("task-8", training=text)
    assert made.outcome is Outcome.APPLIED, made.reason
    assert "compile_where_supported(model, compile_policy)" in texts["training.py"]
    assert "compile_where_supported(critic, compile_policy)" in texts["training.py"]
