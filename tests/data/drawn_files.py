"""Small files that tests of layouts lay out as challenges do."""

import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image as Pillow


def volume(path: Path, values: np.ndarray) -> Path:
    """A NIfTI file of `values` with the axes (x, y, z) or (x, y, z, channel)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def picture(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(values).save(path)
    return path


def described(root: Path, content: object) -> Path:
    """Writes `content` as `root`/dataset.json."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def blocks(*values: int, dtype=np.uint8) -> np.ndarray:
    """(x, y, z) of 4 x 3 x (a slice for each value)."""
    return np.broadcast_to(np.array(values, dtype), (4, 3, len(values))).copy()
