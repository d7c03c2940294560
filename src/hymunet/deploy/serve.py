"""`hymunet serve`: a model behind HTTP."""

import contextlib
import logging
import socket
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from hymunet.console import say
from hymunet.errors import HyMUNetError

if TYPE_CHECKING:
    from hymunet.inference.predictor import Predictor

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
LEAST_TOKEN = 16


def serve(
    model: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    max_megapixels: float = 50.0,
    max_megabytes: float = 64.0,
    queue: int = 16,
    timeout: float = 60.0,
    batch: int = 8,
    threads: int | None = None,
    device: str | None = None,
    log: Annotated[bool, Parameter(negative="--no-log")] = True,
) -> None:
    """Serves a model over HTTP: an image goes in, its mask and measurements come out as JSON.

    POST /v1/segment takes PNG, JPEG, TIFF, BMP, WebP, GIF, NIfTI or DICOM (one file), as the body
    or as the field `image` of a form; `?include=mask,probability,contours,rle` says what comes
    back. GET /v1/models, /health, /metrics (Prometheus), /openapi.json, and / a page.

    Nothing of an image touches the disk or the log. SIGTERM and Ctrl-C finish what was accepted and
    answer newcomers 503; the exit code is then 0. Research use only, not a medical device.

    Args:
        model: A model file, a run folder, a folder of folds, or the name of a packaged model.
        host: Address to listen at; the default is reached from this machine only. Others need a
            --token-file, or a proxy that asks who is there; the traffic is not encrypted.
        port: 0: any free one, which is printed.
        token_file: File with the token, of 16 characters or more, that clients must show in
            `Authorization: Bearer TOKEN`. The page and /health are open.
        max_megapixels: Largest image, in 10^6 pixels (of a volume voxels times channels); told from
            the header, before anything is decoded. A picture of 50 takes about 2 GB for a moment.
        max_megabytes: Largest body, in 10^6 bytes.
        queue: Requests that may wait; others are answered 429 with Retry-After.
        timeout: Seconds from a request's first byte to its answer.
        batch: Pictures that go through the network together where several wait.
        threads: Threads of torch; default: torch's own choice, the cores.
        device: cpu or cuda; default: CUDA when there is one.
        log: A line a request on standard error: number, route, status, duration.

    Raises:
        HyMUNetError: If the model, the address or the token cannot be used, or packages are
            missing.
    """
    from hymunet.extras import require

    require("serve", "the server", "fastapi", "uvicorn", "python_multipart", "prometheus_client")
    from hymunet.deploy.limits import Limits

    limits = Limits(max_megapixels, max_megabytes, queue, timeout, batch)
    if threads is not None and threads < 1:
        raise HyMUNetError(f"--threads must be at least 1, {threads} came")
    token = None if token_file is None else read_token(token_file)
    _quieten(log)
    listener = listen(host, port)
    with listener:
        from hymunet.deploy.app import make_app
        from hymunet.deploy.listener import make_server
        from hymunet.inference.predictor import Predictor

        threads = _leave_the_cores_to_the_engine(threads)
        predictor = Predictor(model, device=device)
        hosts = LOOPBACK if is_loopback(host) and token is None else None
        gate, engine = make_app(predictor, identity_of(model), limits, token, hosts, threads)
        console = Console(stderr=True)
        _introduce(console, predictor, name_of(model))
        engine.start(lambda: warm_up(predictor))
        import_readers()
        server = make_server(gate, timeout)
        listener.listen(128)  # from here on clients are waited for
        _say_where(console, listener, host, token is not None)
        try:
            server.run(sockets=[listener])
        finally:
            engine.stop()
        say(console, "stopped; every accepted request was answered")


def _leave_the_cores_to_the_engine(threads: int | None) -> int:
    """How many threads of torch the engine's thread shall have; this one gets none beside itself.

    OpenMP keeps helpers for every thread that ever computed in parallel. With this thread's beside
    the engine's there would be more than cores, and from then on none of them waits awake for the
    next operation: a picture took 1.6 times as long.
    """
    import torch

    threads = threads or torch.get_num_threads()
    torch.set_num_threads(1)
    return threads


def read_token(path: Path) -> str:
    """The token in a file, without blanks around it.

    Raises:
        HyMUNetError: If there is none, or one that does not fit into a header or is too short.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise HyMUNetError(f"the token file {path} cannot be read: {reason}") from error
    if len(token) < LEAST_TOKEN or not all("!" <= letter <= "~" for letter in token):
        raise HyMUNetError(
            f"the token in {path} has {len(token)} characters; expected at least {LEAST_TOKEN}, "
            "letters, digits and signs without blanks. To make one: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    return host in ("localhost", "::1") or host.startswith("127.")


def identity_of(model: Path) -> dict[str, str]:
    """`id` and `name` of a model, as clients are told.

    Raises:
        HyMUNetError: If it cannot be read.
    """
    from hymunet.network.model_file import models_identity

    return {"id": models_identity(model)["weights_sha256"], "name": name_of(model)}


def name_of(model: Path) -> str:
    """What a client is told: no folders of this machine."""
    from hymunet.network.folds import find_folds
    from hymunet.network.hub import model_name
    from hymunet.network.model_file import find_model
    from hymunet.network.pretrained import pretrained_file

    if pretrained_file(model) is not None:
        return str(model)
    if find_folds(Path(model)):
        return Path(model).resolve().name
    return model_name(find_model(model))


def listen(host: str, port: int) -> socket.socket:
    """The socket, bound before the model is loaded: a taken port is said at once.

    Raises:
        HyMUNetError: If the address cannot be used.
    """
    if not 0 <= port <= 65535:
        raise HyMUNetError(f"--port must lie between 0 and 65535, {port} came")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # the protocol is named: without it asyncio leaves Nagle's algorithm on, 40 ms an answer
        listener = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise HyMUNetError(
            f"cannot listen at {host}, port {port}: {error.strerror or error}; choose another "
            "--port (0: any free one) or --host"
        ) from error
    return listener


def warm_up(predictor: "Predictor") -> None:
    """Segments a grey image, so that the first client does not wait for what is compiled and
    allocated once.

    Raises:
        HyMUNetError: If the model cannot segment it.
    """
    import numpy as np

    from hymunet.data.image_io import Image

    side = 32 if predictor.config.spatial_dims == 3 else 256
    shape = (predictor.config.in_channels, *[side] * predictor.config.spatial_dims)
    image = np.zeros(shape, np.uint8)
    predictor(Image(image, predictor.members[0].preprocess.config.spacing_mm))


def import_readers() -> None:
    """What reads volumes, so that the first of them does not wait for it."""
    from hymunet.data.dicom_header import import_pydicom
    from hymunet.data.masks_io import import_nibabel

    for import_reader in (import_nibabel, import_pydicom):
        with contextlib.suppress(HyMUNetError):  # the request says what is missing
            import_reader(Path("the image"))


def _quieten(log: bool) -> None:
    """One logger speaks. Libraries warn of odd values in a file by quoting them."""
    warnings.simplefilter("ignore")
    logging.disable(logging.NOTSET)
    for name in ("pydicom", "nibabel", "nibabel.global", "PIL", "uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    logger = logging.getLogger("hymunet.serve")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if log else logging.WARNING)


def _introduce(console: Console, predictor: "Predictor", name: str) -> None:
    from hymunet.inference.describe import describe_model

    about, terms = describe_model(predictor.info)
    say(console, f"model {name}: {about}")
    say(console, terms)
    for note in predictor.notes:
        say(console, f"note: {note}", "yellow")


def _say_where(console: Console, listener: socket.socket, host: str, token: bool) -> None:
    port = listener.getsockname()[1]
    if not is_loopback(host) and not token:
        say(
            console,
            f"warning: whoever reaches {host} may use this server: give it a --token-file, or keep "
            "it behind a proxy that asks who is there",
            "yellow",
        )
    shown = f"[{host}]" if ":" in host else host
    say(console, f"serving at http://{shown}:{port} (POST /v1/segment; Ctrl-C stops)")
