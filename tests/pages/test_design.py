"""What docs/design.md shows of values is so: its two spellings hide the same keys."""

import re
import textwrap

from samples import ROOT

from bitpatch.patches.reading.code import Code
from bitpatch.patches.reading.files import Files
from bitpatch.patches.reading.masks import built_masks

MODULE = """\
import math

import torch


class Attention:
    def forward(self, x, scores):
        T = x.shape[1]
{body}
        return scores

{method}
"""


def masks(body, method=""):
    """The causal masks that a forward of such lines builds, and what it calls."""
    text = MODULE.format(body=textwrap.indent(body, " " * 8), method=textwrap.indent(method, " " * 4))
    files = Files(["model.py"], lambda _: text.encode())
    file = files.file("model.py")
    code = Code(files)
    return [each.mask for node, owner in file.functions for each in built_masks(code.reading(file, node, owner))]


def test_both_spellings_hide_the_same_keys():
    one, other = re.findall(r"```python\n(.*?)```", (ROOT / "docs/design.md").read_text(), re.DOTALL)
    method, line = other.rsplit("\n\n", 1)
    ((boolean,), (added,)) = masks(one), masks(line, method)
    assert boolean.hides_future
    assert (added.above, added.below) == (float("-inf"), 0)
