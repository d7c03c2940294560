"""Folds of a cross-validation: every case is tested once, by a network that has not seen it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hymunet.data.masks_io import listed
from hymunet.data.splits import Split, deal, group_members, make_parts, split_from_json
from hymunet.data.tables import repeated
from hymunet.errors import HyMUNetError
from hymunet.files import write_text
from hymunet.wording import plural

VAL_SHARE = 0.15  # of the cases that a fold does not test on


def make_folds(
    ids: Sequence[str],
    groups: Sequence[str | None] | None,
    sizes: Sequence[float] | None,
    folds: int,
    seed: int = 0,
) -> tuple[Split, ...]:
    """Draws the splits of a k-fold cross-validation.

    Each case is in the test part of exactly one fold, no group is in two parts of a fold, and test
    parts differ in size by no more than the largest group. Lesion sizes are balanced over folds, as
    in `make_split`. The validation part of a fold, which chooses the epoch and whatever else is to
    be chosen, is drawn from the cases that the fold does not test on, anew for each fold, so that
    nearly every case teaches some of the networks. Nothing hangs on the order of `ids`, the names
    of groups or the machine.

    Args:
        ids: Case ids, unique.
        groups: Group of each case (patient, near-duplicates), in the order of `ids`; None: the
            case is a group of its own.
        sizes: Lesion area as a fraction of the frame, in the order of `ids`; None: not balanced.
        folds: How many.
        seed: Another seed, other folds.

    Raises:
        HyMUNetError: If the arguments do not fit each other, or there are too few groups.
    """
    if folds < 2:
        raise HyMUNetError(f"a cross-validation needs at least 2 folds, not {folds}")
    members = group_members(ids, groups, sizes)
    if len(members) < max(folds, 3):
        raise HyMUNetError(
            f"{folds} folds need at least {max(folds, 3)} groups of cases (patients, "
            f"near-duplicates), but {len(ids)} cases form {len(members)}: "
            + ("ask for fewer folds or add data" if len(members) > 2 else "add data")
        )
    tests, _ = deal(members, ids, sizes, [1 / folds] * folds, str(seed))
    splits = []
    for fold, test in enumerate(tests):
        tested = set(test)
        others = {key: own for key, own in members.items() if ids[own[0]] not in tested}
        if len(others) < 2:  # of two folds, one may hold a single large group
            raise HyMUNetError(
                f"all cases outside fold {fold} are one group, which cannot both train and "
                "validate: ask for 3 folds or more"
            )
        shares = (1 - VAL_SHARE, VAL_SHARE)
        (train, val), _ = deal(others, ids, sizes, shares, f"{seed} validation of fold {fold}")
        note = (
            f"fold {fold} of {folds}, drawn with seed {seed} from {plural(len(ids), 'case')} in "
            f"{plural(len(members), 'group')}"
        )
        splits.append(make_parts({"train": train, "val": val, "test": test}, seed, [note]))
    return tuple(splits)


def save_folds(path: Path, folds: Sequence[Split], settings: Mapping[str, Any]) -> None:
    """Writes folds and what they were drawn for as JSON, whole or not at all."""
    content = {"settings": dict(settings), "folds": [asdict(split) for split in folds]}
    write_text(Path(path), json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def load_folds(path: Path) -> tuple[tuple[Split, ...], dict[str, Any]]:
    """Reads what `save_folds` wrote: the folds, and the settings.

    Raises:
        HyMUNetError: If the file is missing or broken, or a case is tested twice.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise HyMUNetError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise HyMUNetError(f"{path} is broken ({error}); bring it back or start anew") from error
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("folds"), list)
        or not isinstance(content.get("settings"), dict)
    ):
        raise HyMUNetError(f"{path} holds no folds; expected the lists `folds` and `settings`")
    folds = tuple(
        split_from_json(one, f"fold {number} of {path}")
        for number, one in enumerate(content["folds"])
    )
    again = repeated([id for split in folds for id in split.test])
    if again:
        raise HyMUNetError(
            f"{path} tests cases in two folds: {listed(again)}; bring the file back or start anew"
        )
    return folds, content["settings"]
