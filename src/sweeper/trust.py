"""What a file may name without the person's own word: the one place that decides."""

from __future__ import annotations


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
