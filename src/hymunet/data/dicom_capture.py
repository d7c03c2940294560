"""Pictures with a result drawn into them as DICOM Secondary Captures (PS3.3, A.8), by highdicom.

For viewers and people that show no segmentations. The outlines are part of the pixels and cannot be
taken away again, so the object says in several fields that it is derived and not for diagnosis.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hymunet.data.dicom_codes import Code
from hymunet.data.dicom_seg_writing import (
    MAKER,
    Algorithm,
    concept,
    equipment,
    line,
    spell_as_source,
)
from hymunet.data.dicom_source import DicomSource, quiet_about_values
from hymunet.errors import HyMUNetError

if TYPE_CHECKING:
    from pydicom import Dataset

_SEGMENTATION = Code("113076", "DCM", "Segmentation")
_SOURCE = Code("121322", "DCM", "Source image for image processing operation")
# what is true of the source's pixels is true of these, which are made from them: whether they are
# burnt with the patient's name (which is what BurnedInAnnotation asks), lossy, or show a face
_INHERITED = (
    "BurnedInAnnotation", "RecognizableVisualFeatures", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip


def make_captures(
    pictures: Iterable[np.ndarray], source: DicomSource, algorithm: Algorithm
) -> "Iterator[Dataset]":
    """One secondary capture a slice, all in one new series.

    Args:
        pictures: RGB (height, width, 3) uint8 with outlines, by depth.
        source: The image.
        algorithm: What found the outlines.

    Raises:
        HyMUNetError: If the source's headers allow none.
    """
    import highdicom
    from pydicom.uid import generate_uid

    common = equipment(source, algorithm, f"{MAKER} outlines, not for diagnosis", series=1)
    plane_at = {depth: plane for plane, depth in enumerate(source.depths)}
    for depth, picture in enumerate(pictures):
        header = source.header_at(plane_at[depth])
        patient = {
            name: header[keyword].value
            for name, keyword in (
                ("patient_id", "PatientID"), ("patient_name", "PatientName"),
                ("patient_birth_date", "PatientBirthDate"), ("patient_sex", "PatientSex"),
                ("accession_number", "AccessionNumber"), ("study_id", "StudyID"),
                ("study_date", "StudyDate"), ("study_time", "StudyTime"),
                ("referring_physician_name", "ReferringPhysicianName"),
            )
        }  # fmt: skip
        own = {"sop_instance_uid": generate_uid(prefix=None), "instance_number": depth + 1}
        with quiet_about_values():
            try:
                made: Dataset = highdicom.sc.SCImage(
                    pixel_array=np.ascontiguousarray(picture),
                    photometric_interpretation="RGB",
                    bits_allocated=8,
                    coordinate_system="PATIENT",
                    patient_orientation=("L", "P"),  # asked for; put right below
                    study_instance_uid=header.StudyInstanceUID,
                    pixel_spacing=source.grid.spacing_mm[-2:] if source.grid.spacing_mm else None,
                    **(patient | common | own),
                )
                made.copy_patient_and_study_information(header)
            except (ValueError, TypeError, AttributeError, LookupError) as error:
                raise HyMUNetError(
                    f"{source.name}: its headers allow no secondary capture ({error}); leave "
                    "--overlay out"
                ) from error
        spell_as_source(made, source, [algorithm.model])
        _describe(made, header, source, plane_at[depth], algorithm)
        yield made


def patient_orientation(cosines: np.ndarray) -> list[str]:
    """Where a row and a column run to, a letter each: L(eft), R(ight), P(osterior), A(nterior),
    H(ead), F(oot).

    Args:
        cosines: The six of ImageOrientationPatient.
    """
    letters = []
    for direction in np.reshape(cosines, (2, 3)):
        axis = int(np.abs(direction).argmax())
        letters.append(("LR", "PA", "HF")[axis][int(direction[axis] < 0)])
    return letters


def _describe(
    made: "Dataset", header: "Dataset", source: DicomSource, plane: int, algorithm: Algorithm
) -> None:
    from pydicom import Dataset

    made.ConversionType = "WSD"  # made on a workstation
    made.DerivationDescription = (
        f"Outlines of a segmentation by {line(MAKER + ' ' + algorithm.model)} drawn into the "
        "pixels; research use only, not for diagnosis"
    )
    made.DerivationCodeSequence = [concept(_SEGMENTATION)]
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if source.multi_frame:
        reference.ReferencedFrameNumber = plane + 1
    reference.PurposeOfReferenceCodeSequence = [concept(_SOURCE)]
    made.SourceImageSequence = [reference]
    made.Laterality = header.get("Laterality") or ""
    made.PatientOrientation = header.get("PatientOrientation") or ""
    if source.placed:
        place = header
        if source.multi_frame or "ImageOrientationPatient" not in header:
            shared = header.SharedFunctionalGroupsSequence[0]
            place = shared.PlaneOrientationSequence[0]
        made.PatientOrientation = patient_orientation(
            np.array(place.ImageOrientationPatient, float)
        )
    for keyword in _INHERITED:
        if keyword in header:
            setattr(made, keyword, header[keyword].value)
