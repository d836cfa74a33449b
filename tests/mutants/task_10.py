"""Wrong and right ways to keep causal masks."""

from pathlib import Path
from textwrap import indent

from mutant import Mutant

MODEL = "bit_transformer/model.py"
SOURCE = (Path(__file__).parents[2] / "reference" / MODEL).read_text(encoding="utf-8")

CACHE = SOURCE[SOURCE.index("TRI_MASKS_KEPT = ") : SOURCE.index("def window_padding(")]
BODY = CACHE[CACHE.index("    key = (") :]
KEY = BODY[: BODY.index("\n") + 1]
BUILD = "torch.triu(torch.ones(seq_len, seq_len, dtype=torch.bool, device=device), diagonal=1)"
GUARD = "    if mask is None or mask._version != version:\n"
INFERENCE = "torch.inference_mode(False)"
ASK_DENSE = "                    future = get_tri_mask(T, q.device)\n"
ASK_WINDOW = "            future = get_tri_mask(width, q.device)\n"
FILL_DENSE = 'scores = scores.masked_fill(future, float("-inf"))'
EVICT = "_tri_masks.popitem(last=False)"
KEEP = "    _tri_masks[key] = (mask, mask._version)\n"
KEPT_BY = """{name} = _kept.setdefault({key}, {mask})
if {name}._version:
    {name} = _kept[{key}] = {mask}
if len(_kept) > 32:
    _kept.popitem(last=False)
"""
KEPT = ("TRI_MASKS_KEPT = ", "_kept = OrderedDict()\nTRI_MASKS_KEPT = ")
IN_MAP, IN_WINDOWS = 20 * " ", 12 * " "  # the columns at which masks are asked for
CUT = "            hidden = future[overlap:]\n"
PAD = "hidden = hidden | window_padding"
PADDED = "        hidden = hidden | window_padding(T, chunk, overlap, hidden.device)\n"
VISIBLE = "attn_mask=~hidden"
DENSE = "    def _dense(self, q"
ATTENTION_END = "        self.out_proj = nn.Linear(d_model, d_model)\n"
MODEL_END = "        self.out = nn.Linear(d_model, 2)\n"


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A tree whose edits are all in model.py."""
    return Mutant(name, wrong, tuple((MODEL, old, new) for old, new in edits))


def buffer(persistent: bool) -> tuple[tuple[str, str], ...]:
    return (
        (
            ASK_DENSE,
            indent(
                "if not hasattr(self, f'future_{T}'):\n"
                "    mask = get_tri_mask(T, q.device)\n"
                f"    self.register_buffer(f'future_{{T}}', mask, persistent={persistent})\n"
                "future = getattr(self, f'future_{T}')\n",
                IN_MAP,
            ),
        ),
    )


MUTANTS = [
    edit("no-device-in-key", "a mask of the CPU is handed to any device", (KEY, "    key = (seq_len, None)\n")),
    edit(
        "numbered-device-is-another",
        '"cuda" and "cuda:0" have a mask each',
        (KEY, "    key = (seq_len, torch.device(device))\n"),
    ),
    edit("device-as-text", "the key is what the caller wrote", (KEY, "    key = (seq_len, str(device))\n")),
    edit(
        "keyed-by-identity",
        "the key is the address of a device object, which another device gets later",
        (KEY, "    key = (seq_len, id(device))\n"),
    ),
    edit(
        "length-of-window-is-enough",
        "windows with and without causality, and on every device, share a key",
        (
            ASK_WINDOW + CUT,
            "            hidden = get_tri_mask(width, q.device)[overlap:]\n"
            "        hidden = _windows.setdefault((chunk, width), hidden)\n",
        ),
        ("TRI_MASKS_KEPT = ", "_windows = {}\nTRI_MASKS_KEPT = "),
    ),
    edit(
        "slice-of-the-dense-mask",
        "windows cut their mask from the top of the largest one, where no overlap is to their left",
        (CUT, "            hidden = get_tri_mask(T + width, q.device)[:chunk, :width]\n"),
    ),
    edit(
        "lower-left-of-the-largest",
        "shorter lengths get a corner of the largest mask where nothing is hidden",
        (
            BODY,
            "    key = torch.empty(0, device=device).device\n"
            "    if key not in _tri_masks or len(_tri_masks[key]) < seq_len:\n"
            "        with torch.inference_mode(False):\n"
            f"            _tri_masks[key] = {BUILD}\n"
            "    return _tri_masks[key][-seq_len:, :seq_len]\n\n\n",
        ),
    ),
    edit(
        "float-mask-of-ones",
        "scores get 1 added where they should be hidden",
        (FILL_DENSE, "scores = scores + future.float()"),
    ),
    edit(
        "float-mask-of-the-first-dtype",
        "an additive mask is kept in the dtype of whoever came first",
        (
            ASK_DENSE + IN_MAP + FILL_DENSE,
            indent(
                "bias = torch.zeros(T, T, dtype=q.dtype, device=q.device)\n"
                "bias = bias.masked_fill(get_tri_mask(T, q.device), float('-inf'))\n"
                "scores = scores + _biases.setdefault((T, q.device), bias)",
                IN_MAP,
            ),
        ),
        ("TRI_MASKS_KEPT = ", "_biases = {}\nTRI_MASKS_KEPT = "),
    ),
    edit("persistent-buffer", "masks enter the state dict", *buffer(persistent=True)),
    edit("non-persistent-buffer", "to_empty leaves masks that no state dict restores", *buffer(persistent=False)),
    edit(
        "lru-cache-on-a-method",
        "the cache holds the layer, and each layer has a mask of its own",
        (
            DENSE,
            "    @functools.lru_cache(maxsize=32)\n"
            "    def _future(self, T, device):\n"
            "        return torch.triu(torch.ones(T, T, dtype=torch.bool, device=device), diagonal=1)\n\n" + DENSE,
        ),
        (ASK_DENSE, ASK_DENSE.replace("get_tri_mask", "self._future")),
        ("import math\n", "import functools\nimport math\n"),
    ),
    edit(
        "one-cache-a-layer",
        "each layer builds the mask again",
        (
            ASK_DENSE,
            indent(
                "future = self._masks.setdefault((T, q.device), None)\n"
                "if future is None or future._version:\n"
                "    with torch.inference_mode(False):\n"
                "        future = torch.ones(T, T, device=q.device).triu(1) > 0\n"
                "    self._masks[T, q.device] = future\n"
                "    if len(self._masks) > 32:\n"
                "        self._masks.pop(next(iter(self._masks)))\n",
                IN_MAP,
            ),
        ),
        (ATTENTION_END, ATTENTION_END + "        self._masks = {}\n"),
    ),
    edit(
        "alias-filled-in-place",
        "the first window's padding is written into the mask that all share",
        (PAD, "hidden |= window_padding(T, chunk, overlap, q.device)[0, 0]\n        " + PAD),
        (GUARD, "    if mask is None:\n"),
    ),
    edit("alias-unguarded", "what a caller writes stays in the mask", (GUARD, "    if mask is None:\n")),
    edit("unbounded", "no mask is ever dropped", ("TRI_MASKS_KEPT = 32", "TRI_MASKS_KEPT = 10**9")),
    edit(
        "only-the-last-one", "lengths in turn rebuild the mask each time", ("TRI_MASKS_KEPT = 32", "TRI_MASKS_KEPT = 1")
    ),
    edit(
        "inference-tensor",
        "windows keep what they show to the attention, which built under inference_mode serves no backward",
        (
            PADDED,
            PADDED
            + "        bias = q.new_zeros(hidden.shape).masked_fill(hidden, float('-inf'))\n"
            + "        bias = _kept.setdefault((T, chunk, overlap, causal, q.dtype, q.device), bias)\n"
            + "        if len(_kept) > 32:\n            _kept.popitem(last=False)\n",
        ),
        (VISIBLE, "attn_mask=bias"),
        KEPT,
    ),
    edit(
        "windows-keyed-without-length",
        "windows keep their padding with the mask, and sequences of another length get it",
        (
            PADDED,
            PADDED
            + "        key = (-(-T // chunk), chunk, overlap, causal, q.device)\n"
            + indent(KEPT_BY.format(key="key", mask="hidden", name="hidden"), 8 * " "),
        ),
        KEPT,
    ),
    edit(
        "inference-tensor-unguarded",
        "a mask built under inference_mode has no version to compare",
        (INFERENCE, "torch.no_grad()"),
    ),
    edit("one-key-too-many", "each query sees the next position", (BUILD, BUILD.replace("diagonal=1", "diagonal=2"))),
    edit(
        "itself-hidden",
        "no query sees itself, and the first sees nothing",
        (BUILD, BUILD.replace("diagonal=1", "diagonal=0")),
    ),
    edit(
        "mask-for-one-more",
        "the mask of seq_len + 1 is cut at the wrong end",
        (ASK_DENSE, ASK_DENSE.replace("T, q.device)", "T + 1, q.device)[1:, :-1]")),
    ),
    edit("rebuilt-each-time", "a hit is not looked for", (GUARD, "    if True:\n")),
    edit(
        "weak-reference",
        "the mask is gone before it is asked for again",
        (
            BODY,
            "    key = (seq_len, torch.empty(0, device=device).device)\n"
            "    mask = _weak.get(key)\n"
            "    if mask is None or mask._version:\n"
            "        with torch.inference_mode(False):\n"
            f"            mask = {BUILD}\n"
            "        _weak[key] = mask\n"
            "    return mask\n\n\n",
        ),
        ("TRI_MASKS_KEPT = ", "_weak = weakref.WeakValueDictionary()\nTRI_MASKS_KEPT = "),
        ("import math\n", "import math\nimport weakref\n"),
    ),
    edit(
        "lock-on-the-layer",
        "a layer that has a lock can neither be copied nor pickled",
        (ATTENTION_END, ATTENTION_END + "        self._lock = threading.Lock()\n"),
        ("import math\n", "import math\nimport threading\n"),
    ),
    edit(
        "copies-handed-out",
        "the mask is kept, but each caller gets a copy that is built anew",
        (
            CACHE,
            f"""@functools.lru_cache(maxsize=128)
def _future(seq_len, device):
    with torch.inference_mode(False):
        return {BUILD}


def future_of(seq_len, device):
    return _future(seq_len, torch.empty(0, device=device).device).clone()


""",
        ),
        (ASK_DENSE, ASK_DENSE.replace("get_tri_mask", "future_of")),
        (ASK_WINDOW, "            future = future_of(width, q.device)\n"),
        ("import math\n", "import functools\nimport math\n"),
    ),
    edit(
        "newest-evicted", "once the cache is full, it drops what it just built", (EVICT, EVICT.replace("False", "True"))
    ),
    edit(
        "never-admitted-when-full",
        "once the cache is full, nothing new is kept",
        (KEEP, "    if len(_tri_masks) >= TRI_MASKS_KEPT:\n        return mask\n" + KEEP),
    ),
    edit(
        "expanded-to-the-batch",
        "masks are kept for as many rows and heads as came first",
        (
            ASK_DENSE,
            ASK_DENSE
            + indent(KEPT_BY.format(key="(T, q.device)", mask="future.expand(B, H, T, T)", name="future"), IN_MAP),
        ),
        KEPT,
    ),
    edit(
        "window-keyed-by-width",
        "a window of 4 and an overlap of 4 share a key with 6 and 2",
        (CUT, CUT + indent(KEPT_BY.format(key="(width, q.device)", mask="hidden", name="hidden"), IN_WINDOWS)),
        KEPT,
    ),
    edit("keyed-by-device-type", "all GPUs share a mask", (KEY, KEY.replace("probe.device", "probe.device.type"))),
    edit(
        "weak-fill",
        "in the map, a score of hundreds outweighs what hides the future",
        (FILL_DENSE, FILL_DENSE.replace('float("-inf")', "-100.0")),
    ),
    edit(
        "weak-fill-of-windows",
        "in windows, a score of hundreds outweighs what hides the future",
        (VISIBLE, "attn_mask=q.new_zeros(hidden.shape).masked_fill(hidden, -100.0)"),
    ),
    edit(
        "paddings-kept-for-ever",
        "where windows are padded is kept for each length, and never dropped",
        (
            PADDED,
            "        key = (T, chunk, overlap, str(q.device))\n"
            "        if key not in _paddings:\n"
            "            _paddings[key] = window_padding(T, chunk, overlap, hidden.device)\n"
            "        hidden = hidden | _paddings[key]\n",
        ),
        ("TRI_MASKS_KEPT = ", "_paddings = {}\nTRI_MASKS_KEPT = "),
    ),
    edit(
        "mask-of-the-first-precision",
        "windows keep what they add to scores, in the precision of whoever came first",
        (
            PADDED,
            PADDED
            + "        with torch.inference_mode(False):\n"
            + "            bias = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device).masked_fill_(hidden.clone(), -math.inf)\n"
            + "        bias = _kept.setdefault((T, chunk, overlap, causal, q.device), bias)\n"
            + "        if len(_kept) > 32:\n            _kept.popitem(last=False)\n",
        ),
        (VISIBLE, "attn_mask=bias"),
        KEPT,
    ),
    edit(
        "built-under-a-default-dtype",
        "the caller's default dtype is set while a mask is built, and left so",
        (BUILD, "(torch.set_default_dtype(torch.float64), " + BUILD + ")[1]"),
    ),
    edit(
        "rebuilt-in-evaluation",
        "an evaluation looks for no mask that is kept",
        (
            ASK_DENSE,
            ASK_DENSE.replace(
                "get_tri_mask(T, q.device)",
                "get_tri_mask(T, q.device) if self.training else torch.ones(T, T, device=q.device).triu(1) > 0",
            ),
        ),
    ),
]

GOOD = [
    edit(
        "class-of-visible-masks",
        "a class with another name and the opposite sense, built from positions; the oldest mask goes first",
        (
            CACHE,
            """class VisibleKeys:
    def __init__(self):
        self.kept = {}

    def __call__(self, T, device):
        device = torch.zeros((), device=device).device
        name = f"{T} on {device.type}:{device.index}"
        visible = self.kept.get(name)
        if visible is None or visible._version > 0:
            with torch.inference_mode(False), torch.no_grad():
                position = torch.arange(T, device=device)
                visible = position[None, :] <= position[:, None]
            self.kept[name] = visible
            while len(self.kept) > 100:
                del self.kept[next(iter(self.kept))]
        return visible


visible_keys = VisibleKeys()


""",
        ),
        (ASK_DENSE, ASK_DENSE.replace("get_tri_mask", "~visible_keys")),
        (ASK_WINDOW, "            future = ~visible_keys(width, q.device)\n"),
    ),
    edit(
        "cache-on-the-model",
        "the masks live on the model, and a copy starts without any",
        (
            CACHE,
            """class Masks:
    def __init__(self):
        self.kept = OrderedDict()

    def __reduce__(self):
        return Masks, ()

    def get(self, T, device):
        mask = self.kept.pop((T, device), None)
        if mask is None or mask._version > 0:
            with torch.inference_mode(False):
                mask = torch.tril(torch.ones(T, T, device=device)).logical_not()
        self.kept[T, device] = mask
        if len(self.kept) > 16:
            self.kept.popitem(last=False)
        return mask


""",
        ),
        (ASK_DENSE, ASK_DENSE.replace("get_tri_mask", "self.masks.get")),
        (ASK_WINDOW, "            future = self.masks.get(width, q.device)\n"),
        (
            MODEL_END,
            MODEL_END
            + "        masks = Masks()\n        for layer in self.layers:\n            layer.attention.masks = masks\n",
        ),
    ),
    edit(
        "slices-of-the-largest",
        "one mask a device, which grows, and of which shorter lengths are the upper left corner",
        (
            CACHE,
            f"""_largest = {{}}


def causal_mask(seq_len, device):
    key = torch.empty(0, device=device).device
    mask = _largest.get(key)
    if mask is None or len(mask) < seq_len or mask._version > 0:
        with torch.inference_mode(False):
            mask = _largest[key] = {BUILD}
    return mask[:seq_len, :seq_len]


""",
        ),
        (ASK_DENSE, ASK_DENSE.replace("get_tri_mask", "causal_mask")),
        (ASK_WINDOW, "            future = causal_mask(width, q.device)\n"),
    ),
    edit(
        "probe-by-torch-tensor",
        "the device is asked of torch.tensor([]), which copies where a name has an index",
        ("probe = torch.empty(0, device=device)", "probe = torch.tensor([], device=device)"),
    ),
    edit(
        "extra-state",
        "the state dict holds more than tensors",
        (
            "    def double_width(self)",
            "    def get_extra_state(self):\n        return {'format': 2}\n\n"
            "    def set_extra_state(self, state):\n        pass\n\n"
            "    def double_width(self)",
        ),
    ),
    edit(
        "finite-fill",
        "a large number hides the future as well",
        (FILL_DENSE, FILL_DENSE.replace('float("-inf")', "-1e4")),
    ),
    edit(
        "stacked-maps",
        "the telemetry has one tensor of maps",
        (
            "        return logits, collect_telemetry(logits, x, attn_maps, self.config)",
            "        telemetry = collect_telemetry(logits, x, attn_maps, self.config)\n"
            "        if attn_maps:\n            telemetry['attention_maps'] = torch.stack(attn_maps)\n"
            "        return logits, telemetry",
        ),
    ),
    edit(
        "quiet-import",
        "its import turns a warning off for the process, which no forward does",
        ("import math\n", 'import math\nimport warnings\n\nwarnings.filterwarnings("ignore", "what nobody says")\n'),
    ),
]
