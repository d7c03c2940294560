"""Smaller ONNX files: numbers stored in 16 or 8 bits, computed with in float32.

Storage alone, since a CPU gains nothing from computing in 16 bits, and a scan in 8 bits is none.
Any runtime reads such a file: a number of 16 bits passes a `Cast`, one of 8 a `DequantizeLinear`.
"""

from typing import TYPE_CHECKING

import numpy as np

from hymunet.network.model_file import HALF_ABOVE

if TYPE_CHECKING:
    from onnx import ModelProto

PRECISIONS = ("float32", "float16", "int8")
# node type -> axis of its second input along which outputs lie: each has a scale of its own
_OUTPUT_AXIS = {"Conv": 0, "MatMul": -1}


def store_as(model: "ModelProto", precision: str) -> int:
    """Changes, in place, how large tensors of weights (more than 4096 numbers) are stored.

    float16 takes all of them that lie in its range. int8 takes the weights of convolutions and
    products of matrices: q = round(w / s), s = max|w| / 127 for each output channel; what steers a
    scan (A, the step sizes' projection) goes to float16.

    Args:
        model: A graph whose weights are float32 initialisers.
        precision: float16 or int8; float32 changes nothing.

    Returns:
        How many tensors are stored in fewer bits.
    """
    from onnx import TensorProto, helper, numpy_helper

    if precision == "float32":
        return 0
    axes = {
        node.input[1]: _OUTPUT_AXIS[node.op_type]
        for node in model.graph.node
        if node.op_type in _OUTPUT_AXIS
    }
    before = []
    changed = 0
    for tensor in list(model.graph.initializer):  # scales are added to it
        if tensor.data_type != TensorProto.FLOAT:
            continue
        numbers = numpy_helper.to_array(tensor)
        if numbers.size <= HALF_ABOVE:
            continue
        name, stored = tensor.name, f"{tensor.name}.stored"
        axis = axes.get(name)
        if precision == "int8" and axis is not None:
            axis %= numbers.ndim
            quantised, scale = _quantised(numbers, axis)
            tensor.CopyFrom(numpy_helper.from_array(quantised, stored))
            model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
            before.append(
                helper.make_node("DequantizeLinear", [stored, f"{name}.scale"], [name], axis=axis)
            )
        else:
            with np.errstate(over="ignore"):
                half = numbers.astype(np.float16)
            if not np.isfinite(half).all():
                continue
            tensor.CopyFrom(numpy_helper.from_array(half, stored))
            before.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
        changed += 1
    # nodes must stand before those that read them
    nodes = [*before, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return changed


def _quantised(numbers: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 numbers, and their scale along `axis`."""
    others = tuple(a for a in range(numbers.ndim) if a != axis)
    scale = np.abs(numbers).max(axis=others, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    quantised = np.rint(numbers / scale).astype(np.int8)
    return quantised, scale.reshape(-1).astype(np.float32)
