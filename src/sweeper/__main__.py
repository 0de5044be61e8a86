"""``sweeper``: trains once, searches with ``-m``, or runs a verb (describe, best, studies, certify, …)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

_on_ctrl_c = signal.getsignal(signal.SIGINT)
if _on_ctrl_c is signal.default_int_handler:  # else it is ignored, as in the background
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while this is imported: no traceback

# ruff: noqa: E402
import click
from click.shell_completion import shell_complete

from sweeper import caller, limit
from sweeper.caller import Ended, Failed
from sweeper.commands import completion, page
from sweeper.errors import BadInput
from sweeper.fault import find_told
from sweeper.program import TRUST, program, storage_option, typed_besides

if TYPE_CHECKING:
    from sweeper.commands.arrival import Source

signal.signal(signal.SIGINT, _on_ctrl_c)


def main() -> None:
    """The command line. Bad input ends with one line and exit code 2."""
    _open_closed_streams()
    caller.meet()
    try:
        if instruction := os.environ.get(completion.VARIABLE):  # from a shell, by Tab
            sys.exit(shell_complete(verbs, {}, "sweeper", completion.VARIABLE, instruction))
        sys.exit(_run(page.with_verb(verbs, sys.argv[1:])))
    except click.UsageError as error:
        caller.print_last(page.in_one_line(error))
        caller.say_error(page.bad_usage(error))
        sys.exit(BadInput.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Ended as end:
        caller.say_error(end.told)
        raise
    except Failed as failed:  # in a process of its own, which has printed more
        caller.say_error(failed)
        caller.print_last(str(failed))
        sys.exit(failed.exit_code)
    except Exception as error:
        told = find_told(error)
        caller.say_error(told or error)
        if told is None:
            raise
        caller.print_last(str(told))
        sys.exit(told.exit_code)


def _open_closed_streams() -> None:
    """Let what a caller has closed (``>&-``) lead nowhere: else a file of ours would get its number."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115


def _run(arguments: list[str]) -> int:
    """The exit code of a verb; its exceptions pass, where click's own ``main`` would handle some."""
    try:
        with verbs.make_context(program(), arguments) as context:
            return verbs.invoke(context) or 0
    except click.exceptions.Exit as exit_:  # --help and --version
        return exit_.exit_code


@click.group(cls=page.Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    *("--version", "show_version"),
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=page.show_version,
    help="Show the versions and exit.",
)
def verbs() -> None:
    """Hyperparameter search for image classifiers, with Hydra and Optuna."""


def _study(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("study", required=False, shell_complete=completion.studies)(function)


def _overrides(function: Callable[..., Any]) -> Callable[..., Any]:
    argument = click.argument(
        "overrides", nargs=-1, callback=page.check_words, shell_complete=completion.overrides
    )
    return argument(function)


_TRUST = click.option(
    TRUST, is_flag=True, help="A saved run may import the network of one's own that it names."
)


def _storage(what: str, required: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option that names a storage; what is wrong with that is then told of it, and not of the key."""

    def note(context: click.Context, option: click.Parameter, url: str | None) -> str | None:
        storage_option[:] = ["--storage"] if url else []
        return url

    return click.option("--storage", metavar="URL", required=required, callback=note, help=what)


_SOURCE = [
    _storage("Where the study is, if this machine has no folder of it."),
    click.option(
        "--artifacts", metavar="PLACE", help="Where its weights are; default: as the search had it."
    ),
    click.option("--yes", is_flag=True, help="Download however much it is, without asking."),
]


def _from_elsewhere(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a verb that reads a study which another machine may have trained, as its ``source``."""

    @wraps(function)
    def call(storage: str | None, artifacts: str | None, yes: bool, **rest: Any) -> Any:
        from sweeper.commands.arrival import Source

        return function(**rest, source=Source(storage, artifacts, yes))

    for option in reversed(_SOURCE):
        call = option(call)
    return call


_FOLDER = click.Path(file_okay=False)
_CONFIG = [
    click.option("-cd", "--config-dir", type=_FOLDER, help="More config files, from this folder."),
    click.option("-cn", "--config-name", metavar="NAME", help="Another main config, as a saved trial."),
]
_INFO = click.Choice(["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"])
_HYDRAS = [
    # What `--help` shows of Hydra's own options, and those that it leaves to --hydra-help.
    click.option("-m", "--multirun", is_flag=True, help="Search, instead of training once."),
    click.option("-c", "--cfg", type=click.Choice(["job", "hydra", "all"]), help="Show all keys instead."),
    click.option("-p", "--package", metavar="KEY", help="With --cfg: only this part."),
    click.option("--resolve", is_flag=True, help="With --cfg: with interpolations filled in."),
    *_CONFIG,
    _TRUST,
    click.option(
        "-i",
        "--info",
        type=_INFO,
        metavar="WHAT",
        is_flag=False,
        flag_value="all",
        help="What Hydra composes it of.",
    ),
    click.option("--hydra-help", is_flag=True, help="Hydra's own help."),
    click.option("-cp", "--config-path", type=_FOLDER, hidden=True),
    click.option("-r", "--run", is_flag=True, hidden=True),
    click.option("-sc", "--shell-completion", is_flag=True, hidden=True),
    click.option("--experimental-rerun", hidden=True),
]


@verbs.command()
@_overrides
def train(overrides: tuple[str, ...], trust: bool, **hydras: Any) -> None:
    """Train once; with -m, search.

    An override is KEY=VALUE or GROUP=OPTION. The verb may be left out where an override or an option follows.
    """
    from sweeper.commands import train

    if sys.argv[1:2] == ["train"]:  # Hydra reads the rest
        del sys.argv[1]
    storage_option.clear()
    typed_besides[:] = [TRUST] if trust else []
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in typed_besides]
    train.run_app(sys.argv[1:], trust)


for _option in _HYDRAS:
    _option(train)


@verbs.command()
@click.option("-m", "--multirun", is_flag=True, help="Accepted, but changes nothing.")
@_overrides
def describe(overrides: tuple[str, ...], multirun: bool, trust: bool, **config: str | None) -> None:
    """Say what a command would do, before it is run.

    The overrides are those of the command.
    """
    from sweeper.commands import describe

    given = [(f"--{name.replace('_', '-')}", value) for name, value in config.items() if value is not None]
    describe.show([*chain.from_iterable(given), *overrides], trust)


for _option in [*_CONFIG, _TRUST]:
    _option(describe)


@verbs.command()
@_storage("Only those of this storage.")
@click.option("--delete", metavar="STUDY", shell_complete=completion.studies, help="Remove a study.")
@click.option("--yes", is_flag=True, help="With --delete: do not ask.")
def studies(storage: str | None, delete: str | None, yes: bool) -> None:
    """List all studies, or delete one."""
    from sweeper.commands import studies

    studies.show(storage) if delete is None else studies.delete(delete, storage, yes)


@verbs.command()
@_study
@_from_elsewhere
def best(study: str | None, source: Source) -> None:
    """Print the best trial of a study.

    STUDY is a name or a folder; default: the newest.
    """
    from sweeper.commands import best

    best.show(study, source)


@verbs.command()
@click.argument("studies", nargs=-1, metavar="[STUDY]...", shell_complete=completion.studies)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(),
    help="Default: report.html in the study's folder, of several in outputs/.",
)
@click.option("--no-images", is_flag=True, help="Without pictures of the data.")
@click.option("--open", "opens", is_flag=True, help="Open it in the browser.")
@_from_elsewhere
def report(studies: tuple[str, ...], out: str | None, no_images: bool, opens: bool, source: Source) -> None:
    """Write a report of a study, or of several side by side, as one HTML file.

    STUDY is a name or a folder; default: the newest. The file needs no network. A search writes it at
    its end; while one runs, this shows how far it is.
    """
    from sweeper.commands import report

    report.show(studies, out, with_images=not no_images, opens=opens, source=source)


@verbs.command()
@_study
@click.option(
    "--top",
    type=click.IntRange(1, limit.MAX_AGAIN),
    metavar="N",
    help="Certify the N best trials; default: 5, of several objectives the first of the Pareto front.",
)
@click.option(
    "--seeds",
    type=click.IntRange(2, limit.MAX_AGAIN),
    metavar="N",
    help="Train each N times; what is saved when one drops out goes to the others, if it may tell them apart."
    " Default: 5.",
)
@click.option(
    "--folds",
    type=click.IntRange(2, limit.MAX_FOLDS),
    metavar="K",
    help="Train over K folds of the train and validation parts instead; the test part stays closed.",
)
@click.option(
    "--baseline/--no-baseline",
    default=None,
    help="Train the defaults too, as they run without a search, or leave them out. Default: train them.",
)
@click.option(
    "--choose", is_flag=True, help="Make the cheapest of those about as good the study's best/; test it once."
)
@_TRUST
@_from_elsewhere
def certify(
    study: str | None,
    top: int | None,
    seeds: int | None,
    folds: int | None,
    baseline: bool | None,
    choose: bool,
    trust: bool,
    source: Source,
) -> int:
    """Train the best trials again, and say how good they are and who is not worse.

    STUDY is a name or a folder; default: the newest. Each is trained with new seeds, side by side with the
    defaults; one that is shown to be worse drops out, and it ends early where more trainings would hardly
    tell those left apart. The same command goes on where it was stopped, and with other numbers it goes on to
    those. The trainings are a study of their own, STUDY-certificate.
    """
    from sweeper.commands import certify
    from sweeper.commands.certification.wish import Wish

    wish = Wish(top, seeds, folds, baseline)
    return certify.certify(study, wish, choose, trust, source)


@verbs.command()
@_study
@click.option(
    "--format",
    type=click.Choice(["onnx", "pt2", "safetensors"]),
    required=True,
    help="onnx: for onnxruntime; pt2: for torch.export.load; safetensors: for sweeper alone.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(),
    help="Default: named after the study, in the working folder.",
)
@_TRUST
@_from_elsewhere
def export(study: str | None, format: str, out: str | None, trust: bool, source: Source) -> None:
    """Write the best model of a study as one file.

    STUDY is a name or a folder, also that of a run or a model; default: the newest study. It is compared with
    PyTorch before it is written. onnx and pt2 take decoded pictures of any size and give probabilities; they
    need nothing of sweeper.
    """
    from sweeper.commands import export

    export.show(study, format, out, trust, source)


@verbs.command()
@_study
@click.option("--trial", type=int, metavar="N", help="Another trial than the best.")
@_TRUST
@_from_elsewhere
def reproduce(study: str | None, trial: int | None, trust: bool, source: Source) -> int:
    """Train the best trial again, and compare epoch by epoch.

    STUDY is a name or a folder, also of a single run; default: the newest study.
    """
    from sweeper.commands.reproduce import reproduce

    return reproduce(study, trial, trust, source)


@verbs.command()
@click.argument("study", shell_complete=completion.studies)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE",
    type=click.Path(),
    help="Write a CSV file instead; - is standard output.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tell the N likeliest classes; default: one, in a CSV file all.",
)
@click.option(
    "--device", metavar="NAME", default="auto", show_default=True, help="As of torch; auto: a GPU, if any."
)
@_TRUST
@_from_elsewhere
def predict(
    study: str,
    paths: tuple[str, ...],
    csv_file: str | None,
    top: int | None,
    device: str,
    trust: bool,
    source: Source,
) -> int:
    """Say what pictures show.

    STUDY is a name or a folder, also of a single run, of a copied model, or a model.safetensors. PATH is a
    picture, or a folder: all pictures below it. Those that cannot be read are named, and the exit code is 1.
    """
    from sweeper.commands import predict

    return predict.show(study, paths, csv_file, top, device, trust, source)


@verbs.command()
@click.option("--port", type=int, default=8080, show_default=True, help="At 127.0.0.1.")
@_study
@_from_elsewhere
def dashboard(port: int, study: str | None, source: Source) -> None:
    """Browse all studies in optuna-dashboard.

    With STUDY, a name or a folder, those of its storage, which the folder remembers.
    """
    from sweeper.commands import dashboard

    dashboard.serve(port, study, source)


@verbs.command()
@_study
@_storage("Another storage; default: the journal under outputs/.")
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; 0.0.0.0: at all addresses of this machine.",
)
@click.option("--port", type=int, default=13000, show_default=True, help="Of that address.")
def serve(study: str | None, storage: str | None, host: str, port: int) -> None:
    """Let other machines search, by a port of this one.

    They write hydra.sweeper.storage=grpc://HOST:PORT, and need no database nor shared folder. With STUDY, a
    name or a folder, its storage is served. There is no password: keep the port to machines that you trust.
    """
    from sweeper.commands import serve

    serve.serve(study, storage, host, port)


@verbs.command()
@_study
@_storage("Where it goes: a URL, or the path of a journal.", required=True)
def move(study: str | None, storage: str) -> None:
    """Let a study go on in another storage.

    So what one machine has begun, many go on with. Its trials keep their numbers and files, its certificate
    goes along, and the folder remembers the new storage. STUDY is a name or a folder; default: the newest.
    """
    from sweeper.commands import move

    move.move(study, storage)


@verbs.command()
@_study
@click.option(
    "--keep-top",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    metavar="N",
    help="Trials that keep all.",
)
def clean(study: str | None, keep_top: int) -> None:
    """Give back the disk space of a study, and keep its record.

    Weights of trials that are not among the best go; configs, histories, results and best/ stay. STUDY is a
    name or a folder; default: the newest.
    """
    from sweeper.commands import clean

    clean.clean(study, keep_top)


@verbs.command()
@click.option("--clear", is_flag=True, help="Remove them all.")
def cache(clear: bool) -> None:
    """List the decoded images and features that are kept on disk."""
    from sweeper.commands import cache

    cache.clear() if clear else cache.show()


@verbs.command(name="completion")
@click.argument("shell", required=False, metavar="[SHELL]", type=click.Choice(list(completion.SHELLS)))
@click.option("--remove", is_flag=True, help="Undo it.")
def install_completion(shell: str | None, remove: bool) -> None:
    """Let the shell complete verbs, groups, options and keys.

    SHELL is bash, zsh or fish; default: the one in which this is typed.
    """
    completion.remove(shell) if remove else completion.install(shell)


if __name__ == "__main__":
    main()
