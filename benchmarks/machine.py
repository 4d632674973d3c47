"""What the machine could do at best, and what the model asks of it: matrix peak and floating-point operations."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from emolab import Subject

SIZES = (1024, 2048, 3072)  # of square matrices: which is the fastest depends on caches and blocking


def describe() -> str:
    """Processor, cores and memory."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        name = next((value.strip() for key, value in lines.items() if key.strip() == "model name"), name)
    memory = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else float("nan")
    )
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"


def matrix_peak(dtype: torch.dtype, tries: int = 8) -> float:
    """Operations a second of the fastest of some square matrix products: 2 n^3 each."""
    best = 0.0
    for n in SIZES:
        left, right = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
        for _ in range(tries):
            start = time.perf_counter()
            torch.mm(left, right)
            best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


def operations(subject: Subject, lengths: Sequence[int], deepest: int) -> int:
    """Floating-point operations of all matrix products that texts of these lengths need, down to layer `deepest`.

    A weight matrix costs 2 operations an entry and token. Attention takes two products, queries by keys and weights by
    values, 2 heads x head size each for every pair of a token and one that it may look at: T (T + 1) / 2 pairs. Norms,
    activation functions and the unembedding, which means do not need, don't count; nor does padding.
    """
    config = subject.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    weights = sum(p.numel() for block in subject.blocks[:deepest] for p in block.parameters() if p.ndim == 2)
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return 2 * weights * sum(lengths) + deepest * 4 * config.num_attention_heads * head * pairs
