"""A mask as a DICOM Segmentation of the image it was made from (PS3.3, A.51), by highdicom.

Placed images (CT, MR, any series) give their frame of reference, positions, orientation and pixel
size to the segmentation as they stand in their headers. A picture without a frame of reference (a
photograph, a radiograph, a secondary capture) gives none: the standard then wants a pixel of the
segmentation for each pixel of the picture that it names, A.51.5.1, and that is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet import __version__
from hymunet.data.dicom_codes import Code, Term
from hymunet.data.dicom_source import DicomSource, quiet_about_values
from hymunet.errors import HyMUNetError
from hymunet.files import write_with
from hymunet.wording import shortened

if TYPE_CHECKING:
    from pydicom import Dataset

MAKER = "HyM-UNet"
LONGEST = 64  # characters of a LO field
_FAMILY = Code("123110", "DCM", "Artificial Intelligence")
_SERIES_NUMBER = 1000  # added to the source's own, so that viewers list it behind


@dataclass(frozen=True)
class Algorithm:
    """What made a mask.

    Args:
        model: Name of the model.
        identity: What tells its weights from all others, such as a part of their SHA-256.
        parameters: What else decides a mask: threshold, post-processing, ...
    """

    model: str
    identity: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Segment:
    """A structure.

    Args:
        label: What people read.
        term: What programs read.
        colour: RGB, 0 to 255, in which it should be drawn.
    """

    label: str
    term: Term
    colour: tuple[int, int, int]


def make_segmentation(
    mask: np.ndarray, source: DicomSource, segments: Sequence[Segment], algorithm: Algorithm
) -> "Dataset":
    """The segmentation of one image; new UIDs each time.

    Each structure has a frame for each slice, whether or not it shows there: programs that stack
    frames as they come see the image's own grid, once for each structure.

    Args:
        mask: Class indices (depth, height, width), or (height, width) of a picture.
        source: The image.
        segments: Classes 1, 2, ...
        algorithm: What made the mask.

    Raises:
        HyMUNetError: If the source's headers allow no segmentation.
    """
    import highdicom

    words = [word for one in segments for word in (one.label, *map(str, one.term.codes()))]
    mask = mask[None] if mask.ndim == 2 else mask
    made_by = highdicom.AlgorithmIdentificationSequence(
        name=line(f"{MAKER} {algorithm.model}"),
        family=concept(_FAMILY),
        version=__version__,
        source="hymunet",
        parameters={"model": algorithm.model, "weights": algorithm.identity}
        | dict(algorithm.parameters),
    )
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=line(segment.label),
            segmented_property_category=concept(segment.term.category),
            segmented_property_type=concept(segment.term.type),
            algorithm_type="AUTOMATIC",
            algorithm_identification=made_by,
            anatomic_regions=[concept(segment.term.region)] if segment.term.region else None,
            display_color=highdicom.color.CIELabColor.from_rgb(*segment.colour),
        )
        for number, segment in enumerate(segments, start=1)
    ]
    with quiet_about_values():
        try:
            made: Dataset = highdicom.seg.Segmentation(
                source_images=source.headers,
                pixel_array=np.ascontiguousarray(mask[list(source.depths)]),
                segmentation_type="BINARY",
                segment_descriptions=described,
                omit_empty_frames=False,
                content_label="SEGMENTATION",
                content_description=line(f"by {MAKER} {algorithm.model}, not reviewed"),
                **equipment(source, algorithm, f"{MAKER} segmentation"),
            )
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise HyMUNetError(
                f"{source.name}: its headers allow no segmentation ({error}); expected an image of "
                "one of the standard's kinds with their mandatory fields: check it with dciodvfy, "
                "or leave --output-format out for PNG and NIfTI"
            ) from error
    spell_as_source(made, source, [algorithm.model, *words])
    if source.placed:
        _order_along_normal(made)
    else:
        made.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence", None)
        made.PatientOrientation = source.headers[0].get("PatientOrientation") or ""
    return made


def equipment(
    source: DicomSource,
    algorithm: Algorithm,
    description: str,
    series: int = 0,
) -> dict[str, Any]:
    """What highdicom wants of every derived object: new UIDs, a series of its own, its maker.

    Args:
        source: The image.
        algorithm: What made the mask.
        description: Of the series.
        series: 0 for the first series derived from a source, 1 for the next.
    """
    from pydicom.uid import generate_uid

    number = str(source.headers[0].get("SeriesNumber") or "")
    own = int(number) if number.isdigit() else 0
    return {
        # 2.25 and a UUID: unique without a registered root (PS3.5, B.2)
        "series_instance_uid": generate_uid(prefix=None),
        "sop_instance_uid": generate_uid(prefix=None),
        "series_number": min(own, 10**8) + _SERIES_NUMBER * (1 + series),
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": line(algorithm.model),
        "software_versions": __version__,
        "device_serial_number": line(algorithm.identity),
        "series_description": line(f"{description}, {algorithm.model}"),
        "content_qualification": "RESEARCH",
        "specific_character_set": None,  # see `spell_as_source`
    }


def spell_as_source(made: "Dataset", source: DicomSource, words: Sequence[str]) -> None:
    """Gives an object the source's character set, so that names are spelt with the same bytes;
    UTF-8 where it may lack letters of our own. highdicom is not asked: it refuses sets that begin
    with an empty value, which stands for ISO 2022 IR 6 (PS3.3, C.12.1.1.2), and the Korean one.

    Args:
        made: The object.
        source: The image.
        words: Our own that stand in the object.

    Raises:
        HyMUNetError: If the source's is none of DICOM's.
    """
    from pydicom.charset import python_encoding

    given = source.headers[0].get("SpecificCharacterSet") or ""
    unknown = [one for one in ([given] if isinstance(given, str) else given)
               if one not in python_encoding]  # fmt: skip
    if unknown:
        raise HyMUNetError(
            f"{source.name}: its SpecificCharacterSet (0008,0005) holds {unknown[0]!r:.40}, which "
            "is none of DICOM's, so nobody can read the patient's name: export it again, or leave "
            "--output-format out for PNG and NIfTI"
        )
    if given:
        made.SpecificCharacterSet = given
    if not "".join(words).isascii():
        with quiet_about_values():
            made.decode()  # items of sequences keep their bytes until they are read
        made.SpecificCharacterSet = "ISO_IR 192"


def _order_along_normal(made: "Dataset") -> None:
    """Puts the frames of each segment in the direction of the slices' normal. highdicom's run
    against it, so that ITK, which stacks frames as they come, sees a grid that is flipped."""
    groups = list(made.PerFrameFunctionalGroupsSequence)
    places = [list(group.FrameContentSequence[0].DimensionIndexValues) for group in groups]
    last = max(plane for _, plane in places)
    order = sorted(range(len(groups)), key=lambda k: (places[k][0], -places[k][1]))
    for group, (segment, plane) in zip(groups, places, strict=True):
        group.FrameContentSequence[0].DimensionIndexValues = [segment, last + 1 - plane]
    made.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
    # one bit a pixel, without a gap between frames (PS3.5, 8.1.1)
    size = made.Rows * made.Columns
    bits = np.unpackbits(np.frombuffer(made.PixelData, np.uint8), bitorder="little")
    frames = bits[: len(groups) * size].reshape(len(groups), size)
    packed = np.packbits(frames[order].ravel(), bitorder="little").tobytes()
    made.PixelData = packed + b"\0" * (len(packed) % 2)


def write_dicom(path: Path, made: "Dataset") -> None:
    """Writes a data set as a DICOM file, whole or not at all.

    Raises:
        HyMUNetError: If it cannot be written.
    """
    with quiet_about_values():
        write_with(path, lambda place: made.save_as(place, enforce_file_format=True))


def line(words: str) -> str:
    """Words as a LO field may hold them: a line of up to 64 characters without a backslash."""
    kept = "".join(letter if letter.isprintable() else " " for letter in words.replace("\\", "/"))
    return shortened(kept.strip(), LONGEST).replace("…", "~")


def concept(code: Code) -> Any:
    """A code as highdicom takes it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)
