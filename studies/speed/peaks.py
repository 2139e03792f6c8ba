"""What an accelerator can do at most, by the name that JAX gives it: dense bfloat16 products and memory traffic.

Sources: NVIDIA's data sheets of the A100 (312 TFLOP/s; 1555 GB/s with 40 GB, 2039 GB/s with 80 GB as SXM, 1935 GB/s as
PCIe), the H100 and the H200 (SXM: 989 TFLOP/s without sparsity, 3.35 and 4.8 TB/s); Google Cloud's pages on TPU v4 (275
TFLOP/s, 1200 GB/s), v5e (197 TFLOP/s, 819 GB/s) and v5p (459 TFLOP/s, 2765 GB/s).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from studies.speed.network_cost import Cost


class Peak(NamedTuple):
    """flops per second in dense bfloat16, and bytes per second of memory."""

    flops: float
    bytes: float

    def seconds(self, work: Cost) -> float:
        """The least time of some work: by arithmetic or by memory, whichever is longer (the roofline)."""
        return max(work.flops / self.flops, work.bytes / self.bytes)


PEAKS = (  # by jax.Device.device_kind; forms with other clocks (H100 PCIe and NVL, H200 NVL) are none of these
    (r"NVIDIA A100-\w+-40GB", Peak(312e12, 1.555e12)),
    (r"NVIDIA A100-SXM4-80GB", Peak(312e12, 2.039e12)),
    (r"NVIDIA A100 80GB PCIe", Peak(312e12, 1.935e12)),
    (r"NVIDIA H100 80GB HBM3", Peak(989e12, 3.35e12)),
    (r"NVIDIA H200", Peak(989e12, 4.8e12)),
    (r"TPU v4", Peak(275e12, 1.2e12)),
    (r"TPU v5( lite|e)", Peak(197e12, 0.819e12)),
    (r"TPU v5p?", Peak(459e12, 2.765e12)),
)


def peak_of(kind: str) -> Peak | None:
    """Of a device of that name; None where it is not known."""
    return next((peak for pattern, peak in PEAKS if re.fullmatch(pattern, kind)), None)
