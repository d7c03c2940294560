"""The script of docs/dicom.md between a real Orthanc and `predict`; skipped loudly without one."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("highdicom", reason="NOT TESTED: DICOM output needs the extra `dicom`")

from hymunet import HyMUNet, Predictor
from hymunet.data.mask_reading import read_mask
from hymunet.network.model_file import save_model
from tests.data.dicom_files import OBLIQUE, photo, slices, volume, write_series

pytestmark = pytest.mark.dicom

ORTHANC = shutil.which("Orthanc")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "dicom.md"
TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}
PATIENCE = 120  # seconds


def script():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return code


def test_the_script_of_the_page_compiles():
    compile(script(), str(PAGE), "exec")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def running(command, folder, log):
    with open(log, "w") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def until(condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if (found := condition()) is not None:
            return found
        time.sleep(0.5)
    return None


@pytest.mark.slow
@pytest.mark.skipif(
    ORTHANC is None, reason="NOT TESTED BEHIND AN ARCHIVE: Orthanc is missing; apt install orthanc"
)
def test_what_orthanc_receives_is_segmented_into_its_study(tmp_path):
    http, dicom = free_port(), free_port()
    address = f"http://127.0.0.1:{http}"
    settings = {
        "StorageDirectory": str(tmp_path / "storage"), "IndexDirectory": str(tmp_path / "index"),
        "HttpPort": http, "DicomPort": dicom, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False, "StableAge": 1, "Plugins": [],
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    (tmp_path / "segment_series.py").write_text(script())
    torch.manual_seed(4)
    network = HyMUNet(1, 3, spatial_dims=3, activation="softmax", conv_norm="group", **TOY)
    model = save_model(tmp_path / "m.safetensors", network, {"classes": ["liver", "spleen"]})
    made = slices(volume((4, 16, 24)), OBLIQUE)
    series = write_series(tmp_path / "ct", made)
    others = write_series(tmp_path / "other", [photo(volume((8, 8), 0, 0, 256, np.uint8))])

    def call(path, body=None):
        try:
            with urllib.request.urlopen(address + path, data=body, timeout=30) as answer:
                return answer.read()
        except OSError:
            return None

    def derived():
        every = [json.loads(call(f"/series/{one}")) for one in json.loads(call("/series"))]
        return next((one for one in every if one["MainDicomTags"]["Modality"] == "SEG"), None)

    log = tmp_path / "script.log"
    with running([ORTHANC, tmp_path / "orthanc.json"], tmp_path, tmp_path / "orthanc.log"):
        assert until(lambda: call("/system")) is not None, (tmp_path / "orthanc.log").read_text()
        for path in [*others.iterdir(), *series.iterdir()]:
            assert call("/instances", path.read_bytes()) is not None
        command = [sys.executable, tmp_path / "segment_series.py", address, model]
        with running(command, tmp_path, log):
            found = until(derived)
            assert found is not None, log.read_text()
            time.sleep(8)  # its own result has become stable too, and must not be taken for input
        assert len(json.loads(call("/series"))) == 3
        study = json.loads(call(f"/studies/{found['ParentStudy']}"))
        assert study["MainDicomTags"]["StudyInstanceUID"] == made[0].StudyInstanceUID
        (tmp_path / "seg.dcm").write_bytes(call(f"/instances/{found['Instances'][0]}/file"))
    expected = Predictor(model)(series).mask
    np.testing.assert_array_equal(read_mask(tmp_path / "seg.dcm", 3, image=series).labels, expected)
    assert "CANARY" not in log.read_text()
