"""Other spellings of the manager, and of its schedule's total."""

from pathlib import Path

from drift.naming import add_import, append, before
from drift.patterns import restate, substitute
from drift.rewriting import OPEN, find, retext, rewrite

MANAGER = "manager.py"
MADE = """\
self.optimizer, self.scheduler = configure_optimizer(
    self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=100
)
"""


@rewrite("manager", 2)
def total_constant(tree: Path) -> None:
    """The 100 is a constant of the module."""
    substitute(
        tree,
        "configure_optimizer($m, lr=$l, weight_decay=$w, total_steps=100)",
        "configure_optimizer($m, lr=$l, weight_decay=$w, total_steps=TOTAL_STEPS)",
        MANAGER,
    )
    before(find(tree, MANAGER), "NotReadyError", "TOTAL_STEPS = 100")


@rewrite("manager", 2)
def total_class_attribute(tree: Path) -> None:
    """The 100 is an attribute of the class."""
    substitute(
        tree,
        "configure_optimizer($m, lr=$l, weight_decay=$w, total_steps=100)",
        "configure_optimizer($m, lr=$l, weight_decay=$w, total_steps=self.schedule_length)",
        MANAGER,
    )
    before(find(tree, MANAGER), "ModelManager.__init__", "schedule_length = 100")


@rewrite("manager", 2)
def total_positional(tree: Path) -> None:
    """The 100 is given by position."""
    substitute(
        tree,
        "configure_optimizer($m, lr=$l, weight_decay=$w, total_steps=100)",
        "configure_optimizer($m, $l, $w, 100)",
        MANAGER,
    )


@rewrite("manager", 2)
def optimizer_method(tree: Path) -> None:
    """One method makes optimizer and schedule for all three paths."""
    restate(tree, MADE, "self._fresh_schedule(plan)", MANAGER)
    before(
        find(tree, MANAGER),
        "ModelManager.train_step",
        """\
def _fresh_schedule(self, plan: TrainingPlan) -> None:
    self.optimizer, self.scheduler = configure_optimizer(
        self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=100
    )
""",
    )


@rewrite("manager", 2)
def optimizer_method_default(tree: Path) -> None:
    """One method makes them, with the 100 as the default of its parameter, and returns them."""
    restate(tree, MADE, "self.optimizer, self.scheduler = self._optimizer_for(self.model, plan)", MANAGER)
    before(
        find(tree, MANAGER),
        "ModelManager.train_step",
        """\
@staticmethod
def _optimizer_for(model, plan, total_steps=100):
    return configure_optimizer(model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=total_steps)
""",
    )


@rewrite("manager", 2)
def optimizer_function(tree: Path) -> None:
    """A function of the module makes them."""
    restate(
        tree, MADE, "self.optimizer, self.scheduler = optimizer_of(self.model, plan.lr, plan.weight_decay)", MANAGER
    )
    before(
        find(tree, MANAGER),
        "ModelManager",
        """\
def optimizer_of(model, lr, weight_decay):
    return configure_optimizer(model, lr=lr, weight_decay=weight_decay, total_steps=100)
""",
    )


@rewrite("manager", 2)
def optimizer_partial(tree: Path) -> None:
    """functools.partial holds the 100."""
    substitute(
        tree,
        "configure_optimizer($m, lr=$l, weight_decay=$w, total_steps=100)",
        "make_optimizer($m, lr=$l, weight_decay=$w)",
        MANAGER,
    )
    path = find(tree, MANAGER)
    before(path, "NotReadyError", "make_optimizer = partial(configure_optimizer, total_steps=100)")
    add_import(path, "from functools import partial")


@rewrite("manager", 2)
def optimizer_settings_dict(tree: Path) -> None:
    """The arguments are a dict that is spread."""
    restate(
        tree,
        MADE,
        """\
settings = {"lr": plan.lr, "weight_decay": plan.weight_decay, "total_steps": 100}
self.optimizer, self.scheduler = configure_optimizer(self.model, **settings)
""",
        MANAGER,
    )


@rewrite("manager", 2)
def optimizer_pair(tree: Path) -> None:
    """Optimizer and schedule are taken out of a pair one by one."""
    restate(
        tree,
        MADE,
        """\
pair = configure_optimizer(self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=100)
self.optimizer = pair[0]
self.scheduler = pair[1]
""",
        MANAGER,
    )


@rewrite("manager", 2, expected={2: OPEN})
def optimizer_split_making(tree: Path) -> None:
    """The manager makes AdamW and OneCycleLR itself, without configure_optimizer."""
    restate(
        tree,
        MADE,
        """\
self.optimizer = make_adamw(self.model, plan.lr, plan.weight_decay)
self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, max_lr=plan.lr, total_steps=100)
""",
        MANAGER,
    )
    old = "from bit_transformer.optimization import configure_optimizer\n"
    retext(find(tree, MANAGER), (old, old.replace("configure_optimizer", "make_adamw")))


@rewrite("manager", 2)
def manager_step_split(tree: Path) -> None:
    """An update of the manager is a method of its own."""
    restate(
        tree,
        """\
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
lr = self.scheduler.get_last_lr()[0]
self.optimizer.step()
self.scheduler.step()
self.optimizer.zero_grad()
""",
        "lr = self._update(loss)",
        MANAGER,
    )
    before(
        find(tree, MANAGER),
        "ModelManager.train",
        """\
def _update(self, loss: Tensor) -> float:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
    (lr, *_) = self.scheduler.get_last_lr()
    self.optimizer.step()
    self.scheduler.step()
    self.optimizer.zero_grad()
    return lr
""",
    )


@rewrite("manager", 2)
def manager_plan_positional(tree: Path) -> None:
    """The plan is made through a class method."""
    substitute(
        tree, 'TrainingPlan(**{**(plan or {}), "rows": len(data)})', "TrainingPlan.over(len(data), plan)", MANAGER
    )
    before(
        find(tree, MANAGER),
        "TrainingPlan.__post_init__",
        """\
@classmethod
def over(cls, rows, fields=None):
    return cls(**{**(fields or {}), "rows": rows})
""",
    )


@rewrite("manager", 2)
def manager_match_dimension(tree: Path) -> None:
    """scale_up chooses by a match statement."""
    restate(
        tree,
        "self.model, self.plan = DOUBLE[dimension](model), plan",
        """\
match dimension:
    case "width":
        self.model = double_width(model)
    case "layers":
        self.model = double_layers(model)
    case _:
        self.model = double_length(model)
self.plan = plan
""",
        MANAGER,
    )


@rewrite("manager", 2)
def manager_locals_first(tree: Path) -> None:
    """Model, optimizer and schedule are made as locals, and stored at the end."""
    restate(
        tree,
        f"self.model, self.plan = DOUBLE[dimension](model), plan\n{MADE}",
        """\
grown = DOUBLE[dimension](model)
optimizer, scheduler = configure_optimizer(grown, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=100)
self.model, self.plan, self.optimizer, self.scheduler = grown, plan, optimizer, scheduler
""",
        MANAGER,
    )


@rewrite("manager", 2, moves={"dashboard.manager:ModelManager": "dashboard.manager:ModelService"})
def manager_renamed(tree: Path) -> None:
    """ModelManager is called ModelService."""
    from drift.naming import rename_everywhere

    rename_everywhere(tree, "ModelManager", "ModelService")


@rewrite("manager", 2)
def manager_subclass(tree: Path) -> None:
    """Beside the manager stands a subclass that logs, which nothing here uses."""
    append(
        find(tree, MANAGER),
        '''\
class LoggingManager(ModelManager):
    """A manager that says what it does."""

    def scale_up(self, dimension: str, *, plan: dict[str, Any] | None = None) -> dict[str, Any]:
        print("scale_up", dimension)
        return super().scale_up(dimension, plan=plan)
''',
    )


@rewrite("manager", 2)
def total_by_merge(tree: Path) -> None:
    """Defaults that hold the 100 are merged with the plan's options, and spread."""
    substitute(
        tree,
        "configure_optimizer(self.model, lr=plan.lr, weight_decay=plan.weight_decay, total_steps=100)",
        'configure_optimizer(self.model, **(SCHEDULE | {"lr": plan.lr, "weight_decay": plan.weight_decay}))',
        MANAGER,
    )
    before(find(tree, MANAGER), "ModelManager", 'SCHEDULE = {"lr": 1e-3, "total_steps": 100}')


@rewrite("manager", 2)
def manager_attributes_by_setattr(tree: Path) -> None:
    """init keeps what it makes by setattr, from a dict."""
    restate(
        tree,
        "self.data, self.validation, self.plan = data, validation, plan",
        'for name, value in {"data": data, "validation": validation, "plan": plan}.items():\n    setattr(self, name, value)',
        MANAGER,
    )


@rewrite("manager", 2)
def manager_pair_property(tree: Path) -> None:
    """Optimizer and schedule are one private pair; two properties give each."""
    path = find(tree, MANAGER)
    retext(
        path,
        (
            "            self.optimizer, self.scheduler = configure_optimizer(",
            "            self._pair = configure_optimizer(",
        ),
        (
            "        self.optimizer: torch.optim.Optimizer | None = None\n        self.scheduler: torch.optim.lr_scheduler.LRScheduler | None = None\n",
            "        self._pair: tuple[Any, Any] = (None, None)\n",
        ),
    )
    before(
        path,
        "ModelManager.init",
        """\
@property
def optimizer(self) -> torch.optim.Optimizer | None:
    return self._pair[0]

@property
def scheduler(self) -> torch.optim.lr_scheduler.LRScheduler | None:
    return self._pair[1]
""",
    )


@rewrite("manager", 2)
def manager_paths_decorated(tree: Path) -> None:
    """A decorator lets init, scale_up and download take their turn."""
    path = find(tree, MANAGER)
    text = path.read_text()
    head, rest = text.split("class ModelManager:", 1)
    lines, out, cut = rest.split("\n"), [], False
    for line in lines:
        if line == "        with self._replacing():":
            cut = True
            continue
        if cut and line.strip() and not line.startswith("            "):
            cut = False
        out.append(line[4:] if cut and line.startswith("            ") else line)
    body = "\n".join(out)
    for name in ("init", "scale_up", "download"):
        assert f"    def {name}(" in body
        body = body.replace(f"    def {name}(", f"    @in_turn\n    def {name}(")
    head += """def in_turn(method):
    @wraps(method)
    def taking_turn(self, *args, **kwargs):
        with self._replacing():
            return method(self, *args, **kwargs)

    return taking_turn


"""
    path.write_text(head + "class ModelManager:" + body)
    add_import(path, "from functools import wraps")
