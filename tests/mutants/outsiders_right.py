"""Right patches in other idioms, by somebody who had not read the judges."""

from mutant import Mutant

TRAINING = "bit_transformer/training.py"
MODEL = "bit_transformer/model.py"

OUTSIDERS_RIGHT: dict[int, list[Mutant]] = {
    3: [
        Mutant(
            "clip-in-a-hook",
            "gradients are clipped by a hook of the optimizer's step",
            (
                (
                    TRAINING,
                    "        compile_where_supported(model, compile_policy)\n",
                    (
                        "        compile_where_supported(model, compile_policy)\n"
                        "\n"
                        "    def clip(*_: Any) -> None:\n"
                        "        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
                        "\n"
                        "    optimizer.register_step_pre_hook(clip)\n"
                    ),
                ),
                (TRAINING, "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n", ""),
            ),
        ),
    ],
    4: [
        Mutant(
            "clip-by-hand",
            "the clip is written out, on all gradients at once",
            (
                (
                    TRAINING,
                    "from dataclasses import dataclass\n",
                    ("from dataclasses import dataclass\nfrom functools import partial\n"),
                ),
                (
                    TRAINING,
                    "                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n",
                    "                clip_gradients(model.parameters(), 1.0)\n",
                ),
                (
                    TRAINING,
                    "    return history\n",
                    (
                        "    return history\n"
                        "\n"
                        "\n"
                        "@torch.no_grad()\n"
                        "def clip_gradients(parameters: Iterable[nn.Parameter], longest: float) -> Tensor:\n"
                        '    """Shorten all gradients by one factor, so that together they are no longer than that; return their length."""\n'
                        "    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]\n"
                        "    length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))\n"
                        "    torch._foreach_mul_(grads, (longest / (length + 1e-6)).clamp(max=1.0))\n"
                        "    return length\n"
                    ),
                ),
                (
                    TRAINING,
                    (
                        '    if amp == "off":\n'
                        "        return nullcontext()\n"
                        "    return torch.amp.autocast(device_type=device.type, dtype=torch.bfloat16)\n"
                    ),
                    (
                        '    contexts = {"off": nullcontext, "bf16": partial(torch.amp.autocast, device.type, dtype=torch.bfloat16)}\n'
                        "    return contexts[amp]()\n"
                    ),
                ),
            ),
        ),
    ],
    9: [
        Mutant(
            "mask-if-any",
            "a mask is given only where something is hidden",
            (
                (
                    MODEL,
                    "            projection(x).unflatten(-1, (self.nhead, -1)).transpose(1, 2)  # [B, H, T, D]\n",
                    "            projection(x).view(*x.shape[:2], self.nhead, -1).permute(0, 2, 1, 3)  # [B, H, T, D]\n",
                ),
                (
                    MODEL,
                    (
                        "        out = F.scaled_dot_product_attention(\n"
                        "            q, k.transpose(-2, -1), v.transpose(-2, -1), attn_mask=~hidden, dropout_p=dropout_p\n"
                        "        )\n"
                    ),
                    (
                        "        seen = ~hidden if hidden.any() else None\n"
                        "        k, v = k.transpose(-2, -1), v.transpose(-2, -1)\n"
                        "        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout_p)\n"
                    ),
                ),
            ),
        ),
    ],
    10: [
        Mutant(
            "mask-store-bytes",
            "masks are kept by a class, and bounded by their bytes",
            (
                (MODEL, "from collections import OrderedDict\n", "from threading import Lock\n"),
                (
                    MODEL,
                    (
                        "TRI_MASKS_KEPT = 32\n"
                        "_tri_masks: OrderedDict[tuple[int, torch.device, object], tuple[Tensor, int]] = OrderedDict()\n"
                    ),
                    (
                        "class MaskStore:\n"
                        '    """Causal masks by length and device, each built once; the least recently used go beyond so many bytes."""\n'
                        "\n"
                        "    def __init__(self, most_bytes: int) -> None:\n"
                        "        self.most_bytes = most_bytes\n"
                        "        self.lock = Lock()\n"
                        "        self.held: dict[object, Tensor] = {}\n"
                        "\n"
                        "    def get(self, seq_len: int, device: torch.device | str) -> Tensor:\n"
                        '        """The mask [seq_len, seq_len] of a device."""\n'
                        "        if torch.compiler.is_compiling():  # compiled code computes it on the fly\n"
                        "            return self.build(seq_len, device)\n"
                        "        probe = torch.empty(0, device=device)\n"
                        '        if hasattr(probe, "fake_mode"):\n'
                        "            return self.build(seq_len, device)\n"
                        "        key = seq_len, str(probe.device)\n"
                        "        with self.lock:\n"
                        "            mask = self.held.pop(key, None)\n"
                        "            if mask is None or mask._version:\n"
                        "                mask = self.build(seq_len, device)\n"
                        "            self.held[key] = mask\n"
                        "            while len(self.held) > 1 and sum(each.numel() for each in self.held.values()) > self.most_bytes:\n"
                        "                del self.held[next(iter(self.held))]\n"
                        "            return mask\n"
                        "\n"
                        "    @staticmethod\n"
                        "    def build(seq_len: int, device: torch.device | str) -> Tensor:\n"
                        '        """A new mask; one built under inference_mode would be of no use in training."""\n'
                        "        with torch.inference_mode(False):\n"
                        "            return torch.ones(seq_len, seq_len, dtype=torch.bool, device=device).triu(1)\n"
                        "\n"
                        "\n"
                        "_store = MaskStore(most_bytes=1 << 26)\n"
                    ),
                ),
                (
                    MODEL,
                    (
                        "    Each mask is built once; the least recently used goes when there are more than TRI_MASKS_KEPT.\n"
                        "    The mask is shared: one that was written to in place is dropped and built again.\n"
                    ),
                    "    It is shared; one that was written to is not handed out again.\n",
                ),
                (
                    MODEL,
                    (
                        '    probe = torch.empty(0, device=device)  # its device has an index: "cuda" and "cuda:0" are one\n'
                        '    key = (seq_len, probe.device, getattr(probe, "fake_mode", None))  # a fake tensor belongs to one trace\n'
                        "    mask, version = _tri_masks.pop(key, (None, None))\n"
                        "    if mask is None or mask._version != version:\n"
                        "        with torch.inference_mode(False):  # an inference tensor could not be saved for a backward\n"
                        "            mask = torch.triu(torch.ones(seq_len, seq_len, dtype=torch.bool, device=device), diagonal=1)\n"
                        "    _tri_masks[key] = (mask, mask._version)\n"
                        "    if len(_tri_masks) > TRI_MASKS_KEPT:\n"
                        "        _tri_masks.popitem(last=False)\n"
                        "    return mask\n"
                    ),
                    "    return _store.get(seq_len, device)\n",
                ),
            ),
        ),
        Mutant(
            "window-mask-cached",
            "masks of windows have a cache of their own",
            (
                (
                    MODEL,
                    "    return ((positions < 0) | (positions >= T))[None, :, None]  # fast kernels take masks of four dimensions\n",
                    (
                        "    return ((positions < 0) | (positions >= T))[None, :, None]  # fast kernels take masks of four dimensions\n"
                        "\n"
                        "\n"
                        "_window_masks: OrderedDict[tuple, tuple[Tensor, int]] = OrderedDict()\n"
                        "\n"
                        "\n"
                        "def window_mask(T: int, chunk_size: int, overlap: int, causal: bool, device: torch.device) -> Tensor:\n"
                        '    """Return which keys each query of a window must not see: [1, N, chunk, W]; built once, and shared."""\n'
                        "    key = (T, chunk_size, overlap, causal, device)\n"
                        "    mask, version = _window_masks.pop(key, (None, None))\n"
                        "    if mask is None or mask._version != version:\n"
                        "        with torch.inference_mode(False):\n"
                        "            mask = window_padding(T, chunk_size, overlap, device)\n"
                        "            if causal:\n"
                        "                mask = mask | get_tri_mask(overlap + chunk_size, device)[overlap:]\n"
                        "            else:\n"
                        "                mask = mask.expand(-1, -1, chunk_size, -1).clone()\n"
                        "    _window_masks[key] = (mask, mask._version)\n"
                        "    if len(_window_masks) > 8:\n"
                        "        _window_masks.popitem(last=False)\n"
                        "    return mask\n"
                    ),
                ),
                (
                    MODEL,
                    (
                        "        hidden = torch.zeros(chunk, width, dtype=torch.bool, device=q.device)\n"
                        "        if causal:\n"
                        "            future = get_tri_mask(width, q.device)\n"
                        "            hidden = future[overlap:]\n"
                        "        hidden = hidden | window_padding(T, chunk, overlap, hidden.device)\n"
                    ),
                    "        hidden = window_mask(T, chunk, overlap, causal, q.device)\n",
                ),
            ),
        ),
    ],
    11: [
        Mutant(
            "index-put",
            "the map is written by one index_put",
            (
                (
                    MODEL,
                    (
                        "        B, H = weights.shape[:2]\n"
                        "        canvas = weights.new_zeros(B, H, T, T)\n"
                        "        for n, s in enumerate(range(0, T, self.chunk_size)):\n"
                        "            start = max(s - self.overlap, 0)\n"
                        "            end = min(s + self.chunk_size, T)\n"
                        "            columns = torch.arange(start, end, device=weights.device)\n"
                        "            origin = max(self.overlap - s, 0)\n"
                        "            canvas[:, :, s:end, columns] = weights[:, :, n, : end - s, origin : origin + end - start]\n"
                    ),
                    (
                        "        N, chunk, width = weights.shape[2:]\n"
                        "        device = weights.device\n"
                        '        window, query, key = torch.meshgrid(*(torch.arange(size, device=device) for size in (N, chunk, width)), indexing="ij")\n'
                        "        row, column = window * chunk + query, window * chunk + key - self.overlap\n"
                        "        real = (row < T) & (column >= 0) & (column < T)\n"
                        "        canvas = weights.new_zeros(*weights.shape[:2], T, T)\n"
                        "        canvas[:, :, row[real], column[real]] = weights[:, :, real]\n"
                    ),
                ),
            ),
        ),
    ],
}
