"""Which forwards and losses go under autocast, and which are named and left."""

import re

import pytest
from samples import LOOP

from bitpatch.patches.task import State

FORWARD = LOOP[LOOP.index("            if random") : LOOP.index("            loss = ")]


@pytest.fixture
def plain():
    return LOOP.replace(FORWARD, "            logits, telemetry = model(batch)\n")


def under(plain, context):
    """The forward and the loss under a context of the tree's own."""
    start, end = plain.index("            logits, telemetry"), plain.index("            loss.back")
    body = "".join(f"    {line}" for line in plain[start:end].splitlines(keepends=True))
    return f"{plain[:start]}            with {context}:\n{body}{plain[end:]}"


def test_autocast_by_hand_is_left_alone(loop_of, state_of, plain):
    text = under(plain, "torch.autocast('cpu', torch.bfloat16, enabled=amp == 'bf16')")
    assert state_of(loop_of(text.replace("=0.5)", '=0.5, amp="off")')), "task-3") is State.APPLIED


def test_a_loss_that_widens_float16_too_is_no_autocast_of_it(loop_of, state_of, plain):
    text = under(plain, "torch.autocast('cpu', torch.bfloat16, enabled=amp == 'bf16')")
    text = text.replace("=0.5)", '=0.5, amp="off")').replace("loss_of(logits, batch)", "loss_of(wide(logits), batch)")
    wide = "def wide(x):\n    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x\n"
    assert state_of(loop_of(f"{text}\n\n{wide}"), "task-3") is State.APPLIED


def test_a_loss_outside_of_autocast_whose_targets_alone_are_cast_is_named(loop_of, refusal, plain):
    text = under(plain, "torch.autocast('cpu', torch.bfloat16, compress_prob > 0)")
    text = text.replace("    loss = loss_of(logits, batch)", "loss = loss_of(logits, batch.long())")
    assert "the loss is made outside of it" in refusal(loop_of(text), "task-3")


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        pytest.param("torch.autocast('cpu', torch.bfloat16)", "no option turns it on", id="always on"),
        pytest.param("torch.autocast('cuda', torch.float16, compress_prob > 0)", "float16, which needs", id="float16"),
    ],
)
def test_autocast_that_is_another_is_named(loop_of, refusal, plain, context, reason):
    assert reason in refusal(loop_of(under(plain, context)), "task-3")


def test_autocast_that_holds_the_backward_is_named(loop_of, refusal, plain):
    text = under(plain, "torch.autocast('cpu', torch.bfloat16, compress_prob > 0)")
    text = text.replace("            loss.back", "                loss.back")
    assert "the backward stands in it too" in refusal(loop_of(text), "task-3")


def test_autocast_of_something_else_is_named(loop_of, refusal, plain):
    text = plain.replace(
        "            loss.back", "            with torch.autocast('cpu'):\n                pass\n            loss.back"
    )
    assert "no forward of this update is in it" in refusal(loop_of(text), "task-3")


def test_right_words_in_a_comment_are_no_autocast(loop_of, state_of, plain):
    assert state_of(loop_of(plain + "# with autocast(device, amp):\n"), "task-3") is State.MISSING


def test_forward_and_loss_go_under_autocast_and_backward_stays_outside(loop_of, after, plain):
    text = after(loop_of(plain), "task-3")
    assert (
        """\
            with autocast(next(model.parameters()).device, amp):
                logits, telemetry = model(batch)
                loss = loss_of(at_least_float32(logits), batch)
            loss.backward()
"""
        in text
    )
    assert 'compress_prob=0.5, amp: str = "off"):' in text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "", "", "                else:\n                    logits = model(batch)\n", id="forward in branches"
        ),
        pytest.param(
            "            loss = loss_of(logits, batch)\n",
            "            # the loss\n            loss = loss_of(logits, batch)\n",
            "                # the loss\n                loss = loss_of(at_least",
            id="comment",
        ),
        pytest.param(
            "            loss = loss_of(logits, batch)\n",
            "            flat = logits.flatten(0, 1)\n            loss = loss_of(flat, batch)\n",
            "loss_of(at_least_float32(flat), batch)",
            id="logits reshaped first",
        ),
        pytest.param(
            "    total =",
            "    where = next(model.parameters()).device\n    total =",
            "with autocast(where, amp):",
            id="device of another name",
        ),
        pytest.param(
            "            loss = loss_of(logits, batch)\n",
            "            ce = loss_of(logits, batch)\n            loss = ce + aux\n",
            "ce = loss_of(at_least_float32(logits), batch)\n                loss = ce + aux\n",
            id="loss in two steps",
        ),
        pytest.param(
            "loss_of(logits, batch)", "loss_of(logits[0], batch)", "at_least_float32(logits[0])", id="first of a tuple"
        ),
        pytest.param(
            "loss_of(logits, batch)", "loss_of(logits.logits, batch)", "(at_least_float32(logits.logits), ", id="field"
        ),
        pytest.param("(model, data,", "(data, model,", "next(model.parameters())", id="model that comes second"),
        pytest.param("(model, data, *,", "(*, model, data,", "next(model.parameters())", id="model by keyword"),
        pytest.param(
            "    total =", "    device = data.device\n    total =", "next(model.parameters())", id="device of the data"
        ),
        pytest.param(
            "loss.backward()", "(loss / 2).backward()", "            (loss / 2).backward()\n", id="scaled loss"
        ),
    ],
)
def test_idioms(loop_of, after, old, new, expected):
    assert expected in after(loop_of(LOOP.replace(old, new) if old else LOOP), "task-3")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(
            "loss = loss_of(logits, batch)",
            "loss = loss_of(model, batch)",
            "the logits cannot be told",
            id="loss of the model",
        ),
        pytest.param("    total =", "    amp = True\n    total =", "another meaning", id="amp set in the function"),
        pytest.param(
            "def train_loop", "AMP = True\n\n\ndef train_loop", "definition of AMP", id="constant of another kind"
        ),
        pytest.param("=0.5)", "=0.5, amp=False)", "another meaning", id="amp of another kind"),
        pytest.param(
            "    total =", "    autocast = 1\n    total =", "another meaning", id="autocast set in the function"
        ),
        pytest.param("(model, data,", "(net, data,", "for which model it is cannot be told", id="no model"),
        pytest.param("            loss = loss_of(logits, batch)\n", "", "for which model it is", id="no loss"),
    ],
)
def test_near_misses_are_refused(loop_of, refusal, old, new, reason):
    assert old in LOOP
    assert reason in refusal(loop_of(LOOP.replace(old, new)), "task-3")


def test_a_name_that_is_taken_is_named(loop_of, refusal):
    text = "from torch.cuda.amp import autocast\n" + LOOP
    assert "stands for something else" in refusal(loop_of(text), "task-3") or "autocast" in refusal(
        loop_of(text), "task-3"
    )


def test_all_obstacles_are_named_at_once(loop_of, refusal, plain):
    text = plain.replace("    total = ", "    amp = 1\n    total = ").replace(
        "loss_of(logits, batch)", "loss_of(telemetry)"
    )
    reason = refusal(loop_of(text), "task-3")
    assert "a name that the patch brings has another meaning: rename amp" in reason
    assert "which of its operands are the logits cannot be told" in reason


@pytest.mark.parametrize(
    ("update", "called"),
    [
        pytest.param("def learn(loss):\n    loss.backward()\n", "learn(loss)", id="backward in a function"),
        pytest.param("def learn(loss):\n    torch.autograd.backward(loss)\n", "learn(loss)", id="backward of autograd"),
    ],
)
def test_the_backward_may_stand_elsewhere(loop_of, after, plain, update, called):
    text = after(loop_of(plain.replace("loss.backward()", called) + "\n\n" + update), "task-3")
    assert f"                loss = loss_of(at_least_float32(logits), batch)\n            {called}\n" in text


def test_every_update_of_a_run_is_covered(loop_of, after, plain):
    body = plain[plain.index("            logits") : plain.index("            optimizer.step")]
    flush = "".join(line[4:] for line in body.splitlines(keepends=True))
    text = after(loop_of(plain + flush), "task-3")
    assert text.count("with autocast(next(model.parameters()).device, amp):") == 2


STEP = "            optimizer.step()\n"
CLIP = "            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"


def test_a_step_without_the_clip_that_others_have_is_named(loop_of, refusal, after, plain):
    body = plain[plain.index("            logits") : plain.index("            optimizer.zero_grad")]
    clipped, flush = plain.replace(STEP, CLIP + STEP), re.sub("^    ", "", body, flags=re.MULTILINE)
    reason = refusal(loop_of(clipped + flush), "task-3")
    assert "near miss at bit_transformer/training.py:" in reason
    assert "a step without a clip, as others have: clip its gradient" in reason
    assert after(loop_of(plain + flush), "task-3").count("with autocast(") == 2  # none has: so this tree trains


def test_an_update_on_request_is_none_of_a_run(loop_of, plain, after):
    request = "\n\ndef answer(model, optimizer, bits):\n    model(bits)[0].mean().backward()\n    optimizer.step()\n"
    assert after(loop_of(plain + request), "task-3").endswith(request)


def test_a_parser_apart_from_the_loop_writes_out_what_may_be_chosen(loop_of, patched, plain):
    parser = "import argparse\n\nfrom .loop import train_loop\n\nparser = argparse.ArgumentParser()\n"
    parser += 'parser.add_argument("--epochs", type=int)\nargs = parser.parse_args()\n'
    root = loop_of(parser + "train_loop(model(), rows(), epochs=args.epochs)\n").root
    (root / "bit_transformer/loop.py").write_text(plain)
    text = (patched(root, "task-3") / "bit_transformer/training.py").read_text()
    assert 'add_argument("--amp", choices=("off", "bf16"), default="off"' in text
    assert "amp=args.amp" in text


AGAIN = """\


class Undone(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, layer):
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.layer(x)
        return torch.autograd.grad(y, x, grad)[0], None
"""


def test_a_backward_that_runs_a_model_again_does_so_under_the_autocast_of_its_forward(loop_of, after, plain):
    text = after(loop_of(plain + AGAIN), "task-3")
    assert "(ctx, x, layer):\n        ctx.autocast = autocast_state(x.device)\n" in text
    assert "        with torch.enable_grad(), torch.autocast(**ctx.autocast):\n            x = x.detach()" in text
    assert "def autocast_state(" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            "        with torch.enable_grad():\n", "        with torch.enable_grad(), again(ctx):\n", id="named"
        ),
        pytest.param(
            "    @staticmethod\n    def b", "    @staticmethod\n    @torch.amp.custom_bwd\n    def b", id="custom"
        ),
        pytest.param("torch.enable_grad()", "torch.no_grad()", id="nothing again"),
    ],
)
def test_a_backward_that_has_its_autocast_or_needs_none_is_left(loop_of, after, plain, old, new):
    text = AGAIN.replace(old, new) + "\n\ndef again(ctx):\n    return torch.autocast(**ctx.state)\n"
    assert "autocast_state" not in after(loop_of(plain + text), "task-3")


def test_a_backward_that_runs_a_model_again_on_an_unseen_device_is_named(loop_of, refusal, plain):
    text = plain + AGAIN.replace("ctx.save_for_backward(x)", "ctx.kept = x").replace(
        "(x,) = ctx.saved_tensors", "x = ctx.kept"
    )
    assert "backward that runs its model again, but" in refusal(loop_of(text), "task-3")
