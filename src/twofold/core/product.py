"""x Wᵀ by the faster of the two libraries that PyTorch has for it on a CPU: by what the processor is, not by a trial."""

import functools
import platform
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

MKL, ONEDNN, ROWS, COLUMNS, WIDE = torch.backends.mkl, torch.backends.mkldnn, 512, 16, 1024


@functools.cache
def foreign() -> bool:
    """Whether `F.linear` takes Intel's library on an AMD processor with AVX-512: large products by oneDNN are 1.05 to 1.8 times as fast."""
    named = platform.processor() + "".join(each.read_text() for each in [Path("/proc/cpuinfo")] if each.is_file())
    both = MKL.is_available() and ONEDNN.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return both and "AuthenticAMD" in named and torch.backends.cpu.get_cpu_capability() == "AVX512"


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `F.linear`, but for rounding: by oneDNN where it is faster, in fp32 and where no gradient is kept."""
    large = x.dim() > 1 and x.shape[-2] >= ROWS and (weight.shape[0] >= COLUMNS or x.shape[-1] >= WIDE)
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if not (large and plain and foreign()) or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
