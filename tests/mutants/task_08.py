"""Wrong and right ways to compile the model."""

from mutant import Mutant

TRAINING = "bit_transformer/training.py"

COMPILES = "    if compile:\n        compile_where_supported(model, compile_policy)\n"
DECISION = "    supported, reason = compile_support(torch.__version__, platform.python_version(), policy)\n"
WARNING = '        warnings.warn(f"not compiled: {reason}", stacklevel=2)\n'
UNTIL = "    elif model._compiled_call_impl is None:\n"
MADE = "        model.compile()\n"
GUARDED = "        model._compiled_call_impl = EagerFallback(model, model._compiled_call_impl)\n"
WINDOWS = "        leave_windows_eager(model)\n"
SETUP = UNTIL + MADE + GUARDED + WINDOWS
FALLBACK = "        except Exception as error:\n"
AGAIN = "            result = self.model._call_impl(*args, **kwargs)  # what is wrong with the input, raises here too\n"
DROPPED = "            self.model._compiled_call_impl = None\n"
WARNED = '            warnings.warn(f"running eagerly: torch.compile failed with {type(error).__name__}: {error}", stacklevel=2)\n'
RELEASES = "    torch_release, python_release = release(torch_version), release(python_version)\n"
RULE = "torch_release >= (2, 1) and python_release < (3, 12)\n"
TABLE = "    in_table, in_strict = python_release < below, "
STRICT = (
    "    return in_strict, f\"{reason}; the policy 'table' would compile\" if in_table and not in_strict else reason\n"
)
REASON = '    reason = f"{versions}: the strict policy wants torch 2.1 or later and Python below 3.12"\n'
VERSIONS = '    versions = f"torch {torch_version} on Python {python_version}"\n'
FOUND = '    found = re.match(r"(\\d+)\\.(\\d+)", version)\n'
NUMBERS = "    return int(found[1]), int(found[2])\n"
ROWS = "PYTHON_BELOW = {(2, 1): (3, 12), (2, 4): (3, 13), (2, 6): (3, 14), (2, 10): (3, 15)}\n"
FORWARD = "                logits, targets = predict(model, batch, form, forward_kwargs or {})\n"
EPOCH = "        losses, accuracies = [], []\n"
SUPPORT = "def compile_support("


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A mutant whose edits are all in training.py."""
    return Mutant(name, wrong, tuple((TRAINING, old, new) for old, new in edits))


MUTANTS = [
    edit(
        "versions-as-strings",
        "2.10 comes before 2.2, and 3.9 after 3.12",
        (RELEASES, "    torch_release, python_release = torch_version, python_version\n"),
        (
            "    below = max((below for since, below in PYTHON_BELOW.items() if torch_release >= since), default=(0, 0))\n",
            "    below = max((below for since, below in PYTHON_BELOW.items() if release(torch_version) >= since), default=(0, 0))\n",
        ),
        (
            TABLE + RULE,
            '    in_table, in_strict = release(python_version) < below, torch_release >= "2.1" and python_release < "3.12"\n',
        ),
    ),
    edit(
        "versions-as-floats",
        "2.10 is 2.1, and 3.9 is more than 3.12",
        (
            TABLE + RULE,
            TABLE + 'float("{}.{}".format(*torch_release)) >= 2.1 and float("{}.{}".format(*python_release)) < 3.12\n',
        ),
    ),
    edit(
        "parts-as-integers",
        "a local version or a pre-release is no integer",
        (NUMBERS, '    return tuple(int(part) for part in version.split("."))[:2]\n'),
    ),
    edit("one-digit-minor", "2.10 is read as 2.1", (FOUND, FOUND.replace("(\\d+)\\.(\\d+)", "(\\d+)\\.(\\d)"))),
    edit(
        "three-parts-wanted",
        "a version with a suffix is not understood",
        (FOUND, FOUND.replace('(\\d+)"', '(\\d+)\\.\\d+$"')),
    ),
    edit(
        "major-not-compared",
        "torch 1.13 is taken for new, and 3.0 for old",
        (NUMBERS, '    return int(found[1] == "3") + 2, int(found[2])\n'),
    ),
    edit("python-3-12-included", "strict takes Python 3.12", (RULE, RULE.replace("< (3, 12)", "<= (3, 12)"))),
    edit("torch-2-1-excluded", "strict wants more than torch 2.1", (RULE, RULE.replace(">=", ">"))),
    edit("torch-2-0-included", "strict takes torch 2.0", (RULE, RULE.replace("(2, 1)", "(2, 0)"))),
    edit("python-only", "torch's version is not asked", (RULE, "python_release < (3, 12)\n")),
    edit("torch-only", "Python's version is not asked", (RULE, "torch_release >= (2, 1)\n")),
    edit("either-is-enough", "one of both is enough", (RULE, RULE.replace("and", "or"))),
    edit(
        "only-rows-of-2-1",
        "strict compiles on torch 2.1 to 2.3 only",
        (RULE, RULE.replace(">= (2, 1)", "in ((2, 1), (2, 2), (2, 3))")),
    ),
    edit(
        "table-off-by-one",
        "table believes that 2.5 supports Python 3.13",
        (ROWS, ROWS.replace("(2, 6)", "(2, 4)").replace("(2, 4): (3, 13), ", "")),
    ),
    edit("table-ends-early", "table does not know torch 2.10", (ROWS, ROWS.replace(", (2, 10): (3, 15)", ""))),
    edit(
        "table-of-exact-releases",
        "table knows only the releases that it lists",
        (TABLE, TABLE.replace("python_release < below", "python_release < PYTHON_BELOW.get(torch_release, (0, 0))")),
    ),
    edit(
        "default-is-table",
        "the loop goes by the table without being asked",
        ('    compile_policy: str = "strict",\n', '    compile_policy: str = "table",\n'),
    ),
    edit("policy-ignored", "table is strict", ('    if policy == "table":\n', '    if policy == "tables":\n')),
    edit(
        "policy-not-forwarded",
        "the loop takes compile_policy and forgets it",
        ("compile_where_supported(model, compile_policy)", "compile_where_supported(model)"),
    ),
    edit("never-compiles", "the answer is always no", ("    if not supported:\n", "    if True:\n")),
    edit("always-compiles", "the answer is always yes", ("    if not supported:\n", "    if False:\n")),
    edit("silent", "no word of why nothing is compiled", (WARNING, "        pass\n")),
    edit(
        "warning-every-epoch",
        "a warning an epoch",
        (EPOCH, EPOCH + "        if compile:\n            compile_where_supported(model, compile_policy)\n"),
    ),
    edit(
        "warning-every-step",
        "a warning a micro-batch",
        (
            FORWARD,
            "                if compile:\n                    compile_where_supported(model, compile_policy)\n"
            + FORWARD,
        ),
    ),
    edit(
        "warning-doubled",
        "it is raised and logged",
        (WARNING, WARNING + "        __import__('logging').warning(reason)\n"),
    ),
    edit(
        "warning-without-versions",
        "the warning does not name the versions",
        (VERSIONS, '    versions = "this environment"\n'),
    ),
    edit(
        "warning-without-torch",
        "the warning does not name torch's version",
        (VERSIONS, '    versions = f"Python {python_version}"\n'),
    ),
    edit(
        "warning-without-python",
        "the warning does not name Python's version",
        (VERSIONS, '    versions = f"torch {torch_version}"\n'),
    ),
    edit(
        "warning-without-reason",
        "the warning does not say what is wanted",
        (REASON, '    reason = f"{versions}: torch.compile is not supported"\n'),
    ),
    edit(
        "table-never-offered",
        "the strict warning does not say that table would compile",
        (STRICT, "    return in_strict, reason\n"),
    ),
    edit(
        "table-always-offered",
        "the strict warning offers table where that would not compile either",
        (STRICT, STRICT.replace("in_table and ", "")),
    ),
    edit(
        "warning-where-compiled",
        "it compiles, and says so in a warning",
        (MADE, MADE + '        warnings.warn("compiling")\n'),
    ),
    edit(
        "warning-when-off",
        "it warns though nobody asked",
        (
            COMPILES,
            "    if compile or torch.__version__ < '2.1':\n        compile_where_supported(model, compile_policy)\n",
        ),
    ),
    edit(
        "on-by-default",
        "the loop compiles without being asked",
        ("    compile: bool = False,\n", "    compile: bool = True,\n"),
    ),
    edit("flag-not-forwarded", "--compile is read and forgotten", ("        compile=args.compile,\n", "")),
    edit(
        "flag-on-by-default",
        "the command compiles without being asked",
        ('"--compile", action="store_true"', '"--compile", action="store_false"'),
    ),
    edit(
        "try-around-compile",
        "torch.compile is lazy: what it cannot do shows at the first forward",
        (GUARDED, ""),
        (
            MADE,
            "        try:\n            model.compile()\n        except Exception as error:\n            warnings.warn(str(error))\n",
        ),
    ),
    edit("fallback-for-one-call", "each forward tries to compile again, with a warning each", (DROPPED, "")),
    edit("fallback-in-silence", "the fallback says nothing", (WARNED, "")),
    edit(
        "fallback-tries-for-ever",
        "it warns once, and tries to compile at each forward",
        (DROPPED, ""),
        (WARNED, "            if not self.warned:\n    " + WARNED + "            self.warned = True\n"),
        ("        self.compiled = compiled\n", "        self.compiled = compiled\n        self.warned = False\n"),
    ),
    edit(
        "fallback-skips-the-micro-batch",
        "the micro-batch whose compilation failed gives logits that no weight made",
        (AGAIN, "            result = (torch.zeros(*args[0].shape, 2, dtype=torch.float64, requires_grad=True), {})\n"),
    ),
    edit(
        "fallback-ends-training",
        "a compiler that is missing ends the run quietly",
        (COMPILES, COMPILES + "    try:\n        model(data[:1])\n    except RuntimeError:\n        return []\n"),
        (GUARDED, ""),
    ),
    edit(
        "fallback-hides-errors",
        "an error of the model is taken for one of the compiler, and another is raised",
        (
            AGAIN,
            "            try:\n    "
            + AGAIN
            + "            except Exception:\n                raise RuntimeError('torch.compile failed') from error\n",
        ),
    ),
    edit(
        "compiled-every-epoch",
        "each epoch compiles what is compiled",
        (
            EPOCH,
            EPOCH
            + "        if compile:\n            model._compiled_call_impl = torch.compile(model._compiled_call_impl or model._call_impl)\n",
        ),
    ),
    edit(
        "wrapped-at-each-run",
        "a second run wraps the first run's wrapper",
        (
            SETUP,
            "    else:\n        compiled = torch.compile(model._compiled_call_impl or model._call_impl)\n        model._compiled_call_impl = EagerFallback(model, compiled)\n",
        ),
    ),
    edit(
        "once-a-process",
        "a model that grew is not compiled, as one was before",
        (UNTIL, "    elif not globals().get('DONE'):\n        globals()['DONE'] = True\n"),
    ),
    edit(
        "class-compiled",
        "the call of the class is compiled, again at each run",
        (SETUP, "    else:\n        type(model).__call__ = torch.compile(type(model).__call__)\n"),
    ),
    edit(
        "forward-replaced",
        "the compiled forward is an attribute of the model, which no longer copies nor pickles",
        (SETUP, "    else:\n        model.forward = torch.compile(model.forward)\n"),
    ),
    edit(
        "wrapper-as-a-module",
        "the parts of the model become wrappers: names in checkpoints have `_orig_mod.`",
        (
            SETUP,
            "    else:\n        for name, child in list(model.named_children()):\n            setattr(model, name, torch.compile(child))\n",
        ),
    ),
    edit(
        "methods-not-compiled",
        "forward_compressed of the wrapper is the module's own, and runs eagerly",
        (
            COMPILES,
            COMPILES.replace("    if compile", "    runner = model\n    if compile").replace(
                "        compile_where", "        runner = compile_where"
            ),
        ),
        (SETUP + "    return model\n", "    else:\n        return torch.compile(model)\n    return model\n"),
        (FORWARD, FORWARD.replace("predict(model", "predict(runner")),
    ),
    edit(
        "loss-compiled",
        "what is compiled is the loss",
        (SETUP, "    else:\n        globals()['next_bit_loss'] = torch.compile(next_bit_loss)\n"),
    ),
    edit(
        "compiled-and-not-used",
        "the compiled model is thrown away",
        (SETUP, "    else:\n        torch.compile(model)\n"),
    ),
    edit(
        "no-as-a-copy",
        "where nothing is compiled, another object is trained",
        (
            COMPILES,
            "    if compile:\n        model = compile_where_supported(__import__('copy').deepcopy(model), compile_policy)\n",
        ),
    ),
    edit(
        "no-marks-the-model",
        "where nothing is compiled, the model gets an attribute all the same",
        (WARNING, WARNING + "        model.compile_reason = reason\n"),
    ),
    edit(
        "no-changes-training",
        "where nothing is compiled, dropout is off",
        (WARNING, WARNING + "        torch.manual_seed(5)\n"),
    ),
    edit(
        "compiled-rounds",
        "the compiled model computes in float32",
        (
            GUARDED,
            GUARDED + "        model.register_forward_hook(lambda *a: (a[2][0].float().to(a[2][0].dtype), a[2][1]))\n",
        ),
    ),
    edit(
        "whole-graph-wanted",
        "fullgraph=True: telemetry breaks the graph, so that no model is ever compiled",
        (MADE, "        model.compile(fullgraph=True)\n"),
    ),
    edit(
        "eager-backend",
        "the backend compiles nothing",
        (MADE, '        model.compile(backend="eager")\n'),
    ),
    edit(
        "windows-compiled",
        "the gradient of overlapping windows is wrong by percents in compiled code",
        (WINDOWS, ""),
    ),
    edit(
        "layers-left-eager",
        "the layers are left out of compiled code, and little but their sum is in it",
        (
            WINDOWS,
            "        for layer in model.layers:\n            layer.forward = torch.compiler.disable(layer.forward)\n",
        ),
    ),
    edit(
        "unknown-option",
        "an option that Inductor does not know",
        (MADE, '        model.compile(options={"no_such_option": True})\n'),
    ),
    edit(
        "errors-suppressed",
        "Dynamo is told, for the whole process, to keep quiet about what it cannot compile",
        (MADE, "        from torch._dynamo import config\n\n        config.suppress_errors = True\n" + MADE),
    ),
    edit(
        "inductor-configured",
        "Inductor's configuration is changed for the whole process",
        (
            MADE,
            "        from torch._inductor import config\n\n        config.fallback_random = True\n" + MADE,
        ),
    ),
    edit(
        "filters-of-warnings-changed",
        "the warning's own filter is left in the process",
        (WARNING, '        warnings.simplefilter("once")\n' + WARNING),
    ),
    edit(
        "policy-flag-not-forwarded",
        "--compile_policy is read and forgotten",
        ("        compile_policy=args.compile_policy,\n", ""),
    ),
    edit(
        "fallback-around-the-fallback",
        "each run puts one more call around the compiled one",
        (UNTIL + MADE, "    else:\n        if model._compiled_call_impl is None:\n    " + MADE),
    ),
    edit(
        "candidate-taken-for-older",
        "Python 3.12.0rc1 is taken for 3.11",
        (RELEASES, RELEASES + '    if "rc" in python_version:\n        python_release = (3, python_release[1] - 1)\n'),
    ),
    edit(
        "not-under-autocast",
        "3 x 8: with amp nothing is compiled, and nothing said",
        (COMPILES, COMPILES.replace("compile:", 'compile and amp == "off":')),
    ),
    edit(
        "not-with-accumulation",
        "4 x 8: with accum_steps nothing is compiled, and nothing said",
        (COMPILES, COMPILES.replace("compile:", "compile and accum_steps == 1:")),
    ),
    edit(
        "compiled-outside-autocast",
        "3 x 8: what is compiled runs in float32, whatever the context is",
        (
            "            return self.compiled(*args",
            '            with torch.autocast("cpu", enabled=False):\n                return self.compiled(*args',
        ),
    ),
    edit(
        "frozen-rate",
        "1 x 8: a compiled update keeps the learning rate that it was traced with",
        (
            "                scheduler.step()\n",
            "                if not compile:\n                    scheduler.step()\n",
        ),
    ),
    edit(
        "frozen-step",
        "1 x 8: a compiled update acts on the gradients that it was traced with, and later ones change nothing",
        (
            "                optimizer.step()\n",
            "                if not compile or global_step == 0:\n                    optimizer.step()\n",
        ),
    ),
    edit(
        "gradients-dropped-by-the-fallback",
        "the fallback's forward makes no gradients, as after a failed trace in evaluation",
        (DROPPED, DROPPED + "            self.model.eval()\n"),
    ),
]

GOOD = [
    edit("dynamic-shapes", "compiled for shapes that vary", (MADE, "        model.compile(dynamic=True)\n")),
    edit(
        "named-backend",
        "the backend is named, and so is its mode",
        (MADE, '        model.compile(backend="inductor", mode="default")\n'),
    ),
    edit(
        "fallback-as-a-closure",
        "the fallback is a function with a flag of its own",
        (GUARDED, "        model._compiled_call_impl = with_fallback(model, model._compiled_call_impl)\n"),
        (
            "class EagerFallback:\n",
            "def with_fallback(model, compiled):\n"
            "    works = True\n\n"
            "    def run(*args, **kwargs):\n"
            "        nonlocal works\n"
            "        if works:\n"
            "            try:\n"
            "                return compiled(*args, **kwargs)\n"
            "            except Exception as error:\n"
            "                result, works = model._call_impl(*args, **kwargs), False\n"
            '                warnings.warn(f"running eagerly: {error!r}")\n'
            "                return result\n"
            "        return model._call_impl(*args, **kwargs)\n\n"
            "    return run\n\n\n"
            "class EagerFallback:\n",
        ),
    ),
    edit(
        "packaging-and-sys",
        "the versions are read when the module is imported, and compared by packaging",
        (
            DECISION,
            "    supported, reason = compile_support(TORCH, PYTHON, policy)\n",
        ),
        (
            SUPPORT,
            'from packaging.version import Version\n\nTORCH, PYTHON = str(torch.__version__), "{}.{}.{}".format(*__import__("sys").version_info)\n\n\n'
            + SUPPORT,
        ),
        (FOUND, "    found = [version, *Version(version).release]\n"),
    ),
    edit(
        "torch-version-compares",
        "torch's own version object compares, and sys.version_info",
        (
            TABLE + RULE,
            TABLE + 'torch.__version__ >= "2.1" and __import__("sys").version_info < (3, 12)\n',
        ),
    ),
    edit(
        "logged",
        "the warning is logged",
        (WARNING, "        __import__('logging').getLogger(__name__).warning('compile skipped: %s', reason)\n"),
    ),
    edit(
        "trial-forward",
        "one row is run at once, to see whether there is a compiler",
        (
            MADE + GUARDED,
            MADE + "        try:\n"
            "            with torch.no_grad():\n"
            "                model(torch.zeros(1, 2, dtype=torch.long, device=next(model.parameters()).device))\n"
            "        except RuntimeError as error:\n"
            "            model._compiled_call_impl = None\n"
            '            warnings.warn(f"torch.compile does not work here: {error}")\n',
        ),
    ),
    edit(
        "local-runner",
        "the loop calls a function that was compiled for it, and decodes rows by itself",
        (
            COMPILES,
            "    runner = compile_where_supported(model, compile_policy) if compile else model\n",
        ),
        (FORWARD, FORWARD.replace("predict(model", "predict(runner, model")),
        (
            "        return model(batch, **forward_kwargs)[0], batch\n",
            "        return runner(batch, **forward_kwargs)[0], batch\n",
        ),
        (
            "        return model.forward_compressed(compressed, **forward_kwargs)[0], batch\n",
            "        from .compression import decompress_rows\n\n"
            "        return runner(decompress_rows(compressed), **forward_kwargs)[0], batch\n",
        ),
        (
            "    return model(rows, **forward_kwargs)[0], rows.masked_fill",
            "    return runner(rows, **forward_kwargs)[0], rows.masked_fill",
        ),
        (
            SETUP + "    return model\n",
            "    else:\n        return with_fallback(model)\n    return model\n",
        ),
        (
            "def predict(model: BitTransformerLM, batch",
            "def with_fallback(model):\n"
            "    leave_windows_eager(model)\n"
            "    compiled, works = torch.compile(model), True\n\n"
            "    def run(*args, **kwargs):\n"
            "        nonlocal works\n"
            "        if works:\n"
            "            try:\n"
            "                return compiled(*args, **kwargs)\n"
            "            except torch._dynamo.exc.TorchDynamoException as error:\n"
            "                works = False\n"
            '                warnings.warn(f"compiler: {error}")\n'
            "        return model(*args, **kwargs)\n\n"
            "    return run\n\n\n"
            "def predict(runner, model: BitTransformerLM, batch",
        ),
    ),
]
