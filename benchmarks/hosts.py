"""Hosts that meet every misfortune by chance: killed, stopped for longer than the grace, the server away.

    python benchmarks/hosts.py 20
    python benchmarks/hosts.py 20 --storage proxy     # or journal, which is never away
    python benchmarks/hosts.py 1 --seed 7         # again: its plan is the same, its timing is not

Each round is a study of 30 trials on a PostgreSQL server, behind a proxy of it, or in a journal that all see,
with three hosts of their own names and folders (it needs root). After it exactly 30 are finished, none twice,
and nothing is left open: else the round is told.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.program import finish, kill_group, until
from tests.server import Journal, Postgres, Proxy, postgres_server
from tests.test_many_hosts import Hosts, assert_spent

NAMES = ("a", "b", "c")
LIMIT_S = 180.0


EVENTS = ("kill", "stop", "server", "ctrl-c")


def play(seed: int, server: Postgres | Proxy | Journal) -> str:
    """One round; gives what happened, in a line."""
    random = Random(seed)
    server.start()
    kinds = [kind for kind in EVENTS if kind != "server" or not isinstance(server, Journal)]
    events: list[str] = []
    with TemporaryDirectory(prefix="hosts-") as folder:
        hosts = Hosts(Path(folder), server)
        running = {
            name: hosts.start(name, f"hydra.sweeper.n_jobs={random.choice((1, 2, 3))}") for name in NAMES
        }
        try:
            hosts.go()
            for n_ended in sorted(random.sample(range(1, 28), k=random.choice((1, 2, 3)))):
                until(lambda n=n_ended: len(hosts.log("ended")) >= n, LIMIT_S)  # type: ignore[misc]
                name, event = random.choice(NAMES), random.choice(kinds)
                events.append(f"{event} {name} at {n_ended}")
                process = running[name]
                if event == "kill":
                    kill_group(process)
                    running[name] = hosts.start(name)
                elif event == "ctrl-c":
                    kill_group(process, signal.SIGINT)
                    finish(process, LIMIT_S)
                    running[name] = hosts.start(name)
                elif event == "stop":
                    kill_group(process, signal.SIGSTOP)
                    time.sleep(random.choice((1, 5)))
                    kill_group(process, signal.SIGCONT)
                else:
                    stop(server, random)
                    time.sleep(random.choice((1, 5)))
                    server.start()
            for process in running.values():
                done = finish(process, LIMIT_S)
                assert done.returncode == 0, done.stdout + done.stderr
                assert "Traceback" not in done.stderr, done.stderr
            assert_spent(hosts)
            trials = hosts.trials()
            n_surplus = sum(bool(t.user_attrs.get("surplus")) for t in trials)
            told = Counter(t.state.name.lower() for t in trials)
            return f"{', '.join(events)}: {dict(told)}, {n_surplus} of them surplus"
        finally:
            hosts.end()


def stop(server: Postgres | Proxy | Journal, random: Random) -> None:
    if isinstance(server, Postgres):
        server.stop(random.choice(("fast", "immediate")))
    else:
        server.stop()


@contextmanager
def new_server(kind: str, postgres: Postgres, folder: Path) -> Iterator[Postgres | Proxy | Journal]:
    """One without a study."""
    if kind == "journal":
        yield Journal(folder / "studies.journal")
        return
    postgres.start()
    postgres.empty()
    if kind == "postgresql":
        yield postgres
        return
    proxy = Proxy(folder, postgres.url)
    try:
        yield proxy
    finally:
        proxy.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", choices=["postgresql", "proxy", "journal"], default="postgresql")
    options = parser.parse_args()
    n_wrong = 0
    with postgres_server() as postgres:
        for seed in range(options.seed, options.seed + options.rounds):
            begun = time.monotonic()
            try:
                with (
                    TemporaryDirectory(prefix="server-") as folder,
                    new_server(options.storage, postgres, Path(folder)) as server,
                ):
                    told = play(seed, server)
            except AssertionError as error:
                n_wrong += 1
                told = f"WRONG: {error}"
            print(f"{seed}: {told} ({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"{options.rounds - n_wrong} of {options.rounds} rounds were exact.")
    raise SystemExit(n_wrong > 0)


if __name__ == "__main__":
    main()
