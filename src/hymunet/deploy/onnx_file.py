"""A model as an ONNX graph with its metadata."""

import json
from pathlib import Path
from typing import Any

from hymunet.deploy.graph import PICTURE, graph_of, traced
from hymunet.deploy.precision import store_as
from hymunet.inference.onnx_runtime import KEY
from hymunet.inference.predictor import Predictor
from hymunet.scan.exportable import to_onnx

# sizes that may differ, in words: axis -> name, for the input and the two outputs
_AXES = (
    {0: "batch", 1: "height", 2: "width"},
    {0: "batch", 2: "height", 3: "width"},
    {0: "batch", 1: "height", 2: "width"},
)


class OnnxFile:
    """Built once, saved when its metadata are complete.

    Args:
        predictor: The model, of one member.
        metadata: What the file says of itself; read at each `save`.
    """

    def __init__(self, predictor: Predictor, metadata: dict[str, Any]) -> None:
        pictures = metadata["interface"] == PICTURE
        chosen = predictor.members[0].preprocess.config
        program, dynamic = traced(graph_of(predictor, metadata), chosen, predictor.config)
        names = ["probability", "mask"] if pictures else ["probability"]
        written = to_onnx(program, (), (dynamic,), input_names=["image"], output_names=names)
        self.metadata = metadata
        self.model = written.model_proto
        if pictures:
            # the tracer's own symbols tell a reader nothing
            values = (*self.model.graph.input, *self.model.graph.output)
            for value, axes in zip(values, _AXES, strict=True):
                for axis, word in axes.items():
                    value.type.tensor_type.shape.dim[axis].dim_param = word
        _forget_the_maker(self.model.graph)
        store_as(self.model, metadata["precision"])

    def save(self, path: Path) -> None:
        """Writes the file, checked to be one that ONNX allows."""
        import onnx

        onnx.helper.set_model_props(self.model, {KEY: json.dumps(self.metadata)})
        onnx.checker.check_model(self.model)
        onnx.save(self.model, str(path))

    def predictor(self, path: Path) -> Predictor:
        """The saved file in onnxruntime."""
        return Predictor(path, postprocess=False)


def _forget_the_maker(graph: Any) -> None:
    """Takes out what the exporter notes at each node for its makers: a stack trace with the paths
    of this machine, two fifths of the file."""
    del graph.metadata_props[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_the_maker(attribute.g)
