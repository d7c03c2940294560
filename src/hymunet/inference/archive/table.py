"""The columns of the measurements as Parquet, the same in every part of an archive's results."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow


def schema(spatial_dims: int) -> "pyarrow.Schema":
    """Names and types: those of `hymunet.inference.measurements.measure`, after the image and its
    mask. What is unknown, such as millimetres without a spacing, is null."""
    import pyarrow as pa

    flat = spatial_dims == 2
    names = ["area_px"] if flat else ["volume_voxels"]
    lengths = ["perimeter_px", "diameter_px", "area_mm2", "perimeter_mm", "diameter_mm"]
    return pa.schema(
        [
            ("image", pa.string()),
            ("mask", pa.string()),
            ("class", pa.string()),
            *((name, pa.int64()) for name in names),
            ("fraction", pa.float64()),
            ("parts", pa.int64()),
            ("bounding_box", pa.list_(pa.list_(pa.int64()))),
            ("centroid", pa.list_(pa.float64())),
            *((name, pa.float64()) for name in (lengths if flat else ["volume_mm3"])),
        ]
    )


def as_parquet(rows: Sequence[dict[str, Any]], spatial_dims: int) -> bytes:
    """A Parquet file of the rows."""
    import pyarrow as pa
    import pyarrow.parquet

    buffer = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), schema=schema(spatial_dims))
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
