"""A real broker whose second listener wants TLS and a login (SASL_SSL with PLAIN), and the certificates for it."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tcp_proxy import TcpProxy

from services.brokers.devbroker import DevBroker

USER, PASSWORD = "pumpreader", "the-right-one-8c1"


class Authority:
    """Signs certificates for 127.0.0.1; `file` is its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._own = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def key_and_certificate(self, name: str) -> Path:
        """A file with both, as Kafka's PEM keystores want it."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = [self._signed(subject, key, here), self._own]
        path = self._folder / f"{name}.pem"
        path.write_bytes(private + b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
        return path

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=False)
        )
        return made.sign(self._key, hashes.SHA256())


class SecuredBroker:
    """`options` reach its secured listener, `broker.bootstrap` the open one. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority, self._folder = Authority(folder, "authority"), folder
        self._store = authority.key_and_certificate("broker")
        self.proxy = TcpProxy()  # clients come back to one address, whichever port the listener has
        self.broker = self.with_password(PASSWORD)
        self.options: dict[str, Any] = {
            "bootstrap_servers": self.proxy.bootstrap,
            "security_protocol": "SASL_SSL",
            "ssl_cafile": str(authority.file),
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": USER,
            "sasl_plain_password": PASSWORD,
        }

    def __enter__(self) -> SecuredBroker:
        try:
            self.broker.start()
            self.proxy.forward_to(self.broker.proxied_port)
        except BaseException:
            self.proxy.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.kill()
        self.proxy.close()

    def with_password(self, password: str) -> DevBroker:
        """The same broker, which lets the user in with this one from its next start on."""
        login = "org.apache.kafka.common.security.plain.PlainLoginModule"
        listener = "listener.name.proxied"
        return DevBroker(
            self._folder / "broker",
            owned=True,
            advertised_port=self.proxy.port,
            overrides={
                "listener.security.protocol.map": "CLIENTS:PLAINTEXT,PROXIED:SASL_SSL,CONTROLLER:PLAINTEXT",
                f"{listener}.ssl.keystore.type": "PEM",
                f"{listener}.ssl.keystore.location": str(self._store),
                f"{listener}.sasl.enabled.mechanisms": "PLAIN",
                f"{listener}.plain.sasl.jaas.config": f'{login} required user_{USER}="{password}";',
            },
        )

    def refused_logins_s(self) -> list[float]:
        """When the broker refused a login, in seconds, since its folder was made."""
        lines = [line for line in self.broker.log.read_text(errors="replace").splitlines() if "Failed auth" in line]
        clock = np.array([line.split()[0].split(":") for line in lines], float).reshape(
            -1, 3
        )  # hours, minutes, seconds
        return [*np.unwrap(clock @ [3600, 60, 1], period=86_400)]  # midnight is no step back
