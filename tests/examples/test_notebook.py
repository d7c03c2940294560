"""The example notebook, run from its first cell to its last in a kernel."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.notebook
NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


@pytest.fixture(scope="module")
def cells():
    said = "THE NOTEBOOK IS NOT RUN: install nbclient and ipykernel (the extra `dev`)"
    pytest.importorskip("ipykernel", reason=said)
    nbclient = pytest.importorskip("nbclient", reason=said)
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # kept without results
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell, kind):
    return [output.data[kind] for output in cell.outputs if kind in output.get("data", {})]


def test_a_prediction_shows_itself(cells):
    [page] = shown(cells[0], "text/html")
    assert "data:image/png;base64," in page
    assert "<th>lesion</th>" in page
    [line] = shown(cells[0], "text/plain")
    assert line.startswith("Prediction(384 x 512: lesion ")


def test_its_parts_are_what_the_text_says(cells):
    printed = cells[1].outputs[0].text
    assert "(384, 512) uint8" in printed
    assert "(1, 384, 512) float32" in printed
    assert "rings" in cells[2].outputs[0].text


def test_the_overlay_is_a_picture(cells):
    assert shown(cells[3], "image/png")


def test_the_model_finds_the_drawn_lesion(cells):
    dice = [float(line.split()[-1]) for line in cells[4].outputs[0].text.splitlines()]
    assert max(dice) > 0.8
