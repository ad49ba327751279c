"""The certificates of one test cluster: a certificate authority, what it signs, and kubeconfigs that hold it.

Keys lie unencrypted beside their certificates, in a folder of mode 0700. They are for clusters that live for minutes.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR = timedelta(days=365)
USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
CA_USAGE = x509.KeyUsage(
    **dict.fromkeys(USAGES, False), key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False
)


class Authority:
    """A new certificate authority. Files in `folder`: `NAME.crt` and `NAME.key` of whatever it issued; `ca.crt`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("twinkle-test-ca", ())
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(CA_USAGE, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._write("ca", self._key, certificate)

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, name: str, user: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> tuple[Path, Path]:
        """Sign a certificate for serving `hosts` (names and IP addresses) and for being `user` in these groups.

        Returns: the files of the certificate and of its key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = self._builder(_name(user, groups), key.public_key()).add_extension(usage, critical=False)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        self._write(name, key, builder.sign(self._key, hashes.SHA256()))
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def service_account_keys(self) -> tuple[Path, Path]:
        """The key that signs tokens of service accounts and the public one that checks them, as files."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private, public = self.folder / "service-accounts.key", self.folder / "service-accounts.pub"
        private.write_bytes(_pem(key))
        private.chmod(0o600)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
        return private, public

    def kubeconfig(self, file: Path, url: str, *, user: str = "", groups: Sequence[str] = (), token: str = "") -> Path:
        """Write a kubeconfig for a server: as `user` with a new certificate, or as whoever the token names."""
        if token:
            identity = {"token": token}
        else:
            certificate, key = self.issue(file.stem, user, groups)
            identity = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        here = "twinkle-test"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": here,
            "clusters": [
                {"name": here, "cluster": {"server": url, "certificate-authority-data": _base64(self.certificate)}}
            ],
            "users": [{"name": here, "user": identity}],
            "contexts": [{"name": here, "context": {"cluster": here, "user": here}}],
        }
        file.touch(mode=0o600)
        file.write_text(json.dumps(content, indent=1))  # JSON is YAML, too
        return file

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder(issuer_name=self._name, subject_name=subject, public_key=key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + VALID_FOR)
            .add_extension(identifier, critical=False)
            .add_extension(authority, critical=False)
        )

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        private = self.folder / f"{name}.key"
        private.touch(mode=0o600)
        private.write_bytes(_pem(key))
        (self.folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    """Kubernetes reads the common name as the user and the organisations as the groups."""
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain)


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
