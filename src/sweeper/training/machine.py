"""What a training takes from the machine: device, threads, precision, memory, and sums that repeat."""

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
"""What CUDA, cuDNN and cuBLAS say where a GPU has no room left."""


def resolve_device(name: str) -> torch.device:
    """The device by its name in torch; ``auto`` is the first GPU, or else the CPU.

    Raises:
        BadInput: where this machine has no such device.
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
    if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < n_gpus):
        return device
    has = (
        f"this machine has {n_gpus} GPUs that torch can use"
        if device.type == "cuda"
        else "it is not supported"
    )
    raise BadInput("device", name, has, "write device=auto or device=cpu")


def make_repeatable(device: torch.device, seed: int, tf32: bool) -> None:
    """Seed torch and let it choose algorithms that give the same sums every time."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Else every new tensor is filled with NaN first, to catch reads that this code has none of.
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
    """Compute with that many CPU threads, then again with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -------------------------------------------------------------------------------------------- precision


def resolve_precision(precision: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``; ``auto`` is bfloat16 on GPUs and CPUs that compute with it."""
    if precision != "auto":
        return precision
    has_bfloat16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if has_bfloat16 else "float32"


def _cpu_has_bfloat16() -> bool:
    """Whether there are instructions for it; without them it takes longer than float32."""
    asks = [
        getattr(torch.cpu, f"_is_{name}_supported", lambda: False) for name in ("avx512_bf16", "amx_tile")
    ]
    return any(ask() for ask in asks)


def autocast_in(precision: str, device: torch.device) -> Callable[[], torch.autocast]:
    """Makes the context in which a network computes in the precision."""
    enabled = resolve_precision(precision, device) == "bfloat16"
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


# ----------------------------------------------------------------------------------------------- memory


def peak_memory_mb(device: torch.device) -> float:
    """The most memory held so far: on a GPU by this run's tensors, else by the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    in_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * in_bytes / 2**20


def is_full(error: Exception) -> bool:
    """Whether this was raised because a GPU has no room left."""
    told = isinstance(error, RuntimeError) and any(text in str(error) for text in FULL)
    return isinstance(error, torch.OutOfMemoryError) or told


@contextmanager
def memory(device: torch.device) -> Iterator[None]:
    """Keep the memory of tensors that are gone for the next ones, and release it in the end.

    On a GPU torch does so by itself. On a CPU, malloc returns large pieces to the system at once and takes
    them again, page by page, in the next step: up to a third of the step of a small network.
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
    """Give back to the system, or the GPU, what no tensor holds any more: other workers may share it."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.empty_cache()


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_USUAL_MMAP_MAX = 65536
"""From malloc.h; mallopt(3) explains them."""


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it has what this needs."""
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
