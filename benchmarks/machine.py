"""What a benchmark ran on: the machine, the versions, the date. And how fast it multiplies matrices."""

import datetime
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bitpatch.verify.benching.machine import bf16_instructions, machine_parts

SIZE = 2048  # of the matrices
MATMULS = 3


def ran_on(device: str = "cpu", threads: int | None = None) -> str:
    """A paragraph that says what the figures below it were measured on, and by which command."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    parts = [
        f"`{command}`",
        str(datetime.date.today()),
        *machine_parts(),
    ]
    if threads is not None:
        parts.append(f"{threads} threads")
    if device != "cpu":
        parts.append(device)
    return "; ".join(parts) + "."


def multiply_matrices(order: tuple[str, int], wait: Callable[[Any], None]) -> None:
    """Turn by turn, the GFLOPS of products of float32 and of bfloat16 matrices, the best of some each."""
    import torch  # noqa: PLC0415 - the process that starts this one goes without

    device, threads = order
    torch.set_num_threads(threads)
    synchronise = torch.cuda.synchronize if device.startswith("cuda") else bool
    slow = not (bf16_instructions() or device != "cpu")  # bfloat16 is emulated: smaller matrices do
    wait(None)
    while True:
        fastest = {}
        for name, size in ("float32", SIZE), ("bfloat16", SIZE // 4 if slow else SIZE):
            left, right = (torch.randn(size, size, device=device).to(getattr(torch, name)) for _ in range(2))
            left @ right
            for _ in range(MATMULS):
                synchronise()
                start = time.perf_counter()
                left @ right
                synchronise()
                rate = 2 * size**3 / (time.perf_counter() - start) / 1e9
                fastest[name] = max(rate, fastest.get(name, 0.0))
        wait(fastest)
