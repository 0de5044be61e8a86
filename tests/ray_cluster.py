"""A real Ray cluster of two nodes on this machine, for as long as a test needs it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class RayCluster:
    """A cluster that runs: a head that takes no jobs, and nodes that do."""

    cluster: Any
    nodes: list[Any]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def remove(self, number: int) -> None:
        """Take a node away, as a machine that goes down."""
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)


@contextmanager
def ray_cluster(n_nodes: int = 2, n_cpus: int = 1) -> Iterator[RayCluster]:
    """Start it, and stop it; skips the test where Ray is not installed."""
    pytest.importorskip("ray", reason='needs Ray (pip install "sweeper[ray]")')
    from ray.cluster_utils import Cluster

    # The paths of its sockets must be short; and Ray writes to ray/ in this folder, but does not make it.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        Path(folder, "ray").mkdir()
        patch.setenv("RAY_TMPDIR", folder)
        memory: dict[str, Any] = {
            "object_store_memory": 80_000_000,
            "include_dashboard": False,
            "temp_dir": folder,
        }
        cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
        try:
            nodes = [cluster.add_node(num_cpus=n_cpus, **memory) for _ in range(n_nodes)]
            cluster.wait_for_nodes()
            yield RayCluster(cluster, nodes)
        finally:
            cluster.shutdown()
