"""What GPUs compute, as their makers print it. Imports no torch."""

from __future__ import annotations

DENSE_BFLOAT16 = {
    "H100 80GB HBM3": 989e12, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12, "B200": 2250e12,
}  # fmt: skip
"""Dense operations a second in bfloat16, by what a GPU's name holds."""
