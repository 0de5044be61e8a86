"""The machine's part in a training: device, threads, precision, memory, and repeatable sums."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from sweeper.errors import BadInput

FULL = ("out of memory", "ALLOC_FAILED")
"""Parts of the messages of CUDA, cuDNN and cuBLAS when a GPU is out of memory."""
PIXELS_AT_ONCE = {"cpu": 2**17, "cuda": 2**22}
"""Pixels per forward-only batch; on a CPU the activations then fit in cache: 360 images of 32 pixels take
21 ms, but 37 ms as one batch."""
AT_LEAST = 20
"""Images per forward-only batch; smaller batches of large images take longer."""


def resolve_device(name: str) -> torch.device:
    """The device by its name in torch; ``auto`` is the first GPU, or else the CPU.

    Raises:
        BadInput: if this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(
            "device", name, "there is no such device", "write auto, cpu, cuda or cuda:0"
        ) from error
    n_gpus = torch.cuda.device_count()
    if name == "cpu" or (device.type == "cuda" and (device.index or 0) < n_gpus):
        return device
    has = (
        f"this machine has {n_gpus} GPUs that torch can use"
        if device.type == "cuda"
        else "it is not supported"  # nor is a number of a CPU
    )
    raise BadInput("device", name, has, "write device=auto or device=cpu")


def make_repeatable(device: torch.device, seed: int, tf32: bool) -> None:
    """Seed torch and make it use deterministic algorithms."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Otherwise torch fills new tensors with NaN to expose uninitialised reads.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.cuda.reset_peak_memory_stats(device)


@contextmanager
def threads(n_threads: int | None) -> Iterator[None]:
    """Compute with that many CPU threads, then restore the number before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -------------------------------------------------------------------------------------------- precision


def resolve_precision(precision: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``; ``auto`` is bfloat16 where the hardware supports it."""
    if precision != "auto":
        return precision
    has_bfloat16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if has_bfloat16 else "float32"


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has bfloat16 instructions; without them it is slower than float32."""
    asks = [
        getattr(torch.cpu, f"_is_{name}_supported", lambda: False) for name in ("avx512_bf16", "amx_tile")
    ]
    return any(ask() for ask in asks)


def autocast_in(precision: str, device: torch.device) -> Callable[[], torch.autocast]:
    """A function that makes the autocast context for a precision."""
    enabled = resolve_precision(precision, device) == "bfloat16"
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


# ----------------------------------------------------------------------------------------------- memory


def usually_at_once(device: torch.device, side: int) -> int:
    """Images of so many pixels a side per forward-only batch."""
    return max(AT_LEAST, PIXELS_AT_ONCE[device.type] // side**2)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory: on a GPU of this run's tensors, on a CPU of the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    in_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * in_bytes / 2**20


def memory_mb(device: torch.device) -> float | None:
    """All of a GPU's memory; None for a CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory / 2**20


def is_full(error: Exception) -> bool:
    """Whether this error means that a GPU is out of memory."""
    told = isinstance(error, RuntimeError) and any(text in str(error) for text in FULL)
    return isinstance(error, torch.OutOfMemoryError) or told


@contextmanager
def memory(device: torch.device) -> Iterator[None]:
    """Reuse the memory of freed tensors for new ones, and release it at the end.

    On a GPU torch always does so. On a CPU, malloc returns large blocks to the system at once, and the next
    step takes them again page by page, which costs up to a third of a small network's step.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        if libc is not None:
            libc.mallopt(_M_MMAP_MAX, _USUAL_MMAP_MAX)
        release(device)


def release(device: torch.device) -> None:
    """Return freed memory to the system and GPU, which other workers share."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.empty_cache()


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_USUAL_MMAP_MAX = 65536
"""From malloc.h; mallopt(3) explains them."""


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc or has the same two functions."""
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
