"""The cluster's own certificate authority, and a certificate for each node: so that verifying can be taught."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from typing import Any

YEARS = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both in PEM."""

    certificate: str
    key: str


def authority(cluster: str) -> Pair:
    """Return a new certificate authority.

    Args:
        cluster: the name that it is for.
    """
    from cryptography import x509  # noqa: PLC0415 - a large package, and needed once per cluster
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Proxmox Virtual Environment", f"{cluster} cluster CA (lab)")
    identity = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identity, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity), critical=False)
    )
    return _pair(builder, key, key)


def node(name: str, authority: Pair, addresses: tuple[str, ...]) -> Pair:
    """Return a node's certificate, signed by the authority.

    Args:
        name: of the node.
        authority: that signs.
        addresses: under which clients reach it, numbers or names.
    """
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

    ca = x509.load_pem_x509_certificate(authority.certificate.encode())
    ca_key: Any = serialization.load_pem_private_key(authority.key.encode(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = []
    for address in dict.fromkeys(("127.0.0.1", "::1", "localhost", name, *addresses)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            names.append(x509.DNSName(address))
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = (
        _builder(_name("PVE Cluster Node", name), ca.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer, critical=False)
    )
    return _pair(builder, key, ca_key)


def fingerprint(certificate: str) -> str:
    """Return a certificate's SHA-256 fingerprint as it is shown to people."""
    import hashlib  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest().upper()
    return ":".join(digest[n : n + 2] for n in range(0, len(digest), 2))


def describe(certificate: str) -> dict[str, Any]:
    """Return what a certificate says, as the API answers it."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    found = x509.load_pem_x509_certificate(certificate.encode())
    key = found.public_key()
    described: dict[str, Any] = {
        "fingerprint": fingerprint(certificate),
        "issuer": _path(found.issuer),
        "subject": _path(found.subject),
        "notbefore": int(found.not_valid_before_utc.timestamp()),
        "notafter": int(found.not_valid_after_utc.timestamp()),
        "pem": certificate,
        "public-key-type": "id-ecPublicKey",
        "public-key-bits": key.key_size if isinstance(key, ec.EllipticCurvePublicKey) else 0,
    }
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return described
    return described | {"san": [str(name.value) for name in names]}


def _path(name: Any) -> str:
    return "".join(f"/{attribute.rfc4514_string()}" for attribute in name)


def _name(unit: str, common: str) -> Any:
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _builder(subject: Any, issuer: Any, key: Any) -> Any:
    from cryptography import x509  # noqa: PLC0415

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
    )


def _pair(builder: Any, key: Any, signer: Any) -> Pair:
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415

    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(builder.sign(signer, hashes.SHA256()).public_bytes(pem).decode(), private.decode())
