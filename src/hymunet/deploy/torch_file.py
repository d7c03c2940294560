"""A model as a program of `torch.export` (.pt2) with the interface of the ONNX file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hymunet.deploy.graph import graph_of, traced
from hymunet.errors import HyMUNetError
from hymunet.inference.onnx_runtime import KEY, ExportedNetwork
from hymunet.inference.predictor import Predictor
from hymunet.scan.exportable import portable_program


class ProgramNetwork(ExportedNetwork):
    """A program in the place of the network that it was traced from."""

    def __init__(self, program: torch.export.ExportedProgram, info: dict[str, Any]) -> None:
        super().__init__("the program", info)
        # not a submodule: that of a program has no modes, which `eval()` would set
        self._call: Callable[..., Any] = program.module().forward

    def run(self, fed: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            with torch.no_grad():
                outputs = self._call(torch.from_numpy(fed))
        except RuntimeError as error:
            raise HyMUNetError(
                f"the program does not run on an image of shape {fed.shape} "
                f"({str(error).splitlines()[0]:.200}); an ONNX file may: --format onnx"
            ) from error
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(output.numpy() for output in outputs)


class TorchFile:
    """Built once, saved when its metadata are complete; these are the extra file `hymunet.json`,
    which `torch.export.load(path, extra_files={"hymunet.json": ""})` reads.

    Args:
        predictor: The model, of one member.
        metadata: What the file says of itself; read at each `save`.
        portable: The scan in torch's own operators.
    """

    def __init__(self, predictor: Predictor, metadata: dict[str, Any], portable: bool) -> None:
        chosen = predictor.members[0].preprocess.config
        program, _ = traced(graph_of(predictor, metadata), chosen, predictor.config)
        self.program = portable_program(program) if portable else program
        self.metadata = metadata

    def save(self, path: Path) -> None:
        """Writes the file."""
        torch.export.save(
            self.program, path, extra_files={f"{KEY}.json": json.dumps(self.metadata)}
        )

    def predictor(self, path: Path) -> Predictor:
        """The program in the place of the network; `path` holds the same."""
        network = ProgramNetwork(self.program, self.metadata)
        return Predictor(network, device="cpu", info=self.metadata, postprocess=False)
