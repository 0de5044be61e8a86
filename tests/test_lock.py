"""Locks that end with their process."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sweeper.lock import Heartbeat, is_alive, is_locked, locked, locked_on_machine, why_locks_are_local
from tests.program import end, run, start_holding, until

HOLD = """
import sys
from pathlib import Path
from sweeper.lock import locked
with locked(Path(sys.argv[1])):
    print("ready", flush=True)
    input()
"""

TAKE = """
import sys
from pathlib import Path
from sweeper.lock import locked
print("ready", flush=True)
with locked(Path(sys.argv[1])):
    Path(sys.argv[2]).write_text("taken")
"""


def test_a_lock_keeps_others_out_until_it_is_left(tmp_path: Path) -> None:
    """A second process enters when the first has left, not before."""
    holder = start_holding(HOLD, tmp_path / "lock")
    taker = start_holding(TAKE, tmp_path / "lock", tmp_path / "mark")
    assert not (tmp_path / "mark").exists()
    assert taker.poll() is None
    end(holder)
    end(taker)
    assert (tmp_path / "mark").exists()


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    """SIGKILL of a process frees its lock at once."""
    holder = start_holding(HOLD, tmp_path / "lock")
    holder.kill()
    with locked(tmp_path / "lock"):
        holder.communicate()


FORK_INSIDE = """
import os, sys
from pathlib import Path
from sweeper.lock import locked
read, write = os.pipe()
with locked(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # lives on with everything it inherited, until the parent lets it go
        os._exit(0)
print("ready", flush=True)
input()
os.close(write)
os.waitpid(child, 0)
"""


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    """A process that was forked while the lock was held (a data loader's) does not keep it."""
    parent = start_holding(FORK_INSIDE, tmp_path / "lock")
    end(start_holding(TAKE, tmp_path / "lock", tmp_path / "mark"))
    assert parent.poll() is None
    end(parent)


TAKE_AND_HOLD = """
import sys
from pathlib import Path
from sweeper.lock import locked
print("ready", flush=True)
with locked(Path(sys.argv[1])):
    print("taken", flush=True)
    input()
"""


def is_waited_for(path: Path) -> bool:
    """Whether somebody waits for the lock of a file."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    inode = f":{path.stat().st_ino}"
    return any("->" in words and any(word.endswith(inode) for word in words) for words in lines)


def test_whoever_waited_for_a_lock_that_was_removed_holds_the_next(tmp_path: Path) -> None:
    """A study is deleted, with its lock, by the process that holds it: who waited keeps others out."""
    with locked(tmp_path / "lock"):
        taker = start_holding(TAKE_AND_HOLD, tmp_path / "lock")
        until(lambda: is_waited_for(tmp_path / "lock"))
        (tmp_path / "lock").unlink()
    assert taker.stdout is not None
    assert taker.stdout.readline() == "taken\n"
    assert is_locked(tmp_path / "lock")
    end(taker)


def test_a_lock_of_the_machine_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that want it at once have it one by one, though each removes its file."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    inside: list[int] = []

    def go_in(number: int) -> bool:
        with locked_on_machine("key"):
            inside.append(number)
            os.sched_yield()
            return inside.pop() == number and not inside

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(go_in, range(100)))
    assert list(tmp_path.iterdir()) == []


LIVE = """
import sys
from pathlib import Path
from sweeper.lock import Heartbeat
sign = Heartbeat(Path(sys.argv[1]), "worker")
print("ready", flush=True)
input()
sign.end()
"""

LIVE_WITH_CHILD = """
import os, sys
from pathlib import Path
from sweeper.lock import Heartbeat
sign = Heartbeat(Path(sys.argv[1]), "worker")
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.close(write)
    os.read(0, 1)  # outlives its parent, until this test closes the pipe
    os._exit(0)
print("ready", flush=True)
os.read(read, 1)
"""


def test_a_worker_is_alive_until_it_is_killed(tmp_path: Path) -> None:
    """Others see a worker alive exactly as long as its process lives, also after they asked."""
    worker = start_holding(LIVE, tmp_path)
    assert [is_alive(tmp_path, "worker") for _ in range(3)] == [True] * 3
    worker.kill()
    worker.communicate()
    assert not is_alive(tmp_path, "worker")


def test_a_child_that_outlives_a_worker_is_no_sign_of_life(tmp_path: Path) -> None:
    """A worker that was killed is dead, even if a process that it forked still runs."""
    worker = start_holding(LIVE_WITH_CHILD, tmp_path)
    assert is_alive(tmp_path, "worker")
    worker.kill()
    worker.wait()
    assert not is_alive(tmp_path, "worker")
    worker.communicate()


def test_a_worker_that_ended_leaves_nothing(tmp_path: Path) -> None:
    """The end of a worker removes its file; one that never lived is not alive."""
    worker = start_holding(LIVE, tmp_path)
    end(worker)
    assert not is_alive(tmp_path, "worker")
    assert not is_alive(tmp_path / "nowhere", "worker")
    assert list(tmp_path.iterdir()) == []


def test_a_name_can_be_used_again(tmp_path: Path) -> None:
    """A new heartbeat over the file of a dead worker shows life."""
    worker = start_holding(LIVE, tmp_path)
    worker.kill()
    worker.communicate()
    sign = Heartbeat(tmp_path, "worker")
    ask = "import sys; from pathlib import Path; from sweeper.lock import is_alive; "
    ask += "print(is_alive(Path(sys.argv[1]), 'worker'))"
    done = run(tmp_path, "-c", ask, tmp_path)
    sign.end()
    assert done.stdout == "True\n"


MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:40 / /home rw,relatime shared:2 - nfs4 head:/home rw,vers=4.2,local_lock=none,addr=10.0.0.1
23 21 0:41 / /old rw,relatime shared:3 - nfs head:/old rw,vers=3,nolock,local_lock=all
24 21 0:42 / /scratch rw,localflock shared:4 - lustre 10.0.0.2@tcp:/s rw
25 22 0:43 / /home/ann/my\040files rw - fuse.sshfs ann@head: rw
26 21 0:44 / /mnt rw master:5 - cifs //nas/share rw,vers=3.1.1,nobrl
"""


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/tmp/a", None),
        ("/home/ann/outputs/studies.journal", None),
        ("/old/outputs", "/old is nfs with local_lock=all: its locks hold on one machine only"),
        ("/scratch/x", "/scratch is lustre with localflock: its locks hold on one machine only"),
        ("/home/ann/my files/x", "/home/ann/my files is fuse.sshfs: its locks hold on one machine only"),
        ("/mnt/x", "/mnt is cifs with nobrl: its locks hold on one machine only"),
    ],
)
def test_a_mount_says_whether_its_locks_are_shared(tmp_path: Path, path: str, says: str | None) -> None:
    """The options of a file system of several machines that keep its locks to one of them are known."""
    (tmp_path / "mountinfo").write_text(MOUNTS.lstrip())
    assert why_locks_are_local(Path(path), str(tmp_path / "mountinfo")) == says
    assert why_locks_are_local(Path("/proc/self")) is None
