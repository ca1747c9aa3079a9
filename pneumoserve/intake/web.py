"""HTTP servers that results go to: what may work later, and what a person must look at."""

from __future__ import annotations

import netrc
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import urllib3

from pneumoserve.intake.errors import IntakeRulesError, PeerAwayError, PeerRefusalError

_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=60.0)
# RFC 9110, and 425 and 429 of RFC 8470 and 6585.
_LATER: Final = {408, 425, 429}
_NEVER: Final = 501
_ADVICE: Final = {
    401: "give it a name and password that it knows",
    403: "let us in there",
    404: "correct its address",
    413: "let it take larger requests",
}
# A server that says to come back in a week would hold up a result for so long.
_LONGEST_SECONDS: Final = 3600.0


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    body: bytes


def check_url(text: str) -> str:
    """A URL such as https://pacs.example/dicom-web, without a slash at its end.

    Raises:
        IntakeRulesError: it is none, or names a password.
    """
    try:
        parts = urlsplit(text)
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_right = False
    if not is_right or parts.query or parts.fragment:
        raise IntakeRulesError("A web address is such as https://pacs.example/dicom-web; correct it.")
    if parts.username is not None:
        # Whoever lists processes would read it.
        raise IntakeRulesError("A web address holds no name and password; put them into the netrc file.")
    return text.rstrip("/")


class WebPeer:
    """A server at a URL; `credentials` is a netrc file with our name and password there, where it asks for one.

    Raises:
        IntakeRulesError: the URL or the file cannot be used.
    """

    def __init__(self, url: str, credentials: Path | None = None) -> None:
        self.url = check_url(url)
        self._headers = _authorize(self.url, credentials)
        # Which follows no redirection either.
        self._pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT, maxsize=1)

    def post(self, path: str, body: bytes, kind: str, wanted: str) -> Reply:
        """What it answers to a body of this media type; `wanted` is that of the answer.

        Raises:
            PeerAwayError: it does not answer.
            PeerRefusalError: it is not who it is to be.
        """
        headers = {**self._headers, "Content-Type": kind, "Accept": wanted}
        try:
            response = self._pool.request("POST", self.url + path, body=body, headers=headers)
        except urllib3.exceptions.SSLError:
            raise PeerRefusalError(f"{self.url} has a certificate that is not trusted here; trust its CA.") from None
        except urllib3.exceptions.HTTPError as error:
            raise PeerAwayError(f"{self.url} does not answer ({type(error).__name__}); see that it runs.") from None
        status = int(response.status)
        if status in _LATER or (status >= 500 and status != _NEVER):
            raise PeerAwayError(f"{self.url} takes no result now ({status}).", _read_retry_after(response))
        return Reply(status, response.data)

    def refuse(self, status: int) -> PeerRefusalError:
        """That an answer is a refusal for good, and what to do."""
        return PeerRefusalError(f"{self.url} refuses a result ({status}); {_ADVICE.get(status, 'look at its log')}.")


def _authorize(url: str, credentials: Path | None) -> dict[str, str]:
    if credentials is None:
        return {}
    try:
        known = netrc.netrc(credentials).authenticators(urlsplit(url).hostname or "")
    except OSError as error:
        raise IntakeRulesError(f"The file of passwords cannot be read ({error.strerror}); name another.") from None
    except netrc.NetrcParseError:
        raise IntakeRulesError("The file of passwords is no netrc file; correct it.") from None
    if known is None:
        return {}
    return urllib3.make_headers(basic_auth=f"{known[0]}:{known[2]}")


def _read_retry_after(response: urllib3.BaseHTTPResponse) -> float:
    try:
        return min(urllib3.Retry().get_retry_after(response) or 0.0, _LONGEST_SECONDS)
    except urllib3.exceptions.InvalidHeader:
        return 0.0
