"""What tells a changed file from the one that was read: its place, size and time."""

import hashlib
import json
from pathlib import Path

from hymunet.data.case import Case
from hymunet.data.dicom_header import files_behind
from hymunet.errors import HyMUNetError


def file_stamps(case: Case) -> list[tuple[str, int, int | str] | None]:
    """A stamp for the label, the valid area (None where there is none) and each channel of a case:
    a place for each file, so that a valid area is never taken for a label.

    Raises:
        HyMUNetError: If a file is gone.
    """
    files = [case.label, case.valid, *case.channels]
    return [None if path is None else _stamp(case, path) for path in files]


def _stamp(case: Case, path: Path) -> tuple[str, int, int | str]:
    try:
        files = [(file.name, file.stat()) for file in files_behind(path)]
    except OSError as error:
        raise HyMUNetError(
            f"case {case.id}: {path} cannot be read ({error.strerror or error}); it was there when "
            "the data were listed: bring it back or mount its disk"
        ) from error
    size = sum(status.st_size for _, status in files)
    if len(files) == 1:
        return str(path.resolve()), size, files[0][1].st_mtime_ns
    # a DICOM series: a slice that came, went or changed makes another image
    names = json.dumps([(name, status.st_size, status.st_mtime_ns) for name, status in files])
    return str(path.resolve()), size, hashlib.sha256(names.encode()).hexdigest()
