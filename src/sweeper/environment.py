"""What a history depends on besides the config: data, weights, versions, machine."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sweeper import schema


def environment(run: schema.Run, fingerprint: str) -> dict[str, Any]:
    """What the last bit of a history depends on besides the config."""
    import torch

    from sweeper.training import custom, weights

    is_cuda = run.device.startswith("cuda")
    code = {"code": custom.fingerprint(run.model)} if run.model.source == "custom" else {}
    return {
        "data": fingerprint,
        **code,
        "weights": None if run.from_scratch else weights.fingerprint(run.model),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": version("pillow"),  # decodes and scales the pictures
        "torchvision": version("torchvision"),  # without a second's import
        "torchmetrics": version("torchmetrics"),
        "device": torch.cuda.get_device_name(run.device) if is_cuda else _cpu_name(),
        "n_threads": run.training.n_threads,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
