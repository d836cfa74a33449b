"""Wrong and right ways to let the compression probability rise."""

from mutant import Mutant
from strangers import STRANGERS_RIGHT, STRANGERS_WRONG
from wide_loop import RAMP

TRAINING, SCHEDULE = "bit_transformer/training.py", "data/wikitext_schedule.py"

RAMP_CALL = "cosine_ramp(global_step, start=0.0, end=compress_prob, total_steps=warmup_steps)"
RAMPED = f"            ramped_prob = {RAMP_CALL}\n"
FORM = "            form = draw_form(ramped_prob, direct_prob, draws.random)\n"
DRAWS = "    draws = random.Random(random.getrandbits(64))\n"
CLAMP = "    if step >= total_steps:\n        return end\n"
CURVE = "    return start + (end - start) * (1 - math.cos(math.pi * step / total_steps)) / 2\n"
CLOCK = "                global_step += 1\n"
EPOCH = "    for epoch in range(epochs):\n"
DIRECT = "    if draw() < direct_prob:\n"
COMPRESSED = '    return "compressed" if draw() < compress_prob else "raw"\n'
ORDER = "    order = torch.Generator().manual_seed(torch.randint(2**63 - 1, ()).item())\n"


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A mutant whose edits are all in training.py."""
    return Mutant(name, wrong, tuple((TRAINING, old, new) for old, new in edits))


def drawn(name: str, wrong: str, draw: str, before: str = "") -> Mutant:
    """A mutant whose draws are the values of an expression; `before` comes ahead of the loop."""
    return edit(name, wrong, (DRAWS, before), (FORM, FORM.replace("draws.random", f"lambda: {draw}")))


MUTANTS = [
    edit(
        "no-ramp",
        "the probability is compress_prob from the first update",
        (RAMPED, "            ramped_prob = compress_prob\n"),
    ),
    edit(
        "full-cosine",
        "the ramp rises to the end at half time, and falls again",
        (CURVE, CURVE.replace("math.pi", "2 * math.pi")),
    ),
    edit("linear", "the ramp is a straight line", (CURVE, "    return start + (end - start) * step / total_steps\n")),
    edit(
        "quarter-cosine",
        "the ramp starts flat and ends steep",
        (CURVE, CURVE.replace("math.pi * step / total_steps)) / 2", "math.pi / 2 * step / total_steps))")),
    ),
    edit(
        "sine",
        "the ramp starts steep and ends flat",
        (CURVE, "    return start + (end - start) * math.sin(math.pi / 2 * step / total_steps)\n"),
    ),
    edit(
        "squared", "the ramp is a parabola", (CURVE, "    return start + (end - start) * (step / total_steps) ** 2\n")
    ),
    edit("falling", "the ramp falls from the end to 0", (CURVE, CURVE.replace("1 - math", "1 + math"))),
    edit(
        "not-clamped",
        "after the end the cosine goes on, down to 0 and up again",
        (CLAMP, "    if total_steps < 1:\n        return end\n"),
    ),
    edit(
        "clamped-to-the-start",
        "after the end nothing is compressed any more",
        (CLAMP, CLAMP.replace("return end", "return start")),
    ),
    edit("zero-divides", "warmup_steps=0 is a ZeroDivisionError", (CLAMP, CLAMP.replace(">=", ">"))),
    edit(
        "zero-is-never",
        "warmup_steps=0 switches compression off",
        (CLAMP, "    if total_steps == 0:\n        return start\n" + CLAMP),
    ),
    edit(
        "one-is-at-once",
        "warmup_steps=1 has no first update at the start",
        (CLAMP, CLAMP.replace("if ", "if total_steps == 1 or ")),
    ),
    edit(
        "one-step-early",
        "the first update is already on the way",
        (RAMPED, RAMPED.replace("(global_step", "(global_step + 1")),
    ),
    edit(
        "one-step-late", "the ramp ends one update late", (RAMPED, RAMPED.replace("=warmup_steps", "=warmup_steps + 1"))
    ),
    edit(
        "last-step-is-the-end",
        "the ramp takes one update less, as from 0 to T - 1",
        (RAMPED, RAMPED.replace("=warmup_steps", "=max(1, warmup_steps - 1)")),
    ),
    edit(
        "starts-above-zero",
        "the first micro-batches may be compressed",
        (RAMPED, RAMPED.replace("start=0.0", "start=0.1 * compress_prob")),
    ),
    edit(
        "end-fixed",
        "the ramp ends at 0.5 whatever compress_prob is",
        (RAMPED, RAMPED.replace("end=compress_prob", "end=0.5")),
    ),
    edit(
        "warmup-fixed",
        "the ramp takes 1000 updates whatever warmup_steps is",
        (RAMPED, RAMPED.replace("=warmup_steps", "=1000")),
    ),
    edit(
        "warmup-is-the-run",
        "the ramp takes the whole run whatever warmup_steps is",
        (RAMPED, RAMPED.replace("=warmup_steps", "=total_updates")),
    ),
    edit("epochs-as-clock", "the ramp moves once an epoch", (RAMPED, RAMPED.replace("(global_step", "(epoch"))),
    edit(
        "micro-batches-as-clock",
        "the ramp moves with each micro-batch",
        (CLOCK, ""),
        (FORM, FORM + "            global_step += 1\n"),
    ),
    edit("rows-as-clock", "the ramp moves with each row", (CLOCK, "                global_step += len(batch)\n")),
    edit("anew-each-epoch", "the ramp begins again with each epoch", (EPOCH, EPOCH + "        global_step = 0\n")),
    edit(
        "extra-steps-stand-still",
        "extra steps do not count",
        (CLOCK, "                global_step += len(losses) < len(loader)\n"),
    ),
    edit("anew-after-a-resume", "the ramp begins again when a run goes on", (EPOCH, "    global_step = 0\n" + EPOCH)),
    edit(
        "resumed-at-the-end",
        "a run that goes on compresses as if the ramp were over",
        (EPOCH, "    warmup_steps = 0 if global_step else warmup_steps\n" + EPOCH),
    ),
    edit(
        "counted-from-the-resume",
        "global_step only moves the end of the ramp",
        (
            RAMPED,
            RAMPED.replace("(global_step", "(global_step - began").replace(
                "=warmup_steps", "=max(0, warmup_steps - began)"
            ),
        ),
        (EPOCH, "    began = global_step\n" + EPOCH),
    ),
    edit(
        "scheduler-as-clock",
        "the ramp follows the scheduler, which knows nothing of a resume",
        (RAMPED, RAMPED.replace("(global_step", "(scheduler.last_epoch")),
    ),
    edit(
        "no-global-step",
        "a run cannot go on",
        ("    global_step: int = 0,\n", ""),
        (EPOCH, "    global_step = 0\n" + EPOCH),
    ),
    drawn("global-python-draws", "draws come from Python's global stream", "random.random()"),
    drawn("global-torch-draws", "draws come from the stream of dropout", "torch.rand(()).item()"),
    drawn(
        "global-numpy-draws", "draws come from numpy's global stream", "np.random.random()", "    import numpy as np\n"
    ),
    edit(
        "draws-of-the-order",
        "draws come from the generator that shuffles the rows",
        (
            "    loader.generator = torch.Generator()",
            "    loader.sampler.generator = loader.order = order\n    loader.generator = torch.Generator()",
        ),
        (FORM, FORM.replace("draws.random", "lambda: torch.rand((), generator=loader.order).item()")),
    ),
    edit(
        "stream-seeded-by-the-step",
        "each update seeds the global stream, so that its draw can be repeated",
        (FORM, "            random.seed(global_step)\n" + FORM.replace("draws.random", "random.random")),
    ),
    edit("seed-from-the-system", "the same seed gives other forms each time", (DRAWS, "    draws = random.Random()\n")),
    edit(
        "drawn-anew-each-epoch",
        "each epoch draws the same forms",
        (EPOCH, EPOCH + "        draws = random.Random(torch.initial_seed())\n"),
    ),
    edit("one-draw-for-all", "the generator is made again for each micro-batch", (FORM, "        " + DRAWS + FORM)),
    edit(
        "one-draw-an-epoch",
        "all micro-batches of an epoch have the draw of the first",
        (EPOCH, EPOCH + "        toss = draws.random()\n"),
        (FORM, FORM.replace("draws.random", "lambda: toss")),
    ),
    edit(
        "pairs-of-draws",
        "each draw serves two micro-batches",
        (
            FORM,
            "            toss = draws.random() if len(losses) % 2 == 0 else toss\n"
            + FORM.replace("draws.random", "lambda: toss"),
        ),
    ),
    edit("zero-may-compress", "a draw of 0.0 compresses where p is 0", (COMPRESSED, COMPRESSED.replace("<", "<="))),
    edit("compressed-and-raw-swapped", "p is the probability of raw bits", (COMPRESSED, COMPRESSED.replace("<", ">="))),
    edit(
        "direct-ramped",
        "direct_prob rises too",
        (FORM, FORM.replace("direct_prob", "direct_prob * ramped_prob / (compress_prob or 1)")),
    ),
    edit(
        "direct-after-compression",
        "a micro-batch is direct only if it was not compressed",
        (DIRECT, DIRECT.replace("draw() <", "draw() < (1 - compress_prob) *")),
    ),
    edit("direct-lost", "direct_prob is read no more", (DIRECT, "    if False:\n")),
    edit(
        "direct-with-compression",
        "direct_prob is a share of compress_prob",
        (DIRECT, DIRECT.replace("draw() < direct", "draw() < compress_prob * direct")),
    ),
    edit(
        "direct-draw-serves-twice",
        "one draw decides both: with direct_prob=0.3 fewer are compressed than p",
        (DIRECT, "    toss = draw()\n" + DIRECT.replace("draw()", "toss")),
        (COMPRESSED, COMPRESSED.replace("draw()", "toss")),
    ),
    edit(
        "loop-defaults-to-1", "the default ramp ends at 1", ("compress_prob: float = 0.5", "compress_prob: float = 1.0")
    ),
    edit(
        "flag-defaults-to-0",
        "the command compresses nothing without being asked",
        ('"--compress_prob", type=float, default=0.5', '"--compress_prob", type=float, default=0.0'),
    ),
    edit(
        "warmup-not-forwarded",
        "--warmup_steps is read and forgotten",
        ("        warmup_steps=args.warmup_steps,\n", ""),
    ),
    edit(
        "prob-not-forwarded",
        "--compress_prob is read and forgotten",
        ("        compress_prob=args.compress_prob,\n", ""),
    ),
    edit(
        "flag-without-ramp",
        "the command has no ramp without being asked",
        ('"--warmup_steps", type=int, default=1000', '"--warmup_steps", type=int, default=0'),
    ),
    edit("nothing-trained", "no epoch is run", (EPOCH, "    for epoch in range(0):\n")),
    Mutant(
        "evaluation-compressed",
        "the gate scores bits that were compressed at the probability that the ramp ends at",
        [
            (
                "bit_transformer/safety.py",
                "            logits, telemetry = model(bits)\n",
                "            from .compression import compress_bits\n            logits, telemetry = model.forward_compressed([compress_bits(row) for row in bits])\n",
            ),
        ],
    ),
    Mutant(
        "validation-draws",
        "validation draws a form for each batch, as training does",
        [
            (
                "data/wikitext_schedule.py",
                "    losses = [next_bit_loss(model(batch)[0], batch)",
                "    losses = [next_bit_loss(model(batch)[0] if random.random() < 0.5 else model(batch)[0], batch)",
            ),
        ],
    ),
]

MUTANTS += [
    Mutant(
        "kept-runs-without-a-ramp",
        "a run that is kept compresses with its whole probability from the start",
        [
            (
                "bit_transformer/pretraining.py",
                "prob = cosine_ramp(update, start=0.0,",
                "prob = cosine_ramp(update, start=settings.compress_prob,",
            )
        ],
    ),
    Mutant(
        "rounds-begin-anew",
        "the schedule calls train_loop without its clock, and each round starts at the ramp's foot",
        [(SCHEDULE, ", global_step=global_step)[-1]", ")[-1]")],
    ),
    Mutant(
        "rounds-count-epochs",
        "the schedule takes epochs for updates",
        [(SCHEDULE, 'record["global_step"]', 'record["epoch"] + 1')],
    ),
    Mutant(
        "clock-handed-back-as-it-came",
        "a round returns the updates that it was given",
        [
            (TRAINING, '"global_step": global_step,', '"global_step": begun,'),
            (TRAINING, "    history = []\n", "    history, begun = [], global_step\n"),
        ],
    ),
]

MUTANTS += RAMP

MUTANTS += STRANGERS_WRONG[6]

GOOD = [
    *STRANGERS_RIGHT[6],
    Mutant(
        "updates-counted-by-the-schedule",
        "the schedule counts its updates by itself, and train_loop returns no clock",
        [
            (TRAINING, '                "global_step": global_step,\n', ""),
            (SCHEDULE, 'global_step = record["global_step"]', "global_step += args.epochs * -(-len(rows) // 8)"),
        ],
    ),
    drawn(
        "torch-generator",
        "a generator of torch",
        "torch.rand((), generator=draws).item()",
        "    draws = torch.Generator().manual_seed(torch.initial_seed() + 1)\n",
    ),
    drawn(
        "numpy-generator",
        "a generator of numpy",
        "draws.random()",
        "    import numpy as np\n\n    draws = np.random.default_rng(torch.initial_seed())\n",
    ),
    edit(
        "drawn-from-seed-and-step",
        "a generator for each micro-batch, from the run's seed and its number",
        (FORM, FORM.replace("draws.random", 'random.Random(f"{torch.initial_seed()} {epoch} {len(losses)}").random')),
    ),
    edit(
        "seed-drawn-once",
        "the seed of the draws comes from a global stream, once a run",
        (DRAWS, "    draws = random.Random(random.getrandbits(64))\n"),
    ),
    edit(
        "not-drawn-at-zero",
        "nothing is drawn where p is 0",
        (COMPRESSED, '    return "compressed" if compress_prob and draw() < compress_prob else "raw"\n'),
        (DIRECT, DIRECT.replace("draw()", "direct_prob and draw()")),
    ),
    edit(
        "clock-is-the-scheduler",
        "the clock is the scheduler's, and the updates before the run; the ramp is a sine squared",
        (CLOCK, ""),
        (RAMPED, RAMPED.replace("(global_step", "(global_step + scheduler.last_epoch")),
        ('"global_step": global_step,', '"global_step": global_step + scheduler.last_epoch,'),
        (CURVE, "    return start + (end - start) * math.sin(math.pi / 2 * step / total_steps) ** 2\n"),
    ),
    edit(
        "one-weighted-choice",
        "one draw among three forms with their weights",
        (
            DIRECT,
            "    weights = [direct_prob, (1 - direct_prob) * compress_prob, (1 - direct_prob) * (1 - compress_prob)]\n    toss = draw()\n    if toss < weights[0]:\n",
        ),
        (COMPRESSED, COMPRESSED.replace("draw() < compress_prob", "toss < weights[0] + weights[1]")),
    ),
]
