"""CSV tables: of images and masks, and of the part of a split that each case belongs to."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hymunet.data.case import Case
from hymunet.data.dicom_header import is_dicom
from hymunet.data.image_io import stem_of
from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError
from hymunet.wording import plural

_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f]')  # of files, on one system or another


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names (lower case) and rows of a CSV file with a header, comma or semicolon.

    Raises:
        HyMUNetError: If it is no UTF-8 text, has no rows, or a row has too many or too few cells.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HyMUNetError(f"{path} is not UTF-8 text; save it as CSV UTF-8") from error
    except OSError as error:
        raise HyMUNetError(f"{path} cannot be read: {error.strerror or error}") from error
    header = text.split("\n", 1)[0]
    delimiter = ";" if header.count(";") > header.count(",") else ","
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise HyMUNetError(f"{path} is not a CSV file: {error}; save it as CSV UTF-8") from error
    numbered = [(n, [cell.strip() for cell in line]) for n, line in enumerate(lines, 1)]
    numbered = [(n, line) for n, line in numbered if any(line)]
    if len(numbered) < 2:
        raise HyMUNetError(f"{path} has no rows; expected a header and a row for each case")
    columns = [name.lower() for name in numbered[0][1]]
    if len(set(columns)) != len(columns):
        raise HyMUNetError(f"{path} has columns of the same name: {listed(repeated(columns))}")
    for number, line in numbered[1:]:
        if len(line) != len(columns):
            raise HyMUNetError(
                f"{path}, row {number} has {len(line)} cells, the header {len(columns)}: quote "
                "names that contain the separator"
            )
    return columns, [dict(zip(columns, line, strict=True)) for _, line in numbered[1:]]


def names_images(path: Path) -> bool:
    """Whether a CSV file found beside others lists images and masks; the others may be anything."""
    try:
        return {"image", "mask"} <= set(read_table(path)[0])
    except HyMUNetError:
        return False


def read_cases(path: Path) -> tuple[list[Case], dict[str, str] | None, list[str]]:
    """Cases, their parts (None when the table does not say) and notes of a CSV file.

    Args:
        path: With the columns image and mask, optionally case, split, group and valid; its paths
            are relative to its folder.

    Raises:
        HyMUNetError: If a column is missing, a file does not exist, a case has no image or mask
            or another one's name, or its name cannot name a file.
    """
    columns, rows = read_table(path)
    if not {"image", "mask"} <= set(columns):
        raise HyMUNetError(f"{path} has the columns {listed(columns)}; expected image and mask")
    missing: list[str] = []

    def file(row: dict[str, str], column: str, number: int) -> Path:
        if not row[column]:
            raise HyMUNetError(
                f"{path}: case {number} has no {column}; give each row an image and a mask (an "
                "all-black one where there is nothing to segment)"
            )
        found = path.parent / row[column].replace("\\", "/")
        if not found.is_file() and not is_dicom(found):
            missing.append(row[column])
        return found

    cases: list[Case] = []
    for number, row in enumerate(rows, 1):
        image, mask = file(row, "image", number), file(row, "mask", number)
        valid = file(row, "valid", number) if row.get("valid") else None
        id = row.get("case") or stem_of(image)
        check_case_name(id, path)
        cases.append(Case(id, (image,), mask, valid, row.get("group") or None))
    if missing:
        raise HyMUNetError(
            f"{path} names {plural(len(missing), 'file that does', 'files that do')} not exist: "
            f"{listed(missing)}; paths are relative to {path.parent}"
        )
    check_unique(((case.id, case.channels[0]) for case in cases), f"cases in {path}")
    extra = sorted(set(columns) - {"case", "image", "mask", "split", "group", "valid"})
    notes = [f"columns not used: {listed(extra)}"] if extra else []
    if "split" not in columns or not any(row["split"] for row in rows):
        return cases, None, notes
    table = {case.id: row["split"] for case, row in zip(cases, rows, strict=True)}
    split = check_table(table, table, str(path))
    return cases, split, [*notes, f"split taken from {path.name}"]


def check_case_name(id: str, where: Path) -> None:
    """Refuses a case that cannot name a file.

    Raises:
        HyMUNetError: Naming it.
    """
    if _NOT_IN_NAMES.search(id) or not id.strip(". "):
        raise HyMUNetError(
            f"{where}: the case {id!r} cannot name a file; use letters, digits, - and _"
        )


def check_unique(named: Iterable[tuple[str, Path]], what: str) -> None:
    """Refuses two files of one name: a case's results are kept under its name.

    Args:
        named: Name and file of each.
        what: What they are, for the message.

    Raises:
        HyMUNetError: If a name occurs twice.
    """
    seen: dict[str, Path] = {}
    clashes = []
    for name, path in named:
        if name in seen:
            clashes.append(f"{seen[name].name} and {path.name}")
        seen[name] = path
    if clashes:
        noun, *where = what.split(" ", 1)  # cases of FOLDER
        one = " ".join([noun.removesuffix("s"), *where])
        raise HyMUNetError(
            f"{plural(len(clashes), one + ' has', what + ' have')} a name that another one has: "
            f"{listed(clashes)}; a case is known by its name without the suffix: rename or remove "
            "one of them"
        )


def part_name(name: str) -> str | None:
    """ "train", "val" or "test" for a name such as "Training" or "validation"; None for others."""
    return _NAMES.get(name.strip().lower())


def check_table(ids: Iterable[str], table: Mapping[str, str], where: str) -> dict[str, str]:
    """`table` with its parts named "train", "val" and "test", one for each of `ids`.

    Raises:
        HyMUNetError: If a part has another name, or the cases are not those of `ids`.
    """
    ids = set(ids)
    bad = sorted({name for name in table.values() if part_name(name) is None})
    if bad:
        raise HyMUNetError(
            f"{where} names the parts {listed(map(repr, bad))}; expected train, val or test"
        )
    unknown, missing = sorted(set(table) - ids), sorted(ids - set(table))
    if unknown:
        raise HyMUNetError(
            f"{where} names {plural(len(unknown), 'case')} that the data do not have: "
            f"{listed(unknown)}; remove them or bring their files"
        )
    if missing:
        raise HyMUNetError(
            f"{where} leaves out {plural(len(missing), 'case')} of the data: {listed(missing)}; "
            "give each a part, or move its files away"
        )
    return {id: _NAMES[name.strip().lower()] for id, name in sorted(table.items())}


def read_split_table(path: Path, ids: Iterable[str]) -> dict[str, str]:
    """Case id -> "train", "val" or "test" from a CSV file with the columns case and split.

    Raises:
        HyMUNetError: If a column is missing, a case stands in it twice, or the names do not fit.
    """
    return check_table(ids, read_table_of_parts(path), str(path))


def read_table_of_parts(path: Path) -> dict[str, str]:
    """Case id -> name of its part, neither checked, from a CSV file with the columns case and
    split.

    Raises:
        HyMUNetError: If a column is missing or a case stands in it twice.
    """
    columns, rows = read_table(path)
    if "case" not in columns or "split" not in columns:
        raise HyMUNetError(f"{path} has the columns {listed(columns)}; expected case and split")
    cases = [row["case"] for row in rows]
    if len(set(cases)) != len(cases):
        raise HyMUNetError(
            f"{path} names cases twice: {listed(repeated(cases))}; keep one row each"
        )
    return {row["case"]: row["split"] for row in rows}


def repeated(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, sorted."""
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
