"""Why a listener and the settings of a connection do not fit: a few bytes of Kafka's protocol and of TLS, by hand.

The client library reports all of it as a broker that does not answer. Asked only once it has done so; never logs in.
Imports the standard library and `framing` only.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from services.brokers import framing

LOOK_S = 1.5
"""How long an answer may take; a broker that is merely slow is not told what does not fit."""
API_VERSIONS, SASL_HANDSHAKE = 18, 17
UNKNOWN_MECHANISM, NO_LOGIN_HERE = 33, 34
"""Kafka's error codes UNSUPPORTED_SASL_MECHANISM and ILLEGAL_SASL_STATE."""


class ListenerProblem(NamedTuple):
    """What does not fit, and what to set."""

    said: str
    fix: str


def mismatch(host: str, port: int, arguments: Mapping[str, Any]) -> ListenerProblem | None:
    """What about the connection settings a listener does not take; None: nothing that can be told from outside. Raises
    OSError where nobody listens.
    """
    protocol = str(arguments.get("security_protocol") or "PLAINTEXT")
    wants_tls, wants_login = protocol.endswith("SSL"), protocol.startswith("SASL")
    socket.create_connection((host, port), timeout=LOOK_S).close()
    if wants_tls:
        if why := _tls(host, port, arguments):
            return why
    elif _versions(host, port, None) is None:
        if not _speaks_tls(host, port):
            return None
        return ListenerProblem(
            f"{host}:{port} wants TLS, and kafka.security_protocol is {protocol}",
            f"Set kafka.security_protocol: {'SASL_SSL' if wants_login else 'SSL'}, and kafka.ssl_cafile where its "
            "certificate is signed by an authority of your own.",
        )
    return _login(host, port, _context(arguments) if wants_tls else None, arguments, protocol)


def _tls(host: str, port: int, arguments: Mapping[str, Any]) -> ListenerProblem | None:
    """What is wrong with the handshake."""
    protocol, authority = arguments["security_protocol"], arguments.get("ssl_cafile")
    try:
        context = _context(arguments)
    except (OSError, ssl.SSLError) as error:
        return ListenerProblem(
            f"the files of kafka.ssl_* cannot be used: {error}",
            "Give PEM files, and kafka.ssl_password if it is needed.",
        )
    try:
        if _versions(host, port, context) is not None:
            return None
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in (62, 64):  # the name, or the address, is not in it
            return ListenerProblem(
                f"the certificate of {host}:{port} is not for {host}: {error.verify_message}",
                "Connect to a name that stands in it (kafka.bootstrap_servers and the broker's advertised.listeners).",
            )
        by = (
            f"kafka.ssl_cafile {authority}"
            if authority
            else "the authorities of this machine (kafka.ssl_cafile is not set)"
        )
        return ListenerProblem(
            f"the certificate of {host}:{port} is not accepted by {by}: {error.verify_message}",
            "Set kafka.ssl_cafile to the certificate of the authority that signed the broker's.",
        )
    except ssl.SSLError as error:
        if _is_about_ours(error):
            return ListenerProblem(
                f"{host}:{port} wants a certificate of this client, and does not take its: {error.reason}",
                "Set kafka.ssl_certfile and kafka.ssl_keyfile to ones that the brokers know.",
            )
    except OSError:
        pass
    if _versions(host, port, None) is None:
        return None
    return ListenerProblem(
        f"{host}:{port} speaks without TLS, and kafka.security_protocol is {protocol}",
        f"Set kafka.security_protocol: {'SASL_PLAINTEXT' if 'SASL' in protocol else 'PLAINTEXT'}, or connect to the "
        "brokers' TLS port.",
    )


def _login(
    host: str, port: int, context: ssl.SSLContext | None, arguments: Mapping[str, Any], protocol: str
) -> ListenerProblem | None:
    """Whether a login is wanted, and by which mechanism. Nothing secret is sent."""
    wanted = arguments.get("sasl_mechanism") if "SASL" in protocol else None
    tls = "_SSL" if context else "_PLAINTEXT"
    found = _mechanisms(host, port, context, str(wanted or "PLAIN"))
    if found is None:
        return None
    code, mechanisms = found
    offered = ", ".join(mechanisms) or "none"
    if wanted is None and code != NO_LOGIN_HERE:
        return ListenerProblem(
            f"{host}:{port} wants a login, and kafka.security_protocol is {protocol}",
            f"Set kafka.security_protocol: SASL{tls}, kafka.sasl_mechanism (it offers {offered}) and the credentials.",
        )
    if wanted is not None and code == NO_LOGIN_HERE:
        return ListenerProblem(
            f"{host}:{port} takes no logins, and kafka.security_protocol is {protocol}",
            f"Set kafka.security_protocol: {tls[1:]}, or connect to the listener that takes logins.",
        )
    if code == UNKNOWN_MECHANISM:
        return ListenerProblem(
            f"{host}:{port} does not know kafka.sasl_mechanism {wanted}: it offers {offered}",
            "Set kafka.sasl_mechanism to one of these.",
        )
    return None


def _context(arguments: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # as the client library makes its own
    if authority := arguments.get("ssl_cafile"):
        context.load_verify_locations(authority)
    else:
        context.load_default_certs()
    context.check_hostname = bool(arguments.get("ssl_check_hostname", True))
    if certificate := arguments.get("ssl_certfile"):
        context.load_cert_chain(certificate, arguments.get("ssl_keyfile"), arguments.get("ssl_password"))
    return context


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _asked(host, port, context, API_VERSIONS, 0, b"")
    except ssl.SSLError as error:
        return _is_about_ours(error)  # it wants a certificate: that is TLS
    except OSError:
        return False
    return True


def _is_about_ours(error: ssl.SSLError) -> bool:
    """True where the broker has said what is wrong with the client's certificate."""
    return "ALERT" in str(error.reason) and any(word in str(error.reason) for word in ("CERT", "UNKNOWN_CA"))


def _versions(host: str, port: int, context: ssl.SSLContext | None) -> bytes | None:
    """What a broker answers to who asks for its versions; None: nothing. Raises SSLError where TLS is tried."""
    try:
        return _asked(host, port, context, API_VERSIONS, 0, b"")
    except ssl.SSLError:
        raise
    except (OSError, struct.error):
        return None


def _mechanisms(host: str, port: int, context: ssl.SSLContext | None, wanted: str) -> tuple[int, list[str]] | None:
    """Error code and offered mechanisms; None: no answer."""
    try:
        answer = _asked(host, port, context, SASL_HANDSHAKE, 1, struct.pack(">h", len(wanted)) + wanted.encode())
        code, count = struct.unpack_from(">hi", answer)
        names, at = [], 6
        for _ in range(min(count, 100)):
            (length,) = struct.unpack_from(">h", answer, at)
            names.append(answer[at + 2 : at + 2 + length].decode("ascii", "replace"))
            at += 2 + length
        return code, names
    except (OSError, struct.error):
        return None


def _asked(host: str, port: int, context: ssl.SSLContext | None, key: int, version: int, body: bytes) -> bytes:
    """One request over a connection of its own; the answer without its head. Raises OSError."""
    request = struct.pack(">hhih", key, version, 1, 9) + b"streamrnn" + body
    with socket.create_connection((host, port), timeout=LOOK_S) as plain:
        connection = plain if context is None else context.wrap_socket(plain, server_hostname=host)
        try:
            return framing.answer(connection, request)[4:]
        finally:
            connection.close()
