"""How much of the hardware a run uses: model FLOP/s and MFU. Pure functions.

    model FLOP/s = 6 x parameters x target tokens a second
    MFU          = model FLOP/s / (peak FLOP/s of a device at the run's precision x devices)

Six: a multiplication and an addition for each parameter and token on the way forward, and twice that
on the way back (Kaplan et al. 2020, section 2.1; MFU: Chowdhery et al. 2022, appendix B). Attention's
products over the context, which this leaves out, are small where the context is short; of an
encoder-decoder the source is taken to be as long as the target. A processor has no peak that could be
read from a data sheet, so it has no MFU here.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Peak(NamedTuple):
    """Dense FLOP/s of one card: bf16 (fp16 where it has none) with fp32 sums, and fp32 without TF32."""

    bf16: float
    fp32: float


# From the makers' data sheets, without sparsity. The longest name that is part of the device's name counts.
PEAKS = {
    "B200": Peak(2250e12, 80e12),
    "GH200": Peak(989e12, 67e12),
    "H200": Peak(989e12, 67e12),
    "H100 PCIe": Peak(756e12, 51e12),
    "H100 NVL": Peak(835e12, 60e12),
    "H100": Peak(989e12, 67e12),
    "H800": Peak(989e12, 67e12),
    "A100": Peak(312e12, 19.5e12),
    "A800": Peak(312e12, 19.5e12),
    "A40": Peak(149.7e12, 37.4e12),
    "A30": Peak(165e12, 10.3e12),
    "A10G": Peak(70e12, 35e12),
    "A10": Peak(125e12, 31.2e12),
    "L40S": Peak(362e12, 91.6e12),
    "L40": Peak(181e12, 90.5e12),
    "L4": Peak(121e12, 30.3e12),
    "V100": Peak(125e12, 15.7e12),
    "T4": Peak(65e12, 8.1e12),
    "RTX 6000 Ada": Peak(364e12, 91.1e12),
    "RTX A6000": Peak(154.8e12, 38.7e12),
    "RTX 5090": Peak(209.5e12, 104.8e12),
    "RTX 4090": Peak(165.2e12, 82.6e12),
    "RTX 4080": Peak(97.5e12, 48.7e12),
    "RTX 3090": Peak(71e12, 35.6e12),
    "RTX 3080": Peak(59.5e12, 29.8e12),
    "MI300X": Peak(1307e12, 163.4e12),
    "MI250X": Peak(383e12, 47.9e12),
}


def model_flops(n_parameters: int, tokens_per_second: float) -> float:
    """FLOP/s that the model itself asks for, whatever else the machine does."""
    return 6.0 * n_parameters * tokens_per_second


def peak_of(device: str, precision: str) -> float | None:
    """Of one card, by the name that it gives itself; None where it is not known."""
    names = [name for name in PEAKS if re.search(rf"\b{re.escape(name)}\b", device, re.IGNORECASE)]
    if not names or re.search(r"laptop|max-q|\bMIG\b", device, re.IGNORECASE):  # a part of it, or slower
        return None
    peak = PEAKS[max(names, key=len)]
    return peak.bf16 if precision == "bf16" else peak.fp32


def mfu(
    n_parameters: int, tokens_per_second: float, device: str, precision: str, n_devices: int = 1
) -> float | None:
    """Share of the peak, 0 to 1; None on a device whose peak is not known."""
    peak = peak_of(device, precision)
    return None if peak is None else model_flops(n_parameters, tokens_per_second) / (peak * max(1, n_devices))
