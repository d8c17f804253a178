"""Which precision is fastest on this machine, found by a moment of work: names of processors do not say it.

Where bf16 has instructions of its own it is about twice as fast as fp32, and elsewhere many times slower. For serving only: what is
trained or evaluated says its precision, so that a result does not depend on where it was made.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

AUTO = "auto"
GAIN = 1.2
"""bf16 is chosen where it is so many times faster: less is not worth its rounding."""
ROUNDS = 7
TOKENS, WIDTH, INNER = 512, 384, 1536
"""The product that is timed: a small encoder's largest, which takes about 6 ms of a core in fp32."""


@functools.cache
def fastest(device: str = "cpu") -> str:
    """ "bf16" or "fp32": the faster of the two for an encoder's products on this device. Asked once per process."""
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if kind != "cpu":
        return "fp32"
    return "bf16" if seconds(torch.float32) > GAIN * seconds(torch.bfloat16) else "fp32"


def seconds(dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one product in `dtype`, weights in it and inputs made so first, as mixed precision does: the least of all rounds, which other
    programs lengthened least."""
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(TOKENS, WIDTH, generator=draw), torch.randn(INNER, WIDTH, generator=draw).to(dtype)
    times = []
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):  # the first one makes the kernel
            begun = clock()
            F.linear(x.to(dtype), weight)
            times.append(clock() - begun)
    return min(times[1:])
