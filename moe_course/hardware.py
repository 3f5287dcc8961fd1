"""What GPUs can do at most, in one table: FLOPs, bytes of memory, and bytes per second.

    device("h100").bandwidth             # 3.35e12 bytes per second
    device("0.8e12,80e12")               # any other machine: bytes per second, FLOPs per second

These are limits from data sheets. What a program reaches of them has to be measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """What a GPU can do at most: dense FLOPs per second in float32 and in bfloat16, and bytes of memory per second.

    bfloat16 is None where it has no units for it. memory: bytes; None if that is not known.
    """

    float32: float
    bfloat16: float | None
    bandwidth: float
    memory: float | None = None

    @property
    def peak_flops(self) -> float:
        """Dense FLOPs per second in bfloat16, or in float32 where there is no bfloat16."""
        return self.bfloat16 or self.float32


DEVICES = {
    "T4": Device(8.1e12, None, 0.32e12, 16e9),
    "L4": Device(30.3e12, 121e12, 0.30e12, 24e9),
    "RTX 4090": Device(82.6e12, 165e12, 1.008e12, 24e9),
    "A100": Device(19.5e12, 312e12, 2.039e12, 80e9),
    "A100 PCIe": Device(19.5e12, 312e12, 1.935e12, 80e9),
    "H100": Device(67e12, 989e12, 3.35e12, 80e9),
    "H100 PCIe": Device(51e12, 756e12, 2.0e12, 80e9),
    "H100 NVL": Device(60e12, 835e12, 3.9e12, 94e9),
    "H200": Device(67e12, 989e12, 4.8e12, 141e9),
    "H200 NVL": Device(60e12, 835e12, 4.8e12, 141e9),
    "GH200": Device(67e12, 989e12, 4.0e12, 96e9),
    "B200": Device(75e12, 2250e12, 8.0e12, 180e9),
    "MI300X": Device(163.4e12, 1307e12, 5.3e12, 192e9),
}
"""By the words in the name that the driver gives; SXM versions (80 GB) where no other is named. 1 GB is 10⁹ bytes.

Source: the data sheets of NVIDIA and AMD. NVIDIA's print FLOPs for sparse matrices, "with sparsity", which are twice
the dense ones; here they are halved. (B200: an eighth of a DGX B200.)"""


def device(text: str) -> Device:
    """The device of that name, in capitals or not, or one that is described as "bytes per second,FLOPs per second".

    Raises ValueError with the names that exist.
    """
    named = {name.lower(): found for name, found in DEVICES.items()}
    if text.lower() in named:
        return named[text.lower()]
    try:
        bandwidth, flops = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"there is no device {text!r}: write BYTES/s,FLOP/s (3.35e12,989e12), or one of {', '.join(DEVICES)}"
        ) from None
    if not (0 < bandwidth < math.inf and 0 < flops < math.inf):
        raise ValueError(f"bytes and FLOPs per second must be positive, got {text!r}")
    return Device(flops, flops, bandwidth)


def limits(name: str) -> Device | None:
    """The limits of the GPU to which a driver gives this name; None if they are not known."""
    words = {*name.replace("-", " ").split()}
    known = [key for key in DEVICES if words.issuperset(key.split())]
    return DEVICES[max(known, key=len)] if known else None
