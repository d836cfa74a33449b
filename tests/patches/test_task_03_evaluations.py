"""Evaluations in the run of updates go under autocast with them, or the task is refused where they stand."""

import textwrap

import pytest

from bitpatch.patches.task import State

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import no_grad as still\n\n\n"
UPDATE = """\
logits = model(batch)
loss = F.cross_entropy(logits, batch)
loss.backward()
opt.step()
opt.zero_grad()
"""
MEASURE = "logits = model(batch)\ntotal += F.cross_entropy(logits, batch).item()\n"
WRAPPED = """\
with autocast(next({0}.parameters()).device, {1}):
    logits = {0}(batch)
    {2}F.cross_entropy(at_least_float32(logits), batch)"""


def looped(body, epochs="epochs"):
    turn = textwrap.indent(f"for batch in data.split(2):\n{textwrap.indent(body, '    ')}", " " * 4)
    return f"for _ in range({epochs}):\n{turn}"


def function(name, arguments, *parts, mark=""):
    return f"{mark}def {name}({arguments}):\n{textwrap.indent(''.join(parts), '    ')}\n\n"


def evaluation(mark="@torch.no_grad()\n", arguments="model, data", measure=MEASURE):
    turn = f"for batch in data.split(2):\n{textwrap.indent(measure, '    ')}"
    return function("evaluate", arguments, "total = 0\n", turn, "return total\n", mark=mark)


def trainer(mark="@torch.no_grad()\n", before="", arguments="self, data", measure=None, run="self.evaluate(data)\n"):
    own = UPDATE.replace("model", "self.model").replace("opt", "self.opt")
    setup = "self.model, self.epochs = model, epochs\nself.opt = torch.optim.SGD(model.parameters(), lr=lr)\n"
    body = function("__init__", "self, model, epochs=1, lr=0.1", setup)
    body += function("run", "self, data", looped(own, "self.epochs"), run)
    body += evaluation(mark, arguments, before + (measure or MEASURE.replace("model", "self.model")))
    return f"{HEAD}class Trainer:\n{textwrap.indent(body, '    ')}"


NAMED = "evaluation that is to run under autocast"
OPT = "opt = torch.optim.SGD(model.parameters(), lr=lr)\n"
ARGUMENTS = "model, data, epochs=1, lr=0.1"


def train(*parts, before=""):
    return HEAD + before + function("train", ARGUMENTS, OPT, looped(UPDATE), *parts)


def flat(text):
    return " ".join(text.split())


IN_SCOPE = f"total = 0\n{{0}}for batch in data.split(2):\n{textwrap.indent(MEASURE, '    ')}"


@pytest.mark.parametrize(
    ("text", "model", "option"),
    [
        pytest.param(trainer(), "self.model", "self.amp", id="method"),
        pytest.param(trainer("@torch.inference_mode()\n"), "self.model", "self.amp", id="inference mode"),
        pytest.param(trainer("@still()\n"), "self.model", "self.amp", id="alias"),
        pytest.param(trainer("", "self.model.eval()\n"), "self.model", "self.amp", id="told to evaluate"),
        pytest.param(trainer("", "torch.set_grad_enabled(False)\n"), "self.model", "self.amp", id="set"),
        pytest.param(
            train(
                f"total = 0\nwith torch.no_grad():\n    for batch in data.split(2):\n{textwrap.indent(MEASURE, ' ' * 8)}"
            ),
            "model",
            "amp",
            id="context in the loop's own text",
        ),
        pytest.param(
            HEAD + function("train", ARGUMENTS, OPT, evaluation(arguments="data"), looped(UPDATE), "evaluate(data)\n"),
            "model",
            "amp",
            id="function inside",
        ),
    ],
)
def test_evaluations_go_under_autocast(loop_of, after, text, model, option):
    assert flat(WRAPPED.format(model, option, "total += ")) in flat(after(loop_of(text), "task-3"))


def test_a_loss_by_any_name_is_one(loop_of, after):
    text = trainer(measure="logits = self.model(batch)\ntotal -= logits.log_softmax(-1)[:, 0].mean().item()\n")
    assert "total -= at_least_float32(logits).log_softmax" in after(loop_of(text), "task-3")


def test_what_does_the_measuring_is_under_autocast_where_it_is_called(loop_of, after):
    text = trainer(measure="total += self.score(batch).item()\n")
    text += "    def score(self, batch):\n        return F.cross_entropy(self.model(batch), batch)\n"
    changed = after(loop_of(text), "task-3")
    assert "self.amp):\n                total += self.score(batch).item()" in changed
    assert "F.cross_entropy(at_least_float32(self.model(batch)), batch)" in changed


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            train("evaluate(model, data)\n", before=evaluation()) + "def main(m, d):\n    later(m, d, evaluate)\n",
            id="handed on as it is",
        ),
        pytest.param(
            HEAD
            + evaluation()
            + function(
                "step", "model, opt, data, lr=0.1", f"for batch in data.split(2):\n{textwrap.indent(UPDATE, '    ')}"
            )
            + function(
                "train",
                ARGUMENTS,
                OPT,
                "for _ in range(epochs):\n    step(model, opt, data)\n    evaluate(model, data)\n",
            ),
            id="beside what the epochs call",
        ),
        pytest.param(
            HEAD
            + evaluation()
            + function("fit", "model, opt, data, lr=0.1", looped(UPDATE, "2"), "evaluate(model, data)\n")
            + function(
                "train",
                ARGUMENTS,
                OPT,
                "for _ in range(epochs):\n    fit(model, opt, data)\n    evaluate(model, data)\n",
            ),
            id="also beside what the epochs call",
        ),
    ],
)
def test_evaluations_that_the_option_does_not_reach_are_named(loop_of, refusal, text):
    line = next(place for place, each in enumerate(text.splitlines(), 1) if "total +=" in each)
    reason = refusal(loop_of(text), "task-3")
    assert NAMED in reason
    assert f"training.py:{line}:" in reason


REPORT = function("report", "model, data, name=''", "print(name, evaluate(model, data))\n")


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        pytest.param(
            train("evaluate(model, data)\n", before=evaluation()) + "def main(m, d):\n    evaluate(m, d)\n",
            ["evaluate(model, data, amp=amp)", "    evaluate(m, d)"],
            id="function that is called after the run too",
        ),
        pytest.param(
            train("report(model, data)\n", before=evaluation() + REPORT),
            ["report(model, data, amp=amp)", "report(model, data, name='', amp: str", "evaluate(model, data, amp=amp)"],
            id="through another function",
        ),
        pytest.param(
            trainer(
                "@staticmethod\n@torch.no_grad()\n", "", "model, data", MEASURE, "self.evaluate(self.model, data)\n"
            ),
            ["self.evaluate(self.model, data, amp=self.amp)"],
            id="static method",
        ),
    ],
)
def test_functions_that_evaluate_are_handed_the_option(loop_of, after, text, calls):
    changed = after(loop_of(text), "task-3")
    assert flat(WRAPPED.format("model", "amp", "total += ")) in flat(changed)
    assert 'def evaluate(model, data, amp: str = "off"):' in changed
    assert all(each in changed for each in calls)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            train(before=evaluation()) + "def main(m, d):\n    train(m, d)\n    evaluate(m, d)\n", id="after it"
        ),
        pytest.param(train(before=evaluation(measure="total += model(batch).argmax(-1)\n")), id="no loss"),
        pytest.param(
            train("evaluate(model, data)\n", before=evaluation(measure="total += model(batch).argmax(-1).sum()\n")),
            id="accuracy",
        ),
    ],
)
def test_what_is_no_evaluation_of_a_run_is_left(loop_of, after, text):
    assert after(loop_of(text), "task-3").count("with autocast") == 1


def by_hand(text):
    context = "with torch.autocast('cpu', torch.bfloat16, enabled=self.epochs > 1):\n"
    start, end = text.index("                logits = self.model"), text.index("                loss.back")
    return text[:start] + f"{' ' * 16}{context}" + textwrap.indent(text[start:end], "    ") + text[end:]


def test_an_evaluation_that_autocast_by_hand_leaves_out_is_named(loop_of, refusal):
    assert NAMED in refusal(loop_of(by_hand(trainer())), "task-3")


def test_autocast_round_the_call_is_enough(loop_of, state_of):
    context = "with torch.autocast('cpu', torch.bfloat16, enabled=self.epochs > 1):\n    self.evaluate(data)\n"
    text = by_hand(trainer(run=context))
    assert state_of(loop_of(text), "task-3") is State.APPLIED
