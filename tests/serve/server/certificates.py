# SPDX-License-Identifier: Apache-2.0
"""Certificates for tests, as PEM files."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certificates(folder):
    """An authority, a server's certificate for 127.0.0.1 and a client's, as PEM files."""

    def write(name, subject, issuer=None, ca=False):
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.timezone.utc)
        title = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
        made = (
            x509.CertificateBuilder().subject_name(title).issuer_name(issuer[0] if issuer else title)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .sign(issuer[1] if issuer else key, hashes.SHA256())
        )  # fmt: skip
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
        return title, key

    authority = write("ca", "test authority", ca=True)
    write("server", "localhost", authority)
    write("client", "a client", authority)
    write("stranger", "a stranger")
