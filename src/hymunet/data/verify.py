"""What is wrong with a data set, before an hour of training says so.

Each check looks at the rows of `hymunet.data.survey` and answers with findings: an error stops
`train`, a warning is repeated in its report, a note is worth knowing.
"""

from collections.abc import Sequence

from hymunet.data import verify_copies, verify_images, verify_masks
from hymunet.data.case import Dataset
from hymunet.data.findings import LEVELS, Check, Finding
from hymunet.data.survey import CaseSurvey

_CHECKS: tuple[Check, ...] = (
    verify_images.kinds,
    verify_images.spacing,
    verify_masks.labels,
    verify_masks.areas,
    verify_images.intensities,
    verify_copies.copies,
    verify_copies.patients,
)


def verify(
    dataset: Dataset, rows: Sequence[CaseSurvey], structures: int | None = None
) -> list[Finding]:
    """All findings, errors first.

    Args:
        dataset: The data set.
        rows: What `survey` saw of its cases.
        structures: Structures that are to be segmented, the background not counted; None: what the
            data set says, else what its masks hold.
    """
    findings = list(verify_images.unreadable(dataset, rows, structures))
    usable = [row for row in rows if row.problem is None]
    if usable:
        findings += [f for check in _CHECKS for f in check(dataset, usable, structures)]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
