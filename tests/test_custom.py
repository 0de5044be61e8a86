"""Networks of one's own, from the working folder."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeper import schema
from sweeper.errors import BadInput
from sweeper.schema import Model
from sweeper.training import custom, features, freeze
from sweeper.training.model import build, outline
from sweeper.training.weights import check, load
from tests.conftest import Cli
from tests.program import run, sweeper

NETS = """\
import torch, warnings
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, n_classes, in_channels, width=8, drop=0.0):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        )
        self.classifier = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, n_classes))
        self.drop = drop

    def forward(self, images):
        return self.classifier(F.dropout(self.body(images), self.drop, self.training))

def flat(n_classes, image_size, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, n_classes))

def named(n_classes): return Net(n_classes, 1)
def hidden(**settings): return Net(**{k: v for k, v in settings.items() if k != "image_size"})
def fixed(**settings): return nn_of(**settings)
def nn_of(n_classes): return Net(n_classes, 1)

def one_pixel(n_classes, in_channels):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Conv2d(8, n_classes, 1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten())
def wide(n_classes, in_channels):
    return nn.Sequential(nn.Conv2d(in_channels, n_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
class Scaled(nn.Module):
    def __init__(self, n_classes, image_size):
        super().__init__()
        self.head, self.scale, self.probe = nn.LayerNorm(n_classes), None, nn.Linear(image_size**2, n_classes)
    def forward(self, images): return self.head(self.probe(images.flatten(1)))

def none(n_classes): pass
def larger(n_classes, image_size): return flat(n_classes + 1, image_size, 1)
def raises(n_classes, width):
    return width / 0
class Fails(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.fc = nn.Linear(5, n_classes)
    def forward(self, images):
        return self.fc(images)
class Two(nn.Module):
    def __init__(self, n_classes, image_size):
        super().__init__()
        self.fc = nn.Linear(image_size**2, n_classes)
    def forward(self, images):
        logits = self.fc(images.flatten(1))
        return (logits, logits) if self.training else logits
class Own(nn.Module):
    def __init__(self, n_classes, image_size, end=None, when=(True, False), single=True):
        super().__init__()
        self.fc, self.unused = nn.Linear(image_size**2, n_classes), nn.Linear(2, 2)
        self.end, self.when, self.single = end, when, single
    def train(self, mode=True):
        super().train(mode)
    def forward(self, images):
        logits = self.fc(images.flatten(1))
        if self.end and self.training in self.when:
            logits = getattr(torch, self.end)(logits, *([1] if self.end == "softmax" else []))
        return logits if self.single else logits.squeeze()
class Detached(Own):
    @torch.no_grad()
    def forward(self, images): return super().forward(images)
class Needs(Own):
    def forward(self, images, labels): return super().forward(images)
class Dropped(nn.Module):
    def __init__(self, n_classes, image_size):
        super().__init__()
        self.start = nn.Parameter(torch.zeros(16))
        self.positions = nn.Parameter(torch.ones(16), requires_grad=False)
        self.first = nn.Sequential(nn.Conv2d(1, 4, 2, 2), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(4, 16, 2, 2), nn.Dropout(0.5), nn.Flatten(2))
        self.fc = nn.Linear(16, n_classes)
    def forward(self, images):
        return self.fc(self.last(self.first(images)).mean(2) + self.start + self.positions)
class Maker:
    def make(self, n_classes, image_size): return flat(n_classes, image_size, 1)
def usual(num_classes=1000): return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
def needing(num_classes): return usual(num_classes)
def scripted(n_classes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(usual(n_classes), torch.zeros(2, 1, 8, 8))
def double(n_classes): return usual(n_classes).double()
def colour(n_classes): return torch.nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(n_classes))
one = flat(10, 8, 1)
def empty(n_classes, image_size): return nn.Flatten() if image_size else None
three = 3
class Keeps(Own):
    def __init__(self, n_classes, image_size, kind):
        super().__init__(n_classes, image_size)
        if kind:
            eye = torch.eye(2, dtype=torch.complex128)
            self.register_buffer("kept", eye.to_sparse() if kind == "sparse" else eye)
class Extra(Own):
    def get_extra_state(self): return {"seen": 3}
    def set_extra_state(self, state): pass
def with_table(n_classes, image_size, table): return flat(n_classes, image_size, 1)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with modules in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def of(target: str, **settings: Any) -> Model:
    return Model("custom", "custom", target=target, **settings)


def made(target: str, **settings: Any) -> Any:
    return build(of(target, **settings), 1, 8, 10)


@pytest.mark.parametrize("target", ["Net", "flat", "named", "hidden", "fixed", "one_pixel", "Scaled"])
def test_it_is_called_with_what_it_takes(target: str) -> None:
    """A class or a function, with those of the three sizes that it takes; of ``**`` those that it can use."""
    network = made(f"nets.{target}")
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert network.training


def test_arguments_are_given(folder: Path) -> None:
    """Those of ``model.arguments``, also in a package, and in a module beside it."""
    assert made("nets.Net", arguments={"width": 12}).body[0].out_channels == 12
    (folder / "mine" / "inner").mkdir(parents=True)
    (folder / "mine" / "inner" / "a.py").write_text("from nets import Net\nfrom .b import WIDTH\n")
    (folder / "mine" / "inner" / "b.py").write_text("WIDTH = 3\n")
    assert made("mine.inner.a.Net").body[0].out_channels == 8


@pytest.mark.parametrize(
    ("target", "head", "found"),
    [
        ("Net", None, "classifier.2"),
        ("Net", "classifier", "classifier"),
        ("flat", None, "1"),
        ("one_pixel", None, "2"),
        ("Scaled", None, "probe"),
    ],
)
def test_the_last_linear_layer_is_the_head(target: str, head: str | None, found: str) -> None:
    """Or the convolution that classifies each pixel, or what ``model.head`` names."""
    network = made(f"nets.{target}", head=head)
    assert freeze.head_name(network) == found
    stages = freeze.find_stages(network)
    assert stages[-1].parameters == tuple(network.get_submodule(found).parameters())
    n = sum(p.numel() for stage in stages for p in stage.parameters)
    assert n == sum(p.numel() for p in network.parameters())


def test_it_is_frozen_by_the_rule_of_the_others() -> None:
    """Its stages are told apart by resolution, and frozen in evaluation mode, but for the head within."""
    network = made("nets.Net")
    stages = freeze.plan(schema.Freezing("last_block"), network)
    assert [(stage.name, stage.first_epoch) for stage in stages] == [
        ("body.0", None),
        ("body.3 … classifier.0", 1),
        ("classifier.2 (head)", 1),
    ]
    stages = freeze.plan(schema.Freezing("head"), network)
    freeze.begin_epoch(network, stages, 1)
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {
        "classifier.2.weight",
        "classifier.2.bias",
    }
    assert (network.body.training, network.classifier[0].training) == (False, False)
    assert network.classifier[2].training


def test_a_network_that_asks_whether_it_trains_is_not_cut() -> None:
    """Its features would be those of one mode: with dropout by ``self.training`` it runs whole."""
    network = made("nets.Net", arguments={"drop": 0.5})
    stages = freeze.plan(schema.Freezing("head"), network)
    assert features.cut(network, stages, 1) is None
    network = made("nets.one_pixel")
    assert features.cut(network, freeze.plan(schema.Freezing("head"), network), 1) is not None


def test_what_the_network_keeps_fixed_stays_so(caplog: pytest.LogCaptureFixture) -> None:
    """Parameters without gradients, as of positions, train in no stage.

    Where a module's own parameters are frozen, those of its parts that train are in training mode.
    """
    check(of("nets.Dropped"), 1, 8, 10)
    assert "nets.Dropped keeps 16 parameters by itself (requires_grad=False): they never train" in caplog.text
    network = made("nets.Dropped")
    stages = freeze.plan(schema.Freezing("none"), network)
    freeze.begin_epoch(network, stages, 1)
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["positions"]
    assert network.training
    stages = freeze.plan(schema.Freezing("last_block"), network)
    freeze.begin_epoch(network, stages, 1)
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {
        "last.0.weight",
        "last.0.bias",
        "fc.weight",
        "fc.bias",
    }
    assert (network.first.training, network.first[0].training) == (False, False)
    assert network.last[1].training  # dropout in what trains


def test_a_network_may_have_a_train_of_its_own() -> None:
    """One that returns nothing, as those do that keep batch norm frozen."""
    check(of("nets.Own"), 1, 8, 10)
    network = made("nets.Own")
    assert [stage.name for stage in freeze.find_stages(network)] == ["body", "fc (head)"]
    assert features.cut(network, freeze.plan(schema.Freezing("head"), network), 1) is not None
    assert network.training


def test_an_import_draws_nothing_of_a_trial(folder: Path) -> None:
    """What is drawn while a module is imported depends on no seed, and shifts no draw of the trial."""
    text = (
        "import random, numpy as np, torch\n"
        "DRAWN = torch.rand(()).item(), random.random(), np.random.rand()\ntorch.manual_seed(5)\n"
        "def net(n_classes):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, n_classes))\n"
    )
    drawn, weights = [], []
    for name, seed in (("a", 1), ("b", 2), ("a", 2)):
        (folder / f"{name}.py").write_text(text)
        torch.manual_seed(seed)
        weights.append(made(f"{name}.net")[1].weight.tolist())
        drawn.append(sys.modules[name].DRAWN)
    assert drawn[0] == drawn[1]
    assert weights[0] != weights[1] == weights[2]


def test_the_seed_decides_its_weights(folder: Path) -> None:
    """Also those that a person's code draws from NumPy or Python, whose own generators stay as they were."""
    (folder / "drawn.py").write_text(
        "import random, numpy as np, torch\nfrom nets import flat\n"
        "def net(n_classes, image_size):\n"
        "    network = flat(n_classes, image_size, 1)\n"
        "    network[1].bias.data[0] = random.random() + np.random.rand()\n"
        "    return network\n"
    )
    biases = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        biases.append(made("drawn.net")[1].bias.tolist())
    assert biases[0] == biases[1] != biases[2]


def test_weights_fit_by_its_own_names(folder: Path) -> None:
    """Under another prefix, or without its own; its head stays new, whatever the file's is."""
    network = made("nets.Net")
    body = {f"model.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": body | {"model.classifier.2.weight": torch.ones(3, 16)}}, folder / "w.ckpt")
    settings = of("nets.Net", weights="w.ckpt")
    check(settings, 1, 8, 10)
    torch.manual_seed(7)
    other: Any = build(settings, 1, 8, 10)
    before = other.classifier[2].weight.clone()
    load(other, settings, 8)
    assert torch.equal(other.body[3].weight, network.body[3].weight)
    assert torch.equal(other.classifier[0].weight, network.classifier[0].weight)
    assert torch.equal(other.classifier[2].weight, before)
    with pytest.raises(BadInput, match=r"does not fit nets\.Net: body\.0\.weight is \[8, 1, 3, 3\] there"):
        check(of("nets.Net", weights="w.ckpt", arguments={"width": 4}), 1, 8, 10)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target": "nets.none"}, r"gives a NoneType, and no torch\.nn\.Module"),
        ({"target": "nets.larger"}, r"gives \(2, 11\); logits of \(2, 10\) are needed"),
        ({"target": "nets.empty"}, r"gives \(2, 64\)"),
        ({"target": "nets.Two"}, "gives a tuple in training"),
        ({"target": "nets.Fails"}, r"fails on images of \(1, 8, 8\): nets\.py, line 46: RuntimeError"),
        (
            {"target": "nets.Own", "arguments": {"end": "softmax"}},
            "it ends with a softmax.*leave the softmax out",
        ),
        ({"target": "nets.Own", "arguments": {"end": "sigmoid", "when": [False]}}, "ends with a sigmoid"),
        (
            {"target": "nets.Own", "arguments": {"single": False}},
            r"gives \(10,\) of one image; .* 1 image and",
        ),
        ({"target": "nets.Own", "head": "unused"}, r"^model\.head=unused: nothing in it learns"),
        ({"target": "nets.Detached"}, "no gradient reaches its head, fc; leave out no_grad"),
        (
            {"target": "nets.Extra"},
            r"its state has _extra_state, which the network makes by itself ",
        ),
        (
            {"target": "nets.Keeps", "arguments": {"kind": "sparse"}},
            "its state has kept, a sparse or quantized tensor, which no file can hold; make it in the const",
        ),
        (
            {"target": "nets.Keeps", "arguments": {"kind": "complex"}},
            "its state has kept, a tensor of complex128, which no file can hold",
        ),
        (
            {"target": "nets.with_table", "arguments": {"table": {1: "a"}}},
            r"^model\.arguments=.*has names or values that model\.json could not hold; write numbers, texts",
        ),
        ({"target": "nets.Needs"}, "'labels'; let its forward take the images alone"),
        ({"target": "nets.Maker.make"}, "is a method, .*; write a function that calls it"),
        (
            {"target": "nets.usual"},
            r"gives \(2, 1000\); .*; write model\.arguments\.num_classes=10, or call it",
        ),
        ({"target": "nets.needing"}, r"write model\.arguments\.num_classes=10, or call it n_classes"),
        ({"target": "nets.scripted"}, "a TorchScript network, .*; let it return the network as it is before"),
        ({"target": "nets.double"}, r"has weights in float64; .*network\.float\(\)"),
        ({"target": "nets.colour"}, "let it take in_channels and image_size, or write another dataset"),
        ({"target": "nets.one"}, "is one network, and each trial needs a new one; write a function"),
        ({"target": "nets.raises", "arguments": {"width": 3}}, r"nets\.py, line 40: ZeroDivisionError"),
        ({"target": "nets.raises"}, r"^model\.arguments\.width=null: nets\.raises needs it"),
        (
            {"target": "nets.Net", "arguments": {"widht": 3}},
            r"^model\.arguments\.widht=3: .*did you mean width",
        ),
        ({"target": "nets.wide"}, r"^model\.head=null: .*no linear layer.*write model\.head=NAME"),
        ({"target": "nets.Net", "head": "clasifier"}, r"^model\.head=clasifier: .*did you mean classifier"),
        ({"target": "nets.Nett"}, r"nets has no Nett; did you mean nets\.Net\?"),
        ({"target": "net.Net"}, r"there is no module net in .*; did you mean nets\?"),
        ({"target": "nets.three"}, "a value of type int, which cannot be called"),
        ({"target": "nets"}, r"write nets\.FUNCTION"),
        ({"target": "nets.py:Net"}, r"write nets\.Net"),
        ({"target": "syntax.net"}, r"cannot be imported: syntax\.py, line 1: SyntaxError"),
        ({"target": "lacks.net"}, r"lacks\.py, line 1: ModuleNotFoundError: No module named 'no_such_thing'"),
        ({"target": "ends.net"}, r"ends\.py, line 2: it ends the program"),
    ],
)
def test_what_cannot_work_is_one_line(settings: dict[str, Any], said: str, folder: Path) -> None:
    """It names the person's own file and line, or the argument, with what there is instead."""
    (folder / "syntax.py").write_text("def net(:\n")
    (folder / "lacks.py").write_text("import no_such_thing\n")
    (folder / "ends.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(BadInput, match=said) as refused:
        check(of(**settings), 1, 8, 10)
    assert "\n" not in str(refused.value)


def test_a_module_of_another_folder_is_not_taken(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was imported from a working folder before is not that of this one, and the path stays as it is."""
    made("nets.Net")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    (elsewhere / "nets.py").write_text(NETS.replace("width=8", "width=5"))
    first = sys.path[0]
    assert made("nets.Net").body[0].out_channels == 5
    assert sys.path[0] == first


def test_its_code_is_part_of_what_a_run_depends_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another line in it, or in a module that it imports, is another fingerprint."""

    def fingerprint(at: str, constant: int) -> str | None:
        (folder / at).mkdir()
        monkeypatch.chdir(folder / at)
        Path("a.py").write_text("from b import net\n")
        Path("b.py").write_text(f"X = {constant}\ndef net(n_classes):\n    pass\n")
        return custom.fingerprint(of("a.net"))

    assert fingerprint("x", 1) == fingerprint("y", 1) != fingerprint("z", 2)
    assert custom.fingerprint(Model()) is None


def test_an_outline_has_its_stages() -> None:
    """It has values, as a person's code may ask for them, and leaves torch's generator as it was."""
    before = torch.get_rng_state()
    stages = freeze.find_stages(outline(of("nets.Net"), 1, 8, 10))
    assert [stage.name for stage in stages][-1] == "classifier.2 (head)"
    assert torch.equal(before, torch.get_rng_state())


# ------------------------------------------------------------------------------------- on the command line

OWN = ("model=custom", "model.target=nets.Net")


def test_a_command_without_a_target_is_one_line(cli: Cli) -> None:
    """The line says what to write; so for a key that only such a network has."""
    code, error = cli("model=custom")
    assert (code, error.count("\n")) == (2, 1)
    assert "model.target=null: custom needs it; write model.target=package.module.function" in error


@pytest.mark.slow
def test_it_is_searched_and_reproduced_as_printed(folder: Path) -> None:
    """A search over an argument; the printed commands run as they stand, and without --trust are refused."""
    short = ("training.epochs=1", "hydra.sweeper.n_trials=2", "optimizer.lr=0.01", "study=own")
    printed = sweeper(folder, "-m", *OWN, "model.arguments.width=4,6", *short)
    assert "model.arguments.width = " in printed
    trial = folder / "outputs" / "own" / "best" / "trial.yaml"
    assert re.search(r"target: nets\.Net\n  arguments:\n    width: [46]\n", trial.read_text())
    assert "code" in json.loads((trial.parent / "environment.json").read_text())
    assert "reproduce own --trust\n" in printed
    assert "--config-dir outputs/own/best --config-name trial --trust training.epochs=50" in printed
    assert "identical: 1 epoch to the last bit" in sweeper(folder, "reproduce", "own", "--trust")
    done = run(folder, "-m", "sweeper", "reproduce", "own")
    assert (done.returncode, done.stdout) == (2, "")
    assert "model.target=nets.Net: a saved run names it" in done.stderr


@pytest.mark.slow
def test_spawned_workers_find_it(folder: Path) -> None:
    """Where workers cannot be forked, they import it from the same folder."""
    (folder / "app.py").write_text(
        "import threading\nfrom sweeper.__main__ import main\n"
        "if __name__ == '__main__':\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n    main()\n"
    )
    short = ("training.epochs=1", "hydra.sweeper.n_trials=2", "study=own", "hydra.sweeper.n_jobs=2")
    whole = "hydra/sweeper/pruner=none"  # else the trial that ends first may prune the other
    done = run(folder, "app.py", "-m", *OWN, "model.arguments.width=4", *short, whole, limit_s=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "spawned" in done.stdout
    assert "2 done, 0 pruned, 0 failed" in done.stdout
