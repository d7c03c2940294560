"""Groups of cases that their names tell: images of one patient, slides of one block."""

import re
from dataclasses import replace

from hymunet.data.case import Dataset
from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError
from hymunet.wording import plural


def grouped_by_name(dataset: Dataset, pattern: str | None) -> Dataset:
    """The data set with a group for each case: what `pattern` finds in its id, the first pair of
    parentheses if there is one (`(P\\d+)_` in P012_slice3 is P012).

    Args:
        dataset: Its cases; groups that it names itself are replaced.
        pattern: A regular expression; None: the data set as it is.

    Raises:
        HyMUNetError: If it is no regular expression, or finds nothing in some id.
    """
    if pattern is None:
        return dataset
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise HyMUNetError(
            f"--groups {pattern!r} is no regular expression ({error}); expected one that finds the "
            "patient in a case's name, such as '^[^_]+' for what stands before the first _"
        ) from error
    found = {case.id: expression.search(case.id) for case in dataset.cases}
    without = [id_ for id_, match in found.items() if match is None]
    if without:
        raise HyMUNetError(
            f"--groups {pattern!r} finds nothing in {len(without)} of {len(found)} names "
            f"({listed(without, 3)}); expected a group in each"
        )
    names = {id_: match[1 if expression.groups else 0] for id_, match in found.items() if match}
    cases = tuple(replace(case, group=names[case.id]) for case in dataset.cases)
    note = f"{plural(len(set(names.values())), 'group')} by --groups {pattern}"
    return replace(dataset, cases=cases, notes=(*dataset.notes, note))
