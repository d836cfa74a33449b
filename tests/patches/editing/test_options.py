"""Where an option goes, and how it gets to the scope that reads it."""

import textwrap

import pytest

from bitpatch.patches.editing.donor import donor
from bitpatch.patches.editing.edits import apply_edits
from bitpatch.patches.editing.options import told
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.reading.updates import updates_of_runs

MODEL = "import torch\n\n\nclass BitTransformerLM(torch.nn.Module):\n    pass\n"
UPDATE = """\
    for batch in rows:
        loss = model(batch)[0].mean()
        loss.backward()
"""


@pytest.fixture
def given_to(tmp_path):
    """The files that change when the update of a tree is given the option accum_steps, and how it reads it."""

    def give(**files):
        package = tmp_path / "bit_transformer"
        package.mkdir()
        for name, text in {"model": MODEL, **files}.items():
            (package / f"{name}.py").write_text(textwrap.dedent(text))
        tree = open_tree(tmp_path)
        (update,) = updates_of_runs(tree.code)
        (option,) = told(tree, update.reading, donor("bit_transformer/training.py"), "accum_steps")
        texts = {}
        for finding in option.findings:
            for edit in finding.edits:
                texts.setdefault(edit.source.path, []).append(edit)
        changed = {path: apply_edits(tree.source(path), edits).raw.decode() for path, edits in texts.items()}
        return option, {path.removeprefix("bit_transformer/"): text for path, text in changed.items()}

    return give


def test_a_function_that_nobody_calls_gets_a_parameter(given_to):
    option, after = given_to(training=f"def fit(model, rows, *, lr=1e-3):\n{UPDATE}")
    assert option.text == "accum_steps"
    assert after == {"training.py": f"def fit(model, rows, *, lr=1e-3, accum_steps: int = 1):\n{UPDATE}"}


def test_what_calls_may_give_by_position_comes_last(given_to):
    _, after = given_to(training=f"def fit(model, rows, lr=1e-3, **more):\n{UPDATE}")
    assert "def fit(model, rows, lr=1e-3, accum_steps: int = 1, **more):" in after["training.py"]


def test_a_command_line_in_another_file_asks_for_it(given_to):
    _, after = given_to(
        training=f"def fit(model, rows, *, epochs=1, lr=1e-3):\n{UPDATE}",
        asked="""\
        import argparse


        def parser():
            made = argparse.ArgumentParser()
            made.add_argument("--epochs", type=int)
            made.add_argument("--weight-decay", type=float)
            return made
        """,
        run="""\
        from .asked import parser
        from .training import fit as learn


        def main(model, rows):
            args = parser().parse_args()
            learn(model, rows, epochs=args.epochs, lr=args.weight_decay)
        """,
    )
    assert (
        "learn(model, rows, epochs=args.epochs, lr=args.weight_decay, accum_steps=args.accum_steps)" in after["run.py"]
    )
    assert (
        'made.add_argument("--accum-steps", type=int, default=1, help="micro-batches an optimizer update")'
        in after["asked.py"]
    )


@pytest.mark.parametrize(
    ("table", "loop", "row"),
    [
        pytest.param(
            '(("--epochs", {"type": int}), ("--lr", {"type": float}))',
            "for flag, settings in TABLE:\n    p.add_argument(flag, **settings)",
            '(("--epochs", {"type": int}), ("--accum_steps", {"type": int, "default": 1,',
            id="rows",
        ),
        pytest.param(
            '{"epochs": dict(type=int), "lr": dict(type=float)}',
            'for name in TABLE:\n    p.add_argument(f"--{name}", **TABLE[name])',
            '{"epochs": dict(type=int), "accum_steps": dict(type=int, default=1,',
            id="names",
        ),
        pytest.param(
            '{"--epochs": {"type": int}, "--lr": {"type": float}}',
            "for flag, settings in TABLE.items():\n    p.add_argument(flag, **settings)",
            '{"--epochs": {"type": int}, "--accum_steps": {"type": int,',
            id="items",
        ),
    ],
)
def test_a_table_of_options_gets_a_row(given_to, table, loop, row):
    main = f"import argparse\n\nTABLE = {table}\n\n\ndef main(model, rows):\n    p = argparse.ArgumentParser()\n"
    main += textwrap.indent(loop, "    ") + "\n    args = p.parse_args()\n"
    main += "    fit(model, rows, epochs=args.epochs, lr=args.lr)\n"
    _, after = given_to(training=f"{main}\n\ndef fit(model, rows, *, epochs=1, lr=1e-3):\n{UPDATE}")
    assert f"TABLE = {row}" in after["training.py"]
    assert "lr=args.lr, accum_steps=args.accum_steps)" in after["training.py"]


def test_options_in_a_dict_are_handed_on_as_they_are_there(given_to):
    _, after = given_to(
        training=f"""\
import argparse


{MAIN}    opts = vars(p.parse_args())
    fit(model, rows, epochs=opts["epochs"], lr=opts["lr"])


def fit(model, rows, *, epochs=1, lr=1e-3):
{UPDATE}"""
    )
    assert 'lr=opts["lr"], accum_steps=opts["accum_steps"])' in after["training.py"]


MAIN = """\
def main(model, rows):
    p = argparse.ArgumentParser()
    p.add_argument("--epochs", type=int)
    p.add_argument("--lr", type=float)
"""
CONFIG = """\
from dataclasses import dataclass


@dataclass
class Config:
    epochs: int = 1
    lr: float = 1e-3

    def total(self):
        return self.epochs
"""


def test_a_data_class_is_the_home_of_its_readers(given_to):
    option, after = given_to(
        config=CONFIG,
        training=f"""\
from .config import Config


def fit(model, rows, cfg: Config):
    print(cfg.epochs, cfg.lr)
{UPDATE}""",
    )
    assert option.text == "cfg.accum_steps"
    assert after == {"config.py": CONFIG.replace("= 1e-3\n", "= 1e-3\n    accum_steps: int = 1\n")}


def test_a_class_keeps_what_its_constructor_is_given(given_to):
    option, after = given_to(
        training="""\
        class Trainer:
            def __init__(self, model, epochs=1):
                self.model = model
                self.epochs = epochs

            def run(self, rows):
                for batch in rows:
                    loss = self.model(batch)[0].mean()
                    loss.backward()
        """
    )
    assert option.text == "self.accum_steps"
    assert "def __init__(self, model, epochs=1, accum_steps: int = 1):" in after["training.py"]
    assert "self.epochs = epochs\n        self.accum_steps = accum_steps\n" in after["training.py"]


def test_options_of_a_script_are_entries_of_its_dict(given_to):
    script = """\
from .model import BitTransformerLM

CONFIG = {
    "epochs": 1,
    "lr": 1e-3,
}
CONFIG["lr"] = 2e-3
model = BitTransformerLM()
model.train()
for batch in range(CONFIG["epochs"]):
    loss = model(batch)[0].mean() * CONFIG["lr"]
    loss.backward()
"""
    option, after = given_to(training=script)
    assert option.text == 'CONFIG["accum_steps"]'
    assert after == {"training.py": script.replace("1e-3,\n", '1e-3,\n    "accum_steps": 1,\n')}


def test_functions_in_between_pass_it_on(given_to):
    _, after = given_to(
        training=f"""\
import argparse


{MAIN}    args = p.parse_args()
    run(model, rows, args.epochs, args.lr)


def run(model, rows, epochs, lr):
    for _ in range(epochs):
        one(model, rows, lr, epochs)


def one(model, rows, lr, epochs):
{UPDATE}"""
    )
    text = after["training.py"]
    assert "run(model, rows, args.epochs, args.lr, accum_steps=args.accum_steps)" in text
    assert "def run(model, rows, epochs, lr, accum_steps: int = 1):" in text
    assert "one(model, rows, lr, epochs, accum_steps=accum_steps)" in text
    assert "def one(model, rows, lr, epochs, accum_steps: int = 1):" in text


def test_a_data_class_between_command_line_and_loop_gets_a_field(given_to):
    _, after = given_to(
        config=CONFIG,
        training=f"""\
import argparse
from dataclasses import asdict

from .config import Config


{MAIN}    args = p.parse_args()
    fit(model, rows, **asdict(Config(args.epochs, args.lr)))


def fit(model, rows, *, epochs=1, lr=1e-3):
{UPDATE}""",
    )
    assert "asdict(Config(args.epochs, args.lr, accum_steps=args.accum_steps))" in after["training.py"]
    assert "accum_steps: int = 1" in after["config.py"]


def test_what_is_made_of_the_fields_asks_for_it_by_itself(given_to):
    _, after = given_to(
        config=CONFIG,
        training=f"""\
import argparse
import dataclasses

from .config import Config


def main(model, rows):
    p = argparse.ArgumentParser()
    for each in dataclasses.fields(Config):
        p.add_argument(f"--{{each.name}}", default=each.default)
    fit(model, rows, Config(**vars(p.parse_args())))


def fit(model, rows, cfg: Config):
    print(cfg.epochs, cfg.lr)
{UPDATE}""",
    )
    assert list(after) == ["config.py"]


def test_a_decorated_loop_is_called_all_the_same(given_to):
    _, after = given_to(
        training=f"""\
import argparse

from somewhere import timed


{MAIN}    args = p.parse_args()
    fit(model, rows, epochs=args.epochs, lr=args.lr)


@timed
def fit(model, rows, *, epochs=1, lr=1e-3):
{UPDATE}"""
    )
    assert "fit(model, rows, epochs=args.epochs, lr=args.lr, accum_steps=args.accum_steps)" in after["training.py"]


@pytest.mark.parametrize(
    "given", ["args", "args or Args()", "args if args is not None else Args()"], ids=["handed in", "or", "if"]
)
def test_a_record_that_is_handed_in_has_it_and_none_that_is_made_in_place(given_to, given):
    option, after = given_to(
        training=f"""\
from dataclasses import dataclass


@dataclass
class State:
    step: int = 0
    epoch: int = 0
    last: float = 0.0


@dataclass
class Args:
    epochs: int = 1


class Trainer:
    def __init__(self, model, rows, args: Args | None = None):
        self.model, self.rows = model, rows
        self.args = {given}
        self.state = State()

    def fit(self):
        model, rows = self.model, self.rows
        for self.state.epoch in range(self.args.epochs):
            self.state.last = self.state.step
            self.state.step += 1
{textwrap.indent(UPDATE, "    " * 2)}""",
    )
    assert option.text == "self.args.accum_steps"
    assert "epochs: int = 1\n    accum_steps: int = 1\n" in after["training.py"]


FIT = f"from .config import Config\n\n\ndef fit(model, rows, cfg: Config):\n    print(cfg.epochs, cfg.lr)\n{UPDATE}"
AFTER = "    lr: float = 1e-3\n    accum_steps: int = 1\n"
POST = 'class Config:\n    def __post_init__(self):\n        object.__setattr__(self, "lr", float(self.lr))\n\n'


@pytest.mark.parametrize(
    ("changed", "more"),
    [
        pytest.param(
            ("@dataclass\nclass Config:", "class Mixin:\n    pass\n\n\n@dataclass\nclass Config(Mixin):"),
            "",
            id="mixin",
        ),
        pytest.param(
            (
                "@dataclass\nclass Config:",
                "@dataclass\nclass Base:\n    seed: int\n\n\n@dataclass\nclass Config(Base):",
            ),
            "print(Config(1, 2, 3e-4))\n",
            id="fields of a base come before",
        ),
        pytest.param(
            ("", ""),
            "@dataclass\nclass Long(Config):\n    rounds: int = 3\n\n\nprint(Long(2, 1e-4, rounds=2))\n",
            id="subclass that is made by name",
        ),
        pytest.param(("", ""), "class Named(Config):\n    name = 'named'\n", id="subclass without fields"),
        pytest.param(("", ""), "print(Config(1, 1e-3), Config(*(1, 1e-3)))\n", id="objects that are made by position"),
        pytest.param(("@dataclass\nclass Config:\n", f"@dataclass(frozen=True)\n{POST}"), "", id="frozen, and checked"),
    ],
)
def test_a_field_at_the_end_moves_none(given_to, changed, more):
    _, after = given_to(config=CONFIG.replace(*changed) + more, training=FIT)
    assert AFTER in after["config.py"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        pytest.param(
            "@dataclass\nclass Long(Config):\n    rounds: int = 3\n\n\nprint(Long(2, 1e-4, 3))\n",
            "config.py:16 makes one by position",
            id="subclass that is made by position",
        ),
        pytest.param(
            "@dataclass\nclass Long(Config):\n    rounds: int = 3\n\n    @classmethod\n    def of(cls, row):\n"
            "        return cls(*row)\n",
            "config.py:17 makes one by position",
            id="subclass that makes itself of a row",
        ),
        pytest.param("class Long(Config):\n    accum_steps = 3\n", "Long has accum_steps already", id="taken"),
    ],
)
def test_a_field_that_would_move_others_is_refused(given_to, more, reason):
    option, after = given_to(config=CONFIG + more, training=FIT)
    assert reason in option.findings[0].site.note
    assert not after


LOADED = """\
from dataclasses import dataclass, fields


class Loadable:
    @classmethod
    def from_dict(cls, raw):
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in raw.items() if name in known})


@dataclass
class Config(Loadable):
    epochs: int = 1
    lr: float = 1e-3
"""

CLICK = """\
import click

from .training import fit


@click.command()
@click.option("-e", "--epochs", default=1)
@click.option("--shuffle/--no-shuffle", default=True)
@click.option("-c", "--channels", "width", default=64)
def main({0}):
    fit(None, None, {1})
"""


@pytest.mark.parametrize(
    "chosen",
    [
        '{"learn": learn}[p.parse_args().command](p.parse_args())',
        "p.set_defaults(run=learn)\n    args = p.parse_args()\n    args.run(args)",
    ],
    ids=["by a table", "by set_defaults"],
)
def test_a_command_line_chooses_the_function_that_makes_a_data_class_of_it(given_to, chosen):
    _, after = given_to(
        config=LOADED,
        training=FIT,
        run=f"""\
import argparse

from .config import Config
from .training import fit


def learn(args):
    fit(None, None, Config.from_dict(vars(args)))


{MAIN}    {chosen}
""",
    )
    assert AFTER in after["config.py"]
    assert 'p.add_argument("--accum_steps", type=int' in after["run.py"]


@pytest.mark.parametrize(
    ("own", "given", "called"),
    [
        pytest.param("width, **rest", "**rest", "def main(width, **rest):\n    fit(None, None, **rest)", id="rest"),
        pytest.param(
            "epochs, shuffle, width",
            "epochs=epochs, shuffle=shuffle",
            "def main(epochs, shuffle, width, accum_steps: int = 1):\n"
            "    fit(None, None, epochs=epochs, accum_steps=accum_steps, shuffle=shuffle)",
            id="named",
        ),
    ],
)
def test_a_command_of_click_is_decorated(given_to, own, given, called):
    training = f"def fit(model, rows, *, epochs=1, shuffle=True):\n{UPDATE}"
    _, after = given_to(training=training, run=CLICK.format(own, given))
    option = '@click.option("--accum-steps", default=1, help="micro-batches an optimizer update")'
    assert f'"--epochs", default=1)\n{option}\n@click.option("--shuffle' in after["run.py"]
    assert called in after["run.py"]
    assert "accum_steps: int = 1, shuffle=True):" in after["training.py"]


def test_a_command_of_click_that_trains_itself_is_decorated(given_to):
    text = CLICK.replace("from .training import fit\n", "").replace("    fit(None, None, {1})\n", "")
    _, after = given_to(training=text.format("rows, epochs, shuffle, width, model=None") + UPDATE)
    assert '@click.option("--accum-steps", default=1' in after["training.py"]
    assert "model=None, accum_steps: int = 1):" in after["training.py"]


def test_options_reach_what_a_command_calls_through_functions(given_to):
    training = (
        "def fit(model, rows, lr=0.1, epochs=1):\n    for _ in range(epochs):\n        turn(model, rows, lr)\n\n\n"
    )
    training += f"def turn(model, rows, lr):\n{UPDATE}"
    _, after = given_to(training=training, run=CLICK.format("width, **rest", "**rest"))
    assert "turn(model, rows, lr, accum_steps=accum_steps)" in after["training.py"]
    assert "def fit(model, rows, lr=0.1, epochs=1, accum_steps: int = 1):" in after["training.py"]
    assert '@click.option("--accum-steps"' in after["run.py"]
