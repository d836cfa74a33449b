"""Which triangles are taken from the cache, and which are left or named."""

import pytest

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import Outcome, State

TASK = task_named("task-10")
HEADER = """\
import torch
import torch.nn.functional as F


class Attention:
    def forward(self, x):
        T = x.size(1)
"""


def after(root):
    planned = plan(open_tree(root), [TASK])
    (outcome,) = planned.outcomes
    assert outcome.outcome is Outcome.APPLIED, outcome.reason
    return planned.changes[0].after.decode()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("mask = torch.triu(scores, diagonal=1)", id="triangle of scores"),
        pytest.param('"""torch.triu(torch.ones(T, T), diagonal=1)"""', id="a docstring with the right words"),
        pytest.param("mask = None  # torch.triu(torch.ones(T, T), diagonal=1)", id="a comment with the right words"),
        pytest.param("mask = torch.ones(T, T, dtype=torch.bool)", id="ones without a triangle"),
        pytest.param("mask = numpy.triu(numpy.ones((T, T)), 1)", id="another library"),
        pytest.param("i = torch.arange(T); mask = x[i] >= x[i.flip(0)]", id="what positions look up"),
    ],
)
def test_no_site(model_of, line):
    (found,) = status(open_tree(model_of(HEADER + f"        {line}\n        return x\n")), [TASK])
    assert (found.state, found.findings) == (State.UNRECOGNISED, ())


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(mask, "get_tri_mask(T, x.device)", id=name)
        for name, mask in {
            "function": "torch.triu(torch.ones(T, T, dtype=torch.bool, device=x.device), diagonal=1)",
            "positional diagonal": "torch.triu(torch.ones(T, T, dtype=torch.bool, device=x.device), 1)",
            "method": "torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)",
            "size as a tuple": "torch.ones((T, T), dtype=torch.bool, device=x.device).triu(diagonal=1)",
            "full of True": "torch.full((T, T), True, dtype=torch.bool, device=x.device).triu(1)",
            "new_ones": "x.new_ones(T, T, dtype=torch.bool).triu(1)",
            "made boolean at the end": "torch.triu(torch.ones(T, T, device=x.device), diagonal=1).bool()",
            "converted by to": "torch.triu(torch.ones(T, T), diagonal=1).to(x.device, torch.bool)",
            "moved and converted": "torch.triu(torch.ones(T, T), diagonal=1).to(x.device).bool()",
            "complement of the lower": "~torch.tril(torch.ones(T, T, dtype=torch.bool, device=x.device))",
            "size and input by name": "torch.triu(input=torch.ones(size=(T, T), dtype=torch.bool, device=x.device), diagonal=1)",
            "in place": "torch.ones(T, T, dtype=torch.bool, device=x.device).triu_(1)",
            "converted on the way": "torch.triu(torch.ones(T, T).bool().to(x.device), 1)",
            "what is not lower": "torch.ones(T, T, device=x.device).tril() == 0",
            "logical complement": "torch.logical_not(torch.tril(torch.ones(T, T, device=x.device)))",
            "one minus the lower": "(1 - torch.tril(torch.ones(T, T, device=x.device))).bool()",
            "positions compared": "torch.arange(T, device=x.device)[None, :] > torch.arange(T, device=x.device)[:, None]",
            "positions as a row and a column": "torch.arange(T, device=x.device).view(1, -1) > torch.arange(T, device=x.device).unsqueeze(1)",
            "size as a repeated list": "torch.triu(torch.ones([T] * 2, device=x.device), diagonal=1) > 0",
            "size of the input, twice": "torch.triu(torch.ones(x.size(1), x.shape[1], device=x.device), 1).to(torch.bool)",
            "counted up": "torch.cumsum(torch.eye(T, device=x.device), 1).triu(1) != 0",
        }.items()
    ],
)
def test_spellings_of_the_mask(model_of, before, expected):
    text = after(model_of(HEADER + f"        mask = {before}\n        return mask\n"))
    assert f"        mask = {expected}\n        return mask\n" in text
    assert text.count("def get_tri_mask(") == 1


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(f"        {lines}\n        return x\n", f"        {result}\n        return x\n", id=name)
        for name, lines, result in [
            (
                "what may be seen",
                "x = torch.where(torch.ones(T, T, dtype=torch.bool, device=x.device).tril(), x, 0)",
                "x = torch.where(~get_tri_mask(T, x.device), x, 0)",
            ),
            (
                "lower triangle that is turned over where it is used",
                "keep = torch.tril(torch.ones(T, T, device=x.device))\n        x = x.masked_fill(keep == 0, -1)",
                "x = x.masked_fill(get_tri_mask(T, x.device), -1)",
            ),
            (
                "added",
                "bias = torch.full((T, T), float('-inf'), device=x.device).triu(1)\n        x = x + bias",
                'bias = torch.zeros(T, T, device=x.device).masked_fill(get_tri_mask(T, x.device), float("-inf"))\n        x = x + bias',
            ),
            (
                "added elsewhere",
                "x = self.mix(torch.full((T, T), float('-inf'), device=x.device).triu(1))",
                'x = self.mix(torch.zeros(T, T, device=x.device).masked_fill(get_tri_mask(T, x.device), float("-inf")))',
            ),
            (
                "on the device of what it masks",
                "x = x.masked_fill(torch.ones(T, T).triu(1).bool(), 0)",
                "x = x.masked_fill(get_tri_mask(T, x.device), 0)",
            ),
            (
                "positions that have a name",
                "at = torch.arange(T, device=x.device)\n        x = x.masked_fill(at[None] > at[:, None], 0)",
                "x = x.masked_fill(get_tri_mask(T, x.device), 0)",
            ),
            (
                "one longer",
                "x = x.masked_fill(torch.ones(T + 1, T + 1, device=x.device).triu(1).bool(), 0)",
                "x = x.masked_fill(get_tri_mask(T + 1, x.device), 0)",
            ),
        ]
    ],
)
def test_masks_where_they_are_used(model_of, before, expected):
    assert expected in after(model_of(HEADER + before))


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(mask, expected, id=name)
        for name, mask, expected in [
            ("helper", "self.hidden(T, x.device)", "        return get_tri_mask(n, device)\n"),
            ("helper by keyword", "self.hidden(device=x.device, n=T)", "        return get_tri_mask(n, device)\n"),
        ]
    ],
)
def test_a_helper_that_builds_the_mask(model_of, before, expected):
    helper = "\n    def hidden(self, n, device):\n        return torch.ones(n, n, device=device).tril() == 0\n"
    assert expected in after(model_of(HEADER + f"        return {before}\n{helper}"))


RECTANGLE = "\n    def hidden(self, chunk, overlap, device=None):\n        query = torch.arange(chunk, device=device) + overlap\n"


def test_a_helper_that_compares_counts_of_a_window(model_of):
    helper = RECTANGLE + "        return torch.arange(overlap + chunk, device=device)[None] > query[:, None]\n"
    text = after(model_of(HEADER + f"        return self.hidden(T, 2, x.device)\n{helper}"))
    assert "        return get_tri_mask(overlap + chunk, device)[overlap:]\n" in text


def test_a_count_that_may_be_a_tensor_is_named(model_of):
    helper = RECTANGLE.replace("chunk, overlap", "chunk, width, overlap")
    helper += "        return torch.arange(width, device=device)[None] > query[:, None]\n"
    (outcome,) = plan(
        open_tree(model_of(HEADER + f"        return self.hidden(T, T, 2, x.device)\n{helper}")), [TASK]
    ).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "overlap may be a tensor, annotate it if it is an int" in outcome.reason


def test_aliases_are_seen_through(model_of):
    header = HEADER.replace("import torch\n", "import torch as t\nfrom torch import triu as upper\n")
    text = after(model_of(header + "        return upper(t.ones(T, T, dtype=t.bool, device=x.device), 1)\n"))
    assert "        return get_tri_mask(T, x.device)\n" in text
    assert "\nimport torch\n" in text


def test_ones_of_their_own_go_with_the_triangle(model_of):
    lines = "        ones = torch.ones(T, T, dtype=torch.bool, device=x.device)\n        return torch.triu(ones, diagonal=1)\n"
    text = after(model_of(HEADER + lines))
    assert "        T = x.size(1)\n        return get_tri_mask(T, x.device)\n" in text


def test_ones_that_are_used_elsewhere_stay(model_of):
    lines = (
        "        ones = torch.ones(T, T, dtype=torch.bool, device=x.device)\n        return torch.triu(ones, 1), ones\n"
    )
    assert "        return get_tri_mask(T, x.device), ones\n" in after(model_of(HEADER + lines))


T1 = "torch.triu(torch.ones(T, T, dtype=torch.bool, device=x.device), diagonal=1)"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param([f"mask = {T1}", "mask |= x"], "written to", id="changed by or"),
        pytest.param([f"mask = {T1}", "mask[:, :2] = False"], "written to", id="a prefix cut out"),
        pytest.param([f"mask = {T1}", "mask[0].fill_(False)"], "written to", id="changed by way of a view"),
        pytest.param([f"mask = {T1}", "mask.fill_diagonal_(True)"], "written to", id="an unknown method in place"),
        pytest.param([f"mask = {T1}", "torch.logical_or(mask, x, out=mask)"], "written to", id="out"),
        pytest.param([f"self.register_buffer('mask', {T1})"], "buffer", id="a buffer"),
        pytest.param(["get_tri_mask = 1", f"mask = {T1}"], "stands for something else", id="the name of a local"),
        pytest.param(
            ["z = torch.ones(T, T, dtype=torch.bool, device=x.device)", "mask = z.triu_(1)", "x = z"],
            "in place",
            id="made in place",
        ),
        pytest.param([f"mask = {T1} | (x == 0)"], "", id="a padding mask beside it is not part of it"),
    ],
)
def test_a_mask_that_may_not_be_shared(model_of, lines, reason):
    body = "".join(f"        {line}\n" for line in lines)
    planned = plan(open_tree(model_of(HEADER + body + "        return x\n")), [TASK])
    (outcome,) = planned.outcomes
    if reason:
        assert outcome.outcome is Outcome.REFUSED
        assert reason in outcome.reason, outcome.reason
    else:
        assert "mask = get_tri_mask(T, x.device) | (x == 0)" in planned.changes[0].after.decode()


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        pytest.param("torch.triu(torch.ones(T, T, device=x.device), diagonal=1)", "not boolean", id="float"),
        pytest.param("torch.triu(torch.ones(T, T, dtype=torch.bool), diagonal=1)", "no device", id="no device"),
        pytest.param(
            "torch.triu(torch.ones(T, T + 1, dtype=torch.bool, device=x.device), diagonal=1)",
            "not square",
            id="rectangle",
        ),
        pytest.param(
            "torch.triu(torch.ones(T, T, dtype=torch.bool, device=x.device))", "main diagonal", id="diagonal 0"
        ),
        pytest.param(
            "torch.triu(torch.ones(T, T, dtype=x.dtype, device=x.device), diagonal=1)",
            "not boolean",
            id="like a tensor",
        ),
        pytest.param("torch.ones(T, T, dtype=torch.bool, device=x.device).tril().triu(-3)", "main diagonal", id="band"),
        pytest.param("torch.arange(T)[:, None] < torch.arange(x.size(2))", "not square", id="positions compared"),
    ],
)
def test_near_misses_are_refused_with_their_place(model_of, mask, reason):
    planned = plan(open_tree(model_of(HEADER + f"        mask = {mask}\n        return mask\n")), [TASK])
    (outcome,) = planned.outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "near miss at bit_transformer/model.py:8:16: " in outcome.reason
    assert reason in outcome.reason, outcome.reason
    assert planned.changes == ()


BY_HAND = {
    "in a mapping": """\
def causal(T, device):
    place = torch.empty(0, device=device).device
    held = kept.get((T, place))
    if held is None or held[0]._version != held[1]:
        with torch.inference_mode(False):
            mask = torch.ones(T, T, dtype=torch.bool, device=device).triu(1)
        held = kept[T, place] = (mask, mask._version)
        if len(kept) > 8:
            del kept[next(iter(kept))]
    return held[0]
""",
    "in a mapping of an object's own": """\
class Attention(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
        self.kept = {}

    def causal(self, device):
        place = torch.empty(0, device=device).device
        held = self.kept.get(place)
        if held is None or held[0]._version != held[1]:
            with torch.inference_mode(False):
                mask = torch.ones(self.width, self.width, dtype=torch.bool, device=place).triu(1)
            while len(self.kept) > 8:
                self.kept.pop(next(iter(self.kept)))
            held = self.kept[place] = (mask, mask._version)
        return held[0]
""",
    "in an attribute": """\
class Attention:
    def causal(self, x):
        T = x.size(1)
        old = self.mask
        if old is None or old.size(-1) != T or old.device != x.device or old._version != self.version:
            with torch.inference_mode(False):
                self.mask = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
            self.version = self.mask._version
        return self.mask
""",
    "built by a function that is handed over": """\
def causal(T, device):
    return keep(("causal", T), torch.empty(0, device=device).device, lambda: lower(T, T, 0, device))


def keep(kind, device, build):
    key = kind + (device,)
    held = kept.get(key)
    if held is None or held[0]._version != held[1]:
        with torch.inference_mode(False):
            mask = build()
        held = (mask, mask._version)
    kept[key] = held
    if len(kept) > 8:
        kept.clear()
    return held[0]


def lower(rows, columns, diagonal, device):
    return torch.ones(rows, columns, device=device).tril(diagonal)
""",
}
LRU = "@functools.lru_cache\ndef causal(T):\n    return torch.ones(T, T).triu(1)\n"
MODE = ("with torch.inference_mode(False):", "if True:", "cannot be saved for a backward")
PLACE = ("torch.empty(0, device=device).device", "torch.device(device)")
DEVICES = '"cuda" once and "cuda:0" another time'
WRONG = [
    *((name, *MODE) for name in BY_HAND),
    ("in a mapping", " or held[0]._version != held[1]", "", "what a caller writes into it"),
    ("in a mapping of an object's own", " or held[0]._version != held[1]", "", "what a caller writes into it"),
    ("in an attribute", " or old._version != self.version", "", "what a caller writes into it"),
    ("built by a function that is handed over", "held[0]._version != held[1]", "False", "what a caller writes into it"),
    ("in a mapping", "if len(kept) > 8", "if T > 8", "nothing is dropped"),
    ("in a mapping of an object's own", "self.kept.pop(next(iter(self.kept)))", "break", "nothing is dropped"),
    ("built by a function that is handed over", "kept.clear()", "pass", "nothing is dropped"),
    ("in a mapping", "T, place", "T", "does not tell device,"),
    ("in a mapping", "T, place", "place", "does not tell T,"),
    ("in a mapping", "T, place", "T > 9, place", "does not tell T,"),
    ("in a mapping", "T, place", "T, place.type", "does not tell device,"),
    ("in a mapping", "triu(1)", "triu(1).to(like)", "does not tell the dtype of"),
    ("in a mapping", "torch.ones(T, T, dtype=torch.bool, device=device)", "like.new_ones(T, T)", "the dtype of"),
    ("in a mapping", ".triu(1)", ".triu(1 if like else 2)", "does not tell like,"),
    ("in a mapping of an object's own", "self.kept = {}", "self.kept = kept", "does not tell width,"),
    ("in an attribute", " or old.size(-1) != T", "", "does not tell the size of x,"),
    ("in an attribute", " or old.device != x.device", "", "does not tell the device of x,"),
    ("built by a function that is handed over", '("causal", T)', '("causal",)', "does not tell T,"),
    ("built by a function that is handed over", " + (device,)", "", "does not tell device,"),
    ("in a mapping", *PLACE, DEVICES),
    ("in a mapping of an object's own", *PLACE, DEVICES),
    ("built by a function that is handed over", *PLACE, DEVICES),
]


def kept_by_hand(model_of, body):
    planned = plan(open_tree(model_of("import functools\nimport torch\nkept = {}\n\n\n" + body)), [TASK])
    (outcome,) = planned.outcomes
    assert planned.changes == ()
    return outcome


WINDOWS = """\


def windows(n, width, device):
    place = torch.empty(0, device=device).device

    def build():
        key = torch.arange(n + width, device=place)
        return key[None] <= key[:n, None] + width

    return keep(("windows", n, width), place, build)
"""


def test_a_triangle_in_a_mask_of_another_kind_is_kept_with_it(model_of):
    body = BY_HAND["built by a function that is handed over"] + WINDOWS
    outcome = kept_by_hand(model_of, body)
    assert outcome.outcome is Outcome.ALREADY_APPLIED, outcome.reason
    outcome = kept_by_hand(model_of, body.replace('("windows", n, width)', '("windows", n)'))
    assert outcome.outcome is Outcome.REFUSED
    assert "does not tell width," in outcome.reason


def test_a_triangle_of_which_a_part_is_kept_is_not(model_of):
    positions = BY_HAND["in a mapping"].replace(
        "torch.ones(T, T, dtype=torch.bool, device=device).triu(1)", "torch.arange(T)"
    )
    future = "\n\ndef future(x, T):\n    return torch.arange(T, device=x.device) > causal(T, x.device)[:, None]\n"
    (found,) = status(open_tree(model_of("import torch\nkept = {}\n\n\n" + positions + future)), [TASK])
    assert found.state is not State.APPLIED


@pytest.mark.parametrize("name", BY_HAND)
def test_a_cache_by_hand_is_left_alone(model_of, name):
    outcome = kept_by_hand(model_of, BY_HAND[name])
    assert outcome.outcome is Outcome.ALREADY_APPLIED, outcome.reason


@pytest.mark.parametrize(("name", "old", "new", "reason"), WRONG)
def test_a_cache_by_hand_that_breaks_the_contract_is_refused(model_of, name, old, new, reason):
    assert old in BY_HAND[name]
    outcome = kept_by_hand(model_of, BY_HAND[name].replace(old, new).replace("(T, device):", "(T, device, like):"))
    assert outcome.outcome is Outcome.REFUSED
    assert reason in outcome.reason, outcome.reason


def test_a_caching_decorator_hands_out_what_was_written_to(model_of):
    outcome = kept_by_hand(model_of, LRU)
    assert outcome.outcome is Outcome.REFUSED
    assert "cannot be saved for a backward" in outcome.reason
    outcome = kept_by_hand(model_of, LRU.replace("    return", "    with torch.inference_mode(False):\n        return"))
    assert outcome.outcome is Outcome.REFUSED
    assert "what a caller writes into it is handed out again" in outcome.reason


def test_two_masks_by_one_key_are_refused(model_of):
    body = BY_HAND["in a mapping"].replace(
        "    return", "    if T > 5:\n        kept[T, place] = (~mask, 0)\n    return"
    )
    outcome = kept_by_hand(model_of, body)
    assert outcome.outcome is Outcome.REFUSED
    assert "by the same key" in outcome.reason


def test_a_function_of_the_same_name_is_refused(model_of):
    root = model_of(
        "def get_tri_mask(n):\n    return n\n\n\n"
        + HEADER
        + "        return torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)\n"
    )
    (outcome,) = plan(open_tree(root), [TASK]).outcomes
    assert outcome.outcome is Outcome.REFUSED
    assert "model.py:1:1: another definition of get_tri_mask" in outcome.reason


def test_on_the_baseline(tree, patched):
    before = (tree / "bit_transformer/model.py").read_text()
    after = (patched(tree, "task-10") / "bit_transformer/model.py").read_text()
    assert (before.count("torch.triu("), after.count("torch.triu(")) == (2, 1)
    assert "future = get_tri_mask(T, q.device)" in after
    assert "future = get_tri_mask(width, q.device)" in after


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            """\
        mask = torch.zeros(T, T, dtype=torch.bool, device=x.device)
        rows, columns = torch.triu_indices(T, T, offset=1, device=x.device)
        mask[rows, columns] = True
""",
            "        mask = get_tri_mask(T, x.device)\n        return mask\n",
            id="by the indices of a triangle",
        ),
        pytest.param(
            """\
        mask = torch.ones(T, T, dtype=torch.bool, device=x.device)
        mask.triu_(1)
""",
            "        mask = get_tri_mask(T, x.device)\n        return mask\n",
            id="in place",
        ),
        pytest.param(
            """\
        seen = torch.zeros(T, T, dtype=torch.bool, device=x.device)
        index = torch.tril_indices(T, T, device=x.device)
        seen[index[0], index[1]] = True
        mask = ~seen
""",
            "        mask = get_tri_mask(T, x.device)\n        return mask\n",
            id="what may be seen, turned over",
        ),
        pytest.param(
            """\
        mask = torch.zeros(T, T, device=x.device)
        mask.masked_fill_(torch.ones(T, T, device=x.device).triu(1) > 0, -1e9)
""",
            "        mask.masked_fill_(get_tri_mask(T, x.device), -1e9)\n        return mask\n",
            id="by another mask",
        ),
        pytest.param(
            """\
        mask = torch.zeros(T, T, device=x.device)
        mask[torch.ones(T, T, device=x.device).tril() == 0] = float("-inf")
""",
            '        mask[get_tri_mask(T, x.device)] = float("-inf")\n        return mask\n',
            id="by another mask as an index",
        ),
    ],
)
def test_a_mask_that_is_written_to_a_tensor_just_made(model_of, lines, expected):
    assert expected in after(model_of(HEADER + lines + "        return mask\n"))


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("other = mask\n        mask[rows, columns] = True\n        mask = other", id="another name"),
        pytest.param("if x.any():\n            mask[rows, columns] = True", id="a condition"),
        pytest.param("mask[rows, columns] = True\n        mask[0] = True", id="written to again"),
    ],
)
def test_a_mask_that_is_written_where_it_may_show_elsewhere_is_named(model_of, lines):
    head = """\
        mask = torch.zeros(T, T, dtype=torch.bool, device=x.device)
        rows, columns = torch.triu_indices(T, T, offset=1, device=x.device)
"""
    (found,) = status(open_tree(model_of(HEADER + f"{head}        {lines}\n        return mask\n")), [TASK])
    assert [(each.state, bool(each.edits)) for each in found.findings] == [(State.UNRECOGNISED, False)]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(
            "torch.where(at[:, None] >= at[None, :], 0.0, float('-inf'))",
            "torch.where(~get_tri_mask(T, x.device), 0.0, float('-inf'))",
            id="a bias chosen by a comparison",
        ),
        pytest.param(
            "torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1).float() * -1e9",
            "get_tri_mask(T, x.device).float() * -1e9",
            id="a mask made a bias",
        ),
        pytest.param(
            "(1.0 - torch.ones(T, T, device=x.device).tril()) * -1e9",
            "torch.zeros(T, T, device=x.device).masked_fill(get_tri_mask(T, x.device), -1000000000.0)",
            id="a bias by arithmetic",
        ),
        pytest.param(
            "x.new_full((T, T), float('-inf')).triu(1)",
            'torch.zeros(T, T, dtype=x.dtype, device=x.device).masked_fill(get_tri_mask(T, x.device), float("-inf"))',
            id="a bias of another tensor's dtype",
        ),
        pytest.param(
            "torch.ones(1, 1, T, T, device=x.device).tril() == 0",
            "get_tri_mask(T, x.device)[None, None]",
            id="dimensions of one in front",
        ),
        pytest.param(
            "torch.arange(T + B, device=x.device) > torch.arange(B, T + B, device=x.device).unsqueeze(1)",
            "get_tri_mask(T + B, x.device)[B:]",
            id="queries from some on",
        ),
        pytest.param(
            "torch.arange(T + B, device=x.device) > (torch.arange(T, device=x.device) + B).unsqueeze(1)",
            "get_tri_mask(T + B, x.device)[B:]",
            id="queries that are moved",
        ),
    ],
)
def test_the_boolean_part_of_a_bias_is_kept_and_its_shape(model_of, before, expected):
    at = "        at, B = torch.arange(T, device=x.device), x.size(0)\n"
    assert f"        return {expected}\n" in after(model_of(HEADER + f"{at}        return {before}\n"))


def test_a_mask_as_large_as_scores_of_one_length(model_of):
    lines = "        B, T, C = x.shape\n        scores = x @ x.mT\n        return torch.ones_like(scores[0], dtype=torch.bool).triu(1)\n"
    assert "        return get_tri_mask(T, scores[0].device)\n" in after(model_of(HEADER + lines))
