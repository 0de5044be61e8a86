"""``python -m sweeper``: trains once, searches with ``-m``, or runs a verb (describe, best, reproduce, …)."""

from __future__ import annotations

import argparse
import os
import sys

from sweeper.errors import BadInput
from sweeper.fault import Fault

VERBS = ("describe", "best", "reproduce", "dashboard", "cache")


def main() -> None:
    """The command line. Bad input ends with one line and exit code 2."""
    try:
        if len(sys.argv) > 1 and sys.argv[1] in VERBS:
            sys.exit(run_verb(sys.argv[1:]))
        from sweeper.commands import train

        train.run_app(sys.argv[1:])
    except (BadInput, Fault) as error:
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
        from sweeper.commands import describe

        describe.show(options.overrides)
        return 0
    if options.verb == "best":
        from sweeper.commands import best

        best.show(options.study)
        return 0
    if options.verb == "reproduce":
        from sweeper.commands.reproduce import reproduce

        return reproduce(options.study, options.trial)
    if options.verb == "cache":
        from sweeper.commands import cache

        cache.clear() if options.clear else cache.show()
        return 0
    from sweeper.commands import dashboard

    dashboard.serve(options.port, options.storage)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sweeper")
    verbs = parser.add_subparsers(dest="verb", required=True)
    study = {"nargs": "?", "metavar": "STUDY", "help": "a name or a folder; default: the newest"}

    def verb(name: str, does: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")

    describe = verb("describe", "say what a command would do, before it is run")
    describe.add_argument("-m", "--multirun", action="store_true", help="may be there; changes nothing")
    describe.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="those of the command")
    best = verb("best", "print the best trial of a study")
    best.add_argument("study", **study)  # type: ignore[arg-type]
    again = verb("reproduce", "train the best trial again and compare epoch by epoch")
    again.add_argument("study", **study)  # type: ignore[arg-type]
    again.add_argument("--trial", type=int, metavar="N", help="another trial than the best")
    dashboard = verb("dashboard", "browse all studies in optuna-dashboard")
    dashboard.add_argument("--port", type=int, default=8080, help="at 127.0.0.1; default: %(default)s")
    dashboard.add_argument("--storage", metavar="URL", help="default: the journal under outputs/")
    cache = verb("cache", "list the decoded images and features that are kept on disk")
    cache.add_argument("--clear", action="store_true", help="remove them all")
    return parser


if __name__ == "__main__":
    main()
