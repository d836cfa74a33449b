"""Which setting turns the maps of chunks off, where None is made of its default, and what is named and left."""

import pytest

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome, State

TASK = task_named("task-12")
HEAD = "import torch\nfrom torch import nn\nfrom typing import Optional\n\n\n"
ATTENTION = """\
class Attention(nn.Module):
    def __init__(self, width: int, chunk_size: int | None = None, full_attn_logging: bool = True) -> None:
        super().__init__()
        self.chunk_size = chunk_size
        self.full_attn_logging = full_attn_logging
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        if self.chunk_size is None:
            return self.dense(x)
        return self.chunked(x)

    def dense(self, x):
        w = (x @ x.transpose(-2, -1)).softmax(-1)
        return w @ x, w if self.full_attn_logging else None

    def chunked(self, x):
        B, T, C = x.shape
        out, parts = [], []
        for s in range(0, T, self.chunk_size):
            part = x[:, s : s + self.chunk_size]
            w = (part @ part.transpose(-2, -1)).softmax(-1)
            out.append(w @ part)
            parts.append(w)
        out = torch.cat(out, 1)
        if not self.full_attn_logging:
            return out, None
        return out, self.stitched(parts, B, T)

    def stitched(self, parts, B, T):
        canvas = parts[0].new_zeros(B, T, T)
        for n, w in enumerate(parts):
            s = n * self.chunk_size
            canvas[:, s : s + w.size(1), s : s + w.size(1)] = w
        return canvas
"""
STORED = "        self.full_attn_logging = full_attn_logging\n"
RESOLVED = "        self.full_attn_logging = chunk_size is None if full_attn_logging is None else full_attn_logging\n"
MODEL = """

class Model(nn.Module):
    def __init__(self, width=8, chunk_size=None, full_attn_logging: bool = True):
        super().__init__()
        self.config = dict(width=width, chunk_size=chunk_size, full_attn_logging=full_attn_logging)
        self.attention = Attention(width, chunk_size, full_attn_logging)
"""


@pytest.fixture
def tree_of(model_of):
    return lambda text: open_tree(model_of(HEAD + text))


def changed(text, *pairs):
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("def f(full_attn_logging=True):\n    return full_attn_logging\n", id="without chunks"),
        pytest.param('"""full_attn_logging: bool | None = None"""\n', id="a docstring with the right words"),
        pytest.param(
            changed(ATTENTION, ("new_zeros(B, T, T)", "new_zeros(B, T)")), id="no map of all positions is made"
        ),
    ],
)
def test_no_site(tree_of, state_of, text):
    assert state_of(tree_of(text), "task-12") is State.UNRECOGNISED


RIGHT = {
    "in one expression": "= full_attn_logging if full_attn_logging is not None else chunk_size is None\n",
    "the other way round": "= chunk_size is None if full_attn_logging is None else bool(full_attn_logging)\n",
    "by truth": "= (not chunk_size) if full_attn_logging is None else full_attn_logging\n",
}


@pytest.mark.parametrize("line", RIGHT.values(), ids=RIGHT)
def test_what_is_resolved_by_hand_is_left_alone(tree_of, state_of, line):
    text = changed(ATTENTION, ("bool = True", "bool | None = None"), ("= full_attn_logging\n", line))
    assert state_of(tree_of(text), "task-12") is State.APPLIED


def test_what_is_resolved_in_a_statement_by_hand_is_left_alone(tree_of, state_of):
    lines = "        if full_attn_logging is None:\n            full_attn_logging = chunk_size is None\n" + STORED
    assert state_of(tree_of(changed(ATTENTION, ("bool = True", "bool | None = None"), (STORED, lines))), "task-12") is (
        State.APPLIED
    )


def test_what_is_resolved_where_attention_is_made_is_left_alone(tree_of, state_of):
    text = changed(
        ATTENTION + MODEL,
        (
            "Attention(width, chunk_size, full_attn_logging)",
            "Attention(width, chunk_size, chunk_size is None if full_attn_logging is None else full_attn_logging)",
        ),
        ("chunk_size=None, full_attn_logging: bool = True", "chunk_size=None, full_attn_logging=None"),
    )
    assert state_of(tree_of(text), "task-12") is State.APPLIED


WRONG = {
    "off for everybody": "= False if full_attn_logging is None else full_attn_logging\n",
    "on for everybody": "= True if full_attn_logging is None else full_attn_logging\n",
    "on": "= chunk_size is not None if full_attn_logging is None else full_attn_logging\n",
    "True is ignored": "= chunk_size is None if full_attn_logging is None else False\n",
    "False is ignored": "= full_attn_logging or chunk_size is None\n",
}


@pytest.mark.parametrize("line", WRONG.values(), ids=WRONG)
def test_what_is_resolved_wrongly_by_hand_is_named(tree_of, refusal, line):
    text = changed(ATTENTION, ("bool = True", "bool | None = None"), ("= full_attn_logging\n", line))
    assert "near miss at bit_transformer/model.py" in refusal(tree_of(text), "task-12")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param("", "", "full_attn_logging: bool | None = None)", id="default"),
        pytest.param("", "", RESOLVED, id="stored"),
        pytest.param(": bool = True", "=True", "full_attn_logging=None)", id="without an annotation"),
        pytest.param("bool = True", "Optional[bool] = True", "Optional[bool] = None)", id="optional already"),
        pytest.param(": bool = True", ': "bool" = True', 'full_attn_logging: "bool | None" = None)', id="quoted"),
        pytest.param(
            "self.full_attn_logging = ", "self.full_attn_logging: bool = ", "bool = chunk_size is", id="annotated"
        ),
        pytest.param(
            "self, width", "self, *, width", "None = None, full_attn_logging: bool | None = None)", id="keyword only"
        ),
        pytest.param(
            "= full_attn_logging\n",
            "= bool(full_attn_logging)\n",
            "bool(chunk_size is None if full_attn_logging is None else full_attn_logging)",
            id="converted",
        ),
        pytest.param(
            "= full_attn_logging\n",
            "= full_attn_logging and width > 1\n",
            "= (chunk_size is None if full_attn_logging is None else full_attn_logging) and width > 1",
            id="combined",
        ),
        pytest.param(
            "if self.chunk_size is None", "if not self.chunk_size", "not chunk_size if full", id="no chunks as zero"
        ),
    ],
)
def test_idioms(tree_of, after, old, new, expected):
    assert expected in after(tree_of(changed(ATTENTION, (old, new)) if old else ATTENTION), "task-12")


def test_other_names(tree_of, after):
    text = changed(
        ATTENTION,
        ("full_attn_logging", "want_maps"),
        ("chunk_size", "window"),
        ("Attention(", "Looking("),
        ("forward", "forward"),
    )
    assert "self.want_maps = window is None if want_maps is None else want_maps" in after(tree_of(text), "task-12")


def test_the_model_keeps_what_the_user_said(tree_of, after):
    text = after(tree_of(ATTENTION + MODEL), "task-12")
    assert text.count("full_attn_logging: bool | None = None") == 2
    assert "full_attn_logging=full_attn_logging)\n        self.attention = Attention(width, chunk_size, full" in text


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(
            "        self.logs = full_attn_logging\n\n    def note(self):\n        return 1 if self.logs else 0\n",
            id="kept, and asked elsewhere",
        ),
        pytest.param("        self.logs = 'on' if full_attn_logging else 'off'\n", id="asked at once"),
        pytest.param(
            "\n\ndef note(model):\n    if model.config['full_attn_logging']:\n        return 'maps'\n", id="an entry"
        ),
        pytest.param(
            "\n\ndef note(model):\n    logs = model.config['full_attn_logging']\n    return not logs\n", id="by a name"
        ),
    ],
)
def test_who_takes_none_for_false_is_named(tree_of, refusal, lines):
    assert "full_attn_logging, which is to be None, counts as false" in refusal(
        tree_of(ATTENTION + MODEL + lines), "task-12"
    )


def test_a_single_class_keeps_its_configuration(tree_of, after):
    text = changed(ATTENTION, (STORED, STORED + '        self.config = {"full_attn_logging": full_attn_logging}\n'))
    text = after(tree_of(text), "task-12")
    assert RESOLVED + '        self.config = {"full_attn_logging": full_attn_logging}\n' in text


def test_what_is_read_from_a_configuration_alone_is_refused(tree_of):
    text = changed(
        ATTENTION,
        (STORED, '        self.config = {"full_attn_logging": full_attn_logging}\n'),
        ("self.full_attn_logging", 'self.config["full_attn_logging"]'),
    )
    assert plan(tree_of(text), [TASK]).outcomes[0].outcome is Outcome.REFUSED


def test_a_constant_of_the_module(tree_of, after):
    text = changed("LOG = True\n\n\n" + ATTENTION, ("bool = True", "bool = LOG"))
    assert "LOG = True\n\n\n" in after(tree_of(text), "task-12")
    assert "full_attn_logging: bool | None = None" in after(tree_of(text), "task-12")


CONFIG = """\
from dataclasses import dataclass


@dataclass
class Config:
    width: int = 8
    window: int | None = None
    maps: bool = True


"""
CONFIGURED = (
    ("width: int, chunk_size: int | None = None, full_attn_logging: bool = True", "cfg: Config"),
    ("= chunk_size\n", "= cfg.window\n"),
    ("= full_attn_logging\n", "= cfg.maps\n"),
    ("Linear(width, width)", "Linear(cfg.width, cfg.width)"),
)


def test_a_data_class(tree_of, after):
    text = after(tree_of(CONFIG + changed(ATTENTION, *CONFIGURED)), "task-12")
    assert "    maps: bool | None = None\n" in text
    assert "self.full_attn_logging = cfg.window is None if cfg.maps is None else cfg.maps" in text


@pytest.mark.parametrize(("unsaid", "state"), [("is None", State.APPLIED), ("is not None", State.UNRECOGNISED)])
def test_what_is_resolved_of_a_data_class_that_others_hand_on(tree_of, state_of, unsaid, state):
    resolved = (
        "        if cfg.maps is None:\n            self.full_attn_logging = cfg.window is None\n        else:\n"
        "            self.full_attn_logging = cfg.maps\n"
    )
    own = [(old, new.replace(": Config", "")) for old, new in CONFIGURED if "maps" not in new]
    text = CONFIG.replace("maps: bool = True", "maps: Optional[bool] = None") + changed(
        ATTENTION, *own, (STORED, resolved.replace("window is None", f"window {unsaid}"))
    )
    made = "def grown(model):\n    return Attention(replace(model.cfg, width=8))\n\n\nmodel = Attention(Config())\n"
    text = changed(text, ("super().__init__()\n", "super().__init__()\n        self.cfg = cfg\n"))
    assert state_of(tree_of(f"from dataclasses import replace\n{text}\n\n{made}"), "task-12") is state


def test_a_data_class_that_forward_asks(tree_of, after):
    text = changed(
        CONFIG + changed(ATTENTION, *CONFIGURED),
        ("        self.full_attn_logging = cfg.maps\n", "        self.cfg = cfg\n"),
        ("self.full_attn_logging", "self.cfg.maps"),
    )
    text = after(tree_of(text), "task-12")
    assert text.count("self.cfg.window is None if self.cfg.maps is None else self.cfg.maps") == 2


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ('"--maps", action=argparse.BooleanOptionalAction, default=True', "BooleanOptionalAction, default=None)"),
        ('"--maps", action="store_true"', 'action="store_true", default=None)'),
        ('"--no-maps", dest="maps", action="store_false"', 'action="store_false", default=None)'),
    ],
)
def test_the_command_line_leaves_the_value_open(tree_of, patched, option, expected):
    tree = tree_of(ATTENTION + MODEL)
    file = tree.root / "bit_transformer/training.py"
    file.write_text(
        "import argparse\nfrom .model import Model\n\n\ndef main():\n    parser = argparse.ArgumentParser()\n"
        f"    parser.add_argument({option})\n    args = parser.parse_args()\n"
        "    return Model(full_attn_logging=args.maps)\n"
    )
    patched(tree.root, "task-12")
    assert expected in file.read_text()


def test_a_table_of_options(tree_of, patched):
    tree = tree_of(ATTENTION + MODEL)
    file = tree.root / "bit_transformer/training.py"
    file.write_text(
        "import argparse\nfrom .model import Model\n\nOPTIONS = (\n"
        '    ("--width", dict(type=int, default=8)),\n    ("--maps", dict(default=True)),\n)\n\n\n'
        "def main():\n    parser = argparse.ArgumentParser()\n    for flag, settings in OPTIONS:\n"
        "        parser.add_argument(flag, **settings)\n    args = parser.parse_args()\n"
        "    return Model(width=args.width, full_attn_logging=args.maps)\n"
    )
    patched(tree.root, "task-12")
    assert '("--maps", dict(default=None))' in file.read_text()


def test_a_dict_of_options(tree_of, patched):
    tree = tree_of(ATTENTION + MODEL)
    file = tree.root / "train.py"
    file.write_text(
        'from bit_transformer.model import Model\n\nCONFIG = {"maps": True, "window": None}\n\n'
        'model = Model(chunk_size=CONFIG["window"], full_attn_logging=CONFIG["maps"])\n'
    )
    patched(tree.root, "task-12")
    assert '{"maps": None, "window": None}' in file.read_text()


def test_an_explicit_value_stays(tree_of, patched):
    tree = tree_of(ATTENTION + MODEL)
    file = tree.root / "train.py"
    file.write_text("from bit_transformer.model import Model\n\nmodel = Model(full_attn_logging=True)\n")
    patched(tree.root, "task-12")
    assert "Model(full_attn_logging=True)" in file.read_text()


def test_another_default_is_named(tree_of, refusal):
    assert "neither True nor None" in refusal(tree_of(changed(ATTENTION, ("= True", "= False"))), "task-12")


def test_chunks_that_have_no_name_there_are_named(tree_of, refusal):
    text = changed(
        CONFIG + ATTENTION,
        ("chunk_size: int | None = None, full", "cfg: Config = None, full"),
        ("= chunk_size\n", "= cfg.window\n"),
    )
    assert "what sets the chunks has no name here" in refusal(tree_of(text), "task-12")


def test_maps_that_nothing_turns_off_are_refused(tree_of, refusal):
    text = changed(
        ATTENTION,
        ("        if not self.full_attn_logging:\n            return out, None\n", ""),
        ("w if self.full_attn_logging else None", "w"),
    )
    assert "no setting of a constructor or a data class turns it off" in refusal(tree_of(text), "task-12")


STACK = """

class Stack(nn.Module):
    def __init__(self, width=8, chunk_size=None, full_attn_logging: bool = True):
        super().__init__()
        self.layers = nn.ModuleList([Attention(width, chunk_size, full_attn_logging) for _ in range(2)])

    def forward(self, x):
        maps = []
        for layer in self.layers:
            x, attn = layer(x)
            if attn is not None:
                maps.append(attn)
        return x, {"maps": maps, "sharpness": sharpness(maps)}


def sharpness(maps):
    LINE
"""
READERS = {
    "asked for first": (
        "if not maps:\n        return None\n    return torch.stack([m.amax() for m in maps]).mean()",
        True,
    ),
    "in an expression": ("return torch.stack([m.amax() for m in maps]).mean() if maps else None", True),
    "gone through": ("return sum(m.amax() for m in maps)", True),
    "stacked": ("return torch.stack([m.amax() for m in maps]).mean()", False),
    "the last": ("return maps[-1].amax()", False),
    "the largest": ("return max(m.amax() for m in maps)", False),
}


@pytest.mark.parametrize(("line", "lives"), READERS.values(), ids=READERS)
def test_what_reads_maps_must_live_without(tree_of, line, lives):
    (outcome,) = plan(tree_of(ATTENTION + STACK.replace("LINE", line)), [TASK]).outcomes
    assert outcome.outcome is (Outcome.APPLIED if lives else Outcome.REFUSED), outcome.reason
    assert lives or "there may be none" in outcome.reason


@pytest.mark.parametrize(
    ("line", "lives"), [("return info['maps'][0]", False), ("return info['maps'] and info['maps'][0]", True)]
)
def test_readers_elsewhere_are_found_by_the_key(tree_of, line, lives):
    tree = tree_of(ATTENTION + STACK.replace("LINE", "return len(maps)"))
    (tree.root / "report.py").write_text(f"import torch\n\n\ndef report(info):\n    {line}\n")
    (outcome,) = plan(open_tree(tree.root), [TASK]).outcomes
    assert outcome.outcome is (Outcome.APPLIED if lives else Outcome.REFUSED), outcome.reason


def test_on_the_baseline_twice_is_once(tree, patched):
    done = patched(tree, "task-12")
    (found,) = status(open_tree(done), [TASK])
    assert found.state is State.APPLIED


def test_a_map_that_is_made_anyway_is_no_map_that_is_off(tree_of):
    early = "        if not self.full_attn_logging:\n            return out, None\n        return out, self.stitched(parts, B, T)\n"
    late = "        full = self.stitched(parts, B, T)\n        return out, full if self.full_attn_logging else None\n"
    tree = tree_of(changed(ATTENTION, (early, late)))
    (outcome,) = plan(tree, [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "it is made where full_attn_logging turns it off too" in outcome.reason


def test_a_map_without_chunks_that_no_setting_turns_off_is_named(tree_of):
    tree = tree_of(changed(ATTENTION, ("return w @ x, w if self.full_attn_logging else None", "return w @ x, w")))
    (outcome,) = plan(tree, [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    lines = (tree.root / "bit_transformer/model.py").read_text().splitlines()
    place = next(f"{number}:{line.index('(x @') + 1}" for number, line in enumerate(lines, 1) if "(x @" in line)
    assert (
        f":{place}: a map of all positions, but it is made where full_attn_logging turns it off too" in outcome.reason
    )


def test_options_that_a_list_of_names_takes_out_of_a_configuration_are_told(tree_of):
    named = "**{name: self.config[name] for name in ('chunk_size', 'full_attn_logging')}"
    model = changed(MODEL, ("Attention(width, chunk_size, full_attn_logging)", f"Attention(width, {named})"))
    (change,) = plan(tree_of(ATTENTION + model), [TASK]).changes
    assert change.after.decode().count("full_attn_logging: bool | None = None") == 2


LAYER = """\
def paste(parts, B, T, width):
    canvas = parts[0].new_zeros(B, T, T)
    for n, w in enumerate(parts):
        canvas[:, n * width : n * width + w.size(1), n * width : n * width + w.size(1)] = w
    return canvas


def attend(x, width, want_map):
    B, T, C = x.shape
    out, parts = [], []
    for part in x.split(width, dim=1):
        parts.append((part @ part.transpose(-2, -1)).softmax(-1))
        out.append(parts[-1] @ part)
    return torch.cat(out, 1), paste(parts, B, T, width) if want_map else None


class Layer(nn.Module):
    def __init__(self, *, width, piece, maps):
        super().__init__()
        self.piece, self.maps = piece, maps

    def mix(self, x, sink=None):
        if not self.piece:
            return x
        y, m = attend(x, self.piece, want_map=self.maps and sink is not None)
        if sink is not None and self.maps:
            sink.append(m)
        return y


class Net(nn.Module):
    def __init__(self, *, width=8, piece=0, maps=True):
        super().__init__()
        self.args = dict(width=width, piece=piece, maps=maps)
        self.layers = nn.ModuleList(Layer(width=width, piece=piece, maps=maps) for _ in range(2))

    def forward(self, x):
        maps = []
        for layer in self.layers:
            x = x + layer.mix(x, maps)
        return x, maps
"""


def test_a_flag_that_is_handed_down_to_functions(tree_of, after):
    text = after(tree_of(LAYER), "task-12")
    assert "self.piece, self.maps = piece, (not piece if maps is None else maps)\n" in text
    assert "def __init__(self, *, width=8, piece=0, maps=None):" in text
    assert "dict(width=width, piece=piece, maps=maps)" in text


def test_a_map_that_is_made_where_a_caller_chooses_each_time_is_named(tree_of, refusal):
    text = changed(LAYER, ("want_map=self.maps and sink is not None", "want_map=sink is not None"))
    assert "it is made where maps turns it off too" in refusal(tree_of(text), "task-12")
