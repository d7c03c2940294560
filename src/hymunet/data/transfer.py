"""One address to one file over HTTP: resumes, tries again, and never mixes two versions.

`requests` asks (proxies, certificates, redirects), urllib3's `Retry` says how long to wait; what
resuming needs is RFC 9110, sections 13.1.5 (If-Range), 14.2 (Range) and 15.3.7 (206).
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from rich.filesize import decimal

from hymunet import __version__
from hymunet.data.partial import Partial, Remote
from hymunet.errors import HyMUNetError

if TYPE_CHECKING:
    import requests
    from urllib3.util import Retry

TIMEOUTS_S = (30, 60)  # to connect; without a byte
LONGEST_WAIT_S = 300.0
CHUNK = 1 << 18
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Progress = Callable[[int, int | None], object]
T = TypeVar("T")


class _CutError(Exception):
    """A failure that another attempt may mend; `response` may say how long to wait."""

    def __init__(self, reason: str, response: "requests.Response | None" = None):
        super().__init__(reason)
        self.response = response


class Transfer:
    """Fetches files, one after the other.

    Args:
        notice: Told what happens besides progress: a wait, a new beginning.
        backoff_s: The shortest wait; it doubles with each failure in a row.
        retries: Failures in a row without a new byte, after which it gives up.
    """

    def __init__(
        self, notice: Callable[[str], object], *, backoff_s: float = 1.0, retries: int = 5
    ):
        import requests

        self._notice, self._backoff_s, self._retries = notice, backoff_s, retries
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"hymunet/{__version__}"
        # the file's own bytes: lengths and digests are those of the file on the server
        self._session.headers["Accept-Encoding"] = "identity"

    def size(self, url: str) -> int | None:
        """Bytes of the file at `url`; None when the server does not say.

        Raises:
            HyMUNetError: If there is no such file, or the server cannot be reached.
        """

        def ask() -> int | None:
            with closing(self._ask("HEAD", url)) as response:
                if response.status_code in (403, 405, 501):
                    return None  # this server does not answer HEAD; GET will tell
                _expect_file(response, url)
                return _number(response.headers.get("Content-Length"))

        size = self._persist(url, ask, lambda: 0, "nothing was downloaded")
        if size is None:
            self._notice(f"{url}: the server does not say how large it is")
        return size

    def fetch(
        self, url: str, part: Partial, progress: Progress = lambda done, total: None
    ) -> Remote:
        """Brings the file at `url` to `part.path`, going on where an earlier call stopped.

        When the file on the server has changed meanwhile, when nobody can tell whether it has, or
        when the server sends no parts of files, it starts anew.

        Args:
            url: http or https.
            part: Where to; whole when this returns, and only then.
            progress: Called with the bytes that are there, and their final number or None.

        Raises:
            HyMUNetError: If the server refuses, cannot be reached or goes on failing, or the file
                cannot be written; `part` keeps what has come.
        """
        return self._persist(
            url,
            lambda: self._attempt(url, part, progress),
            lambda: part.size,
            f"what has come is kept in {part.path}, and the same command goes on from there",
        )

    def _persist(
        self, url: str, attempt: Callable[[], T], reached: Callable[[], int], kept: str
    ) -> T:
        """Attempts until it succeeds, or fails too often without getting further than ever."""
        from urllib3.exceptions import MaxRetryError
        from urllib3.util import Retry

        policy = Retry(total=self._retries, backoff_factor=self._backoff_s, backoff_max=60)
        retry, furthest = policy, reached()
        while True:
            try:
                return attempt()
            except _CutError as cut:
                if reached() > furthest:
                    retry, furthest = policy, reached()
                try:
                    retry = retry.increment("GET", url, error=cut)
                except MaxRetryError:
                    raise HyMUNetError(
                        f"{url}: {cut}; gave up after {self._retries + 1} failures in a row. Check "
                        f"the connection (a proxy is taken from HTTPS_PROXY); {kept}"
                    ) from cut
                asked_s = _retry_after_s(cut.response, retry)
                wait_s = max(self._backoff_s, retry.get_backoff_time(), asked_s)
                self._notice(f"{cut}; trying again in {wait_s:.3g} s")
                time.sleep(wait_s)

    def _attempt(self, url: str, part: Partial, progress: Progress) -> Remote:
        known = part.known(url)
        have = part.size if known is not None else 0
        if known is not None and have == known.total:
            return known
        headers = {}
        if known is not None and known.validator is not None and have:
            headers = {"Range": f"bytes={have}-", "If-Range": known.validator}
        with closing(self._ask("GET", url, headers)) as response:
            start, remote = _version(url, response)
            if headers and response.status_code == 206 and (start, remote) == (have, known):
                self._notice(f"{part.path.name}: going on after {decimal(have)}")
            elif headers and response.status_code in (206, 416):
                # another version, from a server that does not look at If-Range
                self._notice(f"{part.path.name}: the file on the server has changed; anew")
                part.discard()
                return self._attempt(url, part, progress)
            else:
                _expect_file(response, url)
                if have:
                    why = "the server sends no parts" if remote == known else "the file has changed"
                    self._notice(f"{part.path.name}: {why}; anew from the beginning")
                part.begin(remote)
            self._receive(response, part, remote, progress)
        if remote.total is not None and part.size != remote.total:
            raise _CutError(f"{part.size} of {remote.total} bytes have come")
        return remote

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str] | None = None
    ) -> "requests.Response":
        from requests import exceptions

        try:
            response = self._session.request(
                method, url, headers=headers, stream=True, timeout=TIMEOUTS_S, allow_redirects=True
            )
        except (
            exceptions.ConnectionError,
            exceptions.Timeout,
            exceptions.ChunkedEncodingError,
        ) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise HyMUNetError(
                    f"the certificate of {url} could not be verified; where a proxy opens "
                    "connections, name its certificates in REQUESTS_CA_BUNDLE; check the clock"
                ) from error
            raise _CutError(f"no connection to {url} ({_cause(error)})") from error
        except exceptions.RequestException as error:
            raise HyMUNetError(f"cannot ask for {url}: {error}; check the address") from error
        places = [answer.url for answer in (*response.history, response)]
        if url.startswith("https:") and not all(place.startswith("https:") for place in places):
            response.close()
            raise HyMUNetError(
                f"{url} leads to {places[-1]} by an address that is not encrypted: refused, "
                "anybody on the way could change the file; check the network that you are in"
            )
        if response.status_code in _MAY_PASS:
            response.close()
            raise _CutError(f"{url} answered {_status(response)}", response)
        return response

    def _receive(
        self, response: "requests.Response", part: Partial, remote: Remote, progress: Progress
    ) -> None:
        from urllib3.exceptions import HTTPError

        try:
            with open(part.path, "ab", buffering=0) as file:
                done = file.seek(0, os.SEEK_END)
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    rest = memoryview(chunk)
                    while rest:  # a disk that fills up may take a part of it first
                        rest = rest[file.write(rest) :]
                    done += len(chunk)
                    progress(done, remote.total)
                os.fsync(file.fileno())
        except HTTPError as error:
            reason = f"the connection was cut after {decimal(part.size)} ({_cause(error)})"
            raise _CutError(reason) from error
        except OSError as error:
            wanted = "" if remote.total is None else f" of {decimal(remote.total)}"
            raise HyMUNetError(
                f"cannot write {part.path}: {error.strerror or error}; {decimal(part.size)}"
                f"{wanted} are kept: make room, then the same command goes on from there"
            ) from error


def _version(url: str, response: "requests.Response") -> tuple[int, Remote]:
    """Where the answer begins in the file, and the version that it is of."""
    headers = response.headers
    start, total = 0, _number(headers.get("Content-Length"))
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        start, total = (int(match[1]), _number(match[2])) if match else (-1, None)
    return start, Remote(url, total, headers.get("ETag"), headers.get("Last-Modified"))


def _expect_file(response: "requests.Response", url: str) -> None:
    if response.status_code != 200:
        raise HyMUNetError(
            f"{url} answered {_status(response)}; expected the file. It may have moved, or a proxy "
            "stands between. A file of this name that you put into the output folder is used"
        )


def _status(response: "requests.Response") -> str:
    known = {status.value: status.phrase for status in HTTPStatus}
    return f"{response.status_code} {known.get(response.status_code, '')}".strip()


def _retry_after_s(response: "requests.Response | None", retry: "Retry") -> float:
    """Seconds that the server asks to wait, within reason; 0 when it does not."""
    from urllib3.exceptions import InvalidHeader

    asked = None if response is None else response.headers.get("Retry-After")
    try:
        return min(retry.parse_retry_after(asked), LONGEST_WAIT_S) if asked else 0.0
    except InvalidHeader:
        return 0.0


def _cause(error: BaseException) -> str:
    """The words of the innermost cause; the outer ones name objects of the libraries."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
