"""Workers on Ray: rows of a work list stream through them by Ray Data, outcomes stream back.

Ray Data starts the workers, hands them blocks of rows as they become free, and starts a worker
anew that has died. Only names and measurements travel; pixels stay in the worker that reads them.
A block whose worker dies is dropped here, not repeated without end as Ray does by default: the
caller sees which images have not come back, and decides.
"""

import json
import logging
import math
import os
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import ExitStack, redirect_stdout
from types import TracebackType
from typing import Any

from hymunet.errors import HyMUNetError
from hymunet.inference.archive.worker import Worker
from hymunet.inference.job import Job

_STORE_BYTES = 128 * 2**20  # names and measurements need little; Ray would take 30 % of the memory
_THREADS_SECONDS = 10.0  # for Ray Data's threads to end


class RayPool:
    """Ray for the time of a `with` block.

    Args:
        job: The options; with device None, workers take GPUs where the cluster has some.
        output: A folder that all machines see, or an address.
        workers: Processes that segment; None: one a GPU, else one a processor.
        address: Of a cluster; None: Ray on this machine, started here and ended with the block.

    Raises:
        HyMUNetError: If Ray cannot be started or reached, or the cluster is too small.
    """

    def __init__(
        self, job: Job, output: str, workers: int | None = None, address: str | None = None
    ) -> None:
        self._job, self._output = job, output
        self._digests = job.model_digests()
        self.workers = workers
        self._address = address
        self._resources: dict[str, float] = {"num_cpus": 1}
        self._quiet = ExitStack()

    def __enter__(self) -> "RayPool":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
        from ray.data import DataContext

        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self._address is None:
                cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
                ray.init(
                    address="local",
                    num_cpus=self.workers or cores,
                    object_store_memory=_STORE_BYTES,
                    include_dashboard=False,
                    **quiet,
                )
            else:
                ray.init(address=self._address, **quiet)
        except Exception as error:  # of many kinds: sockets, versions, a cluster that is not there
            place = "on this machine" if self._address is None else f"at {self._address}"
            raise HyMUNetError(
                f"Ray cannot be used {place}: {error}; `ray status` shows a cluster"
            ) from error
        try:
            self._size_up(ray.cluster_resources())
        except HyMUNetError:
            ray.shutdown()
            raise
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # see above
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        # Ray prints there what its logs hold too (a worker died); with --json it is the result's
        self._quiet.enter_context(redirect_stdout(self._quiet.enter_context(open(os.devnull, "w"))))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import ray

        ray.shutdown()
        self._quiet.close()

    def _size_up(self, cluster: dict[str, float]) -> None:
        """Decides how many workers there are and what each takes of the cluster."""
        cores, gpus = int(cluster.get("CPU", 0)), int(cluster.get("GPU", 0))
        device = self._job.device
        if device is not None and device.startswith("cuda") and not gpus:
            raise HyMUNetError("the Ray cluster has no GPU; leave --device out to use processors")
        on_gpu = gpus > 0 and (device is None or device.startswith("cuda"))
        self.workers = self.workers or (gpus if on_gpu else cores)
        if self.workers < 1:
            raise HyMUNetError(
                f"--workers must be at least 1, and the Ray cluster has {cores} processors"
            )
        # shares where workers are more: one waits for a store, or decodes, while another computes
        self._resources["num_cpus"] = 1 / math.ceil(self.workers / max(cores, 1))
        if on_gpu:
            self._resources["num_gpus"] = 1 / math.ceil(self.workers / gpus)

    def outcomes(
        self, rows: Sequence[tuple[int, str]], block: int
    ) -> Generator[tuple[int, dict[str, Any]], None, None]:
        """Segments images; yields numbers and outcomes as they come, in any order. Images whose
        worker died do not come back. To be closed before the pool is, also after an error.

        Args:
            rows: Numbers and JSON of entries.
            block: How many go to a worker, and come back from it, together.

        Raises:
            HyMUNetError: If Ray fails as a whole.
        """
        import pyarrow as pa
        import ray
        import ray.data
        from ray.util.annotations import RayDeprecationWarning

        numbers = pa.array([row[0] for row in rows], pa.int64())
        whole = pa.table({"number": numbers, "entry": pa.array([row[1] for row in rows])})
        blocks = [whole.slice(begin, block) for begin in range(0, len(rows), block)]
        pool = ray.data.ActorPoolStrategy(
            size=min(self.workers or 1, len(blocks)),
            # one at work and one waiting; a lone image waits with none, whose worker may die
            max_tasks_in_flight_per_actor=1 if block == 1 else 2,
        )
        with warnings.catch_warnings():
            # Ray has no other way yet to say how often a task is repeated
            warnings.simplefilter("ignore", RayDeprecationWarning)
            dataset = ray.data.from_arrow(blocks).map_batches(
                Worker,
                fn_constructor_args=(self._job, self._output, self._digests),
                batch_format="pyarrow",
                batch_size=None,
                compute=pool,
                max_restarts=-1,
                max_task_retries=0,
                **self._resources,
            )
        before = set(threading.enumerate())
        batches = iter(
            dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        )
        try:
            for batch in batches:
                texts = batch["outcome"].to_pylist()
                yield from zip(batch["number"].to_pylist(), map(json.loads, texts), strict=True)
        except ray.exceptions.RayError as error:
            raise HyMUNetError(
                f"Ray failed: {error}; what is done is kept: the same command goes on"
            ) from error
        finally:
            # a thread of Ray Data that outlives Ray's end ends this process without a word
            close = getattr(batches, "close", None)
            if close is not None:
                close()
            for thread in set(threading.enumerate()) - before:
                if thread.name == "iter_threaded":  # another one waits for ever, and does no harm
                    thread.join(_THREADS_SECONDS)
