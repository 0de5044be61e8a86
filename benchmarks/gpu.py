"""Every comparison of this folder on one GPU, in one call, with a table to keep.

    python benchmarks/gpu.py                    # some minutes
    python benchmarks/gpu.py --device cpu --look    # whether it runs, without a GPU

Both sides have the same GPU and all cores. The usual way's DataLoader gets the best of several numbers of
workers; ours runs in the precision that `auto` chooses, the usual way in float32 with torch's own settings.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Mapping
from datetime import date

import torch

import augmentation
import search_digits
import training
from common import Compared

LOOK = {
    "training": [
        "--images",
        "30",
        "--epochs",
        "1",
        "--repeats",
        "1",
        "--usual-epochs",
        "1",
        "--workers",
        "0",
    ],
    "search": [
        *("--repeats", "1", "--n-trials", "2", "--epochs", "1"),
        *("--workers", "0", "--threads", "2"),
    ],
}
"""Arguments with which a case ends in seconds, and its figures mean nothing."""


def main() -> None:
    options = _parser().parse_args()
    cases = _cases(options.device, options.look)
    found: dict[str, Compared | str] = {}
    for name in options.only or cases:
        print(f"\n## {name}\n", flush=True)
        try:
            found[name] = cases[name]()
        except (Exception, SystemExit) as error:  # the other cases are worth their time
            found[name] = f"failed: {[*str(error).splitlines(), repr(error)][0]}"
            print(found[name], flush=True)
    print(f"\n{_table(found, options.device)}")
    if options.look:
        print("\nOnly a look: the sizes are too small for the figures to mean anything.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Ours and the usual way on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--look", action="store_true", help="tiny sizes: whether it runs")
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=_cases("cpu", True), help="of the cases")
    return parser


def _cases(device: str, look: bool) -> Mapping[str, Callable[[], Compared]]:
    n_cores = len(os.sched_getaffinity(0))
    on_device = ["--device", device, "--threads", str(n_cores)]
    loaders = ["--workers", *sorted({"0", str(min(4, n_cores)), str(n_cores)}, key=int)]

    def trained(case: str, *arguments: str) -> Callable[[], Compared]:
        given = [case, *on_device, *loaders, *arguments, *(LOOK["training"] if look else [])]
        return lambda: training.compare(training.parser().parse_args(given))

    def searched() -> Compared:
        given = ["--device", device, "--n-trials", "10", "--threads", "2", *(LOOK["search"] if look else [])]
        return search_digits.compare(search_digits.parser().parse_args(given))

    def augmented(side: int) -> Callable[[], Compared]:
        return lambda: _augmented(side, torch.device(device), repeats=1 if look else 7)

    return {
        "small CNN": trained("cnn", "--epochs", "20"),
        "small CNN, CUDA graphs": trained("cnn", "--epochs", "20", "--cuda-graphs"),
        "ResNet-18, everything": trained("everything"),
        "ResNet-18, last block": trained("last_block"),
        "ResNet-18, head, 10 trials": trained("head"),
        "search of 10 trials": searched,
        **{f"augmentation at {side} px": augmented(side) for side in augmentation.TARGETS},
    }


def _augmented(side: int, device: torch.device, repeats: int) -> Compared:
    (usual_ms, _), (our_ms, _) = augmentation.compare(
        side, augmentation.standard(), batch_size=64, repeats=repeats, device=device
    )
    return Compared(f"{our_ms:.2f} ms", f"{usual_ms:.2f} ms", usual_ms / our_ms, "")


def _table(found: Mapping[str, Compared | str], device: str) -> str:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or device
    machine = (
        f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, torch {torch.__version__}"
    )
    lines = [
        f"{date.today()}, {name}, {machine}. Medians.",
        "",
        "| case | ours | usual way | times as fast | accuracies |",
        "|---|---:|---:|---:|---|",
    ]
    for case, one in found.items():
        if isinstance(one, str):
            lines.append(f"| {case} | {one} | | | |")
        else:
            lines.append(f"| {case} | {one.ours} | {one.usual} | {one.ratio:.2f} | {one.accuracy} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
