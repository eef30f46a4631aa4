"""The workers of a cohort: processes of this machine, or a scheduler that somebody has started.

Whoever can talk to a dask scheduler can run code on it. So the local one listens on the loopback
interface alone, and its processes know each other by certificates that are made for the occasion
(with ``cryptography`` installed): other users of the machine cannot talk to it either.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import HeatmapError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
CONNECT_S = 20.0
WORKERS_S = 120.0
"""Seconds until the first worker must be there; one of a batch system may wait in a queue."""
GRACE_S = 0.5
"""Seconds that a process has for its end."""
CONFIG = {
    # A worker holds the slide it works on and no other: if it dies, no other is suspected.
    "distributed.scheduler.worker-saturation": 1.0,
    # It asks for the frames of all threads, by which Python 3.11 can lock itself up for ever while
    # a thread ends (gh-106883), as threads of a run do.
    "distributed.worker.profile.enabled": False,
}
GPU = "GPU"
"""Resource of workers that have one: a slide at a time is worked on with it."""


@dataclass(frozen=True)
class Crew:
    """A connected client, and what is to be said about its workers."""

    client: Any
    address: str
    dashboard: str | None
    local: bool

    @property
    def threads(self) -> dict[str, int]:
        """Address of each worker, and how many tasks it takes at a time."""
        return dict(self.client.nthreads())

    @property
    def resources(self) -> dict[str, float] | None:
        """What a task needs: a GPU, if there is a worker that is said to have one."""
        found = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return {GPU: 1} if any(GPU in worker["resources"] for worker in found) else None

    @property
    def line(self) -> str:
        """Address, workers and threads, for people."""
        threads = self.threads
        told = _counted(len(threads), "worker"), _counted(sum(threads.values()), "thread")
        shown = f"scheduler {self.address}: {', '.join(told)}"
        gpus = "" if self.resources is None else ", by GPU"
        return shown + gpus + (f"; dashboard {self.dashboard}" if self.dashboard else "")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@contextmanager
def hired(
    workers: int | None = None,
    *,
    processes: bool = True,
    scheduler: str | None = None,
    dashboard_port: int | None = None,
    device: str = "auto",
    most: int | None = None,
) -> Iterator[Crew]:
    """Start workers on this machine, or connect to a scheduler; let go of them at the end.

    Parameters
    ----------
    workers : int, optional
        How many to start; by default one a GPU, else one for two cores.
    processes : bool
        False: threads of this process.
    scheduler : str, optional
        Address such as ``tcp://node:8786``; then nothing is started.
    dashboard_port : int, optional
        On the loopback interface; None: a free one.
    device : str
        "cpu" leaves GPUs out of account.
    most : int, optional
        Start no more than these.

    Raises
    ------
    HeatmapError
        If dask.distributed is missing, or there is no scheduler, or no worker comes.
    """
    with ExitStack() as stack:
        if scheduler is None:
            gpus = 0 if device == "cpu" else _gpus()
            number = workers or default_workers(gpus)
            number = number if most is None else min(number, most)
            cluster = _local(number, processes, dashboard_port, gpus)
            stack.callback(_dismiss, cluster)
            client = _client(cluster)
        else:
            client = _client(scheduler)
        stack.callback(client.close)
        _wait_for_workers(client, scheduler)
        dashboard = client.dashboard_link if importlib.util.find_spec("bokeh") else None
        if dashboard_port and dashboard is None:
            dashboard = "needs bokeh: pip install bokeh"
        yield Crew(client, client.scheduler.address, dashboard, scheduler is None)


def default_workers(gpus: int = 0) -> int:
    """One a GPU, else one for two cores, and two where there are two."""
    cores = os.cpu_count() or 1
    return gpus or max(min(2, cores), cores // 2)


def threads_of_model(workers: int) -> int:
    """Threads of torch in each of several workers that share the cores."""
    return max(1, (os.cpu_count() or 1) // workers)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def distributed() -> Any:
    """Import dask.distributed.

    Raises
    ------
    HeatmapError
        Saying how it is installed.
    """
    try:
        import distributed
    except ImportError as error:
        what = f"cohorts need dask.distributed: {error}"
        raise HeatmapError(what, do="pip install 'napari-wsi-heatmap[cluster]'") from error
    return distributed


def _local(workers: int, processes: bool, port: int | None, gpus: int) -> Any:
    """A scheduler and its workers on this machine."""
    import dask

    known = distributed()
    security = _security(known) if processes else None
    protocol = "inproc://" if not processes else "tls://" if security else "tcp://"
    common: dict[str, Any] = {"protocol": protocol, "security": security}
    if processes:
        common["host"] = LOOPBACK
    scheduler = common | {"port": 0, "dashboard_address": f"{LOOPBACK}:{port or 0}"}
    worker = common | {
        "nthreads": 1,
        "memory_limit": 0,  # the engine has bounds of its own
        "dashboard_address": f"{LOOPBACK}:0",  # else it might listen everywhere
        "silence_logs": logging.ERROR,
    }
    kind = known.Nanny if processes else known.Worker
    specs = {
        i: {"cls": kind, "options": worker | _gpu_options(i, gpus, processes)}
        for i in range(workers)
    }
    with dask.config.set(CONFIG):
        return known.SpecCluster(
            scheduler={"cls": known.Scheduler, "options": scheduler},
            workers=specs,
            security=security,
            silence_logs=logging.ERROR,
            name=f"napari-wsi-heatmap-{os.getpid()}",
        )


def _dismiss(cluster: Any) -> None:
    """End workers and scheduler; a process that is in the middle of a slide waits for nothing.

    What it has written is safe, and dask would give it five seconds for the rest.
    """
    nannies = [worker for worker in cluster.workers.values() if hasattr(worker, "kill")]

    async def end() -> None:
        for nanny in nannies:
            nanny.close_gracefully()  # else it would start another process
        await asyncio.gather(*(nanny.kill(timeout=GRACE_S) for nanny in nannies))

    try:
        cluster.sync(end)
    finally:
        cluster.close()


def _gpu_options(number: int, gpus: int, processes: bool) -> dict[str, Any]:
    """Give a worker one GPU for itself, and tag it with that."""
    if not gpus:
        return {}
    visible = (os.environ.get("CUDA_VISIBLE_DEVICES") or "").split(",")
    names = [name for name in visible if name] or [str(i) for i in range(gpus)]
    own = {"env": {"CUDA_VISIBLE_DEVICES": names[number % len(names)]}} if processes else {}
    return {"resources": {GPU: 1}, **own}


def _security(known: Any) -> Any:
    if importlib.util.find_spec("cryptography") is None:
        return None
    return known.Security.temporary()


def _client(where: Any) -> Any:
    known = distributed()
    try:
        return known.Client(where, set_as_default=False, timeout=CONNECT_S)
    except (OSError, ValueError, ImportError) as error:
        what = f"no scheduler answers: {one_line(error, 150)}"
        do = "give an address such as tcp://node:8786, and see that it can be reached from here"
        raise HeatmapError(what, where, do) from error


def _wait_for_workers(client: Any, scheduler: str | None) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKERS_S)
    except TimeoutError as error:
        what = f"no worker came within {WORKERS_S:g} s"
        do = "see that workers are started, and that they find the scheduler"
        raise HeatmapError(what, scheduler or "this machine", do) from error
