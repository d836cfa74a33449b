"""Which names each scope binds: Python's own symtable says the same."""

import ast
import re
import symtable

import pytest
from samples import ROOT

from bitpatch.patches.reading.code import Code
from bitpatch.patches.reading.files import Files
from bitpatch.patches.reading.names import scopes_of

FORMS = """\
import a, b.c, d as e
from f import g, h as i
x = y = 1
(z, [w, *v]) = 1, [2, 3]
t: int
u: int = 1
x += 1
for k, l in []: pass
else: m = 1
with open("") as n, open("") as (o, p): pass
try: pass
except OSError as q: r = 1
if (s := 1): pass
del aa
match x:
    case [bb, *cc]: pass
    case {"k": dd, **ee}: pass
    case int() as ff: pass
    case gg: pass
def f1(a1, /, b1, *c1, d1=(e1 := 1), **f1_): local = 1; return lambda g1: (h1 := g1)
async def f2():
    async for i2 in x: pass
    async with x as j2: pass
    return [k2 for k2 in x if (l2 := k2)]
class C(metaclass=(m1 := type)):
    n1 = 1
    def method(self): return n1
    o1 = [p1 for p1 in n1]
    __private = 1
def outer():
    q1 = 1
    def inner():
        nonlocal q1
        global r1
        q1 = 2
        r1 = 3
        import s1.t1
    return {u1: v1 for u1, v1 in x}, {w1 for w1 in x}, (x1 for x1 in x for y1 in x1)
@(deco := x)
def f3(z1: (ann := 1) = 2): pass
"""


def ours(text):
    found = []
    for node, scope in scopes_of(ast.parse(text)).items():
        names = {name for name in scope.bound if name not in scope.elsewhere}
        found.append((getattr(node, "lineno", 0), _unmangled(names)))
    return sorted(found, key=str)


def pythons(text):
    found, declared = [], set()

    def look(table):
        symbols = [s for s in table.get_symbols() if s.is_local() and not s.get_name().startswith(".")]
        declared.update(s.get_name() for s in table.get_symbols() if s.is_declared_global() and s.is_assigned())
        bound = {
            s.get_name() for s in symbols if s.is_assigned() or s.is_imported() or s.is_parameter() or s.is_annotated()
        }
        found.append((table.get_lineno() if table.get_type() != "module" else 0, _unmangled(bound)))
        for child in table.get_children():
            look(child)

    look(symtable.symtable(text, "file.py", "exec"))
    found = [(line, names | declared if not line else names) for line, names in found]
    return sorted(found, key=str)


def _unmangled(names):
    return frozenset(re.sub(r"^_[A-Za-z]\w*?(?=__)", "", name) for name in names if name != "__class__")


FILES = sorted(
    path for folder in ("patches", "verify", "reference", "tests/patches") for path in (ROOT / folder).rglob("*.py")
)


def _without_bare_annotations(found):
    """A name that is only annotated is bound by nothing; symtable counts it as local."""
    return [(line, names - {"t"}) for line, names in found]


def test_every_form_of_binding():
    assert _without_bare_annotations(ours(FORMS)) == _without_bare_annotations(pythons(FORMS))


@pytest.mark.parametrize("path", FILES[::7], ids=lambda path: path.name)
def test_files_of_this_repository(path):
    text = path.read_text()
    annotated = {
        n.target.id
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.AnnAssign) and n.value is None and isinstance(n.target, ast.Name)
    }
    assert [(a, b - annotated) for a, b in ours(text)] == [(a, b - annotated) for a, b in pythons(text)]


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        pytest.param("import torch\n", False, id="nothing of that name"),
        pytest.param("from x import *\n", True, id="a star import"),
        pytest.param("exec('name = 1')\n", True, id="exec"),
        pytest.param("def f():\n    globals()['name'] = 1\n", True, id="globals in a function"),
        pytest.param("vars()['name'] = 1\n", True, id="vars at the top"),
        pytest.param("print(vars(x))\n", False, id="vars of something"),
        pytest.param("setattr(sys.modules[__name__], 'name', 1)\n", True, id="the module, by its name"),
        pytest.param("def f():\n    global name\n    name = 1\n", True, id="global in a function"),
        pytest.param("def f():\n    name = 1\n", False, id="a local of a function"),
        pytest.param("[name for name in x]\n", False, id="in a comprehension"),
        pytest.param("[(name := y) for y in x]\n", True, id="walrus in a comprehension"),
    ],
)
def test_what_may_be_bound_without_our_seeing_it_is_taken(text, is_taken):
    module = ast.parse(text)
    assert scopes_of(module)[module].is_taken("name") is is_taken


STARS = {
    "public": "from inner import *\nseen, _hidden = 1, 2\n",
    "listed": "from inner import *\n__all__ = ['seen', '_hidden']\nseen, _hidden, other = 1, 2, 3\n",
    "unsure": "__all__ = list(map(str, names()))\nseen, _hidden = 1, 2\n",
    "round": "from user import *\nseen = 1\n",
    "inner": "deep = 1\n",
    "dynamic": "seen = 1\nexec(code)\n",
}


@pytest.mark.parametrize(
    ("module", "names", "is_open"),
    [
        ("public", {"seen", "deep"}, False),
        ("listed", {"seen", "_hidden"}, False),
        ("unsure", {"__all__", "seen", "_hidden"}, False),
        ("round", {"seen"}, False),
        ("dynamic", {"seen"}, True),
        ("library", set(), True),
    ],
)
def test_a_star_import_gives_what_is_written_in_its_module(module, names, is_open):
    texts = {f"{name}.py": text.encode() for name, text in STARS.items()}
    texts["user.py"] = f"from {module} import *\nown = len\n".encode()
    files = Files(texts, texts.__getitem__)
    assert files.exported("user.py") == names | {"own"}
    assert Code(files).module("user.py").env["own"].op == ("opaque" if is_open else "builtin")
