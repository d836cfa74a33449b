"""Task-5, the memory-mapped data set: its rows against an encoder of our own, its file against all that may befall it.

What a load leaves is found by looking at the folders that a process may write to, whatever its name and form.
"""

import contextlib
import io
import os
import re
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from .driving.forks import Outcome, counted, in_fork, without_rights
from .driving.open_rows import (
    changed_texts,
    mistaken_for_others,
    rows_after_a_rebuild,
    traces_of_reading,
    trouble_far_behind,
    trouble_with_workers,
)
from .driving.pictures import curves
from .driving.seams import MissingSeam, function_of
from .driving.space import Points, over
from .driving.text_loads import (
    CODEWORDS,
    TEXTS,
    UNREADABLE,
    build,
    contents,
    damages,
    kept,
    load,
    load_apart,
    load_counting_calls,
    load_disturbed,
    load_in_turn,
    load_within,
    loading,
    peak,
    restore,
    sample,
    set_time,
    states_of_a_build,
    training_on,
    trouble_with_parts,
    trouble_with_refusal,
    watch_rows,
    write_sample,
    write_text,
    written,
)
from .driving.tree import Tree
from .running.evidence import Evidence, at_most, check, failed, passed, unproven

SIZES = (2 << 20, 8 << 20)  # bytes of text
MEMORY_SHARE = 0.4  # of what a text is larger by: packed bits need 1.125, the text itself 1


@check(task=5, prop="rows concatenated are the encoded text, bit for bit; only a tail that fills no row is missing")
@over(kind=("sample", *TEXTS), cut=(0, 3, 7), length=(72, 1152, 9), given=("absolute", "relative", "a link", "spaces"))
def rows_are_the_encoded_text(tree: Tree, points: Points) -> Evidence:
    """Compare every row of texts of all kinds, with and without a tail, and of some larger than a block may be."""
    texts = TEXTS | {"sample": sample(128 * 6)}
    cases = [
        (f"{point['kind']}-{number}", texts[point["kind"]], point["cut"], point["length"], 1, point["given"])
        for number, point in enumerate(points)
    ]
    large, kind = sample(2_200_001), "absolute"
    cases += [
        ("the longest tail", sample(128 * 6 - 1), 0, 1152, 1, kind),
        ("1.2 MB", large[:1_200_001], 0, 73728, 1, kind),
        ("12 KB", sample(12_000), 0, 9, 101, kind),
        ("2.2 MB in rows that fill no block", large, 0, 1143, 103, kind),
    ]
    for name, text, cut, length, step, given in cases:
        content = text[: len(text) - cut].decode(errors="ignore").encode()  # no character is cut
        if len(content) * 9 < length:
            continue
        path = written(name, content, given)
        outcome = load(tree, path, length, step)
        if outcome.kind != "right":
            line = f"load_rows({str(path)!r}, {length}) of {len(content)} bytes: {content[:40]!r}..."
            return failed(f"{name}, {length} bits a row, {given}: {outcome}", line)
    return passed(f"rows of {len(cases)} texts")


@check(task=5, prop="reading leaves no trace: rows are the reader's own, and settings, streams and files as they were")
@over(length=(72, 1152, 9), kind=("sample", "ASCII"), asked=(0, 4))
def reading_leaves_no_trace(tree: Tree, points: Points) -> Evidence:
    """And neither does loading."""
    loading(tree)
    for number, point in enumerate(points):
        content = sample(3000) if point["kind"] == "sample" else 9 * TEXTS["ASCII"]
        path, asked = write_text(f"{number}.txt", content), point["length"] + point["asked"]
        line = f"load_rows(path, {asked}), and each of its rows"
        if trouble := traces_of_reading(partial(loading(tree), path, asked)):
            return failed(trouble, line)
        if (outcome := load_apart(tree, path, point["length"])).kind != "right":
            return failed(f"a load after rows were written into: {outcome}", line)
    return passed("3 lengths")


@check(task=5, prop="rows hold whole codewords of 9 bits, and it is said where that shortens them")
def rows_hold_whole_codewords(tree: Tree) -> Evidence:
    """Ask for lengths that 9 does and does not divide."""
    path, said = write_text("a.txt", sample(400)), io.StringIO()
    for asked, length in ((1152, 1152), (1024, 1017), (100, 99), (17, 9)):
        line = f"load_rows(path, {asked})[0].shape"
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("always")
            outcome = load(tree, path, length, asked=asked)
        if outcome.kind != "right":
            return failed(f"max_seq_len {asked}, expected rows of {length}: {outcome}", line)
        if asked != length and not re.search(rf"\b({asked}|{length})\b", said.getvalue()):
            return failed(f"max_seq_len {asked} gives rows of {length} bits, and nothing says so", line)
        said.truncate(said.seek(0))
    for asked in (8, 0):
        with contextlib.suppress(ValueError):
            loading(tree)(path, asked)
            return failed(
                f"max_seq_len {asked} holds no codeword, and raises no ValueError", f"load_rows(path, {asked})"
            )
    return passed("1152 -> 1152, 1024 -> 1017, 100 -> 99, 17 -> 9; 8 and 0 are refused")


@check(task=5, prop="a text that fills no row is an error that names it, and so is one that is not UTF-8, each time")
def refuses_what_it_cannot_encode(tree: Tree) -> Evidence:
    """Load texts that are too short, and bytes that are no text at either end of much text, twice each."""
    loading(tree)
    text = sample(150_000)
    cases = [("empty.txt", b"", 9), ("short.txt", sample(127), 1152), ("é.txt", sample(7), 72)]
    for number, broken in enumerate(UNREADABLE.values()):
        cases += [(f"{number}-{at}.txt", text[:at] + broken + text[at:], 72) for at in (0, 128_001, len(text))]
        cases += [(f"{number}-tail.txt", b"-" * 16 + broken, 72)]
    for name, content, length in cases:
        path = write_text(name, content)
        for _ in ("first", "second"):
            if trouble := in_fork(partial(counted, partial(trouble_with_refusal, tree, path, length))):
                line = f"load_rows(path, {length}) of {len(content)} bytes, {content[:20]!r}...{content[-20:]!r}"
                return failed(f"{name}: {trouble if isinstance(trouble, str) else Outcome(*trouble)}", line)
    return passed(f"{len(cases)} texts refused, twice each")


@check(
    task=5, prop="resident memory stays bounded, file pages included, while a text is encoded, read and opened again"
)
def memory_stays_bounded(tree: Tree) -> Evidence:
    """Compare the highest resident sizes of two processes, one with a text three times as large."""
    if not Path("/proc/self/status").exists():
        return unproven("this system does not tell what is resident")
    path = write_text("small.txt", sample(2000))
    if (outcome := load(tree, path, 1152)).kind != "right":
        return failed(f"a text of 2000 bytes: {outcome}", "load_rows(path, 1152)")
    if isinstance(loading(tree)(path, 1152), Tensor | list | tuple | np.ndarray):
        return failed("load_rows returns every row at once, not a data set", "type(load_rows(path, 1152))")
    line = "the peak of VmHWM in /proc/self/status, over load_rows(path, 1152) and reading its rows"
    for sizes, share in (((1 << 18, 1 << 20), 40.0), (SIZES, MEMORY_SHARE)):  # first: Python objects for each bit?
        for size in sizes:
            in_fork(partial(write_sample, size))  # what it frees is not for others
        paths = [path.with_name(f"{size}.txt") for size in sizes]
        peaks = [in_fork(partial(peak, tree, path)) for path in paths]
        if not all(isinstance(each, int) for each in peaks):
            wrong = next(each for each in peaks if not isinstance(each, int))
            return failed(f"a text of {sizes[-1] >> 20} MiB: {wrong}", line)
        grown, larger = peaks[1] - peaks[0], sizes[1] - sizes[0]
        if grown > share * larger:
            break
    unit = f"bytes more at the peak, for {larger} bytes more of text"
    shown = curves("peaks of the two", peaks, [peaks[0], peaks[0] + share * larger], x="text", y="bytes")
    return at_most(grown, share * larger, unit, line, shown)


@check(task=5, prop="a text is encoded once: the next run uses the file that the first one left")
def next_run_encodes_nothing(tree: Tree) -> Evidence:
    """Load a text in two processes: in the second the encoder is not called, and no file changes."""
    path, length = write_text("a.txt", sample(20_000)), 2304
    if isinstance(files := build(tree, path, length), Evidence):
        return files
    before = {name: os.stat(name) for name in files}
    outcome, calls = in_fork(lambda: load_counting_calls(tree, path, length))
    line = f"load_rows(path, {length}) in two processes, and the stat of {', '.join(Path(name).name for name in files)}"
    if outcome != ["right", ""]:
        return failed(f"a second load: {outcome}", line)
    for name, stat in before.items():
        after = os.stat(name) if Path(name).exists() else None
        if after is None or (stat.st_ino, stat.st_mtime_ns, stat.st_size) != (
            after.st_ino,
            after.st_mtime_ns,
            after.st_size,
        ):
            return failed(f"a second load wrote {Path(name).name} again", line)
    if new := [name for name, content in contents(path).items() if content and name not in files]:
        return failed(f"a second load left {Path(new[0]).name} beside what the first had left", line)
    return at_most(calls, 0, "calls of text_to_bits and packbits in a second load", line)


@check(task=5, prop="what was built from another text, or for another length, is not used")
def another_text_is_built_anew(tree: Tree) -> Evidence:
    """Change a text behind its file's back: name, size and time stay, one byte or the order of two does not."""
    step, length = 48, 1152  # of the rows that are compared, the changed are some
    texts = changed_texts(step, length)
    first = texts["the first text again"]
    path = write_text("a.txt", first)
    set_time(path)
    if isinstance(files := build(tree, path, length, step), Evidence):
        return files
    for number, (name, content) in enumerate(texts.items()):
        restore(files, path)
        if number % 2:
            path.unlink()
        path.write_bytes(content)
        set_time(path)
        outcome = load_apart(tree, path, length, step)
        if outcome.kind != "right":
            line = f"load_rows(path, {length}), then change {name}, os.utime to the time before, and load again"
            return failed(f"after a change of {name}: {outcome}", line)
    for length in (1143, 2304, 1152):
        outcome = load_apart(tree, path, length, step)
        if outcome.kind != "right":
            line = f"load_rows(path, n) for n in 1152, 1143, 2304, {length}"
            return failed(f"after other lengths, {length}: {outcome}", line)
    if trouble := trouble_far_behind(tree) or mistaken_for_others(tree):
        return failed(*trouble)
    return passed("6 changes; 3 lengths; 5 texts of like names")


@check(
    task=5,
    prop="a file that is cut short or has a bit flipped is built anew or refused by name, and gives no wrong row",
)
def damaged_file_is_noticed(tree: Tree) -> Evidence:
    """Damage each file that a load leaves, one way after the other, and load again."""
    path, length = write_text("a.txt", sample(1200)), 495
    if isinstance(files := build(tree, path, length), Evidence):
        return files
    tried = 0
    for name, content in files.items():
        times = os.stat(name).st_atime_ns, os.stat(name).st_mtime_ns
        for what, damaged in damages(content):
            restore(files, path)
            Path(name).write_bytes(damaged.encode("latin-1"))
            os.utime(name, ns=times)
            outcome = load_apart(tree, path, length)
            named = any(Path(each).name in outcome.text for each in (path.name, *files))
            if outcome.kind != "right" and not (outcome.kind == "raised" and named):
                line = f"load_rows(path, {length}); {Path(name).name} {what}; load_rows again"
                return failed(f"{Path(name).name} {what}: {outcome}", line)
            tried += 1
    return passed(f"{tried} damages")


@check(task=5, prop="a build that is killed, at any line, leaves nothing that a later run takes for whole")
def killed_build_leaves_nothing_whole(tree: Tree) -> Evidence:
    """Note all that the files of a build are, line by line; put each back, as a kill would leave it, and load."""
    path, length, step = write_text("a.txt", sample(5000)), 9, 251
    if isinstance(files := build(tree, path, length, step), Evidence):
        return files
    restore({}, path)
    states = in_fork(lambda: states_of_a_build(tree, path, length))
    for number, state in enumerate(states):
        restore(state, path)
        outcome = load_apart(tree, path, length, step)
        if outcome.kind != "right":
            left = ", ".join(f"{Path(name).name} of {len(content)} bytes" for name, content in state.items())
            line = f"load_rows(path, {length}) of 5000 bytes, killed when it has written {left}; load_rows again"
            return failed(f"killed in its state {number} of {len(states)}: {outcome}", line)
    return passed(f"{len(states)} states of files") if len(states) > 1 else unproven("no state was seen")


@check(task=5, prop="two builders at once both get the right rows, and leave a file that gives them")
def builders_do_not_disturb_each_other(tree: Tree) -> Evidence:
    """Stop a build each time its files change, let another one run to its end there, and go on."""
    path, length, step = write_text("a.txt", sample(5000)), 9, 251
    if isinstance(files := build(tree, path, length, step), Evidence):
        return files
    for moment in range(1, 8):
        restore({}, path)
        outcomes = in_fork(partial(load_disturbed, tree, path, length, step, moment))
        line = f"two processes load_rows(path, {length}), one from change {moment} of the other's files on"
        if len(outcomes) == 1:
            return passed(f"{moment - 1} moments") if moment > 1 else unproven("no file changed")
        outcomes = [Outcome(*outcome) for outcome in outcomes] + [load_apart(tree, path, length, step)]
        for who, outcome in zip(("first builder", "second builder", "run after both"), outcomes, strict=True):
            if outcome.kind != "right":
                return failed(f"the {who}: {outcome}", line)
    return passed(f"{moment} moments")


@check(
    task=5, prop="a full disk is an error that names the file, leaves nothing behind, and is over when there is room"
)
def full_disk_is_a_clear_error(tree: Tree) -> Evidence:
    """Load a text while no file may grow beyond so many bytes, then without that limit."""
    path, length = write_text("a.txt", sample(20_000)), 2304
    if isinstance(files := build(tree, path, length), Evidence):
        return files
    largest = max(map(len, files.values()))
    for size in (1, 5000, largest // 2, largest - 1):
        restore({}, path)
        outcome = Outcome(*in_fork(partial(load_within, tree, path, length, size)))
        line = f"ulimit -f: files of {size} bytes at most; load_rows(path, {length}) of {path.stat().st_size} bytes"
        if outcome.kind != "raised" or path.name not in outcome.text:
            return failed(f"no room after {size} bytes: expected an error that names {path.name}, got: {outcome}", line)
        if left := [Path(name).name for name, content in contents(path).items() if content]:
            return failed(f"no room after {size} bytes: {', '.join(left)} is left behind", line)
        if (outcome := load_apart(tree, path, length)).kind != "right":
            return failed(f"once there is room again: {outcome}", line)
    return passed("disks full after 4 sizes")


@check(task=5, prop="0 and 2 workers, forked and spawned, and slices give the same rows, which do not travel with them")
def workers_give_the_same_rows(tree: Tree) -> Evidence:
    """Read by data loaders of both kinds, by a process that is new to the tree, and by two processes at once."""
    path, length = write_text("a.txt", sample(30_000)), 4959
    line = f"rows = load_rows(path, {length})"
    if (outcome := load(tree, path, length)).kind != "right":
        return failed(f"without workers: {outcome}", line)
    if wrong := trouble_with_parts(loading(tree)(path, length)):
        return failed(wrong, line)
    if trouble := trouble_with_workers(tree, path, length):
        return failed(*trouble)
    return passed("0 and 2 forked workers, 1 spawned, for two epochs")


@check(task=5, prop="a data set that is open keeps its rows when other runs load what its text has become")
def open_rows_stay_what_they_are(tree: Tree) -> Evidence:
    """Change a text under an open data set's hands, and have another process keep the rows of the new one."""
    length, first = 1152, sample(3000)
    others = [sample(3000, 1), sample(2000, 2)]
    path = write_text("a.txt", first)
    loading(tree)
    outcome = Outcome(*in_fork(lambda: rows_after_a_rebuild(tree, path, length, others)))
    if outcome.kind == "right" or (outcome.kind == "raised" and outcome.text):
        return passed("after two other texts; here, in 2 forked workers, and unpickled")
    line = f"rows = load_rows(path, {length}); change the text; another process loads it; read rows"
    return failed(f"an open data set, once its text was rebuilt: {outcome}", line)


@check(task=5, prop="a text, a folder and a file that may only be read give the same rows")
def reads_what_is_read_only(tree: Tree) -> Evidence:
    """Load two texts of one name from folders that may not be written to, then again from files that may not."""
    length = 4608
    texts = [write_text(f"{name}/a.txt", sample(6000, seed)) for seed, name in enumerate(("one", "two"))]
    loading(tree)
    for path in texts:
        path.chmod(0o444)
        path.parent.chmod(0o555)
    try:
        outcomes = in_fork(lambda: without_rights(texts[0].parent, lambda: load_in_turn(tree, texts, length)))
    finally:
        for path in texts:
            path.parent.chmod(0o755)
    if outcomes is None:
        return unproven("this process may write to folders that are read-only, and cannot lay down that right")
    found = [Outcome(*outcome) for outcome in outcomes]
    if bad := [str(each) for each in found if each.kind != "right" and "a.txt" not in each.text]:  # it may say no
        line = f"chmod a-w . a.txt; load_rows(path, {length})"
        return failed(f"texts in folders that may only be read: {bad[0]}", line)
    for path in texts:
        load_apart(tree, path, length)
    for file in kept():
        file.chmod(0o444 if file.stat().st_size else 0o644)  # what is empty is a lock
    outcomes = in_fork(lambda: without_rights(None, lambda: load_in_turn(tree, texts, length)))
    if bad := [str(Outcome(*outcome)) for outcome in outcomes if outcome[0] != "right"]:
        again = f"load_rows(path, {length}); chmod a-w *; load_rows again"
        return failed(f"files that may only be read: {bad[0]}", again)
    return passed("2 texts of one name, in turn")


@check(task=5, prop="the schedule trains on the rows of the text, and validates on others of them")
def schedule_uses_the_rows(tree: Tree) -> Evidence:
    """Run a round of the schedule's command, and look at what enters the model."""
    path, length, seen, trouble = write_text("a.txt", sample(8 * 43 + 5)), 72, watch_rows(tree.kind), ""
    run, words, line = training_on(tree, path, length)
    try:
        run(words)
    except SystemExit as end:  # it may take other options
        if end.code:
            return unproven(f"it exits with {end.code}: {line}")
    except Exception as error:  # whatever it is, is the finding
        trouble = f"the schedule raises {error!r}"
    if tree.seams.is_told and (trouble or not seen[True]):  # what was found may be for other things
        raise MissingSeam("command-line", f"{trouble or 'nothing is trained'} by {line}", function_of("command-line"))
    if trouble:
        return failed(trouble, line)
    codewords = CODEWORDS[np.frombuffer(path.read_bytes()[: 8 * 43], np.uint8)]
    expected = set(map(tuple, codewords.reshape(-1, length).tolist()))
    strange, missing = len((entered := seen[True] | seen[False]) - expected), len(expected - entered)
    if strange or missing:
        detail = f"{strange} rows enter the model that are not in the text, {missing} of {len(expected)} never do"
        return failed(detail, line) if "--rounds" in words else unproven(f"{detail} by {line}")
    if not seen[True] or seen[True] & seen[False] or ("--rounds" in words and not seen[False]):
        return failed(f"rows to train on: {len(seen[True])}, to validate on: {len(seen[False])}, not apart", line)
    return passed(f"{len(seen[True])} rows to train on, {len(seen[False])} to validate on")
