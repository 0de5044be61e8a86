"""The command line: bad input in one line, and what needs no torch imports none."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from sweeper.__main__ import verbs
from tests.conftest import Cli, Said, mostly_slow
from tests.pictures import write_classes
from tests.program import Done, finish, kill_group, run, start, until

pytestmark = pytest.mark.hydra

BAD_INPUT = [
    # what was written                            the line that answers it
    ("optimizer=adamx", r"^optimizer=adamx: .*write one of adam, adamw, rmsprop, sgd$"),
    ("optimizer.lrr=0.1", r"^optimizer.lrr=0.1: .*did you mean optimizer.lr\?$"),
    ("nonsense=1", r"^nonsense=1: there is no such key"),
    ("optimiser=adam", r"^optimiser=adam: .*did you mean optimizer\?$"),
    ("-m optimiser=adam,sgd", r"^optimiser=adam: .*did you mean optimizer\?$"),
    ("optimizer=adm", r"^optimizer=adm: .*did you mean adam\? write one of adam, adamw, rmsprop, sgd$"),
    ("training.epoch=1", r"^training.epoch=1: .*did you mean training.epochs\?$"),
    ("lr=0.1", r"^lr=0.1: .*did you mean optimizer.lr\?$"),
    ("-m hydra/sweeper/sampler=tp", r"^hydra/sweeper/sampler=tp: .*did you mean tpe\? write one of cmaes, "),
    ("-m hydra/sweeper/smapler=tpe", r"^hydra/sweeper/smapler=tpe: .*did you mean hydra/sweeper/sampler\?$"),
    ("-m hydra/sweeper/sampler=null", r"^hydra/sweeper/sampler=null: .*write one of cmaes, gp, "),
    ("optimizer.name=adm", r"^optimizer.name=adm: .*did you mean adam\? write one of sgd, adam, "),
    ("+optimizer=adam", r"^optimizer=adam: has an option already; write optimizer=adam$"),
    (
        "+optimizer.beta1=0.9",
        r"^optimizer.beta1=0.9: there is no such key, nothing reads it; did you mean optim",
    ),
    ("++training.epoch=1", r"^training.epoch=1: .*nothing reads it; did you mean training.epochs\?$"),
    ("+whatever=1", r"^whatever=1: there is no such key, nothing reads it; leave it out; --cfg job"),
    ("-m +whatever=1,2", r"^whatever=1: there is no such key, nothing reads it"),
    ("-m +whatever=1", r"^whatever=1: there is no such key, nothing reads it"),
    ("-m +hydra.sweeper.params.whatever='interval(0,1)'", r"^whatever=interval\(0,1\): there is no such key"),
    ("describe +whatever=1", r"^whatever=1: there is no such key, nothing reads it"),
    ("-m +hydra.sweeper.n_trial=1", r"^hydra.sweeper.n_trial=1: .*did you mean hydra.sweeper.n_trials\?$"),
    ("+hydra.sweeper.n_trial=1", r"^hydra.sweeper.n_trial=1: .*did you mean hydra.sweeper.n_trials\?$"),
    ("+hydra.nothing=1", r"^hydra.nothing=1: there is no such key"),
    ("-m xx=interval(0,1)", r"^xx=interval\(0,1\): there is no such key"),
    ("hydra.sweeper.n_trials=many", r"^hydra.sweeper.n_trials=many: must be a whole number"),
    ("--config-dir conf experiment=mine", r"^optimizer.beta1=: .*\(in experiment/mine.yaml\); did you mean"),
    ("=1", r"^override==1: has no key; write KEY=VALUE$"),
    ("training.batch_size=0", r"^training.batch_size=0: must be at least 1; .*training.batch_size=32$"),
    ("training.batch_size=many", r"^training.batch_size=many: .*could not be converted to Integer"),
    ("training.epochs=1.5", r"^training.epochs=1.5: .*could not be converted to Integer"),
    ("model.dropout=1.5", r"^model.dropout=1.5: must be at least 0 and below 1; .*model.dropout=0.5$"),
    ("optimizer.lr=-1", r"^optimizer.lr=-1.0: must be greater than 0"),
    ("optimizer.lr=nan", r"^optimizer.lr=nan: must be greater than 0"),
    ("optimizer.momentum=1", r"^optimizer.momentum=1.0: must be at least 0 and below 1"),
    ("model.kernel_size=4", r"^model.kernel_size=4: must be odd .*write 3, 5 or 7$"),
    ("model.filters=3", r"^model.filters=3: "),
    ("model.filters=[]", r"^model.filters=\[\]: must be a list"),
    ("augmentation.crop_scale=[0.9,0.5]", r"^augmentation.crop_scale=\[0.9, 0.5\]: must be two numbers"),
    ("scheduler.gamma=0", r"^scheduler.gamma=0.0: must be greater than 0"),
    ("training.precision=float16", r"^training.precision=float16: .*write one of auto, float32, bfloat16$"),
    ("training.feature_views=-1", r"^training.feature_views=-1: must be at least 0"),
    (
        "objective=test_accuracy",
        r"^objective=test_accuracy: there is no such objective; did you mean val_accuracy\? write one of val",
    ),
    ("device=cuda:7", r"^device=cuda:7: "),
    ("optimizer=adam,sgd", r"^optimizer=adam,sgd: several values need a search; write -m "),
    ("optimizer.lr=interval(0,1)", r"several values need a search"),
    ("dataset=image_folder", r"^dataset.path=null: image_folder needs it"),
    ("dataset=image_folder dataset.path=nowhere", r"^dataset.path=.*nowhere: there is no such folder"),
    ("-m optimizer=adam,adamx", r"^optimizer=adamx: .*write one of adam, adamw, rmsprop, sgd$"),
    ("-m nonsense=1,2", r"^nonsense=1: there is no such key"),
    ("-m training.batch_size=0,32", r"^training.batch_size=0: must be at least 1"),
    ("-m model.dropout=interval(0.1,1.5)", r"^model.dropout=1.5: must be at least 0 and below 1"),
    (
        "-m optimizer.lr=tag(log,interval(0,1))",
        r"^optimizer.lr=tag\(log,interval\(0,1\)\): a logarithm needs",
    ),
    ("-m optimizer.lr=a,b", r"^optimizer.lr=a: .*could not be converted to Float"),
    ("-m optimizer.lr=interval(1", r"^optimizer.lr=interval\(1: no viable alternative .*grammar"),
    ("optimizer.lr=[1", r"^optimizer.lr=\[1: no viable alternative .*grammar"),
    (
        "nonsense",
        r"^VERB=nonsense: is neither a verb nor an override; write KEY=VALUE, or ",
    ),
    ("bests", r"^VERB=bests: there is no such verb; did you mean best\?$"),
    ("-m optimizer=adam decribe", r"^VERB=decribe: there is no such verb; did you mean describe\?$"),
    ("dashbord --port 1", r"^VERB=dashbord: there is no such verb; did you mean dashboard\?$"),
    ("optimizer=adam best", r"^VERB=best: stands behind an override; write sweeper best … instead$"),
    ("-m optimizer=adam, sgd", r"^override=optimizer=adam, sgd: has spaces; write optimizer=adam,sgd$"),
    ("optimizer = adam", r"^override=optimizer =: has spaces; write optimizer=adam$"),
    ("optimizer= adam", r"^override=optimizer= adam: has spaces; write optimizer=adam$"),
    ("model.filters=[8, 9]", r"^override=.*: has spaces; write 'model.filters=\[8,9\]'$"),
    ("~optimizer.lr", r"^~optimizer.lr=: cannot be deleted; leave it out, or write KEY=VALUE$"),
    ("--verson", r"^--verson: there is no such option; did you mean --version\?$"),
    ("--config-name trial", r"^--config-name=trial: there is no trial.yaml; write --config-dir FOLDER"),
    ("--config-dir nowhere --config-name trial", r"^--config-dir=nowhere: there is no such folder; "),
    ("--config-dir conf/experiment --config-name mne", r"^--config-name=mne: .*did you mean mine\?"),
    ("-m optimizer=interval(0,1)", r"^optimizer=interval\(0,1\): is a group of options; write OPTION,OPTION"),
    ("-m objective=[val_acc,seconds]", r"^objective=val_acc: .*did you mean val_accuracy\?"),
    ("-m study=-x", r"^study=-x: begins as an option does"),
    ("optimizer", r"^optimizer=: has no value; write one of adam, adamw, rmsprop, sgd$"),
    ("describe optimizer.lr", r"^optimizer.lr=: has no value; write optimizer.lr=VALUE$"),
    ("--mutlirun", r"^--mutlirun: there is no such option; did you mean --multirun\?$"),
    ("optimizer=adam --zzz", r"^--zzz: there is no such option; sweeper train --help shows what there is$"),
    ("dashboard --prot 80", r"^--prot: there is no such option; did you mean --port\?$"),
    (
        "dashboard --port many",
        r"^Invalid value for '--port': 'many' is not a valid integer; sweeper dash",
    ),
    ("best a b", r"^Got unexpected extra argument \(b\); sweeper best --help shows"),
    ("clean --keep-top -1", r"^Invalid value for '--keep-top': -1 is not in the range x>=0; "),
    ("--cfg jobs", r"^Invalid value for '-c' / '--cfg': 'jobs' is not one of 'job', 'hydra', 'all'; "),
    ("completion tcsh", r"^Invalid value for .*SHELL.*: 'tcsh' is not one of 'bash', 'zsh', 'fish'; "),
    ("hydra.mode=both", r"^hydra.mode=both: Invalid .*RUN.*; .*--cfg hydra shows"),
    ("hydra.searchpath=here", r"^hydra.searchpath=here: .*must be a list"),
    ("-m objective=accuracy", r"^objective=accuracy: there is no such objective"),
    (
        "-m objective=[val_accuracy,seconds] hydra/sweeper/pruner=hyperband",
        r"^hydra/sweeper/pruner=HyperbandPruner: .*pruner=none",
    ),
    (
        "-m hydra/sweeper/pruner=best",
        r"^hydra/sweeper/pruner=best: .*write one of asha, auto, hyperband, median",
    ),
    ("-m hydra.sweeper.n_jobs=0", r"^hydra.sweeper.n_jobs=0: "),
    ("-m hydra.sweeper.jobs=2", r"^hydra.sweeper.jobs=2: there is no such key"),
    (
        "-m hydra.sweeper.storage=sqlite:////dev/null/x.db",
        r"^hydra.sweeper.storage=sqlite:////dev/null/x.db: cannot be",
    ),
    (
        "-m hydra.sweeper.storage=${oc.env:NO_SUCH}",
        r"^hydra.sweeper.storage=\${oc.env:NO_SUCH}: the environment variable NO_SUCH is not set; export",
    ),
    ("-m hydra.sweeper.storage=oracle://x", r"^hydra.sweeper.storage=oracle://x: cannot be opened"),
    (
        "-m loss.class_weights=[1,2]",
        r"^loss.class_weights=\[1, 2\]: .* of the 10 classes",
    ),
    ("loss.class_weights=heavy", r"^loss.class_weights=heavy: there must be a weight"),
    ("dataset.normalization={mean:[a],std:[1]}", r"^dataset.normalization=.*must be numbers"),
    ("-m dataset.normalization=zero,data", r"^dataset.normalization=zero: there is no such option"),
    ("-m device=cuda:9", r"^device=cuda:9: "),
    (
        "-m hydra.sweeper.direction=minimize",
        r"^hydra.sweeper.direction=minimize: .* means maximize",
    ),
    (
        "-m hydra.sweeper.pruner.reduction_factor=1",
        r"reduction_factor=1: .*write 2 or more",
    ),
    (
        "-m loss=bce_with_logits",
        r"^loss=bce_with_logits: the images have one label each; write loss=cross_entropy$",
    ),
    (
        "loss.pos_weight=balanced",
        r"^loss.pos_weight=balanced: loss=cross_entropy has no .*loss=bce_with_logits$",
    ),
    (
        "-m objective=val_f1",
        r"^objective=val_f1: is not measured where images have one label; write one of .*_error$",
    ),
    (
        "-m training.metrics=[auroc,f1]",
        r"^training.metrics=f1: is not measured .*; write one of accuracy, mean",
    ),
    (
        "training.metrics=[macrof1]",
        r"^training.metrics=macrof1: there is no .*did you mean macro_f1\? write one",
    ),
    (
        "training.metrics=[auroc,val_cohen_kapa]",
        r"^training.metrics=val_cohen_kapa: .*did you mean cohen_kappa\?",
    ),
    (
        "training.metrics=auroc",
        r"^training.metrics=auroc: must be a list; write 'training.metrics=\[auroc\]'$",
    ),
    (
        "-m training.metrics=auroc,macro_f1",
        r"^training.metrics=auroc: must be a list; write 'train.*\[auroc\]'$",
    ),
    ("-m objective=val_macrof1", r"^objective=val_macrof1: .*did you mean val_macro_f1\?"),
    ("training.early_stopping.monitor=auroc", r"^training.early_stopping.monitor=auroc: .*mean val_auroc\?"),
    ("training.early_stopping.monitor=val_f1", r"^training.early_stopping.monitor=val_f1: is not measured"),
    ("freezing=gradual freezing.every=null", r"^freezing.every=null: gradual needs it; .*freezing.every=2$"),
    ("-m freezing=gradual freezing.every=0,1", r"^freezing.every=0: must be at least 1"),
    (
        "scheduler=null",
        r"^scheduler=null: there is no such option; write one of cosine, none, ",
    ),
    ("model=18", r"^model=18: there is no such option; write one of cnn, convnext_tiny"),
    ("freezing=true", r"^freezing=true: there is no such option; write one of full"),
    ("-m freezing=none,null", r"^freezing=null: there is no such option; write one of full, gradual"),
    ("describe scheduler=null", r"^scheduler=null: there is no such option"),
    (
        "-m objective=val_accuracy,val_loss",
        r"^objective=several: all trials of a search have the same; ",
    ),
    ("describe objective=val_accuracy,val_loss", r"^objective=several: all trials of a search have the same"),
    (
        "objective=[val_loss,val_loss]",
        r"^objective=\['val_loss', 'val_loss'\]: names one twice; write each",
    ),
    ("dataset.normalization={mean:0.5,std:0.2}", r"^dataset.normalization=.*mean and std must be lists"),
    ("dataset.normalization={mean:[128],std:[60]}", r"^dataset.normalization=.*must be 0 … 1"),
    ("scheduler=cosine scheduler.eta_min=1", r"^scheduler.eta_min=1.0: is above optimizer.lr=0.001"),
    ("freezing=all", r"^freezing=all: .*write one of full, gradual, head, last_block, none$"),
    (
        "model.name=resnet18",
        r"^model.name=resnet18: .*write model=cnn, or model=torchvision model.name=resnet18$",
    ),
    (
        "-m model=torchvision model.name=resnet19",
        r"^model.name=resnet19: torchvision has no .*did you mean resnet18\?.* alexnet, .*wide_resnet50_2$",
    ),
    ("model=vit_b_16 dataset.image_size=30", r"^dataset.image_size=30: .*dataset.image_size=224$"),
    ("-m model=resnet18 model.weights=no.pt", r"^model.weights=.*no.pt: "),
    ("model.weights=no.safetensors", r"^model.weights=.*no.safetensors: "),
    ("model=resnet18 model.weights=IMAGENET", r"^model.weights=IMAGENET: .*IMAGENET1K_V1"),
    ("optimizer.head_lr_factor=0", r"^optimizer.head_lr_factor=0.0: must be greater than 0"),
    ("optimizer.stage_lr_decay=2", r"^optimizer.stage_lr_decay=2.0: must be above 0"),
    ("augmentation.hue=0.7", r"^augmentation.hue=0.7: must be between 0 and 0.5"),
    ("dataset=csv", r"^dataset.path=null: csv needs it; write dataset.path=FILE"),
    ("-m dataset=csv dataset.path=no.csv", r"^dataset.path=.*no.csv: there is no such file"),
    ("dataset=mnist", r"^dataset.root=.*data: mnist is not there; .*dataset.download=true"),
    ("-m dataset=cifar10,cifar100", r"^dataset.root=.*data: cifar10 is not there; .*dataset.download=true"),
    ("dataset=imagenet", r"^dataset=imagenet: .*write one of cifar10, cifar100, csv, digits, fashion_mnist"),
    ("study=", r"^study=: the name of a study is a folder"),
    ("-m study=", r"^study=: the name of a study is a folder"),
    ("-m study=../up", r"^study=../up: the name of a study is a folder"),
    ("-m study=a,b", r"^study=several: a search is one study"),
    ("-m hydra/sweeper/sampler=grid", r"^optimizer.lr=interval\(.*: a grid needs values that can be counted"),
    ("describe optimizer=adamx", r"^optimizer=adamx: .*write one of adam, adamw, rmsprop, sgd$"),
    ("describe optimizer.lrr=0.1", r"^optimizer.lrr=0.1: .*did you mean optimizer.lr\?$"),
    ("describe -m training.batch_size=0,32", r"^training.batch_size=0: must be at least 1"),
    ("describe optimizer.lr=interval(1", r"^optimizer.lr=interval\(1: .*grammar"),
    ("describe study=a,b", r"^study=several: a search is one study"),
    ("describe device=cuda:9", r"^device=cuda:9: "),
    ("describe dataset=image_folder", r"^dataset.path=null: image_folder needs it"),
    ("describe dataset=mnist", r"^dataset.root=data: mnist is not there"),
    ("describe dataset=mnist dataset.download=true", r"^dataset.root=data: .*describe downloads nothing; "),
    ("describe objective=val_f1", r"^objective=val_f1: is not measured where images have one label"),
    ("describe hydra.sweeper.direction=minimize", r"^hydra.sweeper.direction=minimize: .*means maximize; "),
    ("describe hydra/sweeper/sampler=grid", r"^optimizer.lr=interval\(.*: a grid needs values"),
    ("describe model=vit_b_16 dataset.image_size=30", r"^dataset.image_size=30: vit_b_16 cannot take"),
    ("describe model=resnet18 model.weights=V9", r"^model.weights=V9: torchvision has no such weights"),
    ("describe model=resnet18 model.weights=a/b.pt", r"^model.weights=a/b.pt: there is no such file"),
    ("best nowhere", r"^STUDY=nowhere: there is no such study in .*; start one: sweeper -m "),
    ("reproduce nowhere", r"^STUDY=nowhere: there is no such study"),
    ("dashboard", r"^outputs=.*studies.journal: there are no studies yet; run sweeper -m "),
]


@pytest.mark.parametrize(
    ("command", "answer"), mostly_slow(BAD_INPUT, 12), ids=[command for command, _ in BAD_INPUT]
)
def test_bad_input_is_answered_in_one_line(cli: Cli, tmp_path: Path, command: str, answer: str) -> None:
    """Exit code 2, one line with key, value, reason and remedy, no traceback, and nothing written."""
    mine = tmp_path / "conf" / "experiment" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# @package _global_\noptimizer:\n  beta1: 0.5\n")

    code, error = cli(*command.split())

    assert code == 2
    lines = error.strip().splitlines()
    assert len(lines) == 1
    assert len(lines[0]) <= 300
    assert re.search(answer, lines[0]), lines[0]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


@pytest.mark.parametrize("override", ["training.epochs=0", "+whatever=1", "hydra.sweeper.n_trials=many"])
def test_a_refused_run_leaves_nothing(cli: Cli, tmp_path: Path, override: str) -> None:
    """Its folder is never made; an existing one is as it was."""
    folder = tmp_path / "mine"
    folder.mkdir()
    assert cli(override)[0] == 2
    assert cli(override, f"hydra.run.dir={folder}")[0] == 2
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_key_that_an_interpolation_uses_may_be_added(cli: Cli) -> None:
    """``+size=…`` is read where a key says ``${size}``: what is refused then is the value."""
    for arguments in (("+size=2",), ("-m", "+size=2"), ("-m", "+size=2,8"), ("describe", "+size=2")):
        code, error = cli(*arguments, "dataset.image_size=${size}")
        assert code == 2
        assert error.startswith("dataset.image_size=2: must be between 4 and 4096")
    code, error = cli("+name=a/../b", "study=${name}")
    assert error.startswith("study=a/../b: ")


def test_a_corrupt_image_is_named_before_a_search_begins(cli: Cli, tmp_path: Path) -> None:
    """One unreadable file among many stops the search at its start, and the line says which it is."""
    write_classes(tmp_path / "pets", {"cat": 6, "dog": 6})
    (tmp_path / "pets" / "dog" / "torn.png").write_bytes(b"\x89PNG no more")

    code, error = cli("-m", "dataset=image_folder", "dataset.path=pets", "dataset.image_size=12")

    assert code == 2
    assert "torn.png" in error
    assert "dataset.skip_unreadable=true" in error
    assert not (tmp_path / "outputs").exists()


def test_a_dataset_that_is_too_small_to_split_is_refused(cli: Cli, tmp_path: Path) -> None:
    """Where every class has one image, all are trained on, and nothing is left to validate with."""
    write_classes(tmp_path / "pets", {"many": 1, "few": 1})

    code, error = cli("dataset=image_folder", "dataset.path=pets", "dataset.image_size=12")

    assert code == 2
    assert error == f"dataset.path={tmp_path / 'pets'}: of 2 images none is left for val; add images\n"


def run_and_list_imports(folder: Path, arguments: list[str]) -> tuple[set[str], Done]:
    """Which slow libraries the command needed in its own process."""
    program = (
        "import sys, atexit; from sweeper.__main__ import main\n"
        "atexit.register(lambda: print('imported:', *{'torch', 'hydra', 'optuna'} & sys.modules.keys()))\n"
        f"sys.argv[1:] = {arguments!r}\nmain()"
    )
    done = run(folder, "-c", program, limit_s=120)
    *_, last = done.stdout.splitlines() or [""]
    assert last.startswith("imported:"), done.stderr
    return set(last.split()[1:]), done


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["train", "--help"]])
def test_help_imports_nothing_slow(tmp_path: Path, arguments: list[str]) -> None:
    """It is there at once."""
    imported, _ = run_and_list_imports(tmp_path, arguments)
    assert imported == set()


@pytest.mark.parametrize(
    "arguments", [["studies"], ["--cfg", "job"], ["best", "nowhere"], ["cache"], ["cache", "--clear"]]
)
def test_what_trains_nothing_does_not_import_torch(tmp_path: Path, arguments: list[str]) -> None:
    """The verbs that only read start fast."""
    imported, _ = run_and_list_imports(tmp_path, arguments)
    assert "torch" not in imported


@pytest.mark.slow
@pytest.mark.parametrize("test_fraction", [0.2, 0.0])
def test_a_search_imports_torch_once(tmp_path: Path, test_fraction: float) -> None:
    """Its workers share that of their fork server, and the last of them tests the best model, if it can."""
    quick = ["hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2", "training.epochs=1"]
    data = f"dataset.test_fraction={test_fraction}"
    imported, done = run_and_list_imports(tmp_path, ["-m", "optimizer=adam", "study=one", data, *quick])
    assert done.returncode == 0, done.stderr
    assert "torch" not in imported
    assert ("Test accuracy of the best trial: " in done.stdout) == (test_fraction > 0)
    assert "lost" not in done.stdout


OPTIONS = {
    "train": ["-m, --multirun", "-cd, --config-dir"],
    "describe": ["-m, --multirun"],
    "certify": ["--top N", "--seeds N", "--folds K", "--baseline / --no-baseline", "--choose", "--trust"],
    "studies": ["--delete STUDY", "--yes", "--storage URL"],
    "best": [],
    "report": ["--out FILE", "--no-images", "--open"],
    "reproduce": ["--trial N"],
    "predict": ["--csv FILE", "--top N", "--device NAME", "--trust"],
    "export": ["--format", "--out FILE", "--trust"],
    "dashboard": ["--port INTEGER", "--storage URL"],
    "serve": ["--port INTEGER", "--host HOST", "--storage URL"],
    "move": ["--storage URL"],
    "clean": ["--keep-top N"],
    "cache": ["--clear"],
    "completion": ["--remove"],
}


@pytest.mark.parametrize("verb", verbs.commands)
def test_the_help_of_a_verb_lists_its_options(said: Said, verb: str) -> None:
    """Each option of each verb stands on a line of its own."""
    code, shown = said(verb, "--help")
    assert code == 0
    assert f"sweeper {verb}" in shown
    for option in OPTIONS[verb]:
        assert re.search(rf"^ +{re.escape(option)}( |$)", shown, re.MULTILINE), shown


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_shows_what_there_is(said: Said, arguments: list[str]) -> None:
    """Verbs with a line each, then groups with their options, then how to see all keys, then options."""
    code, shown = said(*arguments)
    assert code == 0
    order = [
        *(f"\n  {verb} " for verb in verbs.commands),
        *("\n  optimizer ", " sgd, adam, adamw, rmsprop\n", "--cfg job", "--multirun", "--version"),
    ]
    places = [shown.index(text) for text in order]
    assert places == sorted(places)
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("columns", ["60", "80"])
def test_the_help_breaks_no_word(said: Said, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """On a narrow terminal, too, all is told, in lines that fit."""
    monkeypatch.setenv("COLUMNS", columns)
    _, shown = said("--help")
    assert max(map(len, shown.splitlines())) <= int(columns)
    assert "kept on disk." in " ".join(shown.split())


def test_the_version_names_what_matters_too(said: Said) -> None:
    """One line for a report of a fault."""
    code, shown = said("--version")
    assert code == 0
    assert re.fullmatch(r"sweeper [\d.]+ \(Hydra [\w.]+, Optuna .+, PyTorch .+, Python .+\)\n", shown)


def test_hydras_own_options_pass(said: Said) -> None:
    """With overrides before and after, and with the verb or without."""
    for arguments in (["--cfg", "job"], ["train", "--cfg", "job"], ["-c", "job", "--resolve"]):
        code, shown = said("seed=7", *arguments) if arguments[0] != "train" else said(*arguments, "seed=7")
        assert code == 0
        assert "seed: 7\n" in shown


@pytest.mark.parametrize("module", ["click", "hydra"])
def test_ctrl_c_while_it_starts_shows_no_traceback(tmp_path: Path, module: str) -> None:
    """Whatever is imported just then, a Ctrl-C ends the program silently."""
    (tmp_path / f"{module}.py").write_text(
        "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(60)\n"
    )
    process = start(tmp_path, "-m", "sweeper", "training.epochs=1", env={"PYTHONPATH": str(tmp_path)})
    until((tmp_path / "importing").exists)
    kill_group(process, signal.SIGINT)
    done = finish(process, 10)
    assert done.returncode in (-signal.SIGINT, 130)
    assert done.stdout + done.stderr == ""
