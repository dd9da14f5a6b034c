# SPDX-License-Identifier: Apache-2.0
"""Certificates for tests, with all that strict verification (Python 3.13's default) asks of them."""

import datetime
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass
class Certificate:
    """chain, key: PEM."""

    made: x509.Certificate
    private: ec.EllipticCurvePrivateKey

    @property
    def chain(self):
        return self.made.public_bytes(serialization.Encoding.PEM)

    @property
    def key(self):
        kind = serialization.PrivateFormat.PKCS8
        return self.private.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())

    def write(self, folder, name):
        """(folder/name.pem, folder/name.key)"""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, content in zip(paths, (self.chain, self.key), strict=True):
            path.write_bytes(content)
        return paths


def certificate(name, issuer=None, ca=False):
    """For localhost and 127.0.0.1, good for a day; without an issuer it signs itself."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    signer = issuer.private if issuer else private
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    signs = ca or issuer is None
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.made.subject if issuer else subject)
        .public_key(public).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(signs, None), True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=signs, crl_sign=signs, **usage), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
        .add_extension(x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(signer, hashes.SHA256())
    )  # fmt: skip
    return Certificate(made, private)


def certificates(folder):
    """An authority, a server's certificate and a client's by it, and a stranger's, as PEM files of these names."""
    authority = certificate("test authority", ca=True)
    authority.write(folder, "ca")
    certificate("localhost", authority).write(folder, "server")
    certificate("a client", authority).write(folder, "client")
    certificate("a stranger").write(folder, "stranger")
