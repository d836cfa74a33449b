"""What functions and objects come to, gone through in plain Python; and what is not gone into."""

import pytest

from bitpatch.patches.reading.code import Code
from bitpatch.patches.reading.files import Files
from bitpatch.patches.reading.playing.figures import Figures
from bitpatch.patches.reading.playing.kinds import Opaque, Raised
from bitpatch.patches.reading.tensors import Unknown


def called(body, *placed, head="def f(a=1):", before=""):
    text = f"{before}\n{head}\n" + "".join(f"    {line}\n" for line in body.split("\n"))
    run = Figures(Code(Files(["m.py"], lambda _: text.encode())))
    return run.call(run.member("m.py", "f"), *placed)


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("return a + 1 if a else None", 2),
        ("n = 0\nfor i in range(5):\n    if i == 3:\n        break\n    n += i\nreturn n", 3),
        ("n = 0\nwhile n < 4:\n    n += 1\nelse:\n    n = -n\nreturn n", -4),
        ("x, (y, z) = 1, (2, 3)\nreturn [x, y, z]", [1, 2, 3]),
        ("d = {'a': 1, **{'b': 2}}\nd['c'] = d.get('b') * 2\nreturn sorted(d.values())", [1, 2, 4]),
        ("return [n * n for n in range(4) if n % 2]", [1, 9]),
        ("def g(x):\n    return x + a\nreturn g(2) + (lambda y: y * a)(3)", 6),
        ("try:\n    return 1\nfinally:\n    a = 2", 1),
        ("return float('inf') > 1e300 and not math.isnan(a)", True),
        ("def g():\n    yield a\n    yield from (2, 3)\nx, *y = g()\nreturn x, y", (1, [2, 3])),
        ("def g():\n    nonlocal a\n    a += 1\ng()\nreturn a", 2),
        ("try:\n    raise KeyError(a)\nexcept (KeyError, OSError):\n    a = 5\nelse:\n    a = 0\nreturn a", 5),
        ("return {k: v for k, v in zip('ab', (i * j for i in (1, 2) for j in (3,)))}", {"a": 3, "b": 6}),
        ("def g(*x, b=2, **y):\n    return x, b, y\nreturn g(1, *[5], **{'c': 3})", ((1, 5), 2, {"c": 3})),
        ("import torch\nreturn isinstance(a, float) or hasattr(a, 'item')", False),
        ("if (b := a + 1) > 1:\n    return b", 2),
    ],
)
def test_what_code_comes_to(body, result):
    assert called(body, before="import math") == result


CLASSES = """
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Plan:
    rows: int
    epochs: int = 1
    seen: list = field(default_factory=list)

    @property
    def total(self):
        return self.rows * self.epochs


class Base:
    kind = "base"

    def __init__(self, n):
        self.n = n

    def double(self):
        return self.n * 2


class Child(Base):
    def __init__(self):
        super().__init__(3)

    def double(self):
        return super().double() + 1

    @classmethod
    def made(cls, n):
        child = cls()
        child.n = n
        return child

    def __enter__(self):
        return self

    @contextmanager
    def held(self):
        yield
        self.n = 0

    @staticmethod
    def half(n):
        return n // 2
"""


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("return replace(Plan(2), epochs=3).total", 6),
        ("return Plan(rows=2, epochs=5).seen", []),
        ("c = Child()\nreturn c.double(), c.kind, getattr(c, 'gone', None)", (7, "base", None)),
        ("return isinstance(Child(), Base)", True),
        ("c = Child()\nwith c.held():\n    c.n += 1\nreturn c.n", 4),
        ("with Child.made(4) as c:\n    return c.n, Child.half(c.n), Plan(2).rows", (4, 2, 2)),
    ],
)
def test_objects(body, result):
    assert called(body, before=CLASSES) == result


def test_what_is_not_known_may_be_kept_and_raising_is_told():
    assert isinstance(called("import logging\nlog = make(a)\nlog.warning(a)\nreturn log"), Opaque)
    with pytest.raises(Raised):
        called("raise ValueError(a)")
    with pytest.raises(Raised):
        called("Plan(2).rows = 3", before=CLASSES)


def known(made):
    if isinstance(made, Opaque):
        raise Unknown
    return made


@pytest.mark.parametrize(
    "body",
    [
        "while True:\n    a += 1",
        "return f(a)",
        "return 10 ** 10 ** 10",
        "return [0] * 10 ** 9",
        "return 10 ** 9 * 'x'",
        "return list(range(10 ** 12))",
        "d = [1]\nfor _ in range(200):\n    d.extend(d)\nreturn d",
        "d = [1]\nfor _ in range(200):\n    d += d\nreturn d",
        "n = 2\nfor _ in range(100):\n    n *= n\nreturn n",
        "return make(a) > 1",
        "if make(a):\n    return 1",
        "return [][3]",
        "return 1 / 0",
        "return Plan(2).gone",
        "return a.b.c > 2",
    ],
)
def test_what_is_not_gone_into(body):
    with pytest.raises(Unknown):
        known(called(body, before=CLASSES))
