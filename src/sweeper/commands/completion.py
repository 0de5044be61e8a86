"""``sweeper completion``: lets bash, zsh and fish complete verbs, groups, options, keys and studies.

Each shell hands over its line up to the cursor, and gets whole words back. Verbs and their options are
completed by click, overrides by Hydra.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

from sweeper import filesystem, outputs
from sweeper.commands import page
from sweeper.errors import BadInput
from sweeper.fault import disk
from sweeper.program import program

VARIABLE = "_SWEEPER_COMPLETE"
_LINE = "_SWEEPER_LINE"

_BASH = f"""\
_sweeper() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" IFS=$'\\n' i break
    local word="${{line##*[[:space:]]}}"
    COMPREPLY=($({_LINE}="$line" {VARIABLE}=bash_complete "$1" 2>/dev/null))
    for break in = :; do  # readline keeps what stands before these
        if [[ $COMP_WORDBREAKS == *$break* && $word == *$break* ]]; then
            COMPREPLY=("${{COMPREPLY[@]#"${{word%"${{word##*$break}}"}}"}}")
        fi
    done
    for i in "${{COMPREPLY[@]}}"; do
        [[ $i == *[=./] ]] && compopt -o nospace 2>/dev/null
    done
}}
complete -o default -F _sweeper sweeper
"""

_ZSH = f"""\
#compdef sweeper
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
_sweeper() {{
    local line="${{(j: :)words[1,CURRENT-1]}} $PREFIX" item value
    local -a all open whole shown
    all=("${{(@f)$({_LINE}=$line {VARIABLE}=zsh_complete $words[1] 2>/dev/null)}}")
    for item in $all; do
        value=${{item%%$'\\t'*}}
        if [[ $value == *[=./] ]]; then
            open+=($value)
        else
            whole+=($value)
            shown+=("${{item/$'\\t'/  }}")
        fi
    done
    (( $#open )) && compadd -Q -S '' -a open
    (( $#whole )) && compadd -Q -l -d shown -a whole
    (( $#open + $#whole )) || _files
}}
compdef _sweeper sweeper
"""

_FISH = f"""\
function __sweeper
    set -l line (commandline -cp | string collect)
    {_LINE}=$line {VARIABLE}=fish_complete sweeper 2>/dev/null
end
complete -c sweeper -f -a '(__sweeper)'
"""


class _Shell(ShellComplete):
    """A shell that gives its line, and understands a word a line."""

    def source(self) -> str:
        return self.source_template

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ[_LINE]
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        assert isinstance(self.cli, click.Group)
        return page.with_verb(self.cli, words) if words else [], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        return str(item.value)

    def complete(self) -> str:
        args, incomplete = self.get_completion_args()
        items = [item for item in self.get_completions(args, incomplete) if item.type == "plain"]
        return "\n".join(dict.fromkeys(map(self.format_completion, items)))


class _WithHelp(_Shell):
    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.value}\t{item.help}" if item.help else str(item.value)


@add_completion_class
class _Bash(_Shell):
    name = "bash"
    source_template = _BASH


@add_completion_class
class _Zsh(_WithHelp):
    name = "zsh"
    source_template = _ZSH


@add_completion_class
class _Fish(_WithHelp):
    name = "fish"
    source_template = _FISH


SHELLS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


# ------------------------------------------------------------------------------------- what there is to write


def studies(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The studies under ``outputs/``, by their folders: no storage is opened."""
    return [name for name in outputs.study_names() if name.startswith(incomplete)]


def overrides(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Groups, their options, and keys with their values: what Hydra's own completion says of our config, and
    what our keys may be.
    """
    from hydra import initialize_config_dir
    from hydra._internal.core_plugins.bash_completion import BashCompletion
    from hydra.core.global_hydra import GlobalHydra

    from sweeper.conf import VERSION_BASE, composing, conf_folder

    key, equals, value = incomplete.partition("=")
    if equals and key in (known := _known_values()):
        return _with_known(key, value, known[key])
    before, comma, last = value.rpartition(",")  # of a search: adam,sgd
    words = [word for word in ctx.params.get(parameter.name or "") or () if not re.search(r"[,()\s]", word)]
    with composing([]), initialize_config_dir(str(conf_folder()), **VERSION_BASE):
        hydras = BashCompletion(GlobalHydra.instance().config_loader())
        found = hydras._query("config", " ".join([*words, f"{key}{equals}{last}"]))
    return [f"{key}={before},{word.partition('=')[2]}" if comma else word for word in found]


def _known_values() -> dict[str, tuple[str, ...]]:
    """What a key may be, where that can be listed."""
    from sweeper import schema

    options = {key: limit.names for key, limit in schema.LIMITS.items() if limit.names}
    return options | {"objective": tuple(schema.DIRECTIONS), "training.metrics": tuple(schema.METRICS)}


def _with_known(key: str, value: str, names: tuple[str, ...]) -> list[str]:
    """The last name of a value is completed, and a list closed: ``[auroc,ma`` is ``[auroc,macro_f1]``."""
    opens = "[" if key == "training.metrics" and not value.startswith("[") else ""
    before, last = re.fullmatch(r"(.*[\[,])?(.*)", value).groups(default="")  # type: ignore[union-attr]
    closes = "]" if opens or before.startswith("[") else ""
    return [f"{key}={opens}{before}{name}{closes}" for name in names if name.startswith(last)]


# ------------------------------------------------------------------------------------------------- installing


def install(shell: str | None) -> None:
    """Write the shell's script, and a line that reads it into the shell's start-up file; say so.

    Raises:
        BadInput: for a shell that we do not know.
        Fault: for a file that cannot be written.
    """
    shell = shell or _this_shell()
    script, startup = _script(shell), _startup(shell)
    with disk(startup or script):
        filesystem.write_whole(script, SHELLS[shell])
        print(f"Wrote {script}")
        if startup is not None and _line(script) not in (text := _read(startup)):
            with startup.open("a") as file:
                file.write(("" if text.endswith("\n") or not text else "\n") + _line(script))
            print(f"Added to {startup}: {_line(script)}", end="")
    print(f"Begin a new {shell}, and try: sweeper <Tab>")
    print(f"To undo it: {program()} completion {shell} --remove")


def remove(shell: str | None) -> None:
    """Take back what ``install`` did, and say so."""
    shell = shell or _this_shell()
    script, startup = _script(shell), _startup(shell)
    with disk(startup or script):
        if startup is not None and _line(script) in (text := _read(startup)):
            startup = startup.resolve()  # it may be a link into a folder of such files
            with filesystem.whole(startup) as path:
                path.write_text(text.replace(_line(script), ""), errors="surrogateescape")
                shutil.copymode(startup, path)
            print(f"Removed the line from {startup}")
        script.unlink(missing_ok=True)
    print(f"Removed {script}")


def _this_shell() -> str:
    """The shell that started this process; else the person's own."""
    parent = Path(f"/proc/{os.getppid()}/comm")  # on Linux
    names = [parent.read_text().strip()] if parent.exists() else []
    names.append(Path(os.environ.get("SHELL", "")).name)
    for name in names:
        if name in SHELLS:
            return name
    reason = f"is none of {', '.join(SHELLS)}" if names[-1] else "the variable is not set"
    raise BadInput("SHELL", names[-1] or "null", reason, f"write for example {program()} completion bash")


def _script(shell: str) -> Path:
    if shell == "fish":  # which looks there by itself
        return _folder("XDG_CONFIG_HOME", ".config") / "fish" / "completions" / "sweeper.fish"
    return _folder("XDG_DATA_HOME", ".local/share") / "sweeper" / f"completion.{shell}"


def _startup(shell: str) -> Path | None:
    """The file in which the shell must be told of its script."""
    folders = {"bash": Path.home(), "zsh": _folder("ZDOTDIR", "")}
    return folders[shell] / f".{shell}rc" if shell in folders else None


def _line(script: Path) -> str:
    return f"source {shlex.quote(str(script))}  # completion of sweeper\n"


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)


def _read(path: Path) -> str:
    return path.read_text(errors="surrogateescape") if path.exists() else ""
