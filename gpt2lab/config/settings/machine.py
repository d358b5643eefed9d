"""What computes, and in which numbers."""

from enum import Enum


class Precision(Enum):
    """The number format of the matrix products; weights and optimizer state stay fp32."""

    auto = "auto"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


class Quantize(Enum):
    """Number formats below bf16 for the weights of generation."""

    int8 = "int8"


class Device(Enum):
    """Where a model computes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
