"""What a file may name without the person's own word: the one place that decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def may_import(target: str | None) -> bool:
    """Whether a network that a file names may be made without the person's ``--trust``.

    What the person types, or has in a config of their own, they chose to run. A saved run or a model may be
    anybody's, and a name in it would run any code that can be found from the working folder or is installed.
    So these alone are allowed: the layers of torch.nn and the networks of torchvision.models. Neither is
    imported from the working folder, and the name of no other is looked up to find that out.
    """
    module, _, name = (target or "").rpartition(".")
    if module == "torch.nn":
        from torch import nn

        layer = vars(nn).get(name)
        return isinstance(layer, type) and issubclass(layer, nn.Module)
    if module == "torchvision.models":
        from torchvision import models

        return name in models.list_models(module=models)
    return False


def may_give(arguments: Mapping[str, Any], most: int) -> bool:
    """Whether a network that ``may_import`` allows may be given what a file names, too.

    Not weights of its own, which it would download, nor a whole number above ``most``: as a size it would
    fill the memory, as a number of layers take days.
    """
    asks = any(value and name.startswith(("weights", "pretrained")) for name, value in arguments.items())
    return not asks and all(number <= most for number in _numbers(list(arguments.values())))


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield abs(value)
