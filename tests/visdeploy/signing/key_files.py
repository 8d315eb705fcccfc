"""Key files for the tests of signatures."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

PASSWORD = "secret é"


def write_pair(
    folder: Path, name: str = "key", *, curve=None, key=None, password: str | None = None
) -> tuple[Path, Path]:
    """Write a private and a public key; return their paths."""
    made = key or ec.generate_private_key(curve or ec.SECP256R1())
    protection = serialization.NoEncryption()
    if password is not None:
        protection = serialization.BestAvailableEncryption(password.encode())
    form = serialization.PrivateFormat.PKCS8
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(made.private_bytes(serialization.Encoding.PEM, form, protection))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(made.public_key().public_bytes(serialization.Encoding.PEM, form))
    return private, public
