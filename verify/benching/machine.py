"""What something was measured on: the processor, its memory, how busy it was, and the versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # the last is Arm's


def machine_parts() -> list[str]:
    """What figures were measured on, a part each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"{cpu_info('model name') or platform.machine()}, {cores()} cores, {memory:.0f} GB",
        f"bfloat16 instructions: {', '.join(bf16_instructions()) or 'none'}",
        f"load average at the end {os.getloadavg()[0]:.1f}",
        f"Python {platform.python_version()}, torch {version('torch')}",
    ]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_info(key: str) -> str:
    """What /proc/cpuinfo says of the first processor, or nothing."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip().lower() == key), "")


def bf16_instructions() -> list[str]:
    """The processor's instructions that multiply bfloat16, by the names that Linux has for them."""
    flags = f"{cpu_info('flags')} {cpu_info('features')}".split()
    return [name for name in BF16_INSTRUCTIONS if name in flags]
