"""Arguments by name or by position, spread, bound beforehand."""

from pathlib import Path

from drift.naming import add_import, before
from drift.patterns import restate, substitute
from drift.rewriting import OPEN, find, retext, rewrite

MODEL, TRAINING = "bit_transformer/model.py", "bit_transformer/training.py"
LOOP_CALL = """\
train_loop(
    model,
    data,
    epochs=args.epochs,
    extra_steps=args.extra_steps,
    compress_prob=args.compress_prob,
    direct_prob=args.direct_prob,
    log=True,
    forward_kwargs={"causal": args.causal},
    lr=args.lr,
    weight_decay=args.weight_decay,
)
"""  # as main has it
CONFIGURED = "configure_optimizer(model, lr=lr, weight_decay=weight_decay, total_steps=total_updates)"


@rewrite("calls", 1)
def optimizer_positional(tree: Path) -> None:
    """configure_optimizer is called by position."""
    substitute(tree, CONFIGURED, "configure_optimizer(model, lr, weight_decay, total_updates)", TRAINING)


@rewrite("calls", 1)
def optimizer_all_keywords(tree: Path) -> None:
    """configure_optimizer is called by name, in another order."""
    substitute(
        tree,
        CONFIGURED,
        "configure_optimizer(total_steps=total_updates, model=model, weight_decay=weight_decay, lr=lr)",
        TRAINING,
    )


@rewrite("calls", 1)
def optimizer_spread(tree: Path) -> None:
    """The options of the optimizer are a dict that is spread."""
    restate(
        tree,
        f"optimizer, scheduler = {CONFIGURED}",
        "hyper = dict(lr=lr, weight_decay=weight_decay)\noptimizer, scheduler = configure_optimizer(model, total_steps=total_updates, **hyper)",
        TRAINING,
    )


@rewrite("calls", 3, 6)
def loop_calls_by_keyword(tree: Path) -> None:
    """The loop's own functions are called by name."""
    substitute(
        tree,
        "draw_form(compress_prob, direct_prob)",
        "draw_form(direct_prob=direct_prob, compress_prob=compress_prob)",
        TRAINING,
    )
    substitute(tree, "next_bit_loss(logits, targets)", "next_bit_loss(logits=logits, targets=targets)", TRAINING)
    substitute(
        tree,
        "predict(model, batch, form, forward_kwargs or {})",
        "predict(model=model, batch=batch, form=form, forward_kwargs=forward_kwargs or {})",
        TRAINING,
    )


@rewrite("calls", 9, 10)
def torch_by_keyword(tree: Path) -> None:
    """Functions of torch take their arguments by name."""
    substitute(tree, "torch.triu($x, diagonal=1)", "torch.triu(input=$x, diagonal=1)", MODEL)
    substitute(tree, '$s.masked_fill($m, float("-inf"))', '$s.masked_fill(mask=$m, value=float("-inf"))', MODEL)
    substitute(tree, "torch.softmax($x, dim=$d)", "torch.softmax(input=$x, dim=$d)", MODEL)


@rewrite("calls", 9, 10)
def torch_by_position(tree: Path) -> None:
    """Functions of torch take their arguments by position."""
    substitute(tree, "torch.triu($x, diagonal=1)", "torch.triu($x, 1)", MODEL)
    substitute(tree, "torch.softmax($x, dim=-1)", "torch.softmax($x, -1)", MODEL)


@rewrite("calls", 12)
def layer_by_keyword(tree: Path) -> None:
    """Layers and their attention are made with arguments by name."""
    substitute(
        tree,
        "SelfAttention(d_model, nhead, 0.1, chunk_size, overlap, full_attn_logging)",
        "SelfAttention(d_model=d_model, nhead=nhead, dropout=0.1, chunk_size=chunk_size, overlap=overlap, full_attn_logging=full_attn_logging)",
        MODEL,
    )


@rewrite("calls", 12)
def layer_spread(tree: Path) -> None:
    """What attention needs is a dict that is spread for each layer, and layers are appended in a loop."""
    restate(
        tree,
        """\
self.layers = nn.ModuleList(
    TransformerLayer(
        SelfAttention(d_model, nhead, 0.1, chunk_size, overlap, full_attn_logging),
        d_model,
        dim_feedforward,
    )
    for _ in range(num_layers)
)
""",
        """\
shape = {"chunk_size": chunk_size, "overlap": overlap, "full_attn_logging": full_attn_logging}
self.layers = nn.ModuleList()
for _ in range(num_layers):
    attention = SelfAttention(d_model, nhead, dropout=0.1, **shape)
    self.layers.append(TransformerLayer(attention, d_model, dim_feedforward))
""",
        MODEL,
    )


@rewrite("calls", 12)
def layer_factory(tree: Path) -> None:
    """A method makes one layer from the configuration."""
    restate(
        tree,
        "self.layers = nn.ModuleList($layers for _ in range(num_layers))",
        "self.layers = nn.ModuleList([self._make_layer() for _ in range(num_layers)])",
        MODEL,
    )
    before(
        find(tree, MODEL),
        "BitTransformerLM.forward",
        """\
def _make_layer(self) -> TransformerLayer:
    config = self.config
    attention = SelfAttention(
        config["d_model"],
        config["nhead"],
        chunk_size=config["chunk_size"],
        overlap=config["overlap"],
        full_attn_logging=config["full_attn_logging"],
    )
    return TransformerLayer(attention, config["d_model"], config["dim_feedforward"])
""",
    )


@rewrite("calls", 12)
def config_by_locals(tree: Path) -> None:
    """The model's configuration is read from its arguments by name."""
    restate(
        tree,
        "super().__init__()\nself.config = $config\n$$rest",
        """\
given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
super().__init__()
self.config = dict(given)
$$rest
""",
        MODEL,
        "BitTransformerLM.__init__",
    )


@rewrite("calls", 9, 12)
def forward_through_call(tree: Path) -> None:
    """Modules' calls are written through __call__ and keyword arguments."""
    substitute(
        tree, "self.attention(self.norm1(x), causal)", "self.attention.__call__(self.norm1(x), causal=causal)", MODEL
    )


@rewrite("calls", 3)
def batch_keyword_expanded(tree: Path) -> None:
    """The only option that a forward has is passed by name, taken out of the dict."""
    substitute(
        tree,
        "predict(model, batch, form, forward_kwargs or {})",
        'predict(model, batch, form, {"causal": (forward_kwargs or {}).get("causal", True)})',
        TRAINING,
    )


@rewrite("calls", 1)
def loop_called_spread(tree: Path) -> None:
    """main gathers the options of train_loop in a dict, and spreads it."""
    restate(
        tree,
        LOOP_CALL,
        """\
names = ("epochs", "extra_steps", "compress_prob", "direct_prob", "lr", "weight_decay")
options = {name: getattr(args, name) for name in names}
train_loop(model, data, log=True, forward_kwargs={"causal": args.causal}, **options)
""",
        TRAINING,
    )


@rewrite("calls", 1, 3, 4, 6, 8)
def loop_called_by_names(tree: Path) -> None:
    """main takes the options of train_loop from its arguments by a tuple of their names."""
    restate(
        tree,
        LOOP_CALL,
        """\
chosen = {name: getattr(args, name) for name in LOOP_OPTIONS}
train_loop(model, data, log=True, forward_kwargs={"causal": args.causal}, **chosen)
""",
        TRAINING,
    )
    before(
        find(tree, TRAINING),
        "train_loop",
        'LOOP_OPTIONS = ("epochs", "extra_steps", "compress_prob", "direct_prob", "lr", "weight_decay")',
    )


@rewrite("calls", 12)
def attention_partial(tree: Path) -> None:
    """A partial makes the attention of each layer."""
    restate(
        tree,
        "self.layers = nn.ModuleList($a(SelfAttention(d_model, nhead, 0.1, chunk_size, overlap, full_attn_logging), $c, $f) for _ in range(num_layers))",
        """\
attention = partial(
    SelfAttention,
    d_model,
    nhead,
    chunk_size=chunk_size,
    overlap=overlap,
    full_attn_logging=full_attn_logging,
)
self.layers = nn.ModuleList([$a(attention(), $c, $f) for _ in range(num_layers)])
""",
        MODEL,
    )
    add_import(find(tree, MODEL), "from functools import partial")


@rewrite("calls", 12)
def attributes_from_config(tree: Path) -> None:
    """The model's own attributes are taken from its configuration by name."""
    restate(
        tree,
        "self.max_seq_len = max_seq_len\nself.reversible = reversible\nself.use_checkpoint = use_checkpoint\nself.act_threshold = act_threshold",
        'for name in ("max_seq_len", "reversible", "use_checkpoint", "act_threshold"):\n    setattr(self, name, self.config[name])',
        MODEL,
    )
    substitute(
        tree,
        "SelfAttention(d_model, nhead, 0.1, chunk_size, overlap, full_attn_logging)",
        'SelfAttention(d_model, nhead, 0.1, *(self.config[name] for name in ("chunk_size", "overlap", "full_attn_logging")))',
        MODEL,
    )


@rewrite("calls", 1, 3, 4, 6, 8)
def loop_options_popped(tree: Path) -> None:
    """main pops the options of train_loop from a copy of its arguments."""
    restate(
        tree,
        LOOP_CALL,
        """\
options = vars(args).copy()
wanted = ["epochs", "extra_steps", "compress_prob", "direct_prob", "lr", "weight_decay"]
chosen = {name: options.pop(name) for name in wanted}
train_loop(model, data, log=True, forward_kwargs={"causal": options["causal"]}, **chosen)
""",
        TRAINING,
    )


@rewrite("calls", 12, expected={12: OPEN})
def attention_from_registry(tree: Path) -> None:
    """Layers take their attention from a dict of all there are."""
    retext(find(tree, MODEL), ("                SelfAttention(d_model,", '                ATTENTIONS["self"](d_model,'))
    before(find(tree, MODEL), "TransformerLayer", 'ATTENTIONS = {"self": SelfAttention}')
