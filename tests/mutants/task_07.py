"""Wrong and right safety gates."""

from mutant import Mutant

SAFETY = "bit_transformer/safety.py"
MANAGER = "dashboard/manager.py"
TELEMETRY = "bit_transformer/telemetry.py"

STATE = "        self.ema_val: float | None = None\n        self.steps = 0\n"
AVERAGE = "        self.ema_val = ema(self.ema_val, val_loss, self.decay)\n"
COUNT = "        self.steps += 1\n"
TEST = (
    "        if self.steps > self.burn_in_steps and not self.ema_val <= self.threshold:  # not a number trips too\n"
    "            self.tripped = True\n"
)
ALLOWED = "        return not self.tripped\n"
RESET = "        self.tripped = False\n        self.ema_val, self.steps = None, 0\n"
SAVED = '        return {"tripped": self.tripped, "ema_val": self.ema_val, "steps": self.steps}\n'
LOADED = '        self.tripped = state["tripped"]\n        self.ema_val, self.steps = state.get("ema_val"), state.get("steps", 0)\n'
EMA = "    return value if average is None else decay * average + (1 - decay) * value\n"
HANDED = "        if not self.gate.allows(val_loss):\n".replace("        if", "            if")
KEPT = '"gate": self.gate.state_dict()'
TAKEN = '            self.gate.load_state_dict(extra["gate"])\n'
GROWN = "            self.model, self.plan = DOUBLE[dimension](model), plan\n"
NEW_GATE = "            self.gate = SafetyGate(self.gate.threshold)\n"
INIT_GATE = "            self.gate.reset()\n"
EPOCH = "            for _ in range(self.plan.epochs):\n"
VALUE = "            val_loss = loss.item() if self.validation is None else self.evaluate(self.validation)\n"
REFUSAL = '                raise SafetyError(f"training stopped: validation loss {val_loss:.4f} over {self.gate.threshold}")\n'
DONE = "            self.step += 1\n"
APP, MCP = "dashboard/app.py", "mcp_server.py"
STEP_APP = '        return jsonify(requests.train_step(manager, **json_body("text")))\n'
STEP_MCP = "        return requests.train_step(manager, text)\n"
MAKES = "    manager = manager or ModelManager()\n\n    def status"
ENTROPY = "attention_entropy(attn_maps) if attn_maps else None"


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A mutant whose edits are all in safety.py."""
    return Mutant(name, wrong, tuple((SAFETY, old, new) for old, new in edits))


def manage(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A mutant whose edits are all in manager.py."""
    return Mutant(name, wrong, tuple((MANAGER, old, new) for old, new in edits))


def tested(name: str, wrong: str, condition: str) -> Mutant:
    """A mutant that trips on another condition."""
    return edit(name, wrong, (TEST, f"        if {condition}:\n            self.tripped = True\n"))


def average(name: str, wrong: str, expression: str) -> Mutant:
    """A mutant that averages in another way."""
    return edit(name, wrong, (EMA, f"    return {expression}\n"))


SEEDED = "value if average is None else "

MUTANTS = [
    average("decay-swapped", "the newest loss has nine tenths", SEEDED + "(1 - decay) * average + decay * value"),
    average("weights-add-up-to-more", "the newest loss counts whole", SEEDED + "decay * average + value"),
    average("zero-start", "the average climbs from zero", "decay * (average or 0.0) + (1 - decay) * value"),
    average(
        "start-at-one",
        "the average starts at a constant",
        "decay * (1.0 if average is None else average) + (1 - decay) * value",
    ),
    average("raw-value", "the last loss is tested", "value"),
    average("largest-value", "the average never falls", SEEDED + "max(average, decay * average + (1 - decay) * value)"),
    average("rounded", "the average is kept to two digits", SEEDED + "round(decay * average + (1 - decay) * value, 2)"),
    average(
        "falsy-average-forgotten",
        "an average of zero counts as none",
        "decay * average + (1 - decay) * value if average else value",
    ),
    edit(
        "bias-corrected-twice",
        "the first loss starts the average, and a correction is made as if zero had",
        (TEST, TEST.replace("self.ema_val <=", "self.ema_val / (1 - self.decay**self.steps or 1) <=")),
    ),
    edit("decay-ignored", "the decay is always 0.9", (AVERAGE, AVERAGE.replace("self.decay", "0.9"))),
    edit(
        "default-decay",
        "the decay is 0.99 where none is given",
        ("decay: float = 0.9, burn", "decay: float = 0.99, burn"),
    ),
    edit(
        "plain-mean",
        "all losses count alike",
        (
            AVERAGE,
            "        before = self.steps * (self.ema_val or 0.0)\n        self.ema_val = (before + val_loss) / (self.steps + 1)\n",
        ),
    ),
    edit(
        "frozen-in-the-burn-in",
        "the losses of the burn-in are not averaged",
        (AVERAGE, "        if self.steps >= self.burn_in_steps:\n    " + AVERAGE),
        (TEST, TEST.replace("not self", "self.ema_val is not None and not self", 1)),
    ),
    edit(
        "restarted-after-the-burn-in",
        "the average forgets the burn-in when it ends",
        (AVERAGE, "        if self.steps == self.burn_in_steps:\n            self.ema_val = None\n" + AVERAGE),
    ),
    tested(
        "raw-value-tested",
        "the loss itself is tested",
        "self.steps > self.burn_in_steps and not val_loss <= self.threshold",
    ),
    tested(
        "raw-value-tested-too",
        "a single spike trips",
        "self.steps > self.burn_in_steps and not max(self.ema_val, val_loss) <= self.threshold",
    ),
    tested(
        "both-must-be-over",
        "a loss under the threshold is let through, whatever the average",
        "self.steps > self.burn_in_steps and not min(self.ema_val, val_loss) <= self.threshold",
    ),
    tested("no-burn-in", "the burn-in is only an option's name", "not self.ema_val <= self.threshold"),
    tested(
        "burn-in-one-too-long",
        "step <= burn_in_steps is allowed",
        "self.steps > self.burn_in_steps + 1 and not self.ema_val <= self.threshold",
    ),
    tested(
        "burn-in-one-too-short",
        "step < burn_in_steps - 1 is allowed",
        "self.steps >= max(self.burn_in_steps, 1) and not self.ema_val <= self.threshold",
    ),
    tested(
        "default-burn-in",
        "the burn-in is always ten steps",
        "self.steps > 10 and not self.ema_val <= self.threshold",
    ),
    tested(
        "threshold-trips",
        "an average that equals the threshold trips",
        "self.steps > self.burn_in_steps and not self.ema_val < self.threshold",
    ),
    tested(
        "nan-passes-for-ever",
        "NaN is never over the threshold",
        "self.steps > self.burn_in_steps and self.ema_val > self.threshold",
    ),
    tested(
        "nan-trips-in-the-burn-in",
        "NaN stops training at once, the burn-in or not",
        "self.steps > self.burn_in_steps and not self.ema_val <= self.threshold or val_loss != val_loss",
    ),
    edit(
        "nan-skipped",
        "a loss that is NaN is left out, and nobody notices",
        (AVERAGE, "        if val_loss == val_loss:\n    " + AVERAGE),
        (TEST, TEST.replace("not self", "self.ema_val is not None and not self", 1)),
    ),
    edit(
        "infinity-clipped",
        "infinity counts as the largest loss that is plausible",
        (AVERAGE, AVERAGE.replace("val_loss,", "min(val_loss, 10.0) if val_loss == float('inf') else val_loss,")),
    ),
    edit(
        "losses-clipped",
        "losses over ten are cut before they are averaged",
        (AVERAGE, AVERAGE.replace("val_loss,", "10.0 if 10.0 < val_loss < 1e9 else val_loss,")),
    ),
    edit(
        "recovers-by-itself",
        "a gate opens again when the average falls",
        (TEST, TEST + "        elif self.ema_val <= self.threshold:\n            self.tripped = False\n"),
    ),
    edit("trips-but-does-not-say", "tripped stays False", (TEST, TEST.replace("self.tripped = True", "return False"))),
    edit(
        "patience",
        "a fault must last one step longer",
        (
            TEST,
            TEST.replace(
                "self.tripped = True",
                "self.over = getattr(self, 'over', 0) + 1\n            self.tripped = self.over > 1",
            ),
        ),
    ),
    edit(
        "reset-keeps-the-average",
        "a gate that was reset trips at the next loss",
        (RESET, "        self.tripped = False\n"),
    ),
    edit(
        "reset-forgets-tripped",
        "a gate that was reset stays tripped",
        (RESET, "        self.ema_val, self.steps = None, 0\n"),
    ),
    edit(
        "reset-switches-off",
        "a gate that was reset never trips again",
        (RESET, RESET + "        self.threshold = float('inf')\n"),
    ),
    edit("state-without-average", "the average starts anew", (SAVED, SAVED.replace('"ema_val": self.ema_val, ', ""))),
    edit("state-without-steps", "the burn-in starts anew", (SAVED, SAVED.replace(', "steps": self.steps', ""))),
    edit(
        "state-without-tripped",
        "a gate that is restored is open",
        (LOADED, LOADED.replace('state["tripped"]', "False")),
    ),
    edit(
        "state-is-the-gate's-own",
        "what was saved changes while training goes on",
        (SAVED, "        return self.__dict__\n"),
    ),
    edit(
        "state-only-added",
        "what the gate had before it was loaded stays where the state has nothing",
        (
            LOADED,
            '        self.tripped = state["tripped"]\n        self.ema_val = state.get("ema_val") or self.ema_val\n        self.steps = max(self.steps, state.get("steps", 0))\n',
        ),
    ),
    edit(
        "older-state-refused",
        "the state of an older gate raises",
        (LOADED, LOADED.replace('state.get("ema_val")', 'state["ema_val"]')),
    ),
    edit(
        "older-state-takes-no-more",
        "the state of an older gate counts as a burn-in without end",
        (LOADED, LOADED.replace('state.get("steps", 0)', 'state.get("steps", -10**9)')),
    ),
    manage("gate-per-request", "each update has a gate of its own", (HANDED, NEW_GATE + HANDED)),
    manage("gate-per-epoch", "each epoch has a gate of its own", (EPOCH, EPOCH + "    " + NEW_GATE)),
    manage(
        "gate-per-call-of-train",
        "train makes a gate",
        (EPOCH, NEW_GATE.replace("threshold)", "threshold + 0.0)") + INIT_GATE + EPOCH),
    ),
    manage(
        "gate-asked-twice",
        "each loss counts twice",
        (HANDED, HANDED.replace("if not ", "if not self.gate.allows(val_loss) or not ")),
    ),
    manage("gate-not-asked", "training never stops", (HANDED, "            if self.gate.tripped:\n")),
    manage(
        "gate-asked-for-nothing",
        "the answer of the gate is not heeded",
        (HANDED, "            self.gate.allows(val_loss)\n            if False:\n"),
    ),
    manage("gate-of-the-model", "scale_up makes a new gate", (GROWN, GROWN + NEW_GATE)),
    manage("gate-reset-by-growing", "scale_up resets the gate", (GROWN, GROWN + INIT_GATE)),
    manage(
        "snapshot-without-average",
        "a snapshot keeps only whether the gate had tripped",
        (KEPT, '"gate": {"tripped": self.gate.tripped}'),
    ),
    manage("snapshot's-gate-ignored", "download leaves the gate of the manager as it is", (TAKEN, "")),
    manage("snapshot-resets-the-gate", "download resets the gate", (TAKEN, INIT_GATE)),
    manage("last-run's-gate", "init leaves the gate of the run before", (INIT_GATE, "")),
    manage(
        "last-run's-burn-in",
        "init opens the gate, and does not begin a burn-in",
        (INIT_GATE, "            self.gate.tripped, self.gate.ema_val = False, None\n"),
    ),
    manage(
        "training-loss-told",
        "the gate is told the loss of the micro-batch, though there are validation rows",
        (VALUE, "            val_loss = loss.item()\n"),
    ),
    manage(
        "nothing-told", "the gate is always told that the loss is 0", (HANDED, HANDED.replace("(val_loss)", "(0.0)"))
    ),
    manage(
        "loss-told-in-bits",
        "the gate is told bits, where its threshold is in nats",
        (VALUE, VALUE + "            val_loss /= math.log(2)\n"),
    ),
    manage(
        "validated-in-training-mode",
        "what the gate is told is measured with dropout",
        ("            model.eval()\n            with torch.no_grad():\n", "            with torch.no_grad():\n"),
    ),
    manage(
        "one-batch-validated",
        "the gate is told the loss of the first validation rows",
        (VALUE, VALUE.replace("(self.validation)", "(self.validation[: self.plan.batch_size])")),
    ),
    manage(
        "mean-of-means-told",
        "a smaller last part of the validation rows weighs as much as the others",
        (
            "            return total / len(rows)\n",
            "            parts = [loss.item() for loss in losses]\n            return sum(parts) / len(parts)\n",
        ),
        (
            "                total = sum(next_bit_loss(model(batch)[0], batch).item() * len(batch) for batch in batches)\n",
            "                losses = [next_bit_loss(model(batch)[0], batch) for batch in batches]\n",
        ),
    ),
    manage(
        "training-data-validated",
        "the validation rows are kept, and the data is validated",
        (VALUE, VALUE.replace("(self.validation)", "(self.data)")),
    ),
    manage(
        "validated-once",
        "the validation loss is measured before the first update",
        (
            VALUE,
            "            if self.validation is not None and self.step == 0:\n"
            "                self.val_loss = self.evaluate(self.validation)\n"
            + VALUE.replace("self.evaluate(self.validation)", "self.val_loss"),
        ),
    ),
    manage(
        "threshold-of-the-tree",
        "the gate has the threshold of its default",
        ("SafetyGate(loss_threshold)", "SafetyGate()"),
    ),
    manage(
        "threshold-lost-on-init",
        "init makes a gate of the default threshold",
        (INIT_GATE, "            self.gate = SafetyGate()\n"),
    ),
    manage(
        "threshold-lost-on-download",
        "download makes a gate of the default threshold, and gives it the state",
        (TAKEN, "            self.gate = SafetyGate()\n" + TAKEN),
    ),
    manage(
        "burn-in-without-steps",
        "the manager's gate has no burn-in",
        ("SafetyGate(loss_threshold)", "SafetyGate(loss_threshold, burn_in_steps=0)"),
    ),
    manage(
        "burn-in-of-each-train",
        "each call of train begins a burn-in",
        (EPOCH, "            self.gate.steps = 0\n" + EPOCH),
    ),
    manage(
        "asked-once-an-epoch",
        "the gate is asked at the first update of each epoch",
        (
            HANDED,
            HANDED.replace("if not", "if self.step % (self.plan.updates // self.plan.epochs) == 0 and not"),
        ),
    ),
    manage(
        "asked-after-the-update",
        "the update has been made when the gate is asked",
        (HANDED + REFUSAL, ""),
        (DONE, DONE + HANDED + REFUSAL),
    ),
    manage(
        "schedule-moves-before-the-gate",
        "an update that is refused moves the rate",
        (HANDED, "            if self.step:\n                self.scheduler.step()\n" + HANDED),
        (
            "                self.scheduler.step()\n            self.optimizer.zero_grad()\n",
            "                pass\n            self.optimizer.zero_grad()\n",
        ),
    ),
    manage(
        "nan-not-told",
        "a loss that is not finite is not told",
        (HANDED, HANDED.replace("if not", "if math.isfinite(val_loss) and not")),
    ),
    manage(
        "validation-lost-by-growing",
        "scale_up forgets the validation rows",
        (GROWN, GROWN + "            self.validation = None\n"),
    ),
    manage(
        "snapshot-of-a-new-gate",
        "a snapshot holds the state of a gate at its start",
        (KEPT, '"gate": SafetyGate().state_dict()'),
    ),
    Mutant(
        "dashboard-opens-the-gate",
        "each request of the dashboard resets the gate",
        ((APP, STEP_APP, "        manager.gate.reset()\n" + STEP_APP),),
    ),
    Mutant(
        "mcp-opens-the-gate",
        "each call of the MCP server's tool resets the gate",
        ((MCP, STEP_MCP, "        manager.gate.reset()\n" + STEP_MCP),),
    ),
    Mutant(
        "mcp-has-a-gate-of-its-own",
        "the MCP server gives its manager a gate of the default threshold",
        ((MCP, MAKES, MAKES.replace("\n\n", "\n    manager.gate = type(manager.gate)(1e9)\n\n")),),
    ),
    Mutant(
        "absent-entropy-is-nan-for-one-row",
        "telemetry that is absent is NaN where there is one row",
        (
            (
                TELEMETRY,
                ENTROPY,
                "attention_entropy(attn_maps) if attn_maps else None if len(activations) > 1 else K * float('nan')",
            ),
        ),
    ),
    Mutant(
        "absent-entropy-is-nan",
        "telemetry that is absent is NaN",
        ((TELEMETRY, ENTROPY, "attention_entropy(attn_maps) if attn_maps else K * float('nan')"),),
    ),
    Mutant(
        "absent-entropy-is-zero",
        "telemetry that is absent looks like a value",
        ((TELEMETRY, ENTROPY, "attention_entropy(attn_maps) if attn_maps else torch.zeros_like(K)"),),
    ),
    Mutant(
        "absent-entropy-spoils-the-score",
        "without maps the score is NaN, and a manager answers so",
        ((TELEMETRY, "    S = symbiosis(K, C)\n", "    S = symbiosis(K, C) if attn_maps else K * float('nan')\n"),),
    ),
    Mutant(
        "status-is-nan",
        "a manager records NaN where there are no maps",
        (
            (
                MANAGER,
                '"lr": lr, **scores}',
                '"lr": lr, **scores, "entropy": float("nan") if telemetry["attention_entropy"] is None else 0.0}',
            ),
        ),
    ),
]

GOOD = [
    edit(
        "bias-corrected",
        "the average starts at zero, and its bias is corrected",
        (EMA, "    return decay * (average or 0.0) + (1 - decay) * value\n"),
        (TEST, TEST.replace("self.ema_val <=", "self.ema_val / (1 - self.decay**self.steps) <=")),
    ),
    edit(
        "not-finite-apart",
        "what is not finite never enters the average, and trips by itself",
        (
            AVERAGE + COUNT + TEST,
            COUNT
            + "        finite = float('-inf') < val_loss < float('inf')\n"
            + "        if finite:\n    "
            + AVERAGE
            + "        over = not finite or self.ema_val > self.threshold\n"
            + "        self.tripped = self.tripped or (over and self.steps > self.burn_in_steps)\n",
        ),
    ),
    edit(
        "increment",
        "the average moves a tenth of the way to each loss; steps are counted down; tripped is a property",
        (
            STATE + "        self.tripped = False\n",
            "        self.ema_val = self.tripped_at = None\n        self.left = burn_in_steps\n\n"
            "    @property\n    def tripped(self) -> bool:\n        return self.tripped_at is not None\n",
        ),
        (
            AVERAGE + COUNT + TEST,
            "        if self.ema_val is None:\n            self.ema_val = val_loss\n"
            "        self.ema_val += (1 - self.decay) * (val_loss - self.ema_val)\n"
            "        if self.left > 0:\n            self.left -= 1\n"
            "        elif self.tripped_at is None and not self.ema_val <= self.threshold:\n"
            "            self.tripped_at = self.ema_val\n",
        ),
        (RESET, "        self.ema_val = self.tripped_at = None\n        self.left = self.burn_in_steps\n"),
        (SAVED, "        return {'tripped_at': self.tripped_at, 'ema_val': self.ema_val, 'left': self.left}\n"),
        (
            LOADED,
            "        self.tripped_at = state.get('tripped_at', float('inf') if state.get('tripped') else None)\n"
            "        self.ema_val = state.get('ema_val')\n"
            "        self.left = state.get('left', self.burn_in_steps)\n",
        ),
    ),
    Mutant(
        "tensor-state",
        "the average is a float32 tensor",
        (
            (SAFETY, AVERAGE, "        self.ema_val = ema(self.ema_val, torch.tensor(float(val_loss)), self.decay)\n"),
            (SAFETY, SAVED, SAVED.replace("self.ema_val,", "None if self.ema_val is None else self.ema_val.clone(),")),
            ("bit_transformer/pretraining.py", '"ema": progress.gate.ema_val}', '"ema": float(progress.gate.ema_val)}'),
        ),
    ),
    edit(
        "decay-is-fixed",
        "a gate takes no other decay than 0.9, and a reset keeps the count of steps",
        ("decay: float = 0.9, burn_in", "burn_in"),
        ("        self.decay = decay\n", "        self.decay = 0.9\n"),
    ),
    Mutant(
        "gate-made-by-init",
        "each run has a gate that init makes, with its options; a snapshot's gate is made from its state",
        (
            (MANAGER, INIT_GATE, NEW_GATE),
            (MANAGER, TAKEN, NEW_GATE + TAKEN),
        ),
    ),
    Mutant(
        "absent-left-out",
        "telemetry without maps has no such entries",
        (
            (TELEMETRY, '    return {\n        "activations"', '    entries = {\n        "activations"'),
            (
                TELEMETRY,
                '        "kcs_score": kcs_score(K, C, S, config),\n    }\n',
                '        "kcs_score": kcs_score(K, C, S, config),\n    }\n'
                "    return {name: value for name, value in entries.items() if value is not None}\n",
            ),
        ),
    ),
    manage(
        "init-makes-the-gate",
        "init makes a gate with the options of the one before",
        (
            INIT_GATE,
            "            gate = self.gate\n            self.gate = SafetyGate(gate.threshold, gate.decay, gate.burn_in_steps)\n",
        ),
    ),
    edit(
        "finite-tested",
        "what is not finite is tested by name",
        (
            TEST,
            TEST.replace(
                "not self.ema_val <= self.threshold:",
                "(self.ema_val > self.threshold or self.ema_val - self.ema_val != 0):",
            ),
        ),
    ),
    manage(
        "validation-whole",
        "the validation rows go through the model at once, after the update and before the next",
        (
            "                batches = rows.split(self.plan.batch_size)\n"
            "                total = sum(next_bit_loss(model(batch)[0], batch).item() * len(batch) for batch in batches)\n",
            "                total = next_bit_loss(model(rows)[0], rows).item() * len(rows)\n",
        ),
    ),
    manage(
        "micro-batch-in-evaluation",
        "without validation rows the micro-batch is scored in evaluation mode",
        (VALUE, "            val_loss = self.evaluate(bits if self.validation is None else self.validation)\n"),
    ),
    manage(
        "burn-in-asked-of-the-manager",
        "a manager takes a burn-in",
        (
            "        loss_threshold: float = 2.0,\n",
            "        loss_threshold: float = 2.0,\n        burn_in_steps: int = 6,\n",
        ),
        ("SafetyGate(loss_threshold)", "SafetyGate(loss_threshold, burn_in_steps=burn_in_steps)"),
    ),
]
