"""NIfTI volumes to arrays: axes, spacing, affine, and what makes them unusable."""

import numpy as np

from hymunet.data.decode import broken, check_file, check_size
from hymunet.data.masks_io import import_nibabel, listed
from hymunet.data.nifti_bytes import volume_of
from hymunet.data.source import InMemory, Source
from hymunet.errors import HyMUNetError

_SHEAR = 1e-3  # cosine of the angle between axes: rounding of a header's float32 stays below 1e-5


def read_volume(
    path: Source, max_pixels: int
) -> tuple[np.ndarray, tuple[float, ...] | None, np.ndarray, list[str]]:
    """(channels, *spatial) with axes the reverse of the file's, spacing, affine, notes."""
    nibabel = import_nibabel(path)
    check_file(path)
    notes: list[str] = []
    try:
        if isinstance(path, InMemory):
            volume = volume_of(path, max_pixels)
        else:
            volume = nibabel.load(path, mmap=False)
        shape = tuple(int(length) for length in volume.shape)
        while len(shape) > 4 and shape[-1] == 1:
            shape = shape[:-1]
        stored_type = volume.get_data_dtype()
        if len(shape) not in (2, 3, 4) or stored_type.fields or stored_type.kind not in "iuf":
            raise HyMUNetError(
                f"{path} has shape {volume.shape} of {stored_type}; expected real numbers, "
                "(x, y, z) or (x, y, z, channels): save each volume as a file of its own"
            )
        check_size(path, shape, max_pixels)
        values = np.asanyarray(volume.dataobj).reshape(shape).T
        affine, unit = volume.affine, volume.header.get_xyzt_units()[0]
    except HyMUNetError:
        raise
    except Exception as error:  # zlib, gzip, struct, header and memory errors of a broken file
        raise HyMUNetError(broken(path, error)) from error
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if len(shape) < 4:
        values = values[None]
    _check_affine(path, affine)
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))[: min(len(shape), 3)][::-1]
    if unit not in ("mm", "micron", "meter"):
        notes.append("unit of length not stated, taken as mm")
    sizes = sizes * {"micron": 1e-3, "meter": 1e3}.get(unit, 1.0)
    return values, tuple(float(size) for size in sizes), affine, notes


def _check_affine(path: Source, affine: np.ndarray) -> None:
    """Raises HyMUNetError unless the three axes have lengths and stand at right angles."""
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or (lengths <= 0).any():
        raise HyMUNetError(
            f"the affine of {path} has axes of length {listed(lengths.round(6))}; expected three "
            "finite lengths above 0: voxels without a size cannot be measured. Write the right "
            "affine, or none, with the voxel size in the header"
        )
    cosines = np.abs((axes / lengths).T @ (axes / lengths) - np.eye(3)).max()
    if cosines > _SHEAR:
        angle = np.degrees(np.arccos(cosines))
        raise HyMUNetError(
            f"the affine of {path} is sheared: two axes stand at {angle:.1f} degrees; expected "
            "right angles, as distances are measured along the axes: resample the volume to an "
            "orthogonal grid first"
        )


def same_grid(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether two affines agree, to 0.01 of their unit; two unknown ones do, one alone does not."""
    if one is None or other is None:
        return one is other
    return np.allclose(one, other, rtol=1e-4, atol=1e-2)
