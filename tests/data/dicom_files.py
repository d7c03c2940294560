"""Tiny DICOM series, enhanced files and segmentations for tests; the patient's name is a canary."""

from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

NAME = "CANARY^JANE"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
_c, _s = np.cos(0.3), np.sin(0.3)
OBLIQUE = (_c, _s, 0.0, -_s * _c, _c * _c, _s)
ORIENTATIONS = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "oblique": OBLIQUE}


def volume(shape=(5, 7, 9), seed=0, low=0, high=4096, dtype=np.uint16):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def dataset(array, sop_class=CTImageStorage, **fields):
    """A file of `array` (rows, columns[, 3]) or (frames, rows, columns), with `fields` on top; a
    field that is None is left out."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid()
    ds.PatientName, ds.PatientID = NAME, "CANARY-0815"
    ds.PatientBirthDate, ds.PatientSex = "19010203", "O"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.FrameOfReferenceUID = generate_uid()
    ds.Modality, ds.SeriesDescription = "CT", "thin slices"
    ds.StudyID = ds.AccessionNumber = ds.StudyDate = ds.StudyTime = ""
    ds.SeriesNumber = ds.InstanceNumber = 1
    colour = array.ndim == 3 and array.shape[-1] == 3
    if array.ndim == 3 and not colour:
        ds.NumberOfFrames = len(array)
    ds.Rows, ds.Columns = array.shape[:2] if array.ndim == 2 or colour else array.shape[1:]
    ds.SamplesPerPixel = 3 if colour else 1
    if colour:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = array.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    raw = array.tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    for name, value in fields.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def save(ds, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def digits(values):
    """Decimal strings as a scanner writes them: at most 16 characters."""
    return [f"{value:.9g}"[:16] for value in values]


def slices(
    array, orientation=AXIAL, spacing=(0.7, 0.9), step=2.5, origin=(-20.0, 11.0, 40.0), **fields
):
    """A data set for each slice of `array` (depth, rows, columns[, 3]), along the normal."""
    along, down = np.reshape(orientation, (2, 3))
    common = {
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "ImageOrientationPatient": digits(orientation),
        "PixelSpacing": digits(spacing),
        "SliceThickness": "9.0",  # a trap: not the distance of the slices
    } | fields
    made = []
    for index, one in enumerate(array):
        position = np.asarray(origin) + index * step * np.cross(along, down)
        made.append(
            dataset(
                one,
                ImagePositionPatient=digits(position),
                InstanceNumber=len(array) - index,  # a trap: the scan ran the other way
                **common,
            )
        )
    return made


def write_series(folder: Path, made, seed=1, name="IM{:04d}.dcm"):
    """Writes data sets under names in random order; returns the folder."""
    order = np.random.default_rng(seed).permutation(len(made))
    for number, ds in zip(order, made, strict=True):
        save(ds, folder / name.format(number))
    return folder


def enhanced(array, orientation=AXIAL, spacing=(0.7, 0.9), step=2.5, slopes=None):
    """One multi-frame file of a volume, its frames in reverse."""
    single = slices(array, orientation, spacing, step)
    ds = dataset(array[::-1].copy(), EnhancedMRImageStorage, Modality="MR")
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = digits(orientation)
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = digits(spacing)
    shared.PixelMeasuresSequence[0].SliceThickness = "9.0"
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index, one in enumerate(reversed(single)):
        group = Dataset()
        group.PlanePositionSequence = [Dataset()]
        group.PlanePositionSequence[0].ImagePositionPatient = one.ImagePositionPatient
        if slopes is not None:
            value = Dataset()
            value.RescaleSlope, value.RescaleIntercept = slopes[::-1][index], "1"
            group.PixelValueTransformationSequence = [value]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    return ds


def segmentation(sources, masks, kind="BINARY", labels=None, **options):
    """highdicom's segmentation of `masks` (depth, rows, columns, segments) drawn on `sources`;
    empty slices are left out."""
    count = masks.shape[-1]
    labels = labels or [f"structure {i + 1}" for i in range(count)]
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(labels, start=1)
    ]
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="tests",
        manufacturer_model_name="tests",
        software_versions="1",
        device_serial_number="1",
        **options,
    )


def photo(array, **fields):
    """A secondary capture without a place in space."""
    fields = {"Modality": "XC", "FrameOfReferenceUID": None} | fields
    return dataset(array, SecondaryCaptureImageStorage, **fields)


def read_back(path):
    return pydicom.dcmread(path)
