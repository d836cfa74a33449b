"""What a benchmark ran on: the machine, the versions, the date. And how fast it multiplies matrices."""

import datetime
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # the last is Arm's
SIZE = 2048  # of the matrices
MATMULS = 3


def ran_on(device: str = "cpu", threads: int | None = None) -> str:
    """A paragraph that says what the figures below it were measured on, and by which command."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    parts = [
        f"`{command}`",
        str(datetime.date.today()),
        f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores, {memory_gb():.0f} GB",
        f"bfloat16 instructions: {', '.join(bf16_instructions()) or 'none'}",
        f"load average at the end {os.getloadavg()[0]:.1f}",
        f"Python {platform.python_version()}, torch {version('torch')}",
    ]
    if threads is not None:
        parts.append(f"{threads} threads")
    if device != "cpu":
        parts.append(device)
    return "; ".join(parts) + "."


def cpu_info(key: str) -> str:
    """What /proc/cpuinfo says of the first processor, or nothing."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip().lower() == key), "")


def cpu_name() -> str:
    """The name of the processor."""
    return cpu_info("model name") or platform.machine()


def bf16_instructions() -> list[str]:
    """The processor's instructions that multiply bfloat16, by the names that Linux has for them."""
    flags = f"{cpu_info('flags')} {cpu_info('features')}".split()
    return [name for name in BF16_INSTRUCTIONS if name in flags]


def memory_gb() -> float:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


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
