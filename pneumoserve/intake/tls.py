"""TLS for DICOM, as the BCP 195 profiles of PS3.15 have it: TLS 1.2 and later, with forward secrecy."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pneumoserve.intake.errors import IntakeRulesError

# Those of TLS 1.3 are all among them.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
# Of a peer that does not go on with its handshake.
_TIMEOUT_SECONDS: Final = 30


class _PatientContext(ssl.SSLContext):
    """Leaves the handshake to the association's thread: a peer that stops in it holds up no other."""

    def wrap_socket(self, sock: Any, server_side: bool = False, **_: Any) -> ssl.SSLSocket:  # type: ignore[override]
        sock.settimeout(_TIMEOUT_SECONDS)
        return super().wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False)


@dataclass(frozen=True)
class Tls:
    """PEM files: our certificate with its key, and the authority whose certificates we believe.

    Without an authority any peer may call us, and we believe those that this machine does.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    def listen(self) -> ssl.SSLContext | None:
        """For those who call us; None where we have no certificate.

        Raises:
            IntakeRulesError: a file is not what it should be.
        """
        if self.certificate is None:
            return None
        context = self._fill(_PatientContext(ssl.PROTOCOL_TLS_SERVER))
        if self.authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def call(self) -> ssl.SSLContext:
        """For those whom we call; read anew each time, since certificates are renewed.

        Raises:
            IntakeRulesError: a file is not what it should be.
        """
        context = self._fill(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        if self.authority is None:
            context.load_default_certs()
        return context

    def _fill(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
            if self.authority is not None:
                context.load_verify_locations(self.authority)
        except OSError as error:
            # A fault of the files' content is one of these too.
            reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise IntakeRulesError(
                f"The files of --tls-… cannot be used ({reason}); give a certificate, its key, and an authority in PEM."
            ) from None
        return context


# Of whoever neither takes nor sends by TLS.
NO_TLS: Final = Tls()
