"""The folds of a data set: which cases they are about, copies together, a test part left alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from hymunet.console import counted, say
from hymunet.data.cache import default_cache_folder
from hymunet.data.case import Dataset
from hymunet.data.case_hash import fingerprints
from hymunet.data.folds import make_folds
from hymunet.data.splits import Split, read_split
from hymunet.data.survey import survey
from hymunet.data.tables import check_table
from hymunet.errors import HyMUNetError
from hymunet.files import make_folder
from hymunet.network.model_file import read_info
from hymunet.training.loading import case_groups
from hymunet.training.options import TrainOptions
from hymunet.wording import plural


def draw_folds(
    dataset: Dataset,
    options: TrainOptions,
    folds: int,
    split_file: Path | None,
    console: Console,
) -> tuple[Split, ...]:
    """The folds of the cases that may be used; their notes, the first apart, say what was left out
    and why.

    Args:
        dataset: All cases.
        options: The seed, and the model of `init`, whose training cases are in train of each fold.
        folds: How many.
        split_file: See `cross_validate`.
        console: Where to report.

    Raises:
        HyMUNetError: If cases cannot be read, or are too few.
    """
    pool, notes = _pool(dataset, split_file)
    cases = [case for case in dataset.cases if case.id in pool]
    with counted(console, "looking at cases", len(cases)) as advance:
        folder = make_folder(default_cache_folder() / "survey")
        rows = survey(replace(dataset, cases=tuple(cases)), folder, advance)
    problems = [f"{row.id}: {row.problem}" for row in rows if row.problem is not None]
    if problems:
        raise HyMUNetError(
            f"{len(problems)} of {plural(len(rows), 'case')} cannot be used:\n  "
            + "\n  ".join(problems[:10])
        )
    prints = [row.sha256 for row in rows]
    groups = join_copies(case_groups(cases), prints)
    trained: frozenset[str] = frozenset()
    if options.init is not None:
        trained = fingerprints((read_info(options.init).get("cases") or {}).get("train"))
    met = {group for group, print_ in zip(groups, prints, strict=True) if print_ in trained}
    old = [case.id for case, group in zip(cases, groups, strict=True) if group in met]
    if old:
        note = (
            f"{plural(len(old), 'case')} that the model of --init was trained on (or "
            "near-duplicates): in train of every fold, not scored"
        )
        say(console, note)
        notes.append(note)
    new = [index for index, group in enumerate(groups) if group not in met]
    drawn = make_folds(
        [cases[index].id for index in new],
        [groups[index] for index in new],
        [rows[index].foreground for index in new],
        folds,
        options.seed,
    )
    return tuple(
        replace(split, train=tuple(sorted((*split.train, *old))), notes=(*split.notes, *notes))
        for split in drawn
    )


def _pool(dataset: Dataset, split_file: Path | None) -> tuple[set[str], list[str]]:
    """Ids of the cases to cross-validate over: all but a test part that somebody has named."""
    ids = {case.id for case in dataset.cases}
    if split_file is not None:
        split = read_split(split_file, sorted(ids))
        pool, test, where = {*split.train, *split.val}, len(split.test), str(split_file)
    elif dataset.split is not None:
        where = "the data's own split"
        parts = check_table(ids, dataset.split, where)
        pool = {id_ for id_, part in parts.items() if part != "test"}
        test = len(ids) - len(pool)
    else:
        return ids, []
    notes = [f"train and val of {where} are cross-validated over together"]
    if test:
        notes.append(f"its test part, {plural(test, 'case')}, is left untouched")
    if left := len(ids) - len(pool) - test:
        notes.append(f"{plural(left, 'case')} in no part of it and not used")
    return pool, notes


def join_copies(groups: Sequence[str], prints: Sequence[str]) -> list[str]:
    """Groups of which two hold the same pixels become one: else a network would be scored on an
    image that it was trained on under another name.

    Args:
        groups: Group of each case.
        prints: Fingerprint of each.
    """
    joined, first = list(groups), dict[str, int]()
    for index, print_ in enumerate(prints):
        here, there = joined[index], joined[first.setdefault(print_, index)]
        if here != there:
            joined = [there if group == here else group for group in joined]
    return joined
