"""One copy of the model, one thread that computes, a bounded queue before it.

Everything that takes time (decoding, the network, the answer's text) happens on this thread, torch
is called from it alone, and so has one set of threads of its own. While it is busy others wait;
what waits is taken together, since several small pictures in one pass cost less than one by one.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hymunet.deploy.answers import as_json, parts_of
from hymunet.deploy.decoding import decode
from hymunet.deploy.limits import Limits
from hymunet.deploy.problems import AbandonedError, RefusedError
from hymunet.errors import HyMUNetError

if TYPE_CHECKING:
    from hymunet.data.image_io import Image
    from hymunet.inference.predictor import Predictor
    from hymunet.inference.together import Prepared

STAGES = ("decode", "queue", "predict", "encode")
_SMALL = 4_000_000  # pixels of pictures that are taken together, in all


@dataclass
class Job:
    """One image to be segmented.

    Args:
        request_id: Ours.
        content: The file's bytes; let go of once they are decoded.
        include: Parts of the answer.
        threshold: None: the model's.
        arrived: `time.perf_counter` at the request's first byte.
        deadline: The same clock, after which nobody waits.
        deliver: Called once, from the engine's thread, with the answer or what went wrong.
        model: The answer's entry on the model.
    """

    request_id: str
    content: bytes
    include: Sequence[str]
    threshold: float | None
    arrived: float
    deadline: float
    deliver: Callable[[bytes | Exception], None]
    model: dict[str, Any]
    abandoned: bool = False
    queued: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Stops work that nobody waits for.

        Raises:
            AbandonedError: If the client has gone or its time is over.
        """
        if self.abandoned or time.perf_counter() > self.deadline:
            raise AbandonedError


class Engine:
    """The thread and its queue.

    Args:
        predictor: The model. From `start` on only the thread uses it.
        limits: Queue, pixels, pictures at a time.
        threads: Threads of torch; None leaves them.
        on_done: Called with each finished job, and the size of its batch.
    """

    def __init__(
        self,
        predictor: "Predictor",
        limits: Limits,
        threads: int | None = None,
        on_done: Callable[[Job, int], None] | None = None,
    ) -> None:
        from hymunet.inference.outputs import stored_values
        from hymunet.inference.together import can_join

        self.predictor = predictor
        self.limits = limits
        self.threads = threads
        self.values = stored_values(predictor.info, predictor.config.num_labels)
        self.joins = can_join(predictor)
        self._on_done = on_done
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._first: Callable[[], object] | None = None
        self._failure: Exception | None = None
        self._ready = threading.Event()
        self._seconds_each = 0.1  # a running mean, for Retry-After
        self._thread = threading.Thread(target=self._work, name="hymunet-engine", daemon=True)

    def start(self, first: Callable[[], object] | None = None) -> None:
        """Starts the thread, and waits while it does `first`, whose errors are raised here."""
        self._first = first
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Finishes what waits, then ends the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def check_room(self) -> None:
        """Refuses a request before its body is read.

        Raises:
            RefusedError: `busy`, with the time after which there should be room.
        """
        if len(self._waiting) >= self.limits.queue:
            raise self.busy(f"{self.limits.queue} requests wait already")

    def busy(self, why: str) -> RefusedError:
        """The refusal of a request that finds no room."""
        seconds = max(1, math.ceil(len(self._waiting) * self._seconds_each))
        return RefusedError("busy", f"{why}; come again in {seconds} s (Retry-After)", seconds)

    def submit(self, job: Job) -> None:
        """Puts a job into the queue.

        Raises:
            RefusedError: `busy`, if it is full.
        """
        with self._changed:
            self.check_room()
            job.queued = time.perf_counter()
            self._waiting.append(job)
            self._changed.notify()

    def _work(self) -> None:
        import torch

        if self.threads is not None:
            torch.set_num_threads(self.threads)  # of this thread's own parallel regions, too
        try:
            if self._first is not None:
                self._first()
        except Exception as error:
            self._failure = error
            return
        finally:
            self._ready.set()
        while True:
            with self._changed:
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                if not self._waiting:
                    return
                first = self._waiting.popleft()
            begun = time.perf_counter()
            count = self._batch(first) if self.joins else self._alone(first)
            each = (time.perf_counter() - begun) / max(1, count)
            self._seconds_each += 0.2 * (each - self._seconds_each)

    def _next(self) -> Job | None:
        with self._changed:
            return self._waiting.popleft() if self._waiting else None

    def _take(self, job: Job) -> "Image | None":
        """The job's image; None, and the job is answered, where there is none to be had."""
        begun = time.perf_counter()
        job.seconds["queue"] = begun - job.queued
        try:
            job.check()
            image = decode(job.content, self.predictor, self.limits.pixels)
        except Exception as error:  # decoders raise whatever broken bytes lead them into
            self._answer(job, error, 1, unexpected="unreadable-image")
            return None
        finally:
            job.content = b""
        job.seconds["decode"] = time.perf_counter() - begun
        return image

    def _alone(self, job: Job) -> int:
        """One image, in windows where the model has them; between two it may be given up."""
        image = self._take(job)
        if image is not None:
            begun = time.perf_counter()
            try:
                prediction = self.predictor(image, lambda _: job.check())
                if job.threshold is not None:
                    prediction = self.predictor.conclude(
                        image, prediction.probability, job.threshold
                    )
                job.seconds["predict"] = time.perf_counter() - begun
                self._answer(job, self._text(job, prediction), 1)
            except Exception as error:
                self._answer(job, error, 1)
        return 1

    def _batch(self, first: Job) -> int:
        """The first job and, of those that wait, as many as fit: all are decoded and made small one
        after the other, go through the network together, and are enlarged one after the other."""
        from hymunet.inference.together import prepare

        jobs: list[tuple[Job, Prepared]] = []
        taken, pixels = 0, 0
        job: Job | None = first
        while job is not None:
            taken += 1
            image = self._take(job)
            if image is not None:
                begun = time.perf_counter()
                try:
                    prepared = prepare(self.predictor, image)
                    jobs.append((job, prepared))
                    pixels += math.prod(prepared.size)
                except Exception as error:
                    self._answer(job, error, 1)
                job.seconds["predict"] = time.perf_counter() - begun
            del image
            full = len(jobs) >= self.limits.batch or pixels >= _SMALL
            job = None if full else self._next()
        self._together(jobs)
        return taken

    def _together(self, jobs: "list[tuple[Job, Prepared]]") -> None:
        from hymunet.inference.together import predict_together

        if not jobs:
            return
        answered = 0
        begun = time.perf_counter()
        try:
            maps = predict_together(self.predictor, [prepared for _, prepared in jobs])
            for (job, prepared), probability in zip(jobs, maps, strict=True):
                prediction = self.predictor.conclude(prepared.image, probability, job.threshold)
                job.seconds["predict"] += time.perf_counter() - begun
                try:
                    answer: bytes | Exception = self._text(job, prediction)
                except Exception as error:
                    answer = error
                answered += 1
                self._answer(job, answer, len(jobs))
                begun = time.perf_counter()
        except Exception as error:
            left = jobs[answered:]
            if len(jobs) == 1:
                self._answer(left[0][0], error, 1)
            else:  # one of them may spoil it for the others
                for one in left:
                    self._together([one])

    def _text(self, job: Job, prediction: Any) -> bytes:
        """The answer's JSON."""
        begun = time.perf_counter()
        parts = parts_of(prediction, self.predictor, self.values, job.include)
        model = job.model
        if job.threshold is not None:
            model = {**model, "threshold": job.threshold}
        head = {"request_id": job.request_id, "model": model, **parts}
        done = time.perf_counter()
        job.seconds["encode"] = done - begun
        timing = {stage: round(1e3 * job.seconds[stage], 2) for stage in STAGES}
        timing["total"] = round(1e3 * (done - job.arrived), 2)
        return as_json({**head, "timing_ms": timing, "research_use_only": True})

    def _answer(
        self, job: Job, answer: bytes | Exception, batch: int, unexpected: str = "internal"
    ) -> None:
        if isinstance(answer, HyMUNetError):
            answer = RefusedError("unreadable-image", str(answer))
        elif isinstance(answer, MemoryError):
            message = "the image does not fit into this server's memory; crop or shrink it"
            answer = RefusedError("too-many-pixels", message)
        elif unexpected != "internal" and not isinstance(
            answer, (bytes, RefusedError, AbandonedError)
        ):
            message = "the image is broken in a way that its decoder did not expect"
            refusal = RefusedError(unexpected, f"{message}; copy or export it again")
            refusal.__cause__ = answer
            answer = refusal
        if self._on_done is not None:
            self._on_done(job, batch)
        job.deliver(answer)
