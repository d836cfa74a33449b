"""Methods of objects that others hand on: followed where one class tells what they are, and nowhere else."""

import ast

import pytest

from bitpatch.patches.reading.code import Code
from bitpatch.patches.reading.files import Files

LESSON = """\
class Lesson:
    def __init__(self, net):
        self.net = net

    def learn(self, rows):
        return self.net(rows).sum()
"""
ENGINE = """\
class Engine:
    def __init__(self, lesson=None):
        self.lesson = lesson

    def fit(self, lesson, rows):
        self.lesson = lesson
        for row in rows:
            self.go(row)

    def go(self, row):
        return self.lesson.learn(row)
"""
MAIN = """\
from engine import Engine
from lesson import Lesson


def main(net, rows):
    Engine().fit(Lesson(net), rows)
"""


def code_of(*changes, **more):
    files = {"lesson.py": LESSON, "engine.py": ENGINE, "main.py": MAIN} | {f"{k}.py": v for k, v in more.items()}
    for path, old, new in changes:
        assert old in files[path], old
        files[path] = files[path].replace(old, new)
    return Code(Files(files, lambda path: files[path].encode()))


def returned(code):
    """What the method computes that calls a method of what it was handed on."""
    file = code.files.file("engine.py")
    go = next(each for each in ast.walk(file.module) if isinstance(each, ast.FunctionDef) and each.name == "go")
    return code.reading(file, go, file.owner(go)).returned


def is_followed(code):
    return "sum" in {each.op for each in returned(code).walk()}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([], id="a parameter of a method"),
        pytest.param([("main.py", "Lesson(net)", "Lesson(net).to('cpu')")], id="moved"),
        pytest.param([("main.py", "    Engine().fit(Lesson(net), rows)",
                       "    lesson = Lesson(net)\n    engine = Engine()\n    engine.fit(rows=rows, lesson=lesson)")],
                     id="by names"),
        pytest.param([("main.py", "def main", "def made(net):\n    return Lesson(net)\n\n\ndef main"),
                      ("main.py", "fit(Lesson(net)", "fit(made(net)")], id="made by a function"),
        pytest.param([("engine.py", "        self.lesson = lesson\n        for", "        for"),
                      ("main.py", "Engine().fit", "Engine(Lesson(net)).fit")], id="a parameter of the constructor"),
        pytest.param([("engine.py", "lesson=None", "lesson"),
                      ("engine.py", "        self.lesson = lesson\n        for", "        for"),
                      ("main.py", "Engine().fit", "Mine(Lesson(net)).fit"),
                      ("main.py", "\n\ndef main", "\n\nclass Mine(Engine):\n    def __init__(self, what):\n"
                       "        super().__init__(what)\n\n\ndef main")], id="by way of a subclass"),
        pytest.param([("lesson.py", "def learn", "def to_learn"), ("engine.py", ".learn(row)", ".to_learn(row)"),
                      ("lesson.py", "        return self.net(rows).sum()",
                       "        return self.inner(rows)\n\n    def inner(self, rows):\n        return self.net(rows).sum()")],
                     id="and a method of its own"),
    ],
)  # fmt: skip
def test_a_method_of_what_is_handed_on_is_followed(changes):
    assert is_followed(code_of(*changes))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([("main.py", "    Engine()", "    Engine().fit(other(), rows)\n    Engine()")], id="another is not seen"),
        pytest.param([("main.py", "def main(net, rows)", "def main(net, rows, lesson)"),
                      ("main.py", "Lesson(net)", "lesson")], id="nobody tells"),
        pytest.param([("main.py", "\n\ndef main", "\n\nclass Mine(Lesson):\n    def learn(self, rows):\n        return rows\n"
                       "\n\ndef main")], id="a subclass does it otherwise"),
        pytest.param([("main.py", "    Engine()", "    Engine().fit(Other(), rows)\n    Engine()"),
                      ("main.py", "\n\ndef main", "\n\nclass Other:\n    def learn(self, rows):\n        return 0\n\n\ndef main")],
                     id="two classes"),
        pytest.param([("lesson.py", "    def learn", "    def forward(self, rows):\n        return rows\n\n    def learn")],
                     id="a model is called as a whole"),
        pytest.param([("lesson.py", "    def learn", "    @cached\n    def learn")], id="decorated"),
        pytest.param([("main.py", "    Engine()", "    engine = Engine()\n    engine.lesson = other()\n    engine")],
                     id="set from outside"),
        pytest.param([("main.py", "fit(Lesson(net), rows)", "fit(*[Lesson(net), rows])")], id="starred"),
    ],
)  # fmt: skip
def test_where_the_class_is_not_sure_nothing_is_followed(changes):
    assert not is_followed(code_of(*changes))


def test_another_class_elsewhere_is_seen_by_those_that_were_read_before():
    code = code_of()
    assert is_followed(code)
    other = MAIN.replace("Engine()", "Engine().fit(other(), rows)\n    Engine()", 1)
    files = {"lesson.py": LESSON, "engine.py": ENGINE, "main.py": other}
    code.over({"main.py"}, lambda path: files[path].encode())
    assert not is_followed(code)


ASKED = ("engine.py", "return self.lesson.learn(row)", "self.lesson.begin()\n        return self.lesson.learn(row)")
BEGUN = ("lesson.py", "    def learn", "    def begin(self):\n        self.row = 0\n\n    def learn")
NOBODY = ("main.py", "Engine().fit(Lesson(net), rows)", "return Engine()")


def test_where_nobody_tells_the_only_class_that_can_do_all_that_is_asked_is_meant():
    assert is_followed(code_of(NOBODY, ASKED, BEGUN))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([NOBODY], id="one name says too little"),
        pytest.param([NOBODY, ASKED, BEGUN, ("main.py", "\n\ndef main", "\n\nclass Other:\n    def begin(self):\n        self.x = 1"
                      "\n\n    def learn(self, row):\n        return row\n\n\ndef main")], id="two classes can"),
        pytest.param([NOBODY, ASKED, BEGUN, ("engine.py", "learn(row)", "learn(row, row)")], id="other arguments"),
    ],
)  # fmt: skip
def test_where_nobody_tells_and_not_one_class_alone_can_nothing_is_followed(changes):
    assert not is_followed(code_of(*changes))
