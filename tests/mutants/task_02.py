"""Wrong and right ways to plan the schedule of a manager."""

from mutant import Mutant

MANAGER = "dashboard/manager.py"
TRAINING = "bit_transformer/training.py"

INIT = """            self.data, self.validation, self.plan = data, validation, plan
            self.optimizer, self.scheduler = configure_optimizer(
                self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=plan.updates
            )
"""
SCALE_UP = """            self.model, self.plan = DOUBLE[dimension](model), plan
            self.optimizer, self.scheduler = configure_optimizer(
                self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=plan.updates
            )
"""
DOWNLOAD = """            self.model, self.data, self.validation, self.plan = snapshot["model"], data, None, plan
            self.optimizer, self.scheduler = configure_optimizer(
                self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=plan.updates
            )
"""
PATHS = {"init": INIT, "scale-up": SCALE_UP, "download": DOWNLOAD}
CONFIGURED = DOWNLOAD.split("\n", 1)[1]
UPDATES = "planned_updates(self.epochs, math.ceil(self.rows / self.batch_size), extra_steps=self.extra_steps)\n"
CHANGES = '            plan = replace(self.plan, **{**(plan or {}), "rows": self.plan.rows})\n'
TAKEN = '            plan = TrainingPlan(**{**extra["plan"], **changes})\n'
GUARD = "if self.scheduler.last_epoch + 1 < self.plan.updates:  # the plan ends at the floor, and stays there\n"
SCHEDULER = f"            {GUARD}                self.scheduler.step()\n"
STEP = "            self.optimizer.step()\n"
GROUPS = '            groups = self.optimizer.state_dict()["param_groups"]\n'
RESTORED = (
    GROUPS
    + '            self.optimizer.load_state_dict({"state": snapshot["optimizer"]["state"], "param_groups": groups})\n'
)
SAVED = "            save_checkpoint(path, model, self.optimizer, **state)\n"
READY = "    def _ready_model(self) -> BitTransformerLM:\n"
TRAIN_STEP = "            model = self._ready_model()\n            model.train()\n"
TRAIN = "            for _ in range(self.plan.epochs):\n"


def total(path: str, value: str) -> tuple[str, str]:
    """The edit that gives another total on one path."""
    return PATHS[path], PATHS[path].replace("plan.updates", value)


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A mutant whose edits are all in manager.py."""
    return Mutant(name, wrong, tuple((MANAGER, old, new) for old, new in edits))


def planned(name: str, wrong: str, expression: str) -> Mutant:
    """A mutant whose plan counts its updates in another way."""
    return edit(name, wrong, (UPDATES, expression + "\n"))


MUTANTS = [
    edit("init-forgotten", "init still takes 100", total("init", "100")),
    edit("scale-up-forgotten", "scale_up still takes 100", total("scale-up", "100")),
    edit("download-forgotten", "download still takes 100", total("download", "100")),
    edit(
        "scale-up-forgotten-for-length",
        "one dimension still takes 100",
        total("scale-up", 'plan.updates if dimension != "length" else 100'),
    ),
    edit(
        "download-without-data-forgotten",
        "a model that is only asked takes 100",
        total("download", "plan.updates if data is not None else 100"),
    ),
    edit(
        "old-schedule-restored",
        "save keeps the schedule's state, and download takes it up with its total",
        (SAVED, SAVED.replace("self.optimizer, ", "self.optimizer, self.scheduler, ")),
        (GROUPS, '            self.scheduler.load_state_dict(snapshot["scheduler"])\n' + GROUPS),
    ),
    edit(
        "schedule-of-old-files-restored",
        "a state that an older version saved is taken up with its 100",
        (
            GROUPS,
            '            if snapshot["scheduler"] is not None:\n'
            '                self.scheduler.load_state_dict(snapshot["scheduler"])\n' + GROUPS,
        ),
    ),
    edit(
        "position-of-old-schedule-restored",
        "the schedule goes on at the snapshot's step, so that a full run sits at the floor for its last part",
        (
            GROUPS,
            '            self.scheduler.last_epoch = extra["step"]\n' + GROUPS,
        ),
    ),
    edit(
        "old-groups-restored",
        "the optimizer's groups bring the old peak and floor back",
        (RESTORED, '            self.optimizer.load_state_dict(snapshot["optimizer"])\n'),
    ),
    edit(
        "schedule-on-old-optimizer",
        "after scale_up the schedule moves the optimizer of the smaller model",
        (
            SCALE_UP,
            "            old = self.optimizer\n"
            + SCALE_UP
            + "            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(old, plan.lr, plan.updates)\n",
        ),
    ),
    edit(
        "old-optimizer-kept",
        "after scale_up optimizer and schedule are new, but of the smaller model",
        (SCALE_UP, SCALE_UP.replace("                self.model, lr", "                model, lr")),
    ),
    edit(
        "download-optimizer-of-old-model",
        "download configures before it takes the snapshot's model",
        (
            DOWNLOAD,
            '            old = self.model or snapshot["model"]\n'
            + DOWNLOAD.replace("                self.model, lr", "                old, lr"),
        ),
    ),
    edit(
        "old-schedule-steps",
        "scale_up makes a new schedule, but the one from before goes on stepping",
        (INIT, INIT + "            self._stepped = self.scheduler\n"),
        (DOWNLOAD, DOWNLOAD + "            self._stepped = self.scheduler\n"),
        ("                self.scheduler.step()\n", "                self._stepped.step()\n"),
    ),
    planned(
        "at-least-100",
        "short runs stop far from the floor",
        "max(100, planned_updates(self.epochs, math.ceil(self.rows / self.batch_size), self.extra_steps))",
    ),
    planned(
        "at-most-100",
        "long runs raise, or sit at the floor",
        "min(100, planned_updates(self.epochs, math.ceil(self.rows / self.batch_size), self.extra_steps))",
    ),
    planned(
        "floor-division",
        "the rows of a smaller last micro-batch are not counted",
        "planned_updates(self.epochs, max(1, self.rows // self.batch_size), self.extra_steps)",
    ),
    planned(
        "one-too-many",
        "rows // batch_size + 1 is wrong where the rows divide",
        "planned_updates(self.epochs, self.rows // self.batch_size + 1, self.extra_steps)",
    ),
    planned(
        "off-by-one",
        "a run stops one update short of the floor",
        "1 + planned_updates(self.epochs, math.ceil(self.rows / self.batch_size), self.extra_steps)",
    ),
    planned(
        "extra-steps-once",
        "extra_steps stand outside the epochs factor",
        "planned_updates(self.epochs, math.ceil(self.rows / self.batch_size)) + self.extra_steps",
    ),
    planned(
        "extra-steps-forgotten",
        "extra steps are not planned",
        "planned_updates(self.epochs, math.ceil(self.rows / self.batch_size))",
    ),
    planned(
        "epochs-forgotten",
        "one epoch is planned",
        "planned_updates(1, math.ceil(self.rows / self.batch_size), self.extra_steps)",
    ),
    planned(
        "rows-counted", "rows are taken for micro-batches", "planned_updates(self.epochs, self.rows, self.extra_steps)"
    ),
    planned(
        "default-batch-size",
        "the batch size is the default one",
        "planned_updates(self.epochs, math.ceil(self.rows / 8), self.extra_steps)",
    ),
    planned(
        "ceiling-over-epochs",
        "the smaller micro-batches of all epochs are counted as one stream",
        "math.ceil(self.epochs * self.rows / self.batch_size) + self.epochs * self.extra_steps",
    ),
    edit(
        "plan-of-the-default-config",
        "init plans for a plan without the request's fields",
        total("init", "TrainingPlan(rows=plan.rows).updates"),
    ),
    edit(
        "epochs-of-the-default-config",
        "download plans the request's micro-batches, but the default's epochs",
        total("download", "replace(plan, epochs=1).updates"),
    ),
    edit(
        "scale-up-by-the-plan-before",
        "scale_up plans before it takes the request's plan",
        (CHANGES, "            before = self.plan\n" + CHANGES),
        total("scale-up", "before.updates"),
    ),
    edit(
        "scale-up-by-the-default-plan",
        "what the request does not name falls back to the defaults",
        (CHANGES, '            plan = TrainingPlan(**{**(plan or {}), "rows": self.plan.rows})\n'),
    ),
    edit(
        "download-by-the-snapshot's-plan",
        "the request's changes are left out of the total",
        total("download", 'TrainingPlan(**extra["plan"]).updates'),
    ),
    edit(
        "download-by-the-snapshot's-rows",
        "the data that the request brings is not counted",
        total("download", 'replace(plan, rows=extra["plan"]["rows"]).updates'),
    ),
    edit(
        "download-by-the-plan-before",
        "the plan is what the manager had before it was asked",
        ("            snapshot = load", "            before = self.plan\n            snapshot = load"),
        total("download", "(before or plan).updates"),
    ),
    edit(
        "total-of-the-first-plan",
        "the total is cached with the first plan of the manager",
        (
            INIT,
            '            self.total = getattr(self, "total", plan.updates)\n'
            + INIT.replace("plan.updates", "self.total"),
        ),
    ),
    edit(
        "restarted-on-each-request",
        "each train_step makes a schedule of its own",
        (
            TRAIN_STEP,
            TRAIN_STEP
            + "            peak, total = self.plan.lr, self.plan.updates\n"
            + "            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, peak, total)\n",
        ),
    ),
    edit(
        "restarted-by-a-look",
        "asking the status makes a new schedule",
        (
            '            return {\n                "ready": True,',
            "            peak, total = self.plan.lr, self.plan.updates\n"
            "            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, peak, total)\n"
            '            return {\n                "ready": True,',
        ),
    ),
    edit(
        "restarted-each-epoch",
        "train makes a schedule for each epoch",
        (
            TRAIN,
            TRAIN
            + "                peak, total = self.plan.lr, self.plan.updates\n"
            + "                self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, peak, total)\n",
        ),
    ),
    edit(
        "train-never-steps",
        "the rate stays where it began",
        (SCHEDULER, ""),
    ),
    edit(
        "stepped-per-epoch",
        "the schedule moves once an epoch",
        (SCHEDULER, ""),
        (
            "            return records\n",
            "            return records\n".replace("return", "self.scheduler.step()\n            return"),
        ),
    ),
    edit("guard-too-early", "the last update is one short of the floor", (GUARD, GUARD.replace("+ 1", "+ 2"))),
    edit("guard-at-100", "a long run freezes after 100 updates", (GUARD, GUARD.replace("self.plan.updates", "100"))),
    edit(
        "guard-too-late",
        "the update after the last leaves the floor",
        (GUARD, GUARD.replace("last_epoch + 1", "last_epoch")),
    ),
    edit(
        "guard-by-the-manager's-step",
        "steps of before a download or scale_up count too, so that the next run freezes early",
        (GUARD, GUARD.replace("self.scheduler.last_epoch + 1", "self.step + 1")),
    ),
    edit("no-guard", "requests beyond the plan raise", (SCHEDULER, "            self.scheduler.step()\n")),
    edit(
        "stepped-before-the-optimizer",
        "each update uses the rate of the next",
        (STEP + SCHEDULER, SCHEDULER + STEP),
    ),
    edit(
        "peak-of-the-default-config",
        "the schedule has the right total, and the wrong peak",
        (DOWNLOAD, DOWNLOAD.replace("plan.lr", "1e-3")),
    ),
    edit(
        "accumulation-not-planned",
        "a plan may accumulate, but its total counts micro-batches",
        ("    weight_decay: float = 0.01\n", "    weight_decay: float = 0.01\n    accum_steps: int = 1\n"),
        (
            "            logits, telemetry = model(bits)\n",
            "            self.asked = getattr(self, 'asked', 0) + 1\n            logits, telemetry = model(bits)\n",
        ),
        (
            STEP + SCHEDULER + "            self.optimizer.zero_grad()\n",
            "            if self.asked % self.plan.accum_steps == 0:\n"
            "                self.optimizer.step()\n"
            "                if self.scheduler.last_epoch + 1 < self.plan.updates:\n"
            "                    self.scheduler.step()\n"
            "                self.optimizer.zero_grad()\n",
        ),
    ),
    *(
        edit(
            f"weight-decay-lost-on-{path}",
            f"{path} takes the default weight decay, whatever the plan says",
            (PATHS[path], PATHS[path].replace("plan.weight_decay", "0.01")),
        )
        for path in PATHS
    ),
    edit(
        "rate-lost-on-growth",
        "scale_up takes the default peak",
        (SCALE_UP, SCALE_UP.replace("lr=plan.lr, ", "")),
    ),
    edit("moments-lost-on-download", "a download begins with an empty optimizer", (RESTORED, "")),
    edit(
        "moments-of-matrices-lost",
        "a download takes up the moments of the first group only",
        (
            RESTORED,
            RESTORED.replace(
                'snapshot["optimizer"]["state"]',
                "{k: v for k, v in snapshot['optimizer']['state'].items() if k in groups[0]['params']}",
            ),
        ),
    ),
    edit(
        "embeddings-not-held",
        "after scale_up the optimizer has lost a group",
        (
            SCALE_UP,
            SCALE_UP + "            self.optimizer.param_groups.pop()\n            self.scheduler.base_lrs.pop()\n",
        ),
    ),
    edit(
        "growth-has-a-shape-of-its-own",
        "scale_up gives a schedule that is as long, and falls far earlier",
        (
            SCALE_UP,
            SCALE_UP
            + "            onecycle = torch.optim.lr_scheduler.OneCycleLR\n"
            + "            self.scheduler = onecycle(self.optimizer, plan.lr, plan.updates, pct_start=0.05)\n",
        ),
    ),
    edit(
        "floor-left-out-on-init",
        "init gives a schedule that ends where it began",
        (
            INIT,
            INIT
            + "            onecycle = torch.optim.lr_scheduler.OneCycleLR\n"
            + "            self.scheduler = onecycle(self.optimizer, plan.lr, plan.updates, final_div_factor=1.0)\n",
        ),
    ),
    edit(
        "growth-forgets-the-plan",
        "scale_up gives the right schedule, and keeps the plan of before",
        (SCALE_UP, SCALE_UP.replace("DOUBLE[dimension](model), plan", "DOUBLE[dimension](model), self.plan")),
    ),
    edit(
        "snapshot-of-the-first-plan",
        "a snapshot keeps the plan of init, whatever came after",
        (INIT, INIT + "            self.first = plan\n"),
        ('"plan": asdict(self.plan), ', '"plan": asdict(getattr(self, "first", self.plan)), '),
    ),
    edit(
        "refused-growth-restarts",
        "a scale_up that is refused has made a new schedule",
        (
            "        if dimension not in DOUBLE:\n",
            "        peak, total = self.plan.lr, self.plan.updates\n"
            "        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, peak, total)\n"
            "        if dimension not in DOUBLE:\n",
        ),
    ),
    edit(
        "own-plan-not-counted",
        "the plan of a request that names none is not the one that is carried out",
        (INIT, INIT.replace("plan.updates", "plan.updates if plan != TrainingPlan(plan.rows) else 100")),
    ),
    Mutant(
        "dashboard-drops-the-plan",
        "a request's plan does not reach the manager",
        (
            (
                "dashboard/app.py",
                'requests.init(manager, **json_body("text", "config", "plan"))',
                'requests.init(manager, **{**json_body("text", "config", "plan"), "plan": None})',
            ),
        ),
    ),
    Mutant(
        "dashboard-has-its-own-schedule",
        "the dashboard's train makes a schedule of 100",
        (
            (
                "dashboard/app.py",
                "        return jsonify(requests.train(manager))\n",
                "        from torch.optim.lr_scheduler import OneCycleLR\n\n"
                "        manager.scheduler = OneCycleLR(manager.optimizer, manager.plan.lr, 100)\n"
                "        return jsonify(requests.train(manager))\n",
            ),
        ),
    ),
    Mutant(
        "mcp-drops-the-plan",
        "a tool's plan does not reach the manager",
        (
            (
                "mcp_server.py",
                "requests.scale_up(manager, dimension, plan)",
                "requests.scale_up(manager, dimension)",
            ),
        ),
    ),
    Mutant(
        "mcp-restarts-each-step",
        "the MCP server's train_step makes a schedule of 100",
        (
            (
                "mcp_server.py",
                "        return requests.train_step(manager, text)\n",
                "        from torch.optim.lr_scheduler import OneCycleLR\n\n"
                "        manager.scheduler = OneCycleLR(manager.optimizer, manager.plan.lr, 100)\n"
                "        return requests.train_step(manager, text)\n",
            ),
        ),
    ),
]

GOOD = [
    edit(
        "one-method-for-three-paths",
        "the three paths call one method of the manager",
        *((path, path.replace(CONFIGURED, "            self._plan_schedule()\n")) for path in PATHS.values()),
        (
            READY,
            "    def _plan_schedule(self) -> None:\n"
            "        plan = self.plan\n"
            "        micro_batches = (plan.rows + plan.batch_size - 1) // plan.batch_size\n"
            "        total = plan.epochs * (micro_batches + plan.extra_steps)\n"
            "        self.optimizer, self.scheduler = configure_optimizer(self.model, plan.lr, plan.weight_decay, total)\n\n"
            + READY,
        ),
    ),
    edit(
        "epochs-and-steps-per-epoch",
        "OneCycleLR is made without configure_optimizer, and multiplies by itself",
        *(
            (
                path,
                path.replace(
                    CONFIGURED,
                    "            self.optimizer = torch.optim.AdamW(\n"
                    "                self.model.parameters(), plan.lr, weight_decay=plan.weight_decay\n"
                    "            )\n"
                    "            each = len(range(0, plan.rows, plan.batch_size)) + plan.extra_steps\n"
                    "            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(\n"
                    "                self.optimizer, [plan.lr], epochs=plan.epochs, steps_per_epoch=each, pct_start=0.22\n"
                    "            )\n",
                ),
            )
            for path in PATHS.values()
        ),
    ),
    edit(
        "steps-counted-apart",
        "the guard has a counter of its own",
        *((path, path + "            self.planned_steps = plan.updates - 1\n") for path in PATHS.values()),
        (
            SCHEDULER,
            "            if self.planned_steps:\n"
            "                self.planned_steps -= 1\n"
            "                self.scheduler.step()\n",
        ),
    ),
    edit(
        "counted-by-a-loader",
        "the micro-batches of an epoch are those of a DataLoader",
        (
            UPDATES,
            "self.epochs * (len(torch.utils.data.DataLoader(range(self.rows), self.batch_size)) + self.extra_steps)\n",
        ),
        (GUARD, "if self.scheduler.last_epoch < self.scheduler.total_steps - 1:\n"),
    ),
    edit(
        "accumulating-plan",
        "a plan may accumulate, and its total counts the groups of each epoch",
        ("    weight_decay: float = 0.01\n", "    weight_decay: float = 0.01\n    accum_steps: int = 1\n"),
        (
            UPDATES,
            "planned_updates(\n"
            "            self.epochs, math.ceil(self.rows / self.batch_size), self.extra_steps, self.accum_steps\n"
            "        )\n",
        ),
        (
            "    def train_step(self, bits: Tensor) -> dict[str, float]:\n",
            "    def train_step(self, bits: Tensor, closes: bool = True) -> dict[str, float]:\n",
        ),
        (
            STEP + SCHEDULER + "            self.optimizer.zero_grad()\n",
            "            if closes:\n"
            "                self.optimizer.step()\n"
            "                if self.scheduler.last_epoch + 1 < self.plan.updates:\n"
            "                    self.scheduler.step()\n"
            "                self.optimizer.zero_grad()\n",
        ),
        (
            "                records += [self.train_step(batch) for batch in batches]\n",
            "                batches = list(batches)\n"
            "                for at, batch in enumerate(batches, 1):\n"
            "                    closes = at % self.plan.accum_steps == 0 or at == len(batches)\n"
            "                    records.append(self.train_step(batch, closes))\n",
        ),
    ),
    edit(
        "schedule-made-at-first-use",
        "the three paths drop the schedule, and it is made when it is first asked for",
        *((path, path + "            del self.scheduler\n") for path in PATHS.values()),
        (
            READY,
            "    def __getattr__(self, name: str) -> Any:\n"
            '        if name != "scheduler":\n'
            "            raise AttributeError(name)\n"
            "        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(\n"
            "            self.optimizer, max_lr=self.plan.lr, total_steps=self.plan.updates\n"
            "        )\n"
            "        return self.scheduler\n\n" + READY,
        ),
    ),
    Mutant(
        "linear-cycle",
        "the tree's OneCycle has another shape",
        (
            (
                "bit_transformer/optimization.py",
                "OneCycleLR(optimizer, max_lr=lr, total_steps=total_steps)",
                'OneCycleLR(optimizer, lr, total_steps, pct_start=0.32, anneal_strategy="linear", div_factor=10)',
            ),
        ),
    ),
    edit(
        "lambda-cycle",
        "the schedule is a LambdaLR of the tree's own, a straight line up and half a cosine down",
        *(
            (
                path,
                path
                + "            last, up = plan.updates - 1, max(1, plan.updates // 4)\n"
                + "            for group in self.optimizer.param_groups:\n"
                + "                group['lr'] = group['initial_lr'] = plan.lr\n"
                + "            self.scheduler = torch.optim.lr_scheduler.LambdaLR(\n"
                + "                self.optimizer,\n"
                + "                lambda step, last=last, up=up: 1e-5\n"
                + "                if step >= last\n"
                + "                else (step + 1) / (up + 1)\n"
                + "                if step < up\n"
                + "                else 1e-5 + (1 - 1e-5) * (1 + math.cos(math.pi * (step - up) / (last - up))) / 2,\n"
                + "            )\n",
            )
            for path in PATHS.values()
        ),
    ),
]
