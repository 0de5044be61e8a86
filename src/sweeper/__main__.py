"""``python -m sweeper``: trains once, searches with ``-m``, or runs a verb (describe, best, reproduce, …)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sweeper.errors import BadInput, bad_option, bad_override

VERBS = ("describe", "best", "reproduce", "dashboard", "cache")


def main() -> None:
    """The command line. Bad input ends with one line and exit code 2."""
    try:
        if len(sys.argv) > 1 and sys.argv[1] in VERBS:
            sys.exit(run_verb(sys.argv[1:]))
        run_hydra()
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_verb(arguments: list[str]) -> int:
    # argparse wants the overrides in one piece: a -m among them comes last.
    options = _parser().parse_args(sorted(arguments, key=("-m", "--multirun").__contains__))
    if options.verb == "describe":
        with _hydra_app(options.overrides):
            from sweeper.results import describe

            describe.show(options.overrides, conf_folder())
        return 0
    if options.verb == "best":
        from sweeper.results import best

        best.show(options.study)
        return 0
    if options.verb == "reproduce":
        from sweeper.results.reproduce import reproduce

        return reproduce(options.study, options.trial)
    if options.verb == "cache":
        from sweeper.results import cache

        cache.clear() if options.clear else cache.show()
        return 0
    from sweeper.results import dashboard

    dashboard.serve(options.port, options.storage)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sweeper")
    verbs = parser.add_subparsers(dest="verb", required=True)
    study = {"nargs": "?", "metavar": "STUDY", "help": "a name or a folder; default: the newest"}
    describe = verbs.add_parser("describe", help="say what a command would do, before it is run")
    describe.add_argument("-m", "--multirun", action="store_true", help="may be there; changes nothing")
    describe.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="those of the command")
    best = verbs.add_parser("best", help="print the best trial of a study")
    best.add_argument("study", **study)  # type: ignore[arg-type]
    again = verbs.add_parser("reproduce", help="train the best trial again and compare epoch by epoch")
    again.add_argument("study", **study)  # type: ignore[arg-type]
    again.add_argument("--trial", type=int, metavar="N", help="another trial than the best")
    dashboard = verbs.add_parser("dashboard", help="browse all studies in optuna-dashboard")
    dashboard.add_argument("--port", type=int, default=8080)
    dashboard.add_argument("--storage", metavar="URL", help="default: the journal under outputs/")
    cache = verbs.add_parser("cache", help="list the decoded images and features that are kept on disk")
    cache.add_argument("--clear", action="store_true", help="remove them all")
    return parser


def run_hydra() -> None:
    import hydra

    from sweeper import run

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and the error is told in one line below
    application = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(
        run.main
    )
    try:
        with _hydra_app(sys.argv[1:]):
            application()
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        remedy = "run it in a folder that can be written to, or set hydra.run.dir"
        raise BadInput("folder", error.filename, f"cannot be written ({error.strerror})", remedy) from error


@contextmanager
def _hydra_app(overrides: Sequence[str]) -> Iterator[None]:
    """What our config files need is registered with Hydra, and what it refuses is bad input."""
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from sweeper import schema

    ConfigStore.instance().store(name="schema", node=schema.Run)
    OmegaConf.register_new_resolver("direction", schema.direction, replace=True)
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise bad_override(error, overrides, [key for key, _ in schema.flatten(schema.Run())]) from error
    except ValueError as error:
        raise bad_option(error, overrides, _options) from error


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in conf_folder().joinpath(group).glob("*.yaml")) if group else []


def conf_folder() -> Path:
    """``conf/``: within the installed package, or at the top of the checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


if __name__ == "__main__":
    main()
