"""The shapes of requests and answers, for /openapi.json and its readers."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hymunet.deploy.decoding import MULTIPART, TYPES


class Model(BaseModel):
    """The model behind an answer."""

    id: str = Field(description="SHA-256 of the weights, hexadecimal")
    name: str
    classes: list[str]
    threshold: float | None = Field(description="of this answer; null: the most probable class")
    activation: Literal["sigmoid", "softmax"]
    licence: str | None


class ServedModel(Model):
    """The model that is served, and what it takes."""

    label_values: list[int] = Field(description="values in masks, the background's first")
    nested: bool = Field(description="whether a class holds those after it")
    domain: str | None
    spatial_dims: Literal[2, 3]
    in_channels: int
    postprocess: dict[str, list[str]]


class Bounds(BaseModel):
    """What the server takes."""

    megapixels: float
    megabytes: float
    queue: int
    timeout_s: float


class Models(BaseModel):
    """The answer of /v1/models."""

    models: list[ServedModel]
    limits: Bounds
    research_use_only: Literal[True]


class ImageFacts(BaseModel):
    """What was understood of the image."""

    width: int
    height: int
    depth: int | None
    spacing_mm: list[float] | None
    notes: list[str] = Field(description="conversions, such as: grey repeated to three channels")


class Contours(BaseModel):
    """Outlines of a class along its pixels' edges; even-odd rule."""

    model_config = ConfigDict(populate_by_name=True)
    name: str = Field(alias="class")
    rings: list[list[list[int]]] = Field(description="[x, y]; the last point joins the first")


class Rle(BaseModel):
    """COCO's uncompressed run lengths of a class: down the columns, zeros first."""

    model_config = ConfigDict(populate_by_name=True)
    name: str = Field(alias="class")
    size: list[int] = Field(description="[height, width]")
    counts: list[int]


class Timing(BaseModel):
    """Milliseconds; total begins with the request's first byte."""

    decode: float
    queue: float
    predict: float
    encode: float
    total: float


class Answer(BaseModel):
    """The answer of /v1/segment; parts that were not asked for are left out."""

    request_id: str
    model: Model
    image: ImageFacts
    mask_png: str | None = Field(None, description="base64, 8-bit grey PNG of label values")
    mask_nifti: str | None = Field(None, description="base64, .nii.gz on the volume's grid")
    probability_png: list[str] | None = Field(
        None, description="base64, 8-bit grey PNG of round(255 p), one a class"
    )
    contours: list[Contours] | None = None
    rle: list[Rle] | None = None
    measurements: list[dict[str, Any]] = Field(description="a row a class, as predict writes them")
    timing_ms: Timing
    research_use_only: Literal[True]


class Error(BaseModel):
    """A reason."""

    code: str
    message: str


class Failure(BaseModel):
    """The answer where there is no mask."""

    error: Error
    request_id: str


class Health(BaseModel):
    """Whether requests are taken."""

    status: Literal["ok", "shutting down"]
    version: str
    waiting: int


REASONS = {
    400: "The form or the length is broken.",
    401: "The token is missing or wrong.",
    405: "Another method is expected.",
    408: "The body came too slowly.",
    413: "Too many bytes or pixels.",
    415: "The Content-Type is none of an image.",
    421: "The server is called by a name that is not its own.",
    422: "The image cannot be read, or a parameter is wrong.",
    429: "All places in the queue are taken; Retry-After says when to come again.",
    503: "The server is shutting down.",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The failures that a route may answer by, for its description."""
    return {status: {"model": Failure, "description": REASONS[status]} for status in statuses}


_BINARY = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "requestBody": {
        "required": True,
        "description": "The image: its bytes, or a form with one field.",
        "content": {
            **dict.fromkeys(TYPES, _BINARY),
            MULTIPART: {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
