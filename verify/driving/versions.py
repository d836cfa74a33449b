"""Versions of torch and Python, and where the rules of task-8 have torch.compile used."""

import re

TORCHES = (
    "1.13.1",
    "2.0.1",
    "2.1.0a0",
    "2.1.0",
    "2.3.1+cu118",
    "2.4.0",
    "2.6.0",
    "2.9.1",
    "2.10.1",
    "2.13.0+cpu",
    "3.0.0",
)
PYTHONS = ("3.8.20", "3.9.18+", "3.10.12", "3.11.7", "3.12.0rc1", "3.12.3", "3.13.1", "3.14.0", "3.15.0")
# Pythons next to no limit of a release are tried on two of them only, and so is the default policy.
WHOLE, EDGES = ("2.3.1+cu118", "2.13.0+cpu"), ("3.9.18+", "3.11.7", "3.12.3", "3.13.1", "3.14.0")
GRID = [(torch_version, each) for torch_version in TORCHES for each in (PYTHONS if torch_version in WHOLE else EDGES)]
# The newest Python that a release supports, by the first release that does.
NEWEST = {(2, 1): (3, 11), (2, 4): (3, 12), (2, 6): (3, 13), (2, 10): (3, 14)}
DROPPED = {(3, 8): (2, 5), (3, 9): (2, 9)}  # and the first release that no longer supports an old one
YES, TOO_OLD, TOO_NEW = ("2.3.1+cu118", "3.11.7"), ("2.0.1", "3.11.7"), ("2.13.0+cpu", "3.13.1")
REFUSED = [("1.13.1", "3.9.18"), TOO_OLD, TOO_NEW, ("2.3.1+cu118", "3.14.0"), ("2.10.1", "3.15.0")]


def rule(torch_version: str, python_version: str, policy: str) -> bool | None:
    """Whether to compile; None where that is open: torch 2.0 or 3, a pre-release, a Python that was dropped."""
    release, python = numbers(torch_version), numbers(python_version)
    if "a" in torch_version.partition("+")[0]:
        return None if python < (3, 12) else False
    if policy == "strict":
        return release >= (2, 1) and python < (3, 12)
    if release >= (3, 0) or (release == (2, 0) and python < (3, 11)) or release >= DROPPED.get(python, (9, 9)):
        return None
    return python <= max((newest for since, newest in NEWEST.items() if release >= since), default=(0, 0))


def numbers(version: str) -> tuple[int, int]:
    """Major and minor number of a version."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def unsaid(message: str, versions: tuple[str, str], policy: str) -> str:
    """What a warning that nothing was compiled keeps to itself; empty if it says all."""
    torch_version, python_version = versions
    major_minor = ".".join(map(str, numbers(python_version)))
    if torch_version.partition("+")[0] not in message:
        return "does not name the version of torch"
    if not re.search(rf"(?<![\d.]){re.escape(major_minor)}(?!\d)", message):
        return "does not name the version of Python"
    rest = message.replace(torch_version, "").replace(python_version, "")
    limits = "2.1" if numbers(torch_version) < (2, 1) else "3.12|3.11"
    if policy == "strict" and not re.search(limits.replace(".", r"\."), rest):
        return "does not give the reason: the limit of the rule"
    would = rule(*versions, "table")
    if policy == "strict" and would is not None and ("table" in message) != would:
        return (
            "does not say that 'table' would compile" if would else "speaks of 'table', which would not compile either"
        )
    return ""


def on(versions: tuple[str, str]) -> str:
    """Versions of torch and Python, in words."""
    return "torch {}, Python {}".format(*versions)
