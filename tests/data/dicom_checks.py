"""Other people's programs on our DICOM objects."""

import shutil
import subprocess

import numpy as np
import pytest
import SimpleITK

DCIODVFY = shutil.which("dciodvfy")
needs_dciodvfy = pytest.mark.skipif(
    DCIODVFY is None,
    reason="NOT CHECKED AGAINST THE STANDARD: dciodvfy is missing; apt install dicom3tools",
)


def complaints(path):
    """The errors that dciodvfy finds in a file; warnings left out."""
    assert DCIODVFY is not None
    ran = subprocess.run([DCIODVFY, str(path)], capture_output=True, text=True, check=False)
    lines = (ran.stdout + ran.stderr).splitlines()
    assert any(line.strip() for line in lines), "dciodvfy says what kind of object it has seen"
    return [line for line in lines if line.startswith("Error")]


def geometry_by_itk(paths):
    """Origin, spacing and direction (LPS, mm) of a file or of the files of a series, and its array,
    as SimpleITK's GDCM reads them."""
    if isinstance(paths, list):
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames([str(path) for path in paths])
        image = reader.Execute()
    else:
        image = SimpleITK.ReadImage(str(paths))
    place = (image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    return tuple(np.array(part) for part in place), SimpleITK.GetArrayFromImage(image)
