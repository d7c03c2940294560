"""Training, validation and test parts: seeded, by group, balanced in lesion size, saved as JSON."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from hymunet.data.masks_io import listed
from hymunet.data.tables import check_table, read_table_of_parts, repeated
from hymunet.errors import HyMUNetError
from hymunet.files import write_text
from hymunet.wording import plural

PARTS = ("train", "val", "test")
SIZE_BINS = 5
Group = tuple[str, str]  # ("group", its name), or ("case", id) for a case of no group


@dataclass(frozen=True)
class Split:
    """Case ids of each part, sorted; together every case once.

    Args:
        train: Cases that the weights are fitted to.
        val: Cases that choose the best epoch and the threshold.
        test: Cases that nothing is chosen on; may be empty.
        seed: What the split was drawn with; None when it was given.
        notes: How the parts came about.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    seed: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def part_of(self) -> dict[str, str]:
        """Case id -> train, val or test."""
        return {id: part for part in PARTS for id in getattr(self, part)}


def make_split(
    ids: Sequence[str],
    groups: Sequence[str | None] | None,
    sizes: Sequence[float] | None,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> Split:
    """Draws a split in which no group stands on two sides and lesion sizes are alike on all.

    Groups are put in order of lesion size (in quantile bins; at random within one) and each goes
    to the part that then lags furthest behind its share. The random order hangs on seed and case
    ids alone: neither the order of `ids`, nor the groups' names, nor the machine matters.

    Args:
        ids: Case ids, unique.
        groups: Group of each case (patient, near-duplicates), in the order of `ids`; None: the
            case is a group of its own.
        sizes: Lesion area as a fraction of the frame, in the order of `ids`; None: not balanced.
        fractions: Shares of train, val and test, which sum to 1; only test's may be 0.
        seed: Another seed, another split.

    Raises:
        HyMUNetError: If the arguments do not fit each other, or there are fewer groups than parts.
    """
    _check_fractions(fractions)
    members = group_members(ids, groups, sizes)
    wanted = [part for part, fraction in zip(PARTS, fractions, strict=True) if fraction > 0]
    if len(members) < len(wanted):
        raise HyMUNetError(
            f"a split into {', '.join(wanted)} needs at least {len(wanted)} groups of cases, but "
            f"{len(ids)} cases form {len(members)}: add data, or name the parts "
            "in a split.csv (case,split)"
        )
    parts, bins = deal(members, ids, sizes, fractions, str(seed))
    shared = sum(len(indices) > 1 for indices in members.values())
    notes = [
        f"drawn with seed {seed} from {plural(len(ids), 'case')} in {plural(len(members), 'group')}"
    ]
    if shared:
        notes.append(
            f"{plural(shared, 'group holds', 'groups hold')} several cases, kept on one side"
        )
    if sizes is not None:
        notes.append(f"balanced over {bins} bins of lesion size")
    return make_parts(dict(zip(PARTS, parts, strict=True)), seed, notes)


def group_members(
    ids: Sequence[str], groups: Sequence[str | None] | None, sizes: Sequence[float] | None
) -> dict[Group, list[int]]:
    """Positions in `ids` of each group's cases, by case id; arguments as those of `make_split`.

    Raises:
        HyMUNetError: If the arguments do not fit each other.
    """
    for name, values in (("groups", groups), ("sizes", sizes)):
        if values is not None and len(values) != len(ids):
            raise HyMUNetError(f"{len(ids)} ids, but {len(values)} {name}; expected one a case")
    if len(set(ids)) != len(ids):
        raise HyMUNetError(f"case ids occur twice: {listed(repeated(ids))}; make them unique")
    if sizes is not None and not np.isfinite(np.asarray(sizes, float)).all():
        raise HyMUNetError("lesion sizes contain NaN or infinity; expected area fractions")
    members: dict[Group, list[int]] = {}
    for index in sorted(range(len(ids)), key=lambda index: ids[index]):
        group = None if groups is None else groups[index]
        key = ("case", ids[index]) if group is None else ("group", group)
        members.setdefault(key, []).append(index)
    return members


def deal(
    members: Mapping[Group, Sequence[int]],
    ids: Sequence[str],
    sizes: Sequence[float] | None,
    shares: Sequence[float],
    lot: str,
) -> tuple[list[list[str]], int]:
    """Deals whole groups out to as many parts as there are `shares`, lesion sizes alike in all.

    Args:
        members: Of `group_members`, or some of its groups.
        ids: Case ids.
        sizes: Lesion sizes in the order of `ids`; None: not balanced.
        shares: Of each part; they sum to 1.
        lot: Another text, another order of chance.

    Returns:
        The case ids of each part, and the number of bins of lesion size.
    """
    bins = _size_bins(members, sizes)
    # a group's first case stands for it: what the group is called changes nothing
    lots = {key: _draw(lot, ids[indices[0]]) for key, indices in members.items()}
    order = sorted(members, key=lambda key: (bins[key], -len(members[key]), lots[key]))
    dealt: list[list[str]] = [[] for _ in shares]
    for key, part in zip(order, _apportion([len(members[k]) for k in order], shares), strict=True):
        dealt[part].extend(ids[index] for index in members[key])
    return dealt, len(set(bins.values()))


def _check_fractions(fractions: Sequence[float]) -> None:
    if len(fractions) != 3 or not all(math.isfinite(f) and 0 <= f <= 1 for f in fractions):
        raise HyMUNetError(f"fractions are {fractions}; expected three numbers from 0 to 1")
    if abs(sum(fractions) - 1) > 1e-6:
        raise HyMUNetError(f"fractions {fractions} sum to {sum(fractions):g}; expected 1")
    if fractions[0] == 0 or fractions[1] == 0:
        raise HyMUNetError(
            f"fractions are {fractions}; train and val must not be 0: the best epoch is chosen on "
            "val, never on test"
        )


def _draw(lot: str, case: str) -> bytes:
    """A random-looking sort key that no library version changes."""
    return hashlib.sha256(f"{lot} {case}".encode()).digest()


def _size_bins(
    members: Mapping[Group, Sequence[int]], sizes: Sequence[float] | None
) -> dict[Group, int]:
    """Quantile bin of each group's mean lesion size."""
    if sizes is None:
        return dict.fromkeys(members, 0)
    means = {key: float(np.mean([sizes[i] for i in members[key]])) for key in members}
    # a bin should feed every part, so few groups make few bins
    count = max(1, min(SIZE_BINS, len(members) // 4))
    edges = np.quantile(list(means.values()), np.arange(1, count) / count)
    return {key: int(np.searchsorted(edges, mean, side="right")) for key, mean in means.items()}


def _apportion(weights: Sequence[int], fractions: Sequence[float]) -> list[int]:
    """Part of each group in turn: the one furthest behind its share of the cases so far."""
    held = [0] * len(fractions)
    parts: list[int] = []
    total = 0
    for weight in weights:
        total += weight
        behind = [
            fraction * total - have if fraction > 0 else -math.inf
            for fraction, have in zip(fractions, held, strict=True)
        ]
        part = behind.index(max(behind))
        held[part] += weight
        parts.append(part)
    for part, fraction in enumerate(fractions):
        if fraction > 0 and part not in parts:
            # few groups: take the smallest of the part that has most of them
            donor = max(set(parts), key=lambda other: (parts.count(other), -other))
            mine = [index for index, other in enumerate(parts) if other == donor]
            parts[min(mine, key=lambda index: (weights[index], index))] = part
    return parts


def read_split(path: Path, ids: Sequence[str]) -> Split:
    """The split that a file names, for cases that need not all be in it.

    Args:
        path: A CSV table with the columns case and split, or the split.json of a run.
        ids: All case ids of the data; cases that the file leaves out are in no part.

    Raises:
        HyMUNetError: If the file is missing, broken or of another kind, or names a case that the
            data do not have.
    """
    path = Path(path)
    if path.is_dir():
        raise HyMUNetError(
            f"{path} is a folder; expected a split file: a CSV table with the columns case and "
            "split, or the split.json of a run"
        )
    if path.suffix.lower() == ".json":
        split = load_split(path)
        table = split.part_of
        seed, notes = split.seed, split.notes
    else:
        table, seed, notes = read_table_of_parts(path), None, ()
    split = split_from_table(list(set(ids) & set(table)), table, str(path))
    return replace(split, seed=seed, notes=(f"as given by {path}", *notes))


def split_from_table(
    ids: Sequence[str], table: Mapping[str, str], where: str = "the split"
) -> Split:
    """A split that was given, case id -> part, checked against the cases; parts may be empty.

    Args:
        ids: All case ids.
        table: Part of each; "training", "validation" and "testing" are understood as well.
        where: What `table` is called in errors.

    Raises:
        HyMUNetError: If a case is missing or unknown, or a part has another name.
    """
    parts = check_table(ids, table, where)
    chosen = {part: [id for id in parts if parts[id] == part] for part in PARTS}
    return make_parts(chosen, None, ["as given by the data's split table"])


def save_split(path: Path, split: Split) -> None:
    """Writes `split` as JSON, whole or not at all."""
    write_text(Path(path), json.dumps(asdict(split), indent=1, ensure_ascii=False) + "\n")


def load_split(path: Path) -> Split:
    """Reads what `save_split` wrote.

    Raises:
        HyMUNetError: If the file is missing or broken, or a case stands in two parts.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise HyMUNetError(f"split file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise HyMUNetError(
            f"split file {path} is broken ({error}); draw the split again"
        ) from error
    return split_from_json(content, f"split file {path}")


def split_from_json(content: object, where: str) -> Split:
    """The split that JSON holds, as `save_split` writes it.

    Args:
        content: What the JSON says.
        where: What it is called in errors.

    Raises:
        HyMUNetError: If it is no split, or a case stands in two parts.
    """
    if (
        not isinstance(content, dict)
        or not all(_are_names(content.get(name)) for name in (*PARTS, "notes"))
        or type(content.get("seed", ...)) not in (int, type(None))
    ):
        raise HyMUNetError(
            f"{where} is not a split; expected lists of names under train, val, test and "
            "notes, and a seed (a number or null)"
        )
    again = repeated([id for part in PARTS for id in content[part]])
    if again:
        raise HyMUNetError(f"{where} names cases twice: {listed(again)}; draw it again")
    return make_parts(content, content["seed"], content["notes"])


def make_parts(parts: Mapping[str, Sequence[str]], seed: int | None, notes: Sequence[str]) -> Split:
    """A `Split` of these parts, sorted."""
    train, val, test = (tuple(sorted(parts[part])) for part in PARTS)
    return Split(train, val, test, seed, tuple(notes))


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
