"""What a worker of an archive does: one image after the other, through the plain engine's code."""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hymunet.data.remote import fetched, is_url
from hymunet.errors import HyMUNetError, NoRoomError
from hymunet.inference.archive.storage import Storage
from hymunet.inference.archive.work_list import Entry, as_entry
from hymunet.inference.job import Job, segment_case
from hymunet.inference.outputs import stored_values, targets_of

if TYPE_CHECKING:
    import pyarrow

    from hymunet.inference.predictor import Predictor


class Worker:
    """Holds a model and segments images. Whatever goes wrong with one becomes its outcome.

    Args:
        job: The options.
        output: A folder that all machines see, or an address.
        digests: Of the model files, as the command has found them.
    """

    def __init__(self, job: Job, output: str, digests: list[str]) -> None:
        self._job, self._output, self._digests = job, output, digests
        # made with the first image, so that what is wrong with it reaches the user as an outcome
        self._predictor: Predictor | None = None
        self._storage: Storage | None = None

    def __call__(self, batch: "pyarrow.Table") -> "pyarrow.Table":
        """Columns `number` and `entry` (JSON) -> `number` and `outcome` (JSON)."""
        import pyarrow as pa

        outcomes = [json.dumps(self.outcome(as_entry(text))) for text in batch["entry"].to_pylist()]
        return pa.table({"number": batch["number"], "outcome": pa.array(outcomes, pa.string())})

    def outcome(self, entry: Entry) -> dict[str, Any]:
        """`status` done with `measurements` and `suspect`; failed with a `reason`; or stopped, with
        a reason that holds for every image."""
        try:
            predictor, storage = self._ready()
        except HyMUNetError as error:
            return {"status": "stopped", "reason": str(error)}
        begun = time.perf_counter()
        try:
            if is_url(entry.files[0]):
                with fetched(entry.files) as files:
                    outcome = self._segment(entry, files, predictor, storage)
            else:
                files = [Path(file) for file in entry.files]
                outcome = self._segment(entry, files, predictor, storage)
        except NoRoomError as error:
            return {"status": "stopped", "reason": str(error)}
        except HyMUNetError as error:
            return {"status": "failed", "reason": str(error)}
        except MemoryError:
            return {"status": "failed", "reason": "not enough memory"}
        except Exception as error:  # a defect of ours must not stop a million others
            reason = f"unexpected {type(error).__name__}: {error}; please report it"
            return {"status": "failed", "reason": reason}
        return outcome | {"seconds": time.perf_counter() - begun}

    def _ready(self) -> "tuple[Predictor, Storage]":
        if self._predictor is None or self._storage is None:
            if self._job.model_digests() != self._digests:
                raise HyMUNetError(
                    "a model file differs between the machines; all must find the same one under "
                    f"{', '.join(map(str, self._job.models))}"
                )
            self._storage = Storage(self._output)
            self._predictor = self._job.predictor()
        return self._predictor, self._storage

    def _segment(
        self, entry: Entry, files: list[Path], predictor: "Predictor", storage: Storage
    ) -> dict[str, Any]:
        case, job = entry.case(files), self._job
        values = stored_values(predictor.info, predictor.config.num_labels)
        try:
            if storage.local is not None:
                storage.make(entry.below)
                targets = targets_of(
                    case, storage.local, predictor.config, job.probability, job.overlay
                )
                segmented = segment_case(predictor, case, targets, values)
            else:
                with TemporaryDirectory(prefix="hymunet-") as folder:
                    here = Path(folder)
                    targets = targets_of(case, here, predictor.config, job.probability, job.overlay)
                    targets.mask.parent.mkdir(parents=True, exist_ok=True)
                    segmented = segment_case(predictor, case, targets, values)
                    for file in targets.all():
                        storage.write(file.relative_to(here).as_posix(), file.read_bytes())
        except HyMUNetError as error:
            # files that were fetched lie in a folder whose name says nothing
            text = str(error)
            for file, given in zip(files, entry.files, strict=True):
                text = text.replace(str(file), given)
            raise type(error)(text) from error
        return {
            "status": "done",
            "measurements": segmented.measurements,
            "suspect": segmented.suspect,
        }
