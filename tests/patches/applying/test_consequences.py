"""What a change breaks elsewhere is seen: names that nothing binds, imports that find nothing, calls that do not fit."""

from dataclasses import replace

import libcst as cst
import pytest

from bitpatch.patches.applying.consequences import broken
from bitpatch.patches.applying.engine import plan
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.source import Source
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Edit, mend

FILES = {
    "bit_transformer/__init__.py": "",
    "bit_transformer/model.py": "class BitTransformerLM:\n    pass\n",
    "bit_transformer/rates.py": "import math\n\n\ndef rate(step, total):\n    return step / total\n\n\ndef floor():\n    return 0\n",
    "bit_transformer/training.py": (
        "from .rates import floor, rate\n\n\ndef train_loop(model):\n    return rate(1, total=2) + floor()\n"
    ),
}


@pytest.fixture
def breaks(tmp_path):
    """What one change of a small tree breaks, as text."""

    def make(path, old, new):
        for name, text in FILES.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        tree = open_tree(tmp_path)
        assert old in FILES[path]
        changed = FILES[path].replace(old, new).encode()
        return [str(site) for site in broken(tree, tree.with_source(Source(path, changed, origin=tree.raw(path))))]

    return make


RATES, TRAINING = "bit_transformer/rates.py", "bit_transformer/training.py"


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        pytest.param(RATES, "step / total", "math.cos(step / total)", id="another body"),
        pytest.param(RATES, "step, total", "step, total, start=0", id="an optional parameter"),
        pytest.param(RATES, "import math", "import math\nimport random", id="an import"),
        pytest.param(RATES, "def floor():\n    return 0\n", "floor = lambda: 0\n", id="a name bound otherwise"),
        pytest.param(TRAINING, "floor()", "sum(x for x in [floor()])", id="a comprehension's own name"),
        pytest.param(TRAINING, "return rate", "global seen\n    seen = 1\n    return rate", id="a global name"),
    ],
)
def test_what_still_runs_is_not_named(breaks, path, old, new):
    assert breaks(path, old, new) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "found"),
    [
        pytest.param(
            RATES,
            "step / total",
            "cosine(step)",
            f"{RATES}:5:12: use of cosine, which nothing binds here",
            id="unbound",
        ),
        pytest.param(
            RATES,
            "import math\n",
            "import math\n\nFLOORS = [floor() for _ in range(3)]\n",
            f"{RATES}:2:1: use of floor before it is defined",
            id="asked for as the module is imported, and defined only then",
        ),
        pytest.param(
            RATES,
            "import math\n",
            "from .ramps import cosine\n",
            f"{RATES}:1:1: import of cosine from .ramps, which is not there",
            id="import of nothing",
        ),
        pytest.param(
            RATES,
            "def floor():\n    return 0\n",
            "",
            f"{TRAINING}:1:1: import of floor from .rates, which is not there any more",
            id="what others import is gone",
        ),
        pytest.param(
            RATES,
            "import math\n",
            "from .training import train_loop\n",
            f"{RATES}:1:1: imports that would go round in a circle",
            id="circle",
        ),
        pytest.param(
            RATES,
            "rate(step, total)",
            "rate(step, total, start)",
            f"{TRAINING}:5:12: call of rate, which is not given start",
            id="a parameter that calls do not give",
        ),
        pytest.param(
            RATES,
            "rate(step, total)",
            "rate(step, end)",
            f"{TRAINING}:5:12: call of rate, which has no parameter total",
            id="a parameter that is called otherwise",
        ),
        pytest.param(
            RATES,
            "rate(step, total)",
            "rate(*, step=0, total)",
            f"{TRAINING}:5:12: call of rate, with 1 arguments for 0 parameters",
            id="a parameter that goes by name",
        ),
    ],
)
def test_what_breaks_is_named_where_it_breaks(breaks, path, old, new, found):
    assert found in breaks(path, old, new)


def test_what_was_broken_before_is_not_named(breaks, monkeypatch):
    monkeypatch.setitem(FILES, RATES, FILES[RATES].replace("step / total", "unknown(step) / total"))
    assert breaks(RATES, "return 0", "return 1") == []


METHODS = """\


class Trainer:
    def run(self):
        return self.step(1)

    def step(self, batch):
        return batch

    @staticmethod
    def rate(step):
        return step

    def rates(self):
        return [Trainer.rate(1), self.rate(1)]
"""


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        pytest.param("step(self, batch)", "step(self, batch, closes)", ["which is not given closes"], id="method"),
        pytest.param("step(self, batch)", "step(self, batch, closes=True)", [], id="method with a default"),
        pytest.param("rate(step)", "rate(step, scale=1)", [], id="static method"),
    ],
)
def test_methods_are_called_without_their_first_argument(breaks, monkeypatch, old, new, found):
    monkeypatch.setitem(FILES, TRAINING, FILES[TRAINING] + METHODS)
    named = breaks(TRAINING, old, new)
    assert len(named) == len(found)
    assert all(each in text for each, text in zip(found, named, strict=True))


def test_a_task_that_breaks_a_call_elsewhere_is_refused_there(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def with_another_parameter(tree):
        source = tree.source(RATES)
        (node,) = (each for each in source.walk(cst.FunctionDef) if each.name.value == "rate")
        text = "def rate(step, total, start):\n    return step / total\n"
        yield mend(source.site(node, "rate"), [Edit(source, node, lambda _: cst.parse_statement(text))])

    planned = plan(open_tree(tmp_path), [replace(task_named("11"), find=with_another_parameter)])
    (outcome,) = planned.outcomes
    assert (outcome.outcome, planned.changes) == ("refused", ())
    assert f"near miss at {TRAINING}:5:12: call of rate, which is not given start" in outcome.reason


FIELDS = """\
import dataclasses
from dataclasses import dataclass, fields
from typing import Optional, get_args, get_type_hints


@dataclass
class Config:
    bits: int = 8
    chunks: Optional[int] = None
    logs: bool = True


@dataclass
class Other:
    logs: bool = True


"""
OPTIONAL = (
    "class Config:\n    bits: int = 8\n    chunks: Optional[int] = None\n    logs: bool = True",
    "bool | None = None",
)


@pytest.mark.parametrize(
    ("reader", "is_named"),
    [
        pytest.param("NAMES = {f.name: f.default for f in fields(Config)}", False, id="names and defaults"),
        pytest.param("KEPT = dataclasses.asdict(Config())", False, id="values"),
        pytest.param("KINDS = [f.type for f in fields(Other)]", False, id="another class"),
        pytest.param(
            "def kinds(cls):\n    return [f.type for f in fields(cls)]\n\n\nOTHER = kinds(Other)",
            False,
            id="told another class",
        ),
        pytest.param(
            "def kinds(cls):\n    return [get_args(kind) or kind for kind in get_type_hints(cls).values()]",
            False,
            id="unions taken apart",
        ),
        pytest.param("KINDS = [f.type for f in fields(Config)]", True, id="types"),
        pytest.param(
            "def kinds(cls):\n    return [f.type for f in fields(cls)]\n\n\nOWN = kinds(Config)", True, id="told"
        ),
        pytest.param("def kinds(cls):\n    return get_type_hints(cls)", True, id="told by nobody who is seen"),
        pytest.param("KINDS = Config.__annotations__", True, id="annotations"),
        pytest.param("KINDS = [type(f.default) for f in fields(Config)]", True, id="kinds of defaults"),
        pytest.param("KINDS = [str(f) for f in fields(Config)]", True, id="whole fields"),
    ],
)
def test_who_goes_by_the_kinds_of_fields_is_named(breaks, monkeypatch, reader, is_named):
    monkeypatch.setitem(FILES, RATES, f"{FIELDS}{reader}\n\n\n{FILES[RATES]}")
    old, kind = OPTIONAL
    named = breaks(RATES, old, old.replace("bool = True", kind))
    assert [text.partition(": ")[2] for text in named] == is_named * [
        "use of what the fields of Config are: logs is to be of a kind that none of them was of"
    ]


def test_a_plain_type_makes_a_value_of_any_text(breaks, monkeypatch):
    reader = """\
def add(parser):
    for f in fields(Config):
        parser.add_argument(f.name, type=f.type, default=f.default)
"""
    monkeypatch.setitem(FILES, RATES, f"{FIELDS}{reader}\n\n{FILES[RATES]}")
    assert breaks(RATES, OPTIONAL[0], f'{OPTIONAL[0]}\n    amp: str = "off"') == []
    assert len(breaks(RATES, OPTIONAL[0], f"{OPTIONAL[0]}\n    amp: list = ()")) == 1


@pytest.mark.parametrize(
    ("field", "is_named"),
    [
        pytest.param("rows: int = 4", False, id="one like the others"),
        pytest.param('amp: str = "off"', True, id="one like no other"),
    ],
)
def test_a_field_more_is_seen_by_who_goes_by_their_kinds(breaks, monkeypatch, field, is_named):
    monkeypatch.setitem(FILES, RATES, f"{FIELDS}KINDS = [f.type for f in fields(Config)]\n\n\n{FILES[RATES]}")
    assert bool(breaks(RATES, OPTIONAL[0], f"{OPTIONAL[0]}\n    {field}")) is is_named
