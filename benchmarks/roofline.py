"""`python -m benchmarks.roofline`: where the time of a reading goes, by operation, beside the least that each takes.

While the bulk reading does its real work, every operation is timed where it runs. The least for a matrix product is
the time of the very same product alone, again and again on one core; for anything else, the time to copy as many
bytes as it reads and writes. What is left of the cores' time is Python, tokens and files, and cores that wait.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Annotated

import pandas as pd
import torch
import typer
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import emolab as el
from benchmarks.machine import matrix_peak, operations
from emolab import activations

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
SHOWN = 0.004  # of the time: what takes less goes into one row together
TRIES = 12  # of which the fastest counts

Matrix = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]  # shape, strides, dtype
Call = tuple[str, str, tuple[Matrix, ...], int]  # module, operation, factors of a product, bytes read and written
now = time.perf_counter


class Clock(TorchDispatchMode):
    """While open in a thread, adds up how long each operation takes there."""

    def __init__(self):
        super().__init__()
        self.modules = ["emolab"]  # that run just now, innermost last
        self.calls, self.seconds = Counter[Call](), Counter[Call]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        with self:  # what an operation is made of comes here again
            out = func.decompose(*args, **kwargs or {})
        if out is not NotImplemented:
            return out
        start = now()
        out = func(*args, **kwargs or {})
        seconds = now() - start
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            name = func.overloadpacket.__name__
            factors = [(t.shape, t.stride(), t.dtype) for t in tensors[-3:-1]] if name in PRODUCTS else []
            moved = sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors)
            call = (self.modules[-1], name, tuple(factors), moved)
            self.calls[call] += 1
            self.seconds[call] += seconds
        return out


@contextmanager
def clocks() -> Iterator[list[Clock]]:
    """While open, each forward pass of the bulk reading runs under a clock of its own; gives the list of them."""
    here, found, forward = threading.local(), [], activations.forward

    def timed(*args) -> None:
        with Clock() as here.clock:
            found.append(here.clock)
            forward(*args)

    def enter(module, args) -> None:
        here.clock.modules.append(type(module).__name__)

    def leave(module, args, output) -> None:  # before emolab's own hook on that module
        here.clock.modules.pop()

    handles = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    activations.forward = timed
    try:
        yield found
    finally:
        activations.forward = forward
        for handle in handles:
            handle.remove()


def operation_of(call: Call) -> str:
    """What a call is listed as."""
    module, name, factors, _ = call
    if factors and len(factors[1][0]) == 2:
        return "weights {} x {}".format(*factors[1][0])
    if factors:
        return f"{module}, products"
    return f"{module}, {name}" if name in ("_softmax", "silu", "gelu") else f"{module}, elementwise"


def flops(call: Call) -> int:
    """Of a matrix product; 0 for anything else."""
    return 2 * math.prod(call[2][0][0]) * call[2][1][0][-1] if call[2] else 0


def least(call: Call) -> float:
    """Seconds that one core takes at best."""
    return product_alone(call[2]) if call[2] else call[3] / copy_rate(call[3].bit_length())


@cache
def product_alone(factors: tuple[Matrix, Matrix]) -> float:
    """Seconds of a matrix product that is all there is to do."""
    left, right = (torch.empty_strided(shape, stride, dtype=dtype).normal_() for shape, stride, dtype in factors)
    return _fastest(lambda: left @ right)


@cache
def copy_rate(bits: int) -> float:
    """Bytes read and written in a second when about 2 ** bits in all are."""
    source = torch.zeros(2 ** max(bits - 2, 6), dtype=torch.bfloat16)  # half of the bytes, two for each entry
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source))


def _fastest(work: Callable[[], object]) -> float:
    def once() -> float:
        start = now()
        work()
        return now() - start

    return min(once() for _ in range(TRIES))


def table(clocks: Sequence[Clock], seconds: float) -> pd.DataFrame:
    """[operation]: share of the cores' time and the least share, both with rates a core.

    seconds : that all cores together had
    """
    rows = [
        (operation_of(call), clock.seconds[call], n * least(call), n * flops(call), n * call[3])
        for clock in clocks
        for call, n in clock.calls.items()
    ]
    found = pd.DataFrame(rows, columns=["operation", "took", "least", "flop", "bytes"])
    found["least"] = found[["least", "took"]].min(axis=1)
    found["operation"] = found["operation"].where(
        found.groupby("operation")["took"].transform("sum") > SHOWN * seconds, "other operations"
    )
    found = found.groupby("operation").sum().sort_values("took", ascending=False)
    found.loc["Python, tokens, files, waiting"] = [seconds - found["took"].sum(), 0, 0, 0]
    found.loc["all"] = found.sum()
    return found


def main(stories: Annotated[int, typer.Option(help="Spread evenly over the corpus's first 512.")] = 128) -> None:
    """Time the bulk reading of the embedded model by operation, on a CPU."""
    subject, cores = el.load(), torch.get_num_threads()
    texts = [story.text for story in el.stories()[: 512 : 512 // stories]]
    wall = []
    for _ in range(4):  # the first warms up
        start = now()
        read = activations.mean_activations(subject, texts, progress=None)
        wall.append(now() - start)
    with clocks() as clocked:
        activations.mean_activations(subject, texts, progress=None)
    peak = matrix_peak(subject.dtype)
    torch.set_num_threads(1)
    seconds = sorted(wall[1:])[1]
    found = table(clocked, seconds * cores)
    needed = operations(subject, read.lengths, subject.n_layers)
    print(f"{subject.name}, {subject.dtype}, {cores} threads, {len(texts)} stories")
    print(f"{read.lengths.sum() / seconds:,.0f} tokens/s; {peak / 1e9:,.0f} GFLOP/s at best in square matrix products,")
    print(f"of which the model's products on real tokens get {needed / seconds / peak:.1%}\n")
    shown = pd.DataFrame(
        {
            "share of time": (found["took"] / found["took"]["all"]).map("{:.1%}".format),
            "at least": (found["least"] / found["took"]["all"]).map("{:.1%}".format),
            "GFLOP": (found["flop"] / 1e9).map("{:,.0f}".format),
            "GFLOP/s a core": (found["flop"] / found["took"] / 1e9).map("{:,.0f}".format),
            "alone": (found["flop"] / found["least"] / 1e9).map("{:,.0f}".format),
            "GB/s a core": (found["bytes"] / found["took"] / 1e9).map("{:,.1f}".format),
            "copy": (found["bytes"] / found["least"] / 1e9).map("{:,.1f}".format),
        }
    )
    print(shown.to_string())


if __name__ == "__main__":
    typer.run(main)
