"""Run the sanity fit on trees, say whether they behaved, and draw it; what must hold stands in driving/short_fit.py.

python -m bitpatch.verify.sanity_fit TREE [TREE...] --picture FILE.png
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the folder one stands in: a tree, perhaps, whose modules are not to run here

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .driving.short_fit import UPDATES
from .rendering.report import SanityFit, fit_summary
from .running.clean_start import restart_clean
from .running.evidence import Verdict
from .running.runner import VerifyUnavailable, Zygote, verify

COLOURS = ("#9ecae1", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")
LOOKS: tuple[dict[str, Any], ...] = (
    {"linewidth": 4.5},
    {"linewidth": 1.4, "linestyle": (0, (5, 3))},
    {"linewidth": 1.4, "linestyle": (0, (1.5, 2))},
)


def draw(fits: Sequence[tuple[str, SanityFit]], picture: Path) -> None:
    """Draw loss and learning rate of named runs; the first is a wide line on which the others lie dashed."""
    try:
        import matplotlib as mpl  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SystemExit("a picture needs matplotlib: pip install 'bitpatch[train]'") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (losses, rates) = plt.subplots(
        2, 1, figsize=(9, 6.5), sharex=True, height_ratios=[3, 1.4], layout="constrained"
    )
    for place, (name, fit) in enumerate(fits):
        look = dict(LOOKS[min(place, len(LOOKS) - 1)], color=COLOURS[place % len(COLOURS)])
        losses.plot(range(1, len(fit.losses) + 1), fit.losses, label=f"{name} ({fit.verdict})", **look)
        rates.plot(range(1, len(fit.rates) + 1), [1e3 * rate for rate in fit.rates], **look)
    losses.axhline(1, color="0.6", linewidth=1, linestyle=":")
    losses.annotate("a coin", (UPDATES, 1), color="0.45", ha="right", va="bottom", fontsize=9)
    losses.set_ylabel("loss (bits per bit)")
    losses.set_title("Sanity fit: a small model on text, one epoch", loc="left")
    losses.legend(frameon=False)
    rates.set_ylabel("learning rate (1e-3)")
    rates.set_xlabel("update")
    rates.set_xlim(0, UPDATES)
    rates.set_ylim(0)
    for axes in (losses, rates):
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=150)
    plt.close(figure)


def main() -> None:
    """Run the sanity fit on trees, print what came of it, and draw it; exit 1 unless all passed."""
    parser = argparse.ArgumentParser(prog="bitpatch.verify.sanity_fit", description="Train a small model of each tree.")
    parser.add_argument("trees", type=Path, nargs="+", metavar="TREE")
    parser.add_argument("--picture", type=Path, help="draw loss and learning rate into this file")
    arguments = parser.parse_args()
    fits = []
    try:
        with Zygote() as zygote:
            for tree in arguments.trees:
                report = verify(tree, [], zygote=zygote, sanity_fit=True)
                if report.sanity_fit is not None:
                    fits.append((tree.resolve().name, report.sanity_fit))
                    sys.stdout.write(f"{tree}: {report.sanity_fit.verdict}, {fit_summary(report.sanity_fit)}\n")
    except VerifyUnavailable as error:
        sys.exit(str(error))
    if arguments.picture is not None:
        draw(fits, arguments.picture)
    sys.exit(any(fit.verdict is not Verdict.PASS for _, fit in fits))


if __name__ == "__main__":
    restart_clean()
    main()
