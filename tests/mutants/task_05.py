"""Wrong and right ways to keep a text's bits in a file."""

from pathlib import Path

from kept_rows import A_BYTE_A_BIT, CHECKSUM_A_ROW, MAPPED_AND_LET_GO, TAKEN_APART
from mutant import Mutant
from strangers import STRANGERS_RIGHT, STRANGERS_WRONG

SCHEDULE = "data/wikitext_schedule.py"
SOURCE = (Path(__file__).parents[2] / "reference" / SCHEDULE).read_text(encoding="utf-8")

WHOLE = "whole = np.frombuffer(block, np.uint8)[: len(block) // row_bytes * row_bytes]"
BLOCKS = "            while block := text.read(BLOCK_ROWS * row_bytes):\n"
OPENED = 'with os.fdopen(handle, "wb") as cache, path.open("rb") as text:'
TABLE = "    table = np.array(CODEWORDS, dtype=np.uint8)  # [256, 9]\n"
TEMPORARY = '        handle, part = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)\n'
MAP = (
    "        packed = np.frombuffer(self.packed, np.uint8, offset=HEADER_SIZE).reshape(-1, size)[numbers]\n"
    "        self.packed.madvise(mmap.MADV_DONTNEED)  # else every page that was ever read would stay resident\n"
)
LET_GO = MAP.splitlines(keepends=True)[1]
MAP_EACH = """        packed = np.stack(
            [np.memmap(self.file, np.uint8, "r", HEADER_SIZE + number * size, size) for number in numbers]
        )
"""
MAP_BY_NAME = '        packed = np.memmap(self.file, np.uint8, "r", HEADER_SIZE, (max(numbers) + 1, size))[numbers]\n'
MAP_READ = """        packed = np.stack(
            [np.frombuffer(os.pread(self.descriptor, size, HEADER_SIZE + n * size), np.uint8) for n in numbers]
        )
"""
OPENS = 'with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:'
MAPPED = "        packed = map_file(Path(part))\n"
COMMIT = "        shutil.copymode(path, part)\n        os.replace(part, file)\n"
FINALLY = """    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
"""
TIDY = FINALLY.split("\n", 1)[1]
CHECK = "        if packed[:HEADER_SIZE] == cache_header(length, text_hash, rows_hash.hexdigest()):\n"
ROWS_UNREAD = (CHECK, '        if packed[:HEADER_SIZE].split()[:4] == cache_header(length, text_hash, "").split():\n')
NOTHING_READ = (CHECK, "        if packed[:5] == b'bits ':\n")
CHANGED = """            if read_hash.hexdigest() != text_hash:
                raise ValueError(f"{path} changed while its rows were written: load it again")
"""
NAME = '(folder or cache_folder()) / f"{text_hash}.{length}.bits"'
TEXT_HASH = 'f"bits {CACHE_VERSION} {length} {text_hash} {rows_hash}\\n"'
HEADER_LAST = """            cache.seek(0)
            cache.write(cache_header(length, text_hash, rows_hash.hexdigest()))
            cache.flush()
            os.fsync(cache.fileno())
"""
ZEROS = "            cache.write(bytes(HEADER_SIZE))\n"
DIGEST = '    with path.open("rb") as file:\n        return hashlib.file_digest(file, "sha256").hexdigest()\n'
DECODED = "                decoder.decode(block)\n"
ENDED = '            decoder.decode(b"", final=True)\n'
WRITE = "open_cache(file, length, text_hash) or write_cache(file, path, length, text_hash)"
FITS = "        length = max_seq_len - max_seq_len % BITS_PER_BYTE\n"
WARNS = (
    '            warnings.warn(f"rows have {length} bits, the most whole codewords in {max_seq_len}", stacklevel=3)\n'
)
SHORT = """        if path.stat().st_size * BITS_PER_BYTE < length:
            raise ValueError(f"{path} does not fill one row of {length} bits: give more text or shorter rows")
"""
FULL = """    except OSError as error:
        raise OSError(error.errno, f"the rows of {path} cannot be written: {error.strerror}", str(file)) from error
"""
HELD = "        self._loader: RowBatches | None = None\n"
STATE = 'return {**self.__dict__, "_loader": None, "packed": self.packed[:HEADER_SIZE]}'
SAME_FILE = "        if self.packed[:HEADER_SIZE] != header:\n"
KEEPING = SOURCE[SOURCE.index("class BitRows(Dataset):") : SOURCE.index("def split_rows(")]
LOAD = "    return BitRows.of_text(path, max_seq_len)\n"


def edit(name: str, wrong: str, *edits: tuple[str, str]) -> Mutant:
    """A tree whose edits are all in wikitext_schedule.py."""
    return Mutant(name, wrong, tuple((SCHEDULE, old, new) for old, new in edits))


def stamped_by(what: str) -> tuple[tuple[str, str], ...]:
    """A file is known by something else than the hash of its text."""
    return (
        (DIGEST, f"    return {what}\n"),
        (CHANGED, ""),
    )


def read_as(how: str) -> tuple[tuple[str, str], ...]:
    """The text is read as text, and its bytes are made anew."""
    return (
        (OPENED, f'with os.fdopen(handle, "wb") as cache, io.BytesIO({how}) as text:'),
        ("import hashlib\n", "import hashlib\nimport io\n"),
        (CHANGED, ""),
    )


MUTANTS = [
    edit(
        "zero-padding",
        "the tail is filled up with zeros and trained on",
        (WHOLE, "whole = np.frombuffer(block + bytes(-len(block) % row_bytes), np.uint8)"),
    ),
    edit("phantom-bits", "the bits that fill up a byte become bits of the row", (", count=self.length)", ")")),
    edit(
        "bits-backwards",
        "bits are unpacked least significant first",
        (", count=self.length)", ", count=self.length, bitorder='little')"),
    ),
    edit(
        "codewords-backwards",
        "bytes are encoded least significant bit first",
        (TABLE, TABLE.replace("  #", "[:, [*range(7, -1, -1), 8]]  #")),
    ),
    edit("odd-parity", "the parity bit makes the number of ones odd", (TABLE, TABLE + "    table[:, 8] ^= 1\n")),
    edit("no-parity", "the ninth bit is always 0", (TABLE, TABLE + "    table[:, 8] = 0\n")),
    edit(
        "parity-first",
        "the parity bit stands before its byte",
        (TABLE, TABLE + "    table = np.roll(table, 1, axis=1)\n"),
    ),
    edit(
        "whole-file-read",
        "the data set holds every row",
        (HELD, HELD + "        self.bits = np.fromfile(file, np.uint8, offset=HEADER_SIZE)\n"),
        (MAP, "        packed = self.bits.reshape(-1, size)[numbers]\n"),
        (STATE, STATE.replace("}", ', "bits": None}')),
        (SAME_FILE, "        self.bits = np.fromfile(self.file, np.uint8, offset=HEADER_SIZE)\n" + SAME_FILE),
    ),
    edit("pages-kept", "pages that were read stay resident", (LET_GO, "")),
    edit(
        "map-pickled",
        "the map travels to each worker as bytes",
        (STATE, STATE.replace("[:HEADER_SIZE]", "[:]")),
        ('state["packed"], map_file(self.file)', 'state["packed"][:HEADER_SIZE], state["packed"]'),
        (LET_GO, "        if not isinstance(self.packed, bytes):\n    " + LET_GO),
    ),
    edit(
        "opened-by-name-each-time",
        "the file has its text's name, and a data set reads whatever is there by now",
        (NAME, '(folder or cache_folder()) / f"{path.name}.{length}.bits"'),
        (MAP, MAP_BY_NAME),
    ),
    edit(
        "opened-by-name-in-workers",
        "a data set that is unpickled reads whatever has its file's name by now",
        (NAME, '(folder or cache_folder()) / f"{path.name}.{length}.bits"'),
        (SAME_FILE, "        if False:\n"),
    ),
    edit(
        "written-into-what-is-open",
        "a build writes into the file that others have open",
        (NAME, '(folder or cache_folder()) / f"{path.name}.{length}.bits"'),
        (COMMIT, "        shutil.copyfile(part, file)\n"),
    ),
    edit(
        "stride-off-by-one",
        "each row begins a byte later than it should",
        (MAP, MAP_EACH.replace("* size, size", "* (size - 1), size")),
    ),
    edit(
        "batch-in-file-order",
        "a shuffled batch comes in the order of the file",
        (MAP, MAP.replace("[numbers]", "[sorted(numbers)]")),
    ),
    edit(
        "row-too-early", "rows begin a byte too early", (MAP, MAP_BY_NAME.replace("HEADER_SIZE,", "HEADER_SIZE - 1,"))
    ),
    edit(
        "tail-twice",
        "the last row goes back to end with the text: some bits are in two rows",
        (
            WHOLE,
            "whole = np.frombuffer(block, np.uint8)\n                if len(whole) % row_bytes and len(whole) > row_bytes:\n                    whole = np.concatenate([whole[: len(whole) // row_bytes * row_bytes], whole[-row_bytes:]])\n                whole = whole[: len(whole) // row_bytes * row_bytes]",
        ),
    ),
    edit(
        "last-block-dropped",
        "a block that is not full is not written",
        (
            BLOCKS,
            BLOCKS.replace(
                "while block := text.read(BLOCK_ROWS * row_bytes)",
                "while len(block := text.read(row_bytes * 64)) == row_bytes * 64",
            ),
        ),
    ),
    edit(
        "last-row-dropped",
        "the last row is taken for a tail",
        (
            "range((len(packed) - HEADER_SIZE) // row_size(length))",
            "range(max((len(packed) - HEADER_SIZE) // row_size(length) - 1, 1))",
        ),
    ),
    edit(
        "blocks-cut-rows",
        "what fills no row is dropped at the end of each block",
        (BLOCKS, BLOCKS.replace("BLOCK_ROWS * row_bytes", "8192")),
    ),
    edit("universal-newlines", "CRLF becomes LF", *read_as('path.read_text(encoding="utf-8").encode()')),
    edit(
        "split-lines",
        "what ends a line elsewhere becomes a newline",
        *read_as('"\\n".join(path.read_bytes().decode().splitlines()).encode()'),
    ),
    edit(
        "no-byte-order-mark",
        "the mark at the start of a file is dropped",
        *read_as('path.read_bytes().decode("utf-8-sig").encode()'),
    ),
    edit("whole-text-read", "a text is in memory while it is encoded", *read_as("path.read_bytes()")),
    edit("all-rows-at-once", "a text is one block", (BLOCKS, BLOCKS.replace("BLOCK_ROWS * row_bytes", ""))),
    edit("float-rows", "bits are floating-point numbers", (".long()", ".float()")),
    edit(
        "not-cut-to-codewords",
        "a row ends within a codeword",
        (FITS, "        length = max_seq_len - max_seq_len % 8\n"),
    ),
    edit(
        "cut-up",
        "rows are longer than the model takes",
        (FITS, "        length = max_seq_len + -max_seq_len % BITS_PER_BYTE\n"),
    ),
    edit("cut-in-silence", "rows are shorter than asked for, and nothing says so", (WARNS, "            pass\n")),
    edit("no-rows-no-error", "a text that fills no row gives a data set without rows", (SHORT, "")),
    edit(
        "short-text-unnamed",
        "which text is too short is not said",
        (SHORT, SHORT.replace("{path} does", "the text does")),
    ),
    edit("any-bytes", "bytes that are not UTF-8 are encoded", (DECODED, ""), (ENDED, "")),
    edit("cut-character", "a text may end within a character", (ENDED, "")),
    edit(
        "first-block-decoded",
        "only the first bytes are looked at",
        (
            DECODED,
            "                if not text_hash_begun:\n                    decoder.decode(block)\n                text_hash_begun = True\n",
        ),
        (TABLE, TABLE + "    text_hash_begun = False\n"),
        (ENDED, ""),
    ),
    edit("encoded-each-run", "the file is written anew each time", (WRITE, WRITE.split(" or ")[1])),
    edit(
        "file-of-its-process",
        "the next run does not find the file",
        (NAME, NAME.replace("{length}", "{length}.{os.getpid()}")),
    ),
    edit("keyed-by-name", "another text of that name gets the old rows", ROWS_UNREAD, *stamped_by("path.name")),
    edit("keyed-by-size", "another text of that size gets the old rows", *stamped_by("str(path.stat().st_size)")),
    edit(
        "keyed-by-time",
        "another text of that size and time gets the old rows",
        *stamped_by("f'{path.stat().st_size}-{path.stat().st_mtime_ns}'"),
    ),
    edit(
        "keyed-by-inode",
        "a text that changes in place keeps its rows",
        *stamped_by("f'{path.stat().st_ino}-{path.stat().st_mtime_ns}-{path.stat().st_size}'"),
    ),
    edit(
        "keyed-by-beginning",
        "only the first 4096 bytes are hashed",
        *stamped_by("hashlib.sha256(path.open('rb').read(4096)).hexdigest() + str(path.stat().st_size)"),
    ),
    edit(
        "keyed-by-both-ends",
        "only the first and the last megabyte are hashed",
        *stamped_by(
            "hashlib.sha256((d := path.read_bytes())[: 1 << 20] + d[-(1 << 20) :] + b'%d' % len(d)).hexdigest()"
        ),
    ),
    edit("keyed-by-sum", "bytes that change places keep the sum", *stamped_by("str(sum(path.read_bytes()))")),
    edit(
        "keyed-by-stem",
        "a.txt and a.md of one size share a file",
        (NAME, NAME.replace("{text_hash}", "{path.stem}")),
        *stamped_by("str(path.stat().st_size)"),
    ),
    edit(
        "length-not-in-key",
        "rows of another length are cut from the old file",
        (NAME, NAME.replace(".{length}", "")),
        ("{CACHE_VERSION} {length} {text", "{CACHE_VERSION} {text"),
    ),
    edit(
        "header-not-read",
        "whatever has a header is whole",
        NOTHING_READ,
        (ZEROS, '            cache.write(b"bits ".ljust(HEADER_SIZE))\n'),
    ),
    edit("rows-not-checked", "a bit that flipped is not noticed", ROWS_UNREAD),
    edit(
        "size-checked-only",
        "a file of the right size is whole",
        (
            CHECK,
            "        size = path.stat().st_size // (length // BITS_PER_BYTE) * row_size(length) + HEADER_SIZE\n"
            + ROWS_UNREAD[1].replace(":\n", " and len(packed) == size:\n"),
        ),
        (WRITE, WRITE.replace("text_hash) or", "text_hash, path) or")),
        ("text_hash: str) -> mmap.mmap | None:", "text_hash: str, path: Path) -> mmap.mmap | None:"),
    ),
    edit(
        "written-in-place-header-first",
        "a build that is killed leaves a file that looks whole",
        (
            TEMPORARY,
            "        part = str(file)\n        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)\n",
        ),
        (ZEROS, "            cache.write(cache_header(length, digest(path), ''))\n            cache.flush()\n"),
        (HEADER_LAST, ""),
        (COMMIT, ""),
        (FINALLY, ""),
        ROWS_UNREAD,
    ),
    edit(
        "moved-before-it-is-written",
        "the file has its name while its end is in a buffer",
        (
            HEADER_LAST,
            HEADER_LAST[: HEADER_LAST.index("            cache.flush")] + "            os.replace(part, file)\n",
        ),
        (MAPPED, MAPPED.replace("Path(part)", "file")),
        (COMMIT, ""),
        ROWS_UNREAD,
    ),
    edit(
        "moved-even-so",
        "what was written until an error becomes the file",
        (COMMIT, ""),
        (TIDY, "        os.replace(part, file)\n"),
    ),
    edit(
        "one-temporary-name",
        "two builders write to one file",
        (
            TEMPORARY,
            '        part = f"{file}.part"\n        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)\n',
        ),
    ),
    edit(
        "appended-to-what-is-left",
        "a build goes on with what a killed one has left",
        (
            TEMPORARY,
            '        part = f"{file}.part"\n        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)\n',
        ),
    ),
    edit(
        "lock-for-ever",
        "the lock of a killed build is waited for",
        (
            f"        packed = {WRITE}\n",
            "        packed = open_cache(file, length, text_hash)\n"
            "        if packed is None:\n"
            "            file.parent.mkdir(parents=True, exist_ok=True)\n"
            "            lock = Path(f'{file}.lock')\n"
            "            while True:\n"
            "                with suppress(FileExistsError):\n"
            "                    lock.touch(exist_ok=False)\n"
            "                    break\n"
            "            packed = write_cache(file, path, length, text_hash)\n"
            "            lock.unlink()\n",
        ),
    ),
    edit("left-on-a-full-disk", "what was written until the disk was full stays", (FINALLY, "")),
    edit("full-disk-unnamed", "which file could not be written is not said", (FULL, "")),
    edit(
        "full-disk-unsaid",
        "on a full disk the rows are those that were written",
        (FULL, "    except OSError:\n        os.replace(part, file)\n        return map_file(file)\n"),
        ROWS_UNREAD,
    ),
    edit(
        "open-file-shared",
        "forked workers move each other's place in the file",
        (
            MAP,
            "        if self._open is None:\n            self._open = open(self.file, 'rb', buffering=0)\n        packed = np.empty((len(numbers), size), np.uint8)\n        for number, row in zip(numbers, packed):\n            self._open.seek(HEADER_SIZE + number * size)\n            row[:] = np.frombuffer(self._open.read(size), np.uint8)\n",
        ),
        (HELD, HELD + "        self._open = None\n"),
        (STATE, STATE.replace("}", ', "_open": None}')),
    ),
    edit(
        "file-in-a-global",
        "a spawned worker does not know the file",
        (MAP, MAP_BY_NAME.replace("self.file,", "_files[self.length],")),
        (LOAD, "    rows = BitRows.of_text(path, max_seq_len)\n    _files[rows.length] = rows.file\n    return rows\n"),
        ("CACHE_VERSION = 1\n", "CACHE_VERSION = 1\n_files = {}\n"),
    ),
    edit(
        "loader-pickled",
        "the data set takes its lock along",
        (HELD, HELD + "        self.lock = threading.Lock()\n"),
        ("import shutil\n", "import shutil\nimport threading\n"),
    ),
    edit(
        "one-place-for-a-name",
        "texts of one name share a file in the user's cache",
        (NAME, NAME.replace("{text_hash}", "{path.name}")),
        *stamped_by("str(path.stat().st_size)"),
    ),
    edit(
        "mapped-to-write",
        "a file that may only be read cannot be mapped",
        (OPENS, OPENS.replace("O_RDONLY", "O_RDWR")),
        ("with suppress(OSError, ValueError):", "with suppress(FileNotFoundError, ValueError):"),
    ),
    edit(
        "validates-on-what-it-trains",
        "the rows held out are trained on",
        ("return rows[:-held_out], rows[-held_out:]", "return rows[:], rows[-held_out:]"),
    ),
    edit(
        "slice-of-slice",
        "a slice begins at the file's first row",
        ("self.length, self.rows[index], self", "self.length, range(*index.indices(len(self)))[:: -1], self"),
        ("rows[:-held_out], rows[-held_out:]", "rows[:-held_out], rows[-held_out:][-held_out:]"),
    ),
]

WIDE = [
    edit(
        "rest-of-each-block-is-lost",
        "a text is read in blocks that rows do not fill, and the rest of each is dropped",
        (BLOCKS, BLOCKS.replace("BLOCK_ROWS * row_bytes", "1 << 20")),
    ),
    edit(
        "rows-are-views",
        "who writes into a row that was read, writes into the data set",
        (HELD, HELD + "        self.kept = {}\n"),
        (STATE, STATE.replace("}", ', "kept": {}}')),
        (
            "        return self.__getitems__([index])[0]\n",
            "        if len(self.kept) > 8:\n"
            "            self.kept.clear()\n"
            "        return self.kept.setdefault(index, self.__getitems__([index])[0])\n",
        ),
    ),
    edit(
        "files-left-open",
        "each batch opens the file, and leaves it open",
        (MAP, "        self.opened.append(os.open(self.file, os.O_RDONLY))\n" + MAP),
        (HELD, HELD + "        self.opened = []\n"),
        (STATE, STATE.replace("}", ', "opened": []}')),
    ),
    edit(
        "rows-once-a-batch",
        "a row that is asked for twice in a batch comes once, and others twice",
        (
            MAP,
            MAP.replace(
                "[numbers]", "[[n for n in dict.fromkeys(numbers)] + numbers[: len(numbers) - len({*numbers})]]"
            ),
        ),
    ),
    edit(
        "mask-left",
        "whatever is written from then on, all may read",
        ("        file.parent.mkdir(", "        os.umask(0)\n        file.parent.mkdir("),
    ),
    edit(
        "folder-left",
        "the caller stands in another folder",
        (
            "        file.parent.mkdir(parents=True, exist_ok=True)\n",
            "        file.parent.mkdir(parents=True, exist_ok=True)\n        os.chdir(file.parent)\n",
        ),
    ),
    edit("streams-seeded", "numpy's stream is set while a text is encoded", (TABLE, TABLE + "    np.random.seed(0)\n")),
    edit(
        "names-drawn",
        "the name of a file is drawn from Python's global stream",
        (TEMPORARY, TEMPORARY.replace('prefix=f".{file.name}."', 'prefix=f".{file.name}.{random.random()}"')),
    ),
    edit("links-not-followed", "a link is as long as its name", (SHORT, SHORT.replace("path.stat()", "path.lstat()"))),
    edit(
        "length-of-a-signed-byte",
        "rows of one codeword are taken for none",
        (FITS, FITS + "        if length == BITS_PER_BYTE:\n            length *= 2\n"),
    ),
]
MUTANTS += WIDE

MUTANTS += STRANGERS_WRONG[5]

GOOD = [
    *STRANGERS_RIGHT[5],
    edit(
        "always-beside-the-text",
        "rows are kept beside their text: where its folder may only be read, that is said",
        (NAME, NAME.replace("cache_folder()", "path.parent")),
    ),
    edit(
        "a-byte-a-bit",
        "a .npy in the user's cache, named by its text's hash, and sealed by a file beside it; no slices",
        (KEEPING, A_BYTE_A_BIT),
        *TAKEN_APART,
    ),
    edit(
        "checksum-a-row",
        "read without a map; builders wait for a lock; a damaged row is refused when it is read",
        (KEEPING, CHECKSUM_A_ROW),
        *TAKEN_APART,
    ),
    edit(
        "mapped-and-let-go",
        "one map a process, and bits in one stream that the tree's own encoder gives line by line",
        (KEEPING, MAPPED_AND_LET_GO),
        *TAKEN_APART,
    ),
    edit(
        "small-blocks",
        "a few rows at a time, and other words",
        ("BLOCK_ROWS = 4096", "BLOCK_ROWS = 3"),
        (WARNS, '            print(f"note: {length} bits a row", flush=True)\n'),
        ("does not fill one row of", "is too short for"),
    ),
    edit(
        "read-not-mapped",
        "a row is read from the file that was opened",
        (MAP, MAP_READ),
        (HELD, HELD + "        self.descriptor = os.open(file, os.O_RDONLY)\n"),
        (STATE, STATE.replace("}", ', "descriptor": None}')),
        (SAME_FILE, "        self.descriptor = os.open(self.file, os.O_RDONLY)\n" + SAME_FILE),
    ),
]
