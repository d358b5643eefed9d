"""What can happen to the bytes of a file, whoever reads it."""

import random

CUTS = {
    "0": lambda data: b"",
    "1": lambda data: data[:1],
    "8": lambda data: data[:8],
    "half": lambda data: data[: len(data) // 2],
    "-1": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: random.Random(0).randbytes(len(data)),
}
