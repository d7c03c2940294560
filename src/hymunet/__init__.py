"""HyM-UNet: medical-image segmentation with convolutions, Visual Mamba and Mamba-Guided Fusion."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hymunet.deploy.hub import push_to_hub as push_to_hub
    from hymunet.deploy.hub import save_pretrained as save_pretrained
    from hymunet.errors import HyMUNetError as HyMUNetError
    from hymunet.evaluation.evaluate import evaluate as evaluate
    from hymunet.inference.predict import predict as predict
    from hymunet.inference.predictor import Prediction as Prediction
    from hymunet.inference.predictor import Predictor as Predictor
    from hymunet.network.config import HyMUNetConfig as HyMUNetConfig
    from hymunet.network.hymunet import HyMUNet as HyMUNet
    from hymunet.network.hymunet import hymunet_base as hymunet_base
    from hymunet.network.hymunet import hymunet_small as hymunet_small
    from hymunet.network.hymunet import hymunet_tiny as hymunet_tiny
    from hymunet.network.pretrained import pretrained_names as pretrained_names
    from hymunet.scan import selective_scan as selective_scan
    from hymunet.training.options import TrainOptions as TrainOptions
    from hymunet.workflows.train import train as train

__version__ = "0.1.0"

# names resolve on first use: importing the package loads neither torch nor anything slow
_WHERE = {
    "HyMUNet": "hymunet.network.hymunet",
    "HyMUNetConfig": "hymunet.network.config",
    "HyMUNetError": "hymunet.errors",
    "Prediction": "hymunet.inference.predictor",
    "Predictor": "hymunet.inference.predictor",
    "TrainOptions": "hymunet.training.options",
    "evaluate": "hymunet.evaluation.evaluate",
    "hymunet_base": "hymunet.network.hymunet",
    "hymunet_small": "hymunet.network.hymunet",
    "hymunet_tiny": "hymunet.network.hymunet",
    "predict": "hymunet.inference.predict",
    "pretrained_names": "hymunet.network.pretrained",
    "push_to_hub": "hymunet.deploy.hub",
    "save_pretrained": "hymunet.deploy.hub",
    "selective_scan": "hymunet.scan",
    "train": "hymunet.workflows.train",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'hymunet' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
