"""What a saved run or a model may import without the person's word."""

from __future__ import annotations

from sweeper.trust import may_import


def test_what_may_be_imported_without_trust() -> None:
    """The layers of torch.nn and the networks of torchvision.models, by their own names; nothing else."""
    for name in ("torch.nn.Flatten", "torch.nn.Linear", "torchvision.models.resnet18"):
        assert may_import(name)
    assert not may_import(None)
    for name in (
        *("", "nets.Net", "torch.load", "torch.hub.load", "os.system", "torch.nn.Module.apply"),
        *(
            "torch.nn.functional.linear",
            "torch.nn.init",
            "torch.nn.parameter.Parameter",
            "torch.nn.Parameter",
        ),
        *("torchvision.models.get_model", "torchvision.models.resnet.resnet18", "torchvision.models.os"),
        *("torchvision.models.ResNet", "builtins.eval", "torch.nn.factory_kwargs"),
    ):
        assert not may_import(name), name
