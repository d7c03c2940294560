"""The scan in torch's own operators: against the reference, in exported programs, and in ONNX."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim

from hymunet import scan
from hymunet.network.hymunet import PRESETS, HyMUNet
from hymunet.scan import scan_orders, selective_scan_reference
from hymunet.scan.exportable import (
    _check_torch,
    portable_program,
    selective_scan_portable,
    to_onnx,
)
from tests.cases import SCAN_CASES, TOLERANCE, scan_inputs


class ScanOfAGrid(nn.Module):
    """The operator over (batch, *grid, channels), visited as `scan_orders` says, or by a table."""

    def __init__(self, directions=4, channels=3, state=2, orders=scan_orders):
        super().__init__()
        inputs = scan_inputs(1, 1, directions, channels, state, torch.float32)
        self.A, self.D, self.bias = (
            nn.Parameter(inputs[name].detach()) for name in ("A", "D", "delta_bias")
        )
        self.orders = orders

    def forward(self, u, delta, B, C):
        grid = u.shape[1:-1]
        u, delta, B, C = (x.flatten(1, len(grid)) if len(grid) > 1 else x for x in (u, delta, B, C))
        order = None if self.orders is None else self.orders(grid)
        return scan.selective_scan(u, delta, self.A, B, C, self.D, order, self.bias, True)

    def example(self, batch, *grid):
        directions, channels, state = self.A.shape
        trailing = [(channels,), (directions, channels), (directions, state), (directions, state)]
        return tuple(torch.randn(batch, *grid, *sizes) for sizes in trailing)


def targets(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "raster"])
@pytest.mark.parametrize("fused", [True, False], ids=["bias and softplus", "plain"])
def test_matches_the_reference(case, ordered, fused):
    batch, grid, channels, state = case
    order = scan_orders(grid)
    inputs = scan_inputs(batch, order.shape[1], len(order), channels, state, torch.float64)
    bias = inputs.pop("delta_bias") if fused else None
    if not fused:
        del inputs["delta_bias"]
    inputs = {**inputs, "order": order if ordered else None, "delta_bias": bias}
    got = selective_scan_portable(**inputs, delta_softplus=fused)
    expected = selective_scan_reference(**inputs, delta_softplus=fused)
    torch.testing.assert_close(got, expected, **TOLERANCE[torch.float64])


def test_half_precision_keeps_its_type_and_computes_in_float32():
    inputs = scan_inputs(1, 6, 2, 3, 2, torch.float32)
    half = {
        n: t.detach().bfloat16() if n in ("u", "delta", "B", "C") else t.detach()
        for n, t in inputs.items()
    }
    got, expected = selective_scan_portable(**half), selective_scan_reference(**half)
    assert [x.dtype for x in got] == [torch.bfloat16, torch.float32]
    torch.testing.assert_close(got[1], expected[1], **TOLERANCE[torch.float32])


@pytest.mark.parametrize("grid", [(3, 5), (2, 3, 4)], ids=str)
def test_orders_are_computed_in_the_graph_for_any_size(grid):
    class Orders(nn.Module):
        def forward(self, image):
            return scan_orders(image.shape, image.device)

    dynamic = (dict.fromkeys(range(len(grid)), Dim.DYNAMIC),)
    program = torch.export.export(Orders(), (torch.zeros(grid),), dynamic_shapes=dynamic)
    for size in (grid, (7,) * len(grid), tuple(range(2, 2 + len(grid)))):
        assert torch.equal(program.module()(torch.zeros(size)), scan_orders(size))


def test_tracing_leaves_no_stand_in_for_later_calls():
    grid = (13, 17)  # no other test asks for this table
    with FakeTensorMode():
        assert scan_orders(grid).shape == (4, 221)
    torch.export.export(ScanOfAGrid(), ScanOfAGrid().example(2, *grid))
    assert type(scan_orders(grid)) is torch.Tensor
    with FakeTensorMode() as mode:  # nor does a kept table enter a trace
        assert scan_orders(grid).fake_mode is mode


def test_export_keeps_the_operator_and_a_portable_program_has_none():
    module = ScanOfAGrid().eval()
    dims = {0: Dim("batch"), 1: Dim("height"), 2: Dim("width")}
    program = torch.export.export(module, module.example(2, 3, 5), dynamic_shapes=(dims,) * 4)
    assert targets(program).count("hymunet.selective_scan.default") == 1
    portable = portable_program(program)
    assert targets(portable).count("scan") == 1
    assert not any("hymunet" in target for target in targets(portable))
    for size in [(2, 3, 5), (1, 4, 2), (3, 1, 1)]:
        inputs = module.example(*size)
        expected = module(*inputs)
        torch.testing.assert_close(program.module()(*inputs), expected, **TOLERANCE[torch.float32])
        torch.testing.assert_close(portable.module()(*inputs), expected, **TOLERANCE[torch.float32])


@pytest.mark.slow
def test_a_portable_program_runs_where_this_package_is_not_imported(tmp_path):
    module = ScanOfAGrid().eval()
    inputs = module.example(2, 3, 5)
    torch.export.save(
        portable_program(torch.export.export(module, inputs)), tmp_path / "portable.pt2"
    )
    torch.save((inputs, module(*inputs).detach()), tmp_path / "case.pt")
    script = (
        "import sys, torch\n"
        "inputs, expected = torch.load('case.pt')\n"
        "y = torch.export.load('portable.pt2').module()(*inputs)\n"
        "assert 'hymunet' not in sys.modules\n"
        "torch.testing.assert_close(y.detach(), expected)\n"
        "print('agrees')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.stdout.strip() == "agrees", run.stderr


@pytest.fixture
def onnx_agrees(tmp_path):
    """A check that an ONNX file and its module agree: max|onnx - torch| <= 1e-4 max|torch|."""
    pytest.importorskip("onnxscript", reason="NOT TESTED: ONNX needs the extra `export`")
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="NOT TESTED: ONNX needs the extra `export`"
    )

    def check(module, program, cases):
        assert any(node.op_type == "Scan" for node in program.model.graph)
        program.save(tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        names = [entry.name for entry in session.get_inputs()]
        for case in cases:
            feed = dict(zip(names, (x.numpy() for x in case), strict=True))
            got = torch.from_numpy(session.run(None, feed)[0])
            with torch.no_grad():
                expected = module(*case)
            assert got.shape == expected.shape
            assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()

    return check


@pytest.mark.onnx
@pytest.mark.slow
def test_onnx_of_the_operator_at_a_fixed_size(onnx_agrees):
    paths = torch.stack([torch.randperm(15) for _ in range(3)])
    module = ScanOfAGrid(3, 5, 4, orders=lambda grid: paths).eval()
    inputs = module.example(2, 15)
    program = torch.export.export(module, inputs)  # a program brings its own inputs
    onnx_agrees(module, to_onnx(program), [inputs, module.example(2, 15)])


@pytest.mark.onnx
def test_onnx_of_the_operator_at_any_batch_and_size(onnx_agrees):
    module = ScanOfAGrid().eval()
    dims = {0: Dim("batch"), 1: Dim("height"), 2: Dim("width")}
    program = to_onnx(module, module.example(2, 3, 5), (dims,) * 4)
    sizes = [(2, 3, 5), (1, 3, 5), (3, 1, 1), (1, 1, 7), (2, 6, 4)]
    onnx_agrees(module, program, [module.example(*size) for size in sizes])


@pytest.mark.onnx
@pytest.mark.slow
def test_onnx_of_the_operator_over_volumes_of_any_size(onnx_agrees):
    module = ScanOfAGrid(directions=6).eval()
    program = to_onnx(
        module, module.example(2, 2, 3, 4), (dict.fromkeys(range(4), Dim.DYNAMIC),) * 4
    )
    sizes = [(2, 2, 3, 4), (1, 3, 2, 2), (3, 1, 1, 1)]
    onnx_agrees(module, program, [module.example(*size) for size in sizes])


@pytest.mark.onnx
@pytest.mark.slow
def test_onnx_of_a_raster_scan_of_any_length(onnx_agrees):
    module = ScanOfAGrid(directions=2, orders=None).eval()
    program = to_onnx(module, module.example(2, 9), (dict.fromkeys(range(2), Dim.DYNAMIC),) * 4)
    onnx_agrees(
        module, program, [module.example(2, 9), module.example(1, 1), module.example(3, 30)]
    )


def images(stride, *sizes):
    return [(torch.randn(batch, 3, h * stride, w * stride),) for batch, h, w in sizes]


def any_image(stride):
    """Batch, height and width as names; sides are multiples of the network's stride."""
    return ({0: Dim("batch"), 2: stride * Dim("h"), 3: stride * Dim("w")},)


@pytest.mark.onnx
def test_onnx_of_a_network_at_any_batch_and_size(onnx_agrees):
    network = HyMUNet(3, 2, stages="CM", dims=(4, 8), depths=(1, 1), d_state=4).eval()
    stride = network.config.stride
    cases = images(stride, (2, 3, 5), (1, 3, 5), (3, 1, 2), (1, 8, 4))
    program = to_onnx(network, cases[0], any_image(stride), input_names=["image"])
    assert program.model.graph.inputs[0].name == "image"
    assert [str(side) for side in program.model.graph.inputs[0].shape] == [
        "batch",
        "3",
        f"{stride}*h",
        f"{stride}*w",
    ]
    onnx_agrees(network, program, cases)


@pytest.mark.onnx
@pytest.mark.slow
@pytest.mark.parametrize("dynamic", ["nothing", "batch", "batch and size"])
@pytest.mark.parametrize("preset", PRESETS)
def test_onnx_of_every_preset(preset, dynamic, onnx_agrees):
    network = PRESETS[preset]().eval()
    stride = network.config.stride
    cases = images(stride, (2, 4, 4))
    shapes = {"nothing": None, "batch": ({0: Dim("batch")},), "batch and size": any_image(stride)}
    if dynamic != "nothing":
        cases += images(stride, (1, 4, 4))
    if dynamic == "batch and size":
        cases += images(stride, (1, 2, 3), (1, 8, 4))
    onnx_agrees(network, to_onnx(network, cases[0], shapes[dynamic]), cases)


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        to_onnx(ScanOfAGrid(), ScanOfAGrid().example(1, 2, 2))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # what an absent package looks like
    words = r"ONNX export needs (onnx, )?onnxscript.*hymunet\[export\]"
    with pytest.raises(ValueError, match=words):
        to_onnx(ScanOfAGrid().eval(), ScanOfAGrid().example(1, 2, 2))


def test_a_torch_without_onnx_scan_is_refused():
    for version in ("2.9.0", "2.13.0+cpu", "3.0.0a0+git1234"):
        _check_torch(version)
    with pytest.raises(ValueError, match=r"torch 2.9 or newer, but this is torch 2.8.1"):
        _check_torch("2.8.1+cu126")
