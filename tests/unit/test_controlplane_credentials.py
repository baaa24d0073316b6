"""Certificates and kubeconfigs, as those who check them read them."""

import base64
import socket
import ssl
import threading
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from numavm_lab.controlplane.kubeconfig import (
    BearerToken,
    ClientCertificate,
    TokenFile,
    render_kubeconfig,
)
from numavm_lab.controlplane.pki import KeyPair, Pki
from numavm_lab.errors import LabError


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    made = Pki(tmp_path_factory.mktemp("pki"))
    made.create()
    return made


def handshake(server: KeyPair, client: KeyPair, authority: KeyPair, host: str) -> str:
    """Do a TLS handshake with certificates on both sides; return the client's name as seen."""
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    ours.load_cert_chain(server.certificate, server.key)
    ours.verify_mode = ssl.CERT_REQUIRED
    theirs = ssl.create_default_context(cafile=str(authority.certificate))
    for context in (ours, theirs):
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default
    theirs.load_cert_chain(client.certificate, client.key)
    left, right = socket.socketpair()
    with left, right:
        asking = threading.Thread(
            target=lambda: theirs.wrap_socket(right, server_hostname=host).close()
        )
        asking.start()
        with ours.wrap_socket(left, server_side=True) as accepted:
            asking.join()
            seen = accepted.getpeercert()
    assert seen is not None
    return dict(pair[0] for pair in seen["subject"])["commonName"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "10.0.2.2", "kubernetes.default.svc"])
def test_the_api_server_is_trusted_under_each_of_its_names(pki: Pki, host: str) -> None:
    assert handshake(pki.serving, pki.admin, pki.authority, host) == "numavm-lab-admin"


def test_no_api_client_can_speak_to_etcd(pki: Pki) -> None:
    issuers = {
        x509.load_pem_x509_certificate(pair.certificate.read_bytes()).issuer
        for pair in (pki.admin, pki.client("someone", []))
    }
    etcd = x509.load_pem_x509_certificate(pki.etcd.certificate.read_bytes())

    assert etcd.issuer not in issuers


def test_creating_again_keeps_the_keys(pki: Pki) -> None:
    before = {path.name: path.read_bytes() for path in pki.directory.iterdir()}
    pki.create()

    assert before == {name: (pki.directory / name).read_bytes() for name in before}


@pytest.mark.parametrize("name", ["", "../ca", "a/b", "a\0b", "x" * 129])
def test_a_user_name_that_is_no_file_name_is_refused(pki: Pki, name: str) -> None:
    with pytest.raises(LabError, match="user name"):
        pki.client(name, [])


def test_a_kubeconfig_holds_certificate_token_or_token_file(pki: Pki) -> None:
    def user(credential: BearerToken | ClientCertificate | TokenFile) -> dict[str, str]:
        text = render_kubeconfig(
            server_url="https://127.0.0.1:1", authority_pem=b"pem", credential=credential
        )
        found: dict[str, str] = yaml.safe_load(text)["users"][0]["user"]
        return found

    shown = user(ClientCertificate(pki.admin))

    assert user(BearerToken("abc")) == {"token": "abc"}
    assert user(TokenFile("token")) == {"tokenFile": "token"}
    assert pki.admin.key.read_bytes() == base64.b64decode(shown["client-key-data"])


def test_keys_are_readable_by_their_owner_only(pki: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path / "pki")
    other.create()

    assert {path.stat().st_mode & 0o777 for path in other.directory.iterdir()} == {0o600}
    assert pki.service_account_key.read_bytes() != other.service_account_key.read_bytes()
