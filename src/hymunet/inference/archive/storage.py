"""Where results go: a folder, or a place in an object store. Each file whole or not at all."""

import os
from pathlib import Path
from typing import Any

from hymunet.data.remote import is_url, local_path, naming, open_store, place_of
from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, write_bytes


class Storage:
    """The output of a call. A file in a folder is written beside its name and renamed; in a store
    it is one put, which object stores make visible as a whole.

    Args:
        root: A folder, or an address that fsspec knows.

    Raises:
        HyMUNetError: If an address cannot be opened.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.local = local_path(self.root) if is_url(root) else Path(root).absolute()
        self._store: Any = None
        self._prefix = ""
        if self.local is None:
            self._store, self._prefix = open_store(self.root)
        self._made: set[str] = set()

    def where(self, name: str) -> str:
        """The path or address of a file, as it is told to people."""
        if self.local is not None:
            return str(self.local / name)
        head, mark, rest = self.root.partition("::")
        return f"{head.rstrip('/')}/{name}{mark}{rest}"

    def place(self, name: str) -> tuple[str, str]:
        """Of a file, as `hymunet.data.remote.place_of` tells it."""
        if self.local is not None:
            return "file", os.path.realpath(self.local / name)
        return place_of(self.where(name))

    def there(self, name: str) -> bool:
        """Whether a file is in the folder; of a store it is taken for granted."""
        return self.local is None or (self.local / name).exists()

    def make(self, folder: str = "") -> None:
        """Makes a folder and checks that files can be written into it; stores know none.

        Raises:
            NoRoomError: If the disk is full or read-only.
            HyMUNetError: If it cannot be made or written to for another reason.
        """
        if self.local is not None and folder not in self._made:
            make_folder(self.local / folder)
            self._made.add(folder)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file.

        Raises:
            NoRoomError: If the disk is full or read-only.
            HyMUNetError: If it cannot be written for another reason.
        """
        if self.local is not None:
            self.make(Path(name).parent.as_posix())
            write_bytes(self.local / name, content)
            return
        with naming(self.where(name), "written"):
            self._store.pipe_file(self._path(name), content)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none.

        Raises:
            HyMUNetError: If it cannot be read.
        """
        if self.local is None:
            with naming(self.where(name), "read"):
                if not self._store.exists(self._path(name)):
                    return None
                return bytes(self._store.cat_file(self._path(name)))
        try:
            return (self.local / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HyMUNetError(
                f"{self.where(name)} cannot be read: {error.strerror or error}"
            ) from error

    def names(self, folder: str) -> list[str]:
        """The visible files directly in a folder, sorted; none where it is missing."""
        if self.local is not None:
            place = self.local / folder
            found = [path.name for path in place.iterdir()] if place.is_dir() else []
        else:
            with naming(self.where(folder), "listed"):
                self._store.invalidate_cache()
                path = self._path(folder)
                found = self._store.ls(path, detail=False) if self._store.isdir(path) else []
                found = [str(name).rstrip("/").rsplit("/", 1)[-1] for name in found]
        return sorted(name for name in found if not name.startswith("."))

    def remove(self, name: str) -> None:
        """Removes a file.

        Raises:
            HyMUNetError: If that fails.
        """
        with naming(self.where(name), "removed"):
            if self.local is not None:
                (self.local / name).unlink()
            else:
                self._store.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._prefix.rstrip('/')}/{name}"
