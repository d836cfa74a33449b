"""What the user settles: one site of a task alone, and statements that a comment leaves out, with a reason."""

import json
import shutil

import pytest
from samples import BASELINE, CODE_ONLY, contents, line_of

from bitpatch.patches.applying.engine import plan, status
from bitpatch.patches.applying.skips import skips
from bitpatch.patches.known import task_named
from bitpatch.patches.reading.tree import open_tree
from bitpatch.patches.task import BitpatchError, Line, State

MODEL, TRAINING = "bit_transformer/model.py", "bit_transformer/training.py"
FIRST, SECOND = (line_of(MODEL, f"torch.ones({size}") for size in ("T, T", "width, width"))
LOOP = line_of(TRAINING, "for batch in with_extra_steps(")
BACKWARD, CLIP = (line_of(TRAINING, text) for text in ("loss.backward()", "clip_grad_norm_"))


@pytest.fixture
def near(tree):
    """A tree whose second mask is a near miss."""
    return edited(tree, MODEL, ("width, width, dtype=torch.bool, device=q.device", "width, width, dtype=torch.bool"))


def edited(tree, path, *changes):
    text = (tree / path).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (tree / path).write_text(text)
    return tree


def commented(tree, path, line, comment, *, above=False):
    """A comment at the end of a line, or above it."""
    lines = (tree / path).read_text().split("\n")
    own = lines[line - 1]
    indent = own[: len(own) - len(own.lstrip())]
    lines[line - 1 : line] = [f"{indent}{comment}", own] if above else [f"{own}  {comment}"]
    (tree / path).write_text("\n".join(lines))
    return tree


def found(tree, name, at=()):
    (one,) = status(tree if at == () else at_line(tree, name, *at), [task_named(name)])
    return one


def at_line(tree, name, *lines):
    from dataclasses import replace

    return replace(tree, at={task_named(name).id: tuple(Line(MODEL, line) for line in lines)})


def seen(one):
    return [(each.site.line, each.aside or str(each.state)) for each in one.findings]


# One site alone


def test_at_a_clear_site_the_near_miss_is_left_alone(run, near):
    assert run("apply", "10", "--tree", near)[0] == 3
    before = (near / MODEL).read_text()
    code, out, err = run("apply", "10", "--tree", near, "--at", f"{MODEL}:{FIRST}")
    after = (near / MODEL).read_text()
    assert (code, err) == (0, f"next: bitpatch verify task-10 --tree {near}\n")
    assert f"{MODEL}:{SECOND}:22: causal mask built in every forward, but it names no device" in out
    assert "(left alone)" in out
    assert after.count("get_tri_mask(T, q.device)") == 1
    assert [line for line in before.splitlines() if line not in after.splitlines()] == [before.splitlines()[FIRST - 1]]


def test_at_one_of_two_clear_sites_only_that_is_done(run, tree):
    code, out, _ = run("diff", "10", "--tree", tree, "--at", f"{MODEL}:{SECOND}", "--json")
    document = json.loads(out)
    removed = [line for line in document["diff"].splitlines() if line.startswith("-") and "---" not in line]
    assert (code, len(removed)) == (0, 1)
    assert [site["note"] for site in document["tasks"][0]["sites"] if "left alone" in site["note"]] == [
        "causal mask built in every forward (left alone)"
    ]


def test_at_a_near_miss_is_a_refusal_and_names_what_settles_it(run, near):
    before = contents(near)
    code, out, err = run("apply", "10", "--tree", near, "--at", f"{MODEL}:{SECOND}")
    assert (code, out, contents(near)) == (3, "", before)
    assert "but it names no device" in err
    assert err.endswith(f"next: bitpatch explain task-10 --tree {near}\n")


def test_a_refusal_names_the_clear_site_that_can_be_done_alone(run, near):
    err = run("apply", "10", "--tree", near)[2]
    (command,) = [
        line.partition(": ")[2] for line in err.splitlines() if line.startswith("to have one clear site alone")
    ]
    assert run(*command.split()[1:])[0] == 0
    assert "# bitpatch: skip[task-10] REASON" in err


@pytest.mark.parametrize("task", ["3", "8", "9"])
def test_what_cannot_be_done_alone_is_not_offered_so(run, tree, task):
    changes = {
        "3": (TRAINING, ("def train_loop(", "def autocast():\n    pass\n\n\ndef train_loop(")),
        "8": (TRAINING, ("def train_loop(", "def compile_where_supported():\n    pass\n\n\ndef train_loop(")),
        "9": (MODEL, ("torch.softmax(scores, dim=-1)", "torch.softmax(scores, dim=1)")),
    }
    path, change = changes[task]
    err = run("apply", task, "--tree", edited(tree, path, change))[2]
    assert "near miss at" in err
    assert ("to have one clear site alone" in err) is (task == "9")


@pytest.mark.parametrize("line", [LOOP, BACKWARD, CLIP], ids=["loop", "backward", "clip"])
def test_at_a_part_of_what_is_done_together_all_of_it_is_done(run, tree, line):
    whole = shutil.copytree(tree, tree.parent / "whole")
    assert run("apply", "4", "--tree", tree, "--at", f"{TRAINING}:{line}")[0] == 0
    assert run("apply", "4", "--tree", whole)[0] == 0
    assert contents(tree) == contents(whole)


def test_at_a_part_of_what_is_done_together_a_near_miss_elsewhere_refuses_it(run, tree):
    edited(
        tree,
        TRAINING,
        (
            "            loss.backward()",
            "            if epoch < 0:\n                continue\n            loss.backward()",
        ),
    )
    before = contents(tree)
    code, _, err = run("apply", "4", "--tree", tree, "--at", f"{TRAINING}:{LOOP}")
    assert (code, contents(tree)) == (3, before)
    assert "no site can be done alone" in err


def test_statements_that_two_masks_share_keep_them_together(tree):
    text = (tree / MODEL).read_text()
    build = "future = torch.triu(torch.ones(T, T, dtype=torch.bool, device=q.device), diagonal=1)"
    shared = "every = torch.ones(T, T, dtype=torch.bool, device=q.device)\n            future = torch.triu(every, diagonal=1)\n            past = torch.tril(every)\n            scores = scores.masked_fill(~past, float('-inf'))"
    assert build in text
    (tree / MODEL).write_text(text.replace(build, shared, 1))
    states = dict(seen(found(open_tree(tree), "10", at=[FIRST + 1])))
    assert (states[FIRST + 1], states[FIRST + 3], states[SECOND + 3]) == ("missing", "missing", "left alone")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(
            ("10", "--at", f"{MODEL}:{FIRST + 1}"), 3, f"{MODEL}:{FIRST}:22: causal mask", id="no site on that line"
        ),
        pytest.param(("10", "--at", f"{MODEL}:{FIRST}:9"), 3, f"{MODEL}:{FIRST}:22: causal mask", id="another column"),
        pytest.param(("10", "--at", f"{TRAINING}:1"), 3, f"{MODEL}:{FIRST}:22: causal mask", id="another file"),
        pytest.param(("10", "--at", "nowhere.py:67"), 2, "is no Python file of the tree", id="no file"),
        pytest.param(("10", "--at", "../x.py:67"), 2, "is no Python file of the tree", id="a file outside"),
        pytest.param(("10", "--at", MODEL), 2, "expected PATH:LINE", id="no line"),
        pytest.param(("10", "--at", f"{MODEL}:0"), 2, "expected PATH:LINE", id="line 0"),
        pytest.param(("10", "11", "--at", f"{MODEL}:67"), 2, "name one task", id="two tasks"),
    ],
)
@pytest.mark.parametrize("command", ["status", "diff", "apply"])
def test_a_place_that_says_nothing_is_an_error(run, tree, command, words, code, said):
    before = contents(tree)
    got, out, err = run(command, *words, "--tree", tree)
    assert (got, out, contents(tree)) == (code, "", before)
    assert said in err


def test_a_place_is_also_told_from_where_the_user_is(run, tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    code, out, _ = run("status", "10", "--tree", "tree", "--at", f"tree/{MODEL}:{FIRST}:22")
    assert (code, [line.split()[0] for line in out.splitlines()[1:]]) == (0, ["missing", "left", "missing"])


def test_one_of_several_gates_is_settled(run, tree):
    path = "bit_transformer/safety.py"
    text = (tree / path).read_text()
    gate = text[text.index("class SafetyGate") :]
    (tree / path).write_text(text + "\n\n" + gate.replace("SafetyGate", "OtherGate"))
    assert "one of 2 tests of a loss" in run("apply", "7", "--tree", tree)[2]
    (line, *_) = [
        number for number, each in enumerate(text.splitlines(), 1) if "self.threshold" in each and "if" in each
    ]
    assert run("apply", "7", "--tree", tree, "--at", f"{path}:{line}")[0] == 0
    assert (tree / path).read_text().endswith(gate.replace("SafetyGate", "OtherGate"))


# A later revert


def test_a_site_done_alone_is_reverted_and_replayed_so(run, near):
    before = contents(near)
    run("apply", "4", "--tree", near)
    run("apply", "10", "--tree", near, "--at", f"{MODEL}:{FIRST}")
    run("apply", "9", "--tree", near)
    assert run("revert", "4", "--tree", near)[0] == 0
    assert run("revert", "9", "--tree", near)[0] == 0
    text = (near / MODEL).read_text()
    assert text.count("get_tri_mask(T, q.device)") == 1
    assert run("revert", "10", "--tree", near)[0] == 0
    assert contents(near) == before


def test_two_sites_done_one_by_one_are_replayed_as_both(run, tree):
    before = contents(tree)
    run("apply", "10", "--tree", tree, "--at", f"{MODEL}:{SECOND}")
    shift = [
        number for number, line in enumerate((tree / MODEL).read_text().splitlines(), 1) if "torch.ones(T, T" in line
    ]
    assert run("apply", "10", "--tree", tree, "--at", f"{MODEL}:{shift[0]}")[0] == 0
    run("apply", "12", "--tree", tree)
    both = (tree / MODEL).read_text()
    assert "torch.ones(T, T" not in both
    assert run("revert", "12", "--tree", tree)[0] == 0
    assert "get_tri_mask(T, q.device)" in (tree / MODEL).read_text()
    assert run("revert", "10", "--tree", tree)[0] == 0
    assert contents(tree) == before


SKIP = "# bitpatch: skip[task-10] it is no mask of ours"


FINETUNE = """\
import torch.nn.functional as F


def finetune(model, optimizer, batches):
    while batches:
        batch = batches.pop(0)
        loss = F.cross_entropy(model(batch)[0][:, :-1].reshape(-1, 2), batch[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    finetune(MODEL, OPTIMIZER, BATCHES)
"""


@pytest.mark.parametrize("settled", ["--at", "skip"])
def test_one_of_two_loops_is_grouped_and_the_other_left_alone(run, tree, settled):
    whole = shutil.copytree(tree, tree.parent / "whole")
    run("apply", "4", "--tree", whole)
    path = tree / "bit_transformer/finetune.py"
    path.write_text(FINETUNE)
    before = contents(tree)
    code, _, err = run("apply", "4", "--tree", tree)
    assert (code, contents(tree)) == (3, before)
    assert f"--at {TRAINING}:" in err
    if settled == "skip":
        path.write_text(FINETUNE.replace("backward()", "backward()  # bitpatch: skip[4] one batch at a time"))
    own = path.read_text()
    assert run("apply", "4", "--tree", tree, *(["--at", f"{TRAINING}:{BACKWARD}"] if settled == "--at" else []))[0] == 0
    assert path.read_text() == own
    assert (tree / TRAINING).read_text() == (whole / TRAINING).read_text()


def test_what_is_left_out_stays_so_in_a_replay(run, near):
    commented(near, MODEL, SECOND, SKIP)
    before = contents(near)
    run("apply", "10", "11", "--tree", near)
    assert run("revert", "11", "--tree", near)[0] == 0
    assert (near / MODEL).read_text().count("get_tri_mask(T, q.device)") == 1
    assert run("revert", "10", "--tree", near)[0] == 0
    assert contents(near) == before


def test_a_comment_that_came_later_changes_no_revert(run, near):
    run("apply", "10", "--tree", near, "--at", f"{MODEL}:{FIRST}")
    run("apply", "4", "--tree", near)
    text = (near / MODEL).read_text().splitlines()
    commented(near, MODEL, next(number for number, each in enumerate(text, 1) if "torch.ones(width" in each), SKIP)
    assert run("revert", "4", "--tree", near)[0] == 0
    assert run("apply", "11", "--tree", near)[0] == 0
    assert run("revert", "11", "--tree", near)[0] == 0
    assert run("revert", "10", "--tree", near)[0] == 0
    text = (near / MODEL).read_text()
    assert ("get_tri_mask" in text, SKIP in text) == (False, True)


@pytest.mark.parametrize("name", ["task-10", "10", "mask-cache", "11, mask-cache"])
@pytest.mark.parametrize("above", [True, False])
def test_a_near_miss_that_is_left_out_does_not_stand_in_the_way(run, near, name, above):
    commented(near, MODEL, SECOND, SKIP.replace("task-10", name), above=above)
    code, out, err = run("apply", "10", "--tree", near)
    assert code == 0
    assert "(skipped: it is no mask of ours)" in out
    text = (near / MODEL).read_text()
    assert text.count("get_tri_mask(T, q.device)") == 1
    assert "torch.ones(width, width, dtype=torch.bool)" in text
    once = contents(near)
    code, out, _ = run("apply", "10", "--tree", near, "--json")
    assert (code, json.loads(out)["tasks"][0]["outcome"], contents(near)) == (0, "already-applied", once)
    code, out, err = run("status", "10", "--tree", near, "--check")
    assert code == 0
    assert "task-10 mask-cache: applied" in out
    assert "skipped" in out


def test_all_that_is_left_out_makes_no_task_missing(run, tree):
    commented(tree, MODEL, SECOND, SKIP)
    commented(tree, MODEL, FIRST, SKIP)
    code, out, err = run("status", "10", "--tree", tree, "--json")
    (task,) = json.loads(out)["tasks"]
    assert (code, err, task["state"]) == (0, "", "applied")
    assert [site["note"].partition(" (")[2] for site in task["sites"]] == ["skipped: it is no mask of ours)"] * 3


def test_what_is_done_together_is_left_out_together(run, tree):
    """Half of an update that is grouped would train wrongly."""
    commented(tree, TRAINING, BACKWARD, "# bitpatch: skip[4] we scale it elsewhere")
    before = contents(tree)
    code, out, _ = run("status", "4", "--tree", tree, "--json")
    assert {site["note"].partition(" (")[2] for site in json.loads(out)["tasks"][0]["sites"]} == {
        "skipped: we scale it elsewhere)"
    }
    assert (run("apply", "4", "--tree", tree)[0], contents(tree)) == (0, before)


@pytest.mark.parametrize(
    ("line", "comment"),
    [
        pytest.param(3, SKIP, id="far from anything"),
        pytest.param(FIRST, SKIP.replace("10", "12"), id="another task"),
    ],
)
def test_a_comment_that_leaves_nothing_out_is_named(run, tree, line, comment):
    text = (tree / MODEL).read_text().split("\n")
    text.insert(8, comment) if line == 3 else text.__setitem__(line - 1, f"{text[line - 1]}  {comment}")
    (tree / MODEL).write_text("\n".join(text))
    code, out, err = run("status", "--tree", tree, "--json")
    told = [site for task in json.loads(out)["tasks"] for site in task["sites"] if "unused" in site["note"]]
    assert (code, len(told), err.count("note: ")) == (0, 1, 1)
    assert f"{MODEL}:{told[0]['line']}:{told[0]['column']}: {told[0]['note']}; take task-1" in err
    states = {task["state"] for task in json.loads(out)["tasks"]}
    assert states == {"missing"}


def test_a_comment_where_the_task_is_done_is_unused(run, tree):
    run("apply", "10", "--tree", tree)
    lines = (tree / MODEL).read_text().splitlines()
    line = next(number for number, each in enumerate(lines, 1) if "get_tri_mask(T" in each)
    commented(tree, MODEL, line, SKIP)
    code, out, err = run("status", "10", "--tree", tree)
    assert (code, "task-10 mask-cache: applied" in out, "unused" in out, "(unused: " in err) == (0, True, True, True)


@pytest.mark.parametrize(
    ("comment", "said"),
    [
        pytest.param("# bitpatch: skip[task-10]", "a skip without a reason", id="no reason"),
        pytest.param("# bitpatch: skip", "names no task", id="no task"),
        pytest.param("# bitpatch: skip[] why", "names no task", id="an empty list"),
        pytest.param("# bitpatch: skip[task-99] why", "no task is called 'task-99'", id="unknown task"),
        pytest.param("# bitpatch: skipp[task-10] why", "names no task", id="misspelt"),
    ],
)
@pytest.mark.parametrize("command", ["status", "diff", "apply"])
def test_a_comment_that_does_not_say_what_or_why_is_refused_with_its_place(run, tree, comment, said, command):
    commented(tree, MODEL, FIRST, comment)
    before = contents(tree)
    code, _, err = run(command, "10", "--tree", tree)
    assert (code, contents(tree)) == (3, before)
    assert f"{MODEL}:{FIRST}:" in err
    assert said in err


def test_each_order_gives_the_same_where_something_is_left_out(near, patched):
    commented(near, MODEL, SECOND, SKIP)
    other = shutil.copytree(near, near.parent / "other", ignore=CODE_ONLY)
    patched(near, "9", "10", "11")
    for name in ("11", "10", "9"):
        patched(other, name)
    assert contents(near) == contents(other)


LINES = """\
x = 1  # bitpatch: skip[1] a
# bitpatch: skip[1] b
# and why
y = (
    2  # bitpatch: skip[1] c
    + 3
)
for _ in y:  # bitpatch: skip[1] d
    z = "# bitpatch: skip[1] in a text"
    # bitpatch: skip[1] e

# bitpatch: skip[1] f


@decorated
# bitpatch: skip[1] g
def f(): pass
# bitpatch: skip[1] h
@decorated
def g():
    return (
        # bitpatch: skip[1] i
        1
    )
# bitpatch: skip[1] j
w = 1  # type: ignore # bitpatch: skip[1] k
"""


def test_which_statement_a_comment_means():
    said = {
        each.reason: (each.lines[0], each.lines[-1]) if each.lines else None for each in skips("a.py", LINES.encode())
    }
    assert said == {
        "a": (1, 1),
        "b": (4, 7),
        "c": (4, 7),
        "d": (8, 9),
        "e": None,
        "f": None,
        "g": None,
        "h": (19, 24),
        "i": (21, 24),
        "j": (26, 26),
        "k": (26, 26),
    }


def test_a_file_that_does_not_parse_has_no_comments():
    assert skips("a.py", b"x = (  # bitpatch: skip[1] a\n") == ()
    assert skips("a.py", b"x = '\xff'  # bitpatch: skip[1] a\n") == ()


def test_all_comments_that_are_wrong_are_named_at_once():
    with pytest.raises(BitpatchError) as refused:
        skips("a.py", b"x = 1  # bitpatch: skip[1]\n\ny = 1 # bitpatch: leave[1] z\n# bitpatch: a word of ours\n")
    assert [line.split(": ")[0] for line in str(refused.value).splitlines()] == ["a.py:1:8", "a.py:3:7"]


# What a task has on a tree


def test_explain_names_each_condition_with_its_place(run, near):
    code, out, _ = run("explain", "10", "--tree", near)
    assert code == 0
    assert f"  matched    missing       {MODEL}:{FIRST}:22: causal mask built in every forward\n" in out
    assert f"  near-miss  unrecognised  {MODEL}:{SECOND}:22: " in out


def test_explain_names_what_is_absent(run, near):
    (
        edited(near, MODEL, ("future = torch.triu(", "future = no(")),
        edited(near, MODEL, ("future = torch.triu(", "future = no(")),
    )
    code, out, _ = run("explain", "10", "--tree", near, "--json")
    assert (code, json.loads(out)["conditions"]) == (0, [{"condition": "absent", "note": task_named("10").sought}])
    assert "  absent     " in run("explain", "10", "--tree", near)[1]


def test_explain_names_where_the_trail_was_lost(run, tree):
    edited(tree, MODEL, ('scores = scores.masked_fill(future, float("-inf"))', "scores = elsewhere(scores, future)"))
    conditions = json.loads(run("explain", "9", "--tree", tree, "--json")[1])["conditions"]
    (lost,) = [each for each in conditions if each["condition"] == "opaque"]
    assert (lost["state"], lost["line"], lost["column"]) == ("unrecognised", FIRST + 1, 22)


def test_explain_without_a_tree_is_as_it_was(run):
    assert "conditions" not in json.loads(run("explain", "10", "--json")[1])


def test_findings_that_say_nothing_are_one(tree):
    one = found(open_tree(tree), "6")
    assert {each.units for each in one.findings} == {frozenset()}
    assert one.state is State.MISSING


def test_the_baseline_is_planned_as_before(tree):
    assert plan(open_tree(BASELINE), [task_named("10")]).changes == plan(open_tree(tree), [task_named("10")]).changes
