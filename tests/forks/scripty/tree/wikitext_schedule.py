# text file -> rows of bits
#   python wikitext_schedule.py wiki.train.txt rows.pt 576
import sys

import torch

from bits import text_to_bits


def load_rows(path, n):
    """all bits of the file one after the other, n in a row. the rest at the end does not count"""
    bits = []
    with open(path, encoding="utf8", newline="") as f:
        for line in f:
            bits += text_to_bits(line)
    rows = []
    i = 0
    while i + n <= len(bits):
        rows.append(bits[i:i + n])
        i += n
    if not rows:
        raise ValueError(f"{path}: only {len(bits)} bits, a row needs {n}")
    return torch.tensor(rows)


if __name__ == "__main__":
    src, dst, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rows = load_rows(src, n)
    torch.save(rows, dst)
    print(len(rows), "rows of", n, "bits ->", dst)
