"""A folder of images with all below it, one folder at a time, so that an archive of any size can be
searched: no more is held in memory than what lies directly in one folder, and what those above it
say of their files."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hymunet.data.dicom_find import find_series, series_in
from hymunet.data.input_layout import Layout, look_into, take_tables
from hymunet.data.pairs import is_image
from hymunet.wording import plural


@dataclass
class Aside:
    """What was left aside: how much, and the first names."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, names: Iterable[str]) -> None:
        """Counts them."""
        for name in names:
            self.count += 1
            if len(self.first) < 5:
                self.first.append(name)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return ", ".join(self.first) + more


class Walk:
    """The images below a folder.

    Hidden files and folders are left out, links to folders are not followed, and a link to an image
    that is itself below the folder is that image.

    Args:
        root: The folder.
        forget: Whether `layout` forgets what a folder says when all below it has been seen.

    Attributes:
        layout: What the folders say of the files in them.
        images: How many have come.
        masks: How many files were left out as masks.
        places_of_masks: Their folders, or their names where they lie among images.
        unread: Folders that may not be read.
    """

    def __init__(self, root: Path, forget: bool = False) -> None:
        self.root, self.forget = root, forget
        self.layout = Layout()
        self.images = self.masks = 0
        self.places_of_masks, self.unread = Aside(), Aside()
        self._real = Path(os.path.realpath(root))

    def __iter__(self) -> Iterator[tuple[Path, list[Path]]]:
        """Folders and the images in them, sorted: files, and DICOM series as `find_series` names
        them. A folder comes before those below it; images of one folder come together."""
        ours, waiting = self._series_of(self.root)
        if ours:  # the folder is itself a series
            yield from self._kept(self.root.parent, ours)
        stack: list[tuple[Path, list[Path]] | Layout] = [(self.root, waiting)]
        while stack:
            top = stack.pop()
            if isinstance(top, Layout):
                self.layout.forget(top)
                continue
            folder, found = top
            try:
                files, below = _inside(folder)
            except PermissionError:  # of the system's beside the data, lost+found
                self.unread.add([f"{folder}/"])
                continue
            said = Layout()
            with suppress(PermissionError):
                look_into(folder, self.root, said)
            self.layout.take(said)
            if self.forget:
                stack.append(said)
            if folder == self.root:
                take_tables(self.root, self.layout)
            found += [file for file in files if is_image(file) and not self._is_doubled(file)]
            deeper: list[tuple[Path, list[Path]]] = []
            for child in below:
                if self.layout.is_mask(child):
                    self._leave(child)
                    continue
                ours, waiting = self._series_of(child)
                found += ours
                deeper.append((child, waiting))
            stack += reversed(deeper)
            yield from self._kept(folder, found)

    def _kept(self, folder: Path, found: list[Path]) -> Iterator[tuple[Path, list[Path]]]:
        """What is no mask, if there is any."""
        masks = [path for path in found if self.layout.is_mask(path)]
        self.masks += len(masks)
        self.places_of_masks.add(path.name for path in sorted(masks))
        left = set(masks)
        images = sorted(path for path in found if path not in left)
        self.images += len(images)
        if images:
            yield folder, images

    def _series_of(self, place: Path) -> tuple[list[Path], list[Path]]:
        """The folder itself, if it is one series; and the images that series in it are."""
        try:
            found = series_in(place)
        except PermissionError:
            return [], []
        whole = [path for path in found if path in (place, place.resolve())]
        return whole, [path for path in found if path not in whole]

    def _is_doubled(self, file: Path) -> bool:
        """Whether a link leads to an image that is found where it lies."""
        if not file.is_symlink():
            return False
        real = Path(os.path.realpath(file))
        if not real.is_relative_to(self._real) or not is_image(real):
            return False
        return not any(part.startswith(".") for part in real.relative_to(self._real).parts)

    def _leave(self, folder: Path) -> None:
        """Counts what a folder of masks holds."""
        count = len(find_series(folder))
        for place, below, names in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")]
            count += sum(is_image(Path(place, name)) for name in names)
        if count:
            self.masks += count
            self.places_of_masks.add([f"{folder.name}/ ({plural(count, 'file')})"])


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """Visible files, links to anything among them, and visible folders, sorted."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    return [folder / name for name in sorted(files)], [folder / name for name in sorted(folders)]
