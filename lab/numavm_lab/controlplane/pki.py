"""The control plane's keys and certificates: two authorities, so no API client reaches etcd.

Everything is ECDSA P-256 and lives as PEM files (0600) in one directory, made once. The lab is torn
down long before the certificates end; a second ``create`` keeps what is there.
"""

import datetime as dt
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from numavm_lab.errors import LabError
from numavm_lab.state import write_private

GUEST_VIEW_OF_LOOPBACK = "10.0.2.2"
"""Address by which a lab host on QEMU's user network reaches this machine's loopback."""

_LIFETIME = dt.timedelta(days=365)
_CLOCK_SKEW = dt.timedelta(hours=1)
"""Certificates begin this much in the past: a lab host's clock may be behind."""

_AUTHORITY_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class KeyPair:
    """Paths of a PEM certificate and its PEM private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Pki:
    """Paths of all keys and certificates of one control plane."""

    directory: Path

    @property
    def authority(self) -> KeyPair:
        """The authority of API server and API clients."""
        return self._pair("ca")

    @property
    def serving(self) -> KeyPair:
        """The API server's own certificate."""
        return self._pair("serving")

    @property
    def admin(self) -> KeyPair:
        """A client in group ``system:masters``."""
        return self._pair("admin")

    @property
    def etcd_authority(self) -> KeyPair:
        """The authority of etcd and its only client."""
        return self._pair("etcd-ca")

    @property
    def etcd(self) -> KeyPair:
        """Used by etcd as server and as peer, and by the API server as its client."""
        return self._pair("etcd")

    @property
    def service_account_key(self) -> Path:
        """Signs and checks service account tokens."""
        return self.directory / "service-account.key"

    def create(self) -> None:
        """Make what is missing."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.service_account_key.exists():  # written last
            return
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        addresses = ["127.0.0.1", GUEST_VIEW_OF_LOOPBACK]
        for authority in (self.authority, self.etcd_authority):
            _write_authority(authority)
        self._issue(self.authority, self.serving, "kube-apiserver", hosts=[*names, *addresses])
        self._issue(
            self.authority, self.admin, "numavm-lab-admin", groups=["system:masters"], client=True
        )
        self._issue(
            self.etcd_authority, self.etcd, "etcd", hosts=["localhost", "127.0.0.1"], client=True
        )
        write_private(self.service_account_key, _pem(ec.generate_private_key(ec.SECP256R1())))

    def client(self, name: str, groups: list[str]) -> KeyPair:
        """Return a client certificate for user ``name`` in ``groups``.

        Raises:
            LabError: The name, which becomes part of a file name, has other characters than
            ``A-Za-z0-9.:_-``.
        """
        if not re.fullmatch(r"[A-Za-z0-9.:_-]{1,128}", name):
            raise LabError(
                f"user name {name!r}: only A-Z a-z 0-9 . : _ - (at most 128) are accepted"
            )
        pair = self._pair(f"client-{name}")
        self._issue(self.authority, pair, name, groups=groups, client=True)
        return pair

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(self.directory / f"{name}.crt", self.directory / f"{name}.key")

    def _issue(
        self,
        authority: KeyPair,
        pair: KeyPair,
        common_name: str,
        *,
        groups: list[str] | None = None,
        hosts: list[str] | None = None,
        client: bool = False,
    ) -> None:
        """Write a key and its certificate: for serving where hosts are given, or for clients."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
        issuer_key = serialization.load_pem_private_key(authority.key.read_bytes(), password=None)
        if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{authority.key}: not the ECDSA key that this module writes")
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] if hosts else []
        usages += [ExtendedKeyUsageOID.CLIENT_AUTH] if client else []
        builder = _builder(_name(common_name, groups or []), issuer.subject, key)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        write_private(pair.certificate, _pem(builder.sign(issuer_key, hashes.SHA256())))
        write_private(pair.key, _pem(key))


def _write_authority(pair: KeyPair) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"numavm-lab-{pair.certificate.stem}", [])
    builder = _builder(name, name, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    # Python 3.13 checks chains strictly (RFC 5280): it wants the usage and both key identifiers.
    builder = builder.add_extension(_AUTHORITY_USAGE, critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    write_private(pair.certificate, _pem(builder.sign(key, hashes.SHA256())))
    write_private(pair.key, _pem(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _name(common_name: str, organizations: list[str]) -> x509.Name:
    """Return a subject as Kubernetes reads it: common name = user, organizations = groups."""
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(item: ec.EllipticCurvePrivateKey | x509.Certificate) -> bytes:
    if isinstance(item, x509.Certificate):
        return item.public_bytes(serialization.Encoding.PEM)
    return item.private_bytes(
        serialization.Encoding.PEM,
        # "EC PRIVATE KEY": the API server takes the public half of its token key from no other
        # form.
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
