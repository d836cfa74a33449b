"""Other ways to keep a text's bits in a file, each with the words that reference/ has for it."""

# What must be edited elsewhere where a data set has no slices and no split().
IMPORTS = "import hashlib\n"
WORDS = "from bit_transformer.bit_io import BITS_PER_BYTE, CODEWORDS\n"
TAKEN_APART = (
    (IMPORTS, "import fcntl\nimport hashlib\nimport json\nimport mmap\nimport zlib\n"),
    (WORDS, WORDS.replace("CODEWORDS", "CODEWORDS, text_to_bits")),
    ("DataLoader, Dataset\n", "DataLoader, Dataset, Subset\n"),
    (
        "return rows[:-held_out], rows[-held_out:]",
        "edge = len(rows) - held_out\n    return Subset(rows, range(edge)), Subset(rows, range(edge, len(rows)))",
    ),
    ("in rows.split(8)]", "in DataLoader(rows, 8)]"),
    ("model.max_seq_len != rows.shape[1]", "model.max_seq_len // 9 * 9 != len(rows[0])"),
)

LENGTH = """
def whole_codewords(max_seq_len):
    length = max_seq_len // 9 * 9
    if length == 0:
        raise ValueError(f"max_seq_len must be at least 9, got {max_seq_len}")
    if length < max_seq_len:
        print(f"max_seq_len={max_seq_len} is no multiple of 9: rows have {length} bits")
    return length


def require_a_row(path, length):
    if path.stat().st_size * 9 < length:
        raise ValueError(f"{path} is shorter than one row of {length} bits")


def sha(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 16):
            digest.update(piece)
    return digest.hexdigest()

"""

A_BYTE_A_BIT = (
    LENGTH
    + '''
class RowsOnDisk(Dataset):
    def __init__(self, file, shape):
        self.file, self.shape = str(file), shape

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        bits = np.load(self.file, mmap_mode="r")
        return torch.tensor(np.array(bits[index]), dtype=torch.int64)


def load_rows(path, max_seq_len):
    """Keep a .npy in the user's cache, named by what is in the text, and a checksum of it beside it."""
    length = whole_codewords(max_seq_len)
    require_a_row(path, length)
    folder = Path.home() / ".cache" / "bits"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{sha(path)}-{length}.npy"
    seal = file.with_suffix(".seal")
    shape = path.stat().st_size * 9 // length, length
    if not (file.exists() and seal.exists() and seal.read_text() == sha(file)):
        try:
            write_rows(path, shape, file, seal)
        except OSError as error:
            raise OSError(error.errno, f"{path}: {error.strerror}") from error
    return RowsOnDisk(file, shape)


def write_rows(path, shape, file, seal):
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        part = Path(folder) / "rows.npy"
        left = shape[0] * shape[1]
        with path.open(encoding="utf-8", newline="") as text, part.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
            try:
                while piece := text.read(1 << 16):
                    codes = np.frombuffer(piece.encode(), np.uint8)
                    data = np.unpackbits(codes[:, None], axis=1)
                    words = np.concatenate([data, data.sum(1, keepdims=True) & 1], 1).reshape(-1)[:left]
                    out.write(words.astype(np.uint8))
                    left -= len(words)
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: {error}") from error
        (Path(folder) / "seal").write_text(sha(part))
        os.replace(Path(folder) / "seal", seal)
        os.replace(part, file)

'''
)

CHECKSUM_A_ROW = (
    LENGTH
    + '''
class CheckedRows(Dataset):
    """Rows of packed bits, each with its CRC, which is looked at whenever the row is read."""

    def __init__(self, file, offset, length):
        self.file, self.offset, self.length = file, offset, length
        self.size = (length + 7) // 8
        self.descriptor = os.open(file, os.O_RDONLY)
        self.header = os.pread(self.descriptor, offset, 0)

    def __getstate__(self):
        return {**vars(self), "descriptor": None}

    def __setstate__(self, state):
        vars(self).update(state, descriptor=os.open(state["file"], os.O_RDONLY))
        if os.pread(self.descriptor, self.offset, 0) != self.header:
            raise ValueError(f"{self.file} holds another text by now")

    def __len__(self):
        return (os.fstat(self.descriptor).st_size - self.offset) // (self.size + 4)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        record = os.pread(self.descriptor, self.size + 4, self.offset + index * (self.size + 4))
        if zlib.crc32(record[4:]).to_bytes(4, "big") != record[:4]:
            raise ValueError(f"{self.file}: row {index} is damaged; delete the file")
        bits = np.unpackbits(np.frombuffer(record[4:], np.uint8), bitorder="little")[: self.length]
        return torch.from_numpy(bits.astype(np.int64))


def load_rows(path, max_seq_len):
    length = whole_codewords(max_seq_len)
    require_a_row(path, length)
    header = json.dumps({"text": sha(path), "length": length, "rows": path.stat().st_size * 9 // length}).encode() + b"\\n"
    folder = path.parent if os.access(path.parent, os.W_OK) else Path(tempfile.gettempdir())
    file = folder / f".{hashlib.md5(str(path.absolute()).encode()).hexdigest()}.rows"
    with (folder / f"{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        size = len(header) + json.loads(header)["rows"] * ((length + 7) // 8 + 4)
        if not file.exists() or file.stat().st_size != size or file.open("rb").read(len(header)) != header:
            write_rows(path, file, header, length)
    return CheckedRows(file, len(header), length)


def write_rows(path, file, header, length):
    part = file.with_suffix(".part")
    table = torch.tensor(CODEWORDS, dtype=torch.uint8)
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    try:
        with part.open("wb") as out, path.open("rb") as text:
            out.write(header)
            while block := text.read(length // 9):
                decoder.decode(block)
                if len(block) == length // 9:
                    bits = table[torch.frombuffer(bytearray(block), dtype=torch.uint8).long()]
                    packed = np.packbits(bits.flatten().numpy(), bitorder="little").tobytes()
                    out.write(zlib.crc32(packed).to_bytes(4, "big") + packed)
            decoder.decode(b"", True)
        part.rename(file)
    except ValueError as error:
        raise ValueError(f"{path} is no text: {error}") from error
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RuntimeError(f"no room for the bits of {path}") from error

'''
)

MAPPED_AND_LET_GO = (
    LENGTH
    + '''
class MappedRows(Dataset):
    """One map a process, whose pages are given back after each row."""

    def __init__(self, file, offset, count, length):
        self.file, self.offset, self.count, self.length = file, offset, count, length
        self.open()
        self.seal = self.map[-128:]

    def open(self):
        with open(self.file, "rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __getstate__(self):
        return {**vars(self), "map": None}

    def __setstate__(self, state):
        vars(self).update(state)
        self.open()
        if self.map[-128:] != self.seal:
            raise ValueError(f"{self.file} holds another text by now")

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index not in range(self.count):
            raise IndexError(index)
        at, size = divmod(index * self.length, 8)[0] + self.offset, self.length // 8 + 2
        bits = np.unpackbits(np.frombuffer(self.map[at : at + size], np.uint8))[index * self.length % 8 :]
        self.map.madvise(mmap.MADV_DONTNEED)
        return torch.from_numpy(bits[: self.length]).to(torch.long)


def load_rows(path, max_seq_len):
    """All bits in one stream, no row begins at a byte of its own; the seal is the last line of the file."""
    length = whole_codewords(max_seq_len)
    require_a_row(path, length)
    count = path.stat().st_size * 9 // length
    for folder in (path.parent, Path.home()):
        file = folder / f"{path.name}-{hashlib.sha1(bytes(path.absolute())).hexdigest()}.{length}"
        try:
            if not is_sealed(file, path):
                write_stream(file, path, length, count)
        except PermissionError:
            continue
        return MappedRows(file, 0, count, length)
    raise PermissionError(f"no folder for the rows of {path}")


def is_sealed(file, path):
    if not file.exists() or file.stat().st_size < 128:
        return False
    body, digest = file.stat().st_size - 128, hashlib.sha256()
    with file.open("rb") as stream:
        while body:
            piece = stream.read(min(body, 1 << 16))
            digest.update(piece)
            body -= len(piece)
        return stream.read() == (sha(path) + digest.hexdigest()).encode()


def write_stream(file, path, length, count):
    digest, carry, left = hashlib.sha256(), [], count * length
    handle, part = tempfile.mkstemp(dir=file.parent)
    try:
        with open(handle, "wb") as out, path.open(encoding="utf-8", newline="") as lines:
            for line in lines:
                bits = carry + text_to_bits(line)[: left - len(carry)]
                whole = len(bits) // 8 * 8
                left, carry = left - whole, bits[whole:]
                packed = np.packbits(np.array(bits[:whole], np.uint8)).tobytes()
                digest.update(packed)
                out.write(packed)
            packed = np.packbits(np.array(carry, np.uint8)).tobytes() + b"  "
            digest.update(packed)
            out.write(packed + (sha(path) + digest.hexdigest()).encode())
        os.replace(part, file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    except OSError as error:
        raise OSError(f"{path}: {error}") from error
    finally:
        Path(part).unlink(missing_ok=True)

'''
)
