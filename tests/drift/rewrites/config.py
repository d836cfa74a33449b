"""Other ways to a configuration: how the parser is built, and how options travel to model and loop."""

import ast
from pathlib import Path

from drift.naming import add_import, append, before, body_span
from drift.patterns import restate, substitute, within_of
from drift.rewrites.calls import LOOP_CALL
from drift.rewriting import DoesNotFit, find, read, retext, rewrite, write

TRAINING, MODEL = "bit_transformer/training.py", "bit_transformer/model.py"
ALL = (1, 3, 4, 6, 8, 12)


def options_of(path: Path) -> list[ast.Call]:
    """The calls of add_argument in build_parser."""
    function = within_of(ast.parse(read(path)), "build_parser")
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    found = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"]
    if len(found) < 10:
        raise DoesNotFit("build_parser is written in another way")
    return found


def head_of(path: Path) -> str:
    """What build_parser starts with, up to its first option."""
    text, first = read(path), options_of(path)[0]
    start, _ = body_span(text, within_of(ast.parse(text), "build_parser"))
    lines = text.splitlines(keepends=True)
    return text[start : sum(map(len, lines[: first.lineno - 1]))]


def rebuilt(path: Path, body: str) -> None:
    """build_parser with its head and another body."""
    text, head = read(path), head_of(path)
    start, end = body_span(text, within_of(ast.parse(text), "build_parser"))
    write(path, text[:start] + head + body + text[end:])


@rewrite("config", *ALL)
def parser_table(tree: Path) -> None:
    """Options are a table of the module, added in a loop."""
    path = find(tree, TRAINING)
    rows = []
    for call in options_of(path):
        settings = ", ".join(f'"{each.arg}": {ast.unparse(each.value)}' for each in call.keywords)
        rows.append(f"    ({ast.unparse(call.args[0])}, {{{settings}}}),\n")
    rebuilt(
        path, "    for flag, settings in OPTIONS:\n        parser.add_argument(flag, **settings)\n    return parser\n"
    )
    before(path, "build_parser", f"OPTIONS = (\n{''.join(rows)})")


@rewrite("config", *ALL)
def parser_dict(tree: Path) -> None:
    """Options are a dict by name, with the dashes put before in the loop."""
    path = find(tree, TRAINING)
    rows = []
    for call in options_of(path):
        settings = ", ".join(f"{each.arg}={ast.unparse(each.value)}" for each in call.keywords)
        rows.append(f'        "{call.args[0].value.lstrip("-")}": dict({settings}),\n')
    rebuilt(
        path,
        f"    flags = {{\n{''.join(rows)}    }}\n"
        '    for name in flags:\n        parser.add_argument(f"--{name}", **flags[name])\n    return parser\n',
    )


@rewrite("config", *ALL)
def parser_groups(tree: Path) -> None:
    """Options stand in groups, of the model and of training."""
    path = find(tree, TRAINING)
    of_model = {"layers", "d_model", "nhead", "max_seq_len", "chunk_size", "overlap", "act", "reversible"}
    lines = ['    shape = parser.add_argument_group("model")\n', '    fit = parser.add_argument_group("training")\n']
    for call in options_of(path):
        group = "shape" if call.args[0].value.lstrip("-") in of_model else "fit"
        lines.append(f"    {group}.{ast.unparse(call).split('.', 1)[1]}\n")
    rebuilt(path, "".join(lines) + "    return parser\n")


@rewrite("config", *ALL)
def parser_functions(tree: Path) -> None:
    """Two functions add the options of the model and those of training."""
    path = find(tree, TRAINING)
    calls = [f"    {ast.unparse(call)}\n" for call in options_of(path)]
    rebuilt(path, "    add_model_options(parser)\n    add_fit_options(parser)\n    return parser\n")
    before(path, "build_parser", f"def add_fit_options(parser):\n{''.join(calls[12:])}")
    before(path, "add_fit_options", f"def add_model_options(parser):\n{''.join(calls[:12])}")


@rewrite("config", *ALL)
def parser_parents(tree: Path) -> None:
    """Options of the model come from a parent parser."""
    path = find(tree, TRAINING)
    calls = [f"    {ast.unparse(call)}\n" for call in options_of(path)]
    rebuilt(path, "".join(calls[12:]) + "    return parser\n")
    substitute(
        tree,
        "argparse.ArgumentParser(prog=$p, description=$d, epilog=$e)",
        "argparse.ArgumentParser(prog=$p, description=$d, epilog=$e, parents=[shape_parser()])",
        TRAINING,
    )
    shape = "".join(calls[:12])
    before(
        path,
        "build_parser",
        f"def shape_parser():\n    parser = argparse.ArgumentParser(add_help=False)\n{shape}    return parser\n",
    )


@rewrite("config", *ALL)
def parser_method_alias(tree: Path) -> None:
    """add_argument has a short name in the function."""
    path = find(tree, TRAINING)
    calls = [ast.unparse(call).replace("parser.add_argument", "add", 1) for call in options_of(path)]
    rebuilt(
        path, "    add = parser.add_argument\n" + "".join(f"    {call}\n" for call in calls) + "    return parser\n"
    )


@rewrite("config", *ALL)
def parser_dashed(tree: Path) -> None:
    """Options of two words are spelled with dashes, and with underscores still."""
    path = find(tree, TRAINING)
    lines = []
    for call in options_of(path):
        name = call.args[0].value
        if "_" in name:
            call.args.insert(0, ast.Constant("--" + name[2:].replace("_", "-")))
        lines.append(f"    {ast.unparse(call)}\n")
    rebuilt(path, "".join(lines) + "    return parser\n")


@rewrite("config", *ALL)
def parser_module(tree: Path) -> None:
    """The parser stands in a module of its own, and is imported back."""
    from drift.naming import move

    move(tree, TRAINING, "arguments.py", "build_parser")


@rewrite("config", *ALL)
def parser_subclass(tree: Path) -> None:
    """The parser is a class that adds its options to itself."""
    path = find(tree, TRAINING)
    calls = [f"        {ast.unparse(call).replace('parser.', 'self.', 1)}\n" for call in options_of(path)]
    text = read(path)
    start, end = body_span(text, within_of(ast.parse(text), "build_parser"))
    header = text[start : text.index("\n", start) + 1]
    write(path, f"{text[:start]}{header}    return TrainingParser()\n{text[end:]}")
    before(
        path,
        "build_parser",
        "class TrainingParser(argparse.ArgumentParser):\n    def __init__(self):\n"
        '        super().__init__(prog="bit_transformer.training", description="Train a BitTransformerLM.")\n'
        + "".join(calls),
    )


@rewrite("config", *ALL)
def args_as_dict(tree: Path) -> None:
    """main takes its options out of a dict."""
    restate(
        tree,
        "args = build_parser().parse_args(argv)\n$$rest",
        "args = build_parser().parse_args(argv)\nopts = vars(args)\n$$rest",
        TRAINING,
        "main",
    )
    substitute_attributes(find(tree, TRAINING), "opts[{name!r}]")


def substitute_attributes(path: Path, form: str) -> None:
    import re

    text = read(path)
    start, end = body_span(text, within_of(ast.parse(text), "main"))
    body = re.sub(r"\bargs\.(\w+)", lambda found: form.format(name=found[1]), text[start:end])
    write(path, text[:start] + body.replace("'", '"') + text[end:])


@rewrite("config", *ALL)
def args_in_data_class(tree: Path) -> None:
    """Options of training are a data class between the parser and the loop."""
    restate(
        tree,
        LOOP_CALL,
        """\
options = FitOptions(
    args.epochs, args.extra_steps, args.compress_prob, args.direct_prob, args.lr, args.weight_decay
)
train_loop(model, data, log=True, forward_kwargs={"causal": args.causal}, **asdict(options))
""",
        TRAINING,
    )
    path = find(tree, TRAINING)
    before(
        path,
        "build_parser",
        '''\
@dataclass
class FitOptions:
    """How a model is fitted."""

    epochs: int = 1
    extra_steps: int = 0
    compress_prob: float = 0.5
    direct_prob: float = 0.0
    lr: float = 1e-3
    weight_decay: float = 0.01
''',
    )
    add_import(path, "from dataclasses import asdict, dataclass")


@rewrite("config", *ALL)
def main_split(tree: Path) -> None:
    """main's model and data are made by functions of their own."""
    restate(
        tree,
        "model = $made\ntext = $text\ndata = $data",
        "model = model_from(args)\ndata = rows_from(args)",
        TRAINING,
        "main",
    )
    append(
        find(tree, TRAINING),
        """\
def model_from(args: argparse.Namespace) -> BitTransformerLM:
    return BitTransformerLM(
        d_model=args.d_model,
        nhead=args.nhead,
        num_layers=args.layers,
        dim_feedforward=4 * args.d_model,
        max_seq_len=args.max_seq_len,
        reversible=args.reversible,
        use_checkpoint=args.checkpointing,
        use_act=args.act,
        chunk_size=args.chunk_size,
        overlap=args.overlap,
        full_attn_logging=args.full_attn_logging,
    )


def rows_from(args: argparse.Namespace) -> Tensor:
    files = args.data or [SAMPLE]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    return bits_to_rows(text_to_bits(text), args.max_seq_len)
""",
    )


@rewrite("config", 1, 3, 4, 6)
def loop_options_namespace(tree: Path) -> None:
    """train_loop gathers its options in a SimpleNamespace, and reads them from it."""
    restate(
        tree,
        "device = next(model.parameters()).device\n$$rest",
        """\
opt = SimpleNamespace(epochs=epochs, extra=extra_steps, compress=compress_prob, direct=direct_prob)
device = next(model.parameters()).device
$$rest
""",
        TRAINING,
        "train_loop",
    )
    substitute(
        tree, "draw_form(compress_prob, direct_prob)", "draw_form(opt.compress, opt.direct)", TRAINING, "train_loop"
    )
    substitute(tree, "range(epochs)", "range(opt.epochs)", TRAINING, "train_loop")
    substitute(tree, "with_extra_steps($b, extra_steps)", "with_extra_steps($b, opt.extra)", TRAINING, "train_loop")
    add_import(find(tree, TRAINING), "from types import SimpleNamespace")


@rewrite("config", 12)
def model_config_class(tree: Path) -> None:
    """The model's configuration is an object whose attributes are turned into the dict."""
    path = find(tree, MODEL)
    restate(
        tree,
        "self.config = $config",
        "self.config = dict(ModelConfig.of($config).__dict__)",
        MODEL,
        "BitTransformerLM.__init__",
    )
    before(
        path,
        "BitTransformerLM",
        '''\
class ModelConfig:
    """What a model is made of, as attributes."""

    @classmethod
    def of(cls, values):
        made = cls()
        made.__dict__.update(values)
        return made
''',
    )


@rewrite("config", 1, 3, 4, 6, 8, 12)
def parser_partial(tree: Path) -> None:
    """Whole numbers, parts and switches are added by partials of add_argument."""
    path = find(tree, TRAINING)
    restate(
        tree,
        "parser.add_argument($n, action=argparse.BooleanOptionalAction, default=$d)",
        "switch($n, default=$d)",
        TRAINING,
    )
    restate(tree, "parser.add_argument($n, type=int, default=$d)", "number($n, default=$d)", TRAINING)
    restate(tree, "parser.add_argument($n, type=float, default=$d)", "part($n, default=$d)", TRAINING)
    retext(
        path,
        (
            '    parser.add_argument("--data",',
            """\
    number, part = partial(parser.add_argument, type=int), partial(parser.add_argument, type=float)
    switch = partial(parser.add_argument, action=argparse.BooleanOptionalAction)
    parser.add_argument("--data",""",
        ),
    )
    add_import(path, "from functools import partial")


@rewrite("config", 1, 3, 4, 6, 8, 12)
def parser_from_fields(tree: Path) -> None:
    """The numbers of training are fields of a data class, from which the parser makes its options."""
    path = find(tree, TRAINING)
    for name in ("epochs", "compress_prob", "direct_prob", "lr", "weight_decay", "seed"):
        restate(tree, f'parser.add_argument("--{name}", type=$kind, default=$number)', "", TRAINING, "build_parser")
    retext(
        path,
        (
            "    return parser\n\n\ndef main",
            """\
    for field in dataclasses.fields(Numbers):
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default)
    return parser


def main""",
        ),
    )
    before(
        path,
        "build_parser",
        """\
@dataclasses.dataclass
class Numbers:
    epochs: int = 1
    compress_prob: float = 0.5
    direct_prob: float = 0.0
    lr: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 0
""",
    )
    add_import(path, "import dataclasses")
