"""Images that fsspec reaches, in object stores above all: found by their names, fetched whole.

The rules of `image_cases` hold as far as names tell: which folders are masks, which files are the
channels of one image. What is told by content (a dataset.json, a table, the series of DICOM files)
needs a folder of this machine's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from hymunet.data.dicom_header import DICOM_SUFFIXES
from hymunet.data.image_cases import ImageCase, group_files
from hymunet.data.image_io import SUFFIXES
from hymunet.data.input_layout import Layout, segmentations_among
from hymunet.data.masks_io import listed
from hymunet.data.pairs import is_images_folder, is_masks_folder
from hymunet.data.walk import Aside
from hymunet.errors import HyMUNetError
from hymunet.wording import plural

# names are grouped as paths below a place where no file can be, so that nothing local is taken
# for what lies in the store
_NOWHERE = Path("/dev/null")


@dataclass(frozen=True)
class RemoteCase:
    """An image in a store.

    Args:
        case: Its name and place among the results; its files lie nowhere on this machine.
        urls: Where its files are, in the order of `case.files`.
        stamp: Sizes and versions of these, which change when they do.
    """

    case: ImageCase
    urls: tuple[str, ...]
    stamp: str

    @property
    def label(self) -> str:
        """What it is called in tables: its address, or the folder's and the name its files
        share."""
        if len(self.urls) == 1:
            return self.urls[0]
        head, chained = _chain(self.urls[0])
        return f"{head.rsplit('/', 1)[0]}/{self.case.name}{chained}"


def is_url(given: str | Path) -> bool:
    """Whether an input or output is an address for fsspec: s3://bucket/folder, zip://*::s3://..."""
    return "://" in str(given) or "::" in str(given)


def open_store(url: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it.

    Raises:
        HyMUNetError: If the address is of no known kind, or its kind needs a package that is not
            installed.
    """
    import fsspec.core

    with naming(url, "opened"):
        store, path = fsspec.core.url_to_fs(url)
        return store, str(path)


@contextmanager
def naming(url: str, what: str) -> Iterator[None]:
    """Whatever a store raises, in one sentence; each kind of store has errors of its own."""
    try:
        yield
    except HyMUNetError:
        raise
    except Exception as error:
        said = str(error).strip() or type(error).__name__
        raise HyMUNetError(f"{url} cannot be {what}: {said}") from error


def find_remote_cases(url: str, in_channels: int, notes: list[str]) -> Iterator[RemoteCase]:
    """The images that an address means, folder by folder: of a whole folder no more is held in
    memory than the listing of one of its subfolders.

    Args:
        url: A file, a folder (with all below it) or a pattern.
        in_channels: Channels that the model reads.
        notes: What was left aside is added to it.

    Raises:
        HyMUNetError: If it cannot be listed, or holds no images.
    """
    store, path = open_store(url)
    _, chained = _chain(url)
    front = _front(url, path)
    aside = Aside()
    found = 0
    with naming(url, "listed"):
        for place, within, layout, files in _folders(store, path, aside):
            names = {place / name: info for name, info in files.items() if name[0] != "."}
            images = [name for name in sorted(names) if _is_image(name, lone=within is None)]
            masks = segmentations_among(images)
            seen = set(images) - masks
            aside.add(name.name for name in names if name not in seen)
            images = [name for name in images if name not in masks]
            for case in group_files(place, within, images, layout, in_channels):
                infos = [names[file] for file in case.files]
                urls = tuple(f"{front}{info['name'].lstrip('/')}{chained}" for info in infos)
                found += 1
                yield RemoteCase(_named(case, urls), urls, " ".join(map(_stamp, infos)))
    if not found:
        raise HyMUNetError(f"{url} holds no images by their names; expected {listed(SUFFIXES, 20)}")
    if aside.count:
        notes.append(
            f"{plural(aside.count, 'file or folder', 'files or folders')} passed over in {url}, "
            "masks or no images by their names (DICOM series need a folder of this machine's): "
            f"{aside}"
        )


def _folders(
    store: Any, path: str, aside: Aside
) -> Iterator[tuple[Path, Path | None, Layout, dict[str, Any]]]:
    """Folders with files that are meant: as a place below nowhere, the place that is searched
    (None: files are named), which places do not become folders of the output, the files."""
    if any(letter in path for letter in "*?["):
        folders: dict[str, dict[str, Any]] = {}
        for name, info in sorted(store.glob(path, detail=True).items()):
            if info["type"] == "file":
                folder, _, last = name.rpartition("/")
                folders.setdefault(folder, {})[last] = info
        for folder, files in folders.items():
            yield _NOWHERE / folder.strip("/"), None, Layout(), files
    elif store.isfile(path):
        yield _NOWHERE, None, Layout(), {path.rpartition("/")[2]: store.info(path)}
    else:
        layout = Layout()
        for folder, below, files in store.walk(path, detail=True):
            place = _NOWHERE / folder.strip("/").removeprefix(path.strip("/")).strip("/")
            images = [name for name in below if is_images_folder(Path(name))]
            masks = [name for name in below if is_masks_folder(Path(name))] if images else []
            if len(images) == 1 and masks:
                layout.only_images.add(place / images[0])
            for name in [name for name in below if name in masks or name.startswith(".")]:
                aside.add([f"{name}/"])
                del below[name]  # not searched
            yield place, _NOWHERE, layout, files
            # the store would keep the listings of the whole archive
            getattr(store, "invalidate_cache", lambda: None)()


def _is_image(name: Path, lone: bool) -> bool:
    lower = name.name.lower()
    return lower.endswith(SUFFIXES) or (lone and lower.endswith(DICOM_SUFFIXES))


def _named(case: ImageCase, urls: tuple[str, ...]) -> ImageCase:
    """The case, a problem of it telling where its files really are."""
    if case.problem is None:
        return case
    there, here = _chain(urls[0])[0].rsplit("/", 1)[0], str(case.files[0].parent)
    return ImageCase(case.name, case.files, case.below, case.problem.replace(here, there))


def _chain(url: str) -> tuple[str, str]:
    """An address, and what it is chained to: zip://a.png and ::s3://bucket/b.zip."""
    head, mark, rest = url.partition("::")
    return head, mark + rest


def _front(url: str, path: str) -> str:
    """What stands in an address before the paths of its store: s3://, sftp://host/."""
    head, inner = _chain(url)[0].rstrip("/"), path.strip("/")
    if inner and head.endswith(inner):
        return head.removesuffix(inner)
    return f"{head.split(':', 1)[0]}://"


def _stamp(info: dict[str, Any]) -> str:
    """Size and version of a file, by whichever of the stores' words for it is there."""
    words = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "CRC",
             "created")  # fmt: skip
    version = next((info[word] for word in words if info.get(word) is not None), "")
    return f"{info.get('size')}-{version}"


@contextmanager
def fetched(urls: Sequence[str]) -> Iterator[list[Path]]:
    """The files behind addresses, on this machine for the time of the block.

    Raises:
        HyMUNetError: If one cannot be fetched.
    """
    with TemporaryDirectory(prefix="hymunet-") as folder:
        files = []
        for url in urls:
            store, path = open_store(url)
            if "file" in _protocols(store):
                files.append(Path(path))
                continue
            file = Path(folder) / PurePosixPath(path).name
            with naming(url, "read"):
                store.get_file(path, str(file))
            files.append(file)
        yield files


def place_of(url: str) -> tuple[str, str]:
    """Which file an address means, however it is spelt: the kind of its store, and the path in it.
    What is packed in another file (zip://...::...) is no place that anything is written to."""
    import os

    from fsspec.core import split_protocol
    from fsspec.registry import get_filesystem_class

    if "::" in url:
        return "packed", url
    protocol, _ = split_protocol(url)
    kind = get_filesystem_class(protocol or "file")
    path = str(kind._strip_protocol(url))
    if issubclass(kind, get_filesystem_class("file")):
        return "file", os.path.realpath(path)
    return kind.__name__, path.strip("/")


def local_path(url: str) -> Path | None:
    """The path that an address of this machine's own files means, file:///archive; None: of others.

    Raises:
        HyMUNetError: As `open_store`.
    """
    store, path = open_store(url)
    return Path(path) if "file" in _protocols(store) else None


def _protocols(store: Any) -> tuple[str, ...]:
    return (store.protocol,) if isinstance(store.protocol, str) else tuple(store.protocol)
