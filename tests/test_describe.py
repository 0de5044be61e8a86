"""describe: says what a command would do, and what it says is what the command does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper import saved, schema
from sweeper.__main__ import main
from sweeper.training.model import build
from tests import program
from tests.pictures import write_classes, write_picture

Describe = Callable[..., "Said"]
RESNET = ("model=resnet18", "dataset=digits", "dataset.image_size=32")


class Said:
    """What was printed, and the rows of its tables by their first cell."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.rows: dict[str, list[str]] = {}
        for line in text.splitlines():
            if line.startswith(("│", "┃")):
                first, *cells = (cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│"))
                self.rows.setdefault(first, cells)

    def section(self, title: str) -> Said:
        """The table below a title."""
        return Said(self.text.partition(f"{title}\n")[2].partition("\n\n")[0])


@pytest.fixture
def describe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Describe:
    """Runs the verb in an empty folder, which stays as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*overrides: str) -> Said:
        before = set(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["sweeper", "describe", *overrides])
        with pytest.raises(SystemExit, match=r"^0$"):
            main()
        assert set(tmp_path.rglob("*")) == before
        return Said(capsys.readouterr().out)

    return run


def n_parameters(model: schema.Model, *shape: int, part: str = "") -> str:
    """How many the network that trains has, or a part of it."""
    named = build(model, *shape).named_parameters()
    return f"{sum(p.numel() for name, p in named if name.startswith(part)):,}"


# --- the networks -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_stage_has_its_parameters_and_what_trains_under_each_freezing(describe: Describe) -> None:
    """Sizes are the real network's; rates are the ranges of each option, times the factor of the stage."""
    said = describe("freezing=head,last_block,gradual,full", *RESNET)

    real = schema.Model(source="torchvision", name="resnet18")
    stages = {name: f"body.{name}" for name in ("layer1", "layer2", "layer3", "layer4")} | {"head": "head"}
    for stage, part in stages.items():
        assert said.rows[stage][0] == n_parameters(real, 3, 32, 10, part=part)
    assert said.rows["stage"] == ["parameters", "head", "last_block", "gradual", "full"]
    low = "lr 1e-6 … 1e-5"
    assert said.rows["conv1"][1:] == ["frozen", "frozen", f"from epoch 11, {low}", f"from epoch 1, {low}"]
    assert said.rows["layer3"][1:] == ["frozen", "frozen", f"from epoch 5, {low}", f"from epoch 1, {low}"]
    last = "from epoch 1, lr 1e-5 … 1e-3"
    assert said.rows["layer4"][1:] == ["frozen", last, f"from epoch 3, {low}", f"from epoch 1, {low}"]
    high = "from epoch 1, lr 1e-4 … 1e-3"
    assert said.rows["head"][1:] == [high, "from epoch 1, lr 1e-4 … 1e-2", high, high]
    whole = n_parameters(real, 3, 32, 10)
    assert said.rows["total"] == [whole, "5,130 train", "8,398,858 train", f"{whole} train", f"{whole} train"]


def test_a_plain_run_is_described_too(describe: Describe) -> None:
    """Without any override: the default network, and what -m would search."""
    said = describe()

    assert said.rows["features.0"] == ["160", "from epoch 1, lr 1e-4 … 1e-2"]
    total = n_parameters(schema.Model(), 1, 8, 10)
    assert said.rows["total"] == [total, f"{total} train"]
    assert "nothing is swept in the command" in said.text
    assert said.rows["optimizer.lr"] == ["1e-4 … 1e-2, log"]
    assert said.text.endswith("\nSearch:    sweeper -m\n")


def test_a_fixed_rate_is_a_number_for_each_stage(describe: Describe) -> None:
    """With stage_lr_decay each stage has its own, and the head its factor."""
    said = describe(
        "freezing=full",
        *RESNET,
        "optimizer.lr=1e-3",
        "optimizer.stage_lr_decay=0.5",
        "optimizer.head_lr_factor=20",
    )

    cells = [said.rows[stage][1] for stage in ("conv1", "layer1", "layer3", "layer4", "head")]
    assert cells == [f"from epoch 1, lr {lr}" for lr in ("6.25e-5", "1.25e-4", "5e-4", "1e-3", "0.02")]


def test_factors_that_are_searched_widen_the_range(describe: Describe) -> None:
    """The ends of rate and factors are multiplied, whether they are intervals or choices."""
    said = describe(
        "freezing=full",
        *RESNET,
        "optimizer.lr=1e-5,1e-3",
        "optimizer.head_lr_factor=interval(2,10)",
        "optimizer.stage_lr_decay=interval(0.1,1)",
    )

    assert said.rows["layer4"][1] == "from epoch 1, lr 1e-5 … 1e-3"
    assert said.rows["layer3"][1] == "from epoch 1, lr 1e-6 … 1e-3"
    assert said.rows["head"][1] == "from epoch 1, lr 2e-5 … 1e-2"


def test_a_stage_that_unfreezes_too_late_never_trains(describe: Describe) -> None:
    """Where training ends before a stage's turn, it is frozen, and does not count."""
    said = describe("freezing=gradual", *RESNET, "training.epochs=6", "freezing.every=3")

    assert said.rows["layer3"][1] == "frozen, epoch 7 > 6"
    assert said.rows["layer4"][1].startswith("from epoch 4, ")
    assert said.rows["total"][1] == "8,398,858 train"


def test_a_searched_pace_of_unfreezing_has_a_column_for_each(describe: Describe) -> None:
    """freezing.every as a sweep: the columns say which."""
    said = describe("freezing=gradual", *RESNET, "freezing.every=1,3")

    assert said.rows["stage"][1:] == ["gradual, every 1", "gradual, every 3"]
    assert [cell.split(",")[0] for cell in said.rows["layer3"][1:]] == ["from epoch 3", "from epoch 7"]


@pytest.mark.slow
def test_each_model_has_its_table(describe: Describe) -> None:
    """Networks of different names have titles of their own, and all freezing options."""
    said = describe("model=resnet18,mobilenet_v3_small", "freezing=head,full", "dataset.image_size=32")

    for name in ("resnet18", "mobilenet_v3_small"):
        section = said.section(f"Network {name}")
        size = n_parameters(schema.Model(source="torchvision", name=name), 3, 32, 10)
        assert section.rows["total"][0] == size
        assert section.rows["stage"] == ["parameters", "head", "full"]


def test_networks_of_one_name_say_what_differs(describe: Describe) -> None:
    """What changes their stages is in the title; what does not, as dropout and activation, makes no table."""
    said = describe("model.kernel_size=3,5", "model.activation=relu,leaky_relu")

    assert said.text.count("Network cnn") == 2
    for kernel_size in (3, 5):
        section = said.section(f"Network cnn, model.kernel_size={kernel_size}")
        assert section.rows["total"][0] == n_parameters(schema.Model(kernel_size=kernel_size), 1, 8, 10)


# --- the space ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ranges_and_the_options_that_they_belong_to(describe: Describe) -> None:
    """Optuna's names; a range that only some options bring says which, whatever else is chosen."""
    said = describe("freezing=none,head,full", "optimizer=adam,sgd,rmsprop", "model=resnet18")

    rows = said.section("Search space").rows
    assert rows["freezing"] == ["none, head, full", ""]
    assert rows["optimizer.lr"] == ["1e-4 … 1e-2, log", "freezing=none"]
    assert rows["optimizer.lr[freezing=head]"] == ["1e-4 … 1e-3, log", "freezing=head"]
    assert rows["optimizer.lr[freezing=full]"] == ["1e-6 … 1e-5, log", "freezing=full"]
    assert rows["optimizer.momentum"] == ["0.8 … 0.99", "optimizer=sgd,rmsprop"]
    assert rows["training.batch_size[freezing=head]"] == ["16, 32, 64", "freezing=head"]
    assert rows["model.dropout"] == ["0.3 … 0.5", ""]


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ("scheduler.step_size=range(2,11,4)", "2 … 10, integers, step 4"),
        ("scheduler.step_size=int(interval(1,9))", "1 … 9, integers"),
        ("scheduler.gamma=range(0.1,0.7,0.1)", "0.1 … 0.6, step 0.1"),
        ("scheduler.gamma=interval(0.123456,0.5)", "0.123456 … 0.5"),
        ("scheduler.gamma=0.1,0.00025", "0.1, 0.00025"),
    ],
)
def test_a_range_is_readable(describe: Describe, sweep: str, told: str) -> None:
    """Both ends included, its kind and its step."""
    assert describe("scheduler=step", sweep).rows[sweep.partition("=")[0]] == [told]


def test_budget_sampler_pruner_and_objective(describe: Describe) -> None:
    """As the overrides have them."""
    said = describe(
        "objective=[val_loss,seconds]",
        "hydra/sweeper/pruner=none",
        "hydra/sweeper/sampler=random",
        "hydra.sweeper.n_trials=1234",
        "hydra.sweeper.timeout_s=60",
    )

    rows = said.section("Search").rows
    assert rows["objective"] == ["val_loss (minimize), seconds (minimize)"]
    assert rows["budget"] == ["1,234 trials, none started after 60 s"]
    assert (rows["sampler"], rows["pruner"]) == (["random"], ["none"])


def test_everything_may_be_fixed(describe: Describe) -> None:
    """Nothing is left to search, and it says so."""
    keys = ("optimizer.lr=0.1", "optimizer.weight_decay=0", "training.batch_size=16", "model.dropout=0")
    said = describe(*keys, "optimizer=adam")
    assert "Search space: everything is fixed" in said.text
    assert said.rows["head"][1] == "from epoch 1, lr 0.1"


# --- what it begins with ------------------------------------------------------------------------------------


def test_device_workers_and_data(describe: Describe) -> None:
    """The device by torch's name, the workers that would start, the images of each part."""
    said = describe("device=cpu", "hydra.sweeper.n_jobs=3")

    assert said.rows["device"][0].startswith("cpu: ")
    assert said.rows["device"][0].endswith(("core", "cores"))
    assert said.rows["workers"] == ["3 (hydra.sweeper.n_jobs=3)"]
    assert said.rows["data"] == ["digits, 1,797 images: 1,078 train, 360 val, 359 test"]
    assert said.rows[""] == ["10 classes; 8×8 pixels, 1 channel"]
    assert said.rows["weights"] == ["random"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("hydra.sweeper.n_jobs=8",),
            "8 jobs of hydra/launcher=joblib, a worker for each GPU or core that it gives",
        ),
        (("hydra.sweeper.workers_per_job=2",), "1 job of hydra/launcher=joblib, 2 workers each"),
    ],
)
def test_workers_of_jobs(describe: Describe, words: tuple[str, ...], told: str) -> None:
    """With a launcher n_jobs is the number of jobs, also where there are more than trials."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    assert describe("hydra/launcher=joblib", "hydra.sweeper.n_trials=6", *words).rows["workers"] == [told]


def test_what_no_job_of_a_launcher_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused as the search refuses it."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.chdir(tmp_path)
    words = ["hydra/launcher=joblib", "hydra.sweeper.in_process=true", "hydra.sweeper.n_jobs=1"]
    monkeypatch.setattr(sys, "argv", ["sweeper", "describe", *words])
    with pytest.raises(SystemExit, match=r"^2$"):
        main()
    assert "the jobs of hydra/launcher=joblib are processes of their own" in capsys.readouterr().err


def test_data_of_equal_names_and_counts_are_told_apart(describe: Describe, tmp_path: Path) -> None:
    """Two folders that are searched are two, by their paths where their names are the same."""
    for folder in ("a/pets", "b/pets"):
        write_classes(tmp_path / folder, {"cat": 6, "dog": 6})

    said = describe("dataset=image_folder", "dataset.path=a/pets,b/pets", "dataset.image_size=12").text

    assert "image_folder a/pets, 12 images" in said
    assert "image_folder b/pets, 12 images" in said
    assert "image_folder pets, 12" in describe("dataset=image_folder", "dataset.path=a/pets").text


def test_a_key_that_the_data_do_not_read_is_told(describe: Describe) -> None:
    """Who forgets ``dataset=image_folder`` is not shown digits in silence."""
    said = describe("dataset.path=pets").text
    assert "dataset.path=pets is not read with dataset=digits: write dataset=image_folder or" in " ".join(
        said.split()
    )


def test_images_with_several_labels(describe: Describe, tmp_path: Path) -> None:
    """A CSV file with a column for each label, in colour."""
    lines = ["path,red,green"]
    for number in range(12):
        write_picture(tmp_path / f"{number}.png", size=(20 + number, 12))
        lines.append(f"{number}.png,{number % 2},{number // 2 % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))

    said = describe("dataset=csv", "dataset.path=labels.csv", "dataset.image_size=12", "loss=bce_with_logits")

    assert said.rows[""] == ["2 labels, several to an image; 12×12 pixels, 3 channels"]
    assert said.rows["objective"] == ["val_mean_average_precision (maximize)"]


@pytest.mark.slow
def test_weights_are_named_and_not_loaded(
    describe: Describe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an empty cache, pretrained weights are told and nothing is fetched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    said = describe(*RESNET, "freezing=full", "model.weights=DEFAULT,null")
    assert said.rows["weights"] == ["DEFAULT, random"]
    said = describe(*RESNET, "freezing=none", "model.weights=DEFAULT")
    assert said.rows["weights"] == ["random"]


# --- how it looks -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_next_command_is_the_same_with_m(describe: Describe) -> None:
    """Wherever -m stood, and quoted for the shell."""
    overrides = ("optimizer=adam,sgd", "optimizer.lr=interval(1e-3, 1e-2)")
    said = describe(overrides[0], "-m", overrides[1])
    assert said.text.endswith("sweeper -m optimizer=adam,sgd 'optimizer.lr=interval(1e-3, 1e-2)'\n")
    assert said.text == describe(*overrides).text


@pytest.mark.slow
@pytest.mark.parametrize("columns", [None, "100"])
def test_it_is_readable_without_a_terminal(tmp_path: Path, columns: str | None) -> None:
    """No colours; nothing cut, and a line for each row, or what fits the columns that were asked for."""
    command = ("-m", "sweeper", "describe", "freezing=head,last_block,gradual,full", *RESNET)
    done = program.run(tmp_path, *command, env={"COLUMNS": columns or ""})

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    *table, _ = done.stdout.splitlines()
    for whole in ("optimizer.lr[freezing=last_block]", "head, last_block, gradual, full", "11,181,642 train"):
        assert any(whole in line for line in table)
    if columns:
        assert max(map(len, table)) <= int(columns)
        assert any("from epoch 11," in line for line in table)
    else:
        assert any("from epoch 11, lr 1e-6 … 1e-5" in line for line in table)
    assert list(tmp_path.iterdir()) == []


# --- a saved run --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_saved_run_is_described_with_its_changes(
    describe: Describe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its own values, those of another option, and only what is swept."""
    run = schema.Run(optimizer=schema.Optimizer("adam", lr=0.0042))
    folder = tmp_path_factory.mktemp("best")
    (folder / "trial.yaml").write_text(saved.to_yaml(run))
    best = ("--config-dir", str(folder), "--config-name", "trial")
    said = describe(*best)
    assert said.rows["head"][1] == "from epoch 1, lr 4.2e-3"
    assert "everything is fixed" in said.text
    assert said.text.rstrip().endswith(f"-m --config-dir {folder} --config-name trial")
    said = describe(*best, "optimizer=sgd", "training.epochs=5,6")
    assert said.rows["head"][1] == "from epoch 1, lr 1e-3"
    assert set(said.section("Search space").rows) == {"parameter", "training.epochs", "optimizer.momentum"}
