"""Key files: every one that is no elliptic-curve key of the wanted kind is refused with advice."""

import os
import re
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.shared_folder import REPOSITORY
from tests.visdeploy.signing.key_files import PASSWORD, write_pair
from visdeploy.bundle import Bundle
from visdeploy.errors import ConfigError, DependencyError
from visdeploy.signing.bundles import sign
from visdeploy.signing.keys import is_protected, private_key, public_key


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_every_curve(unsigned, tmp_path, curve):
    private, public = write_pair(tmp_path, curve=curve)
    sign(unsigned.path, private)
    assert Bundle.open(unsigned.path, key=public) == unsigned
    assert private_key(private).fingerprint == public_key(public).fingerprint


def test_the_keys_that_the_page_makes(unsigned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^openssl .*", (REPOSITORY / "docs/bundle.md").read_text(), flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True)
    sign(unsigned.path, "key.pem")
    assert Bundle.open(unsigned.path, key="key.pub.pem") == unsigned


def test_a_key_with_its_parameters_in_front(tmp_path):
    command = "openssl ecparam -genkey -name prime256v1 -out key.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    assert private_key(tmp_path / "key.pem").fingerprint


@pytest.mark.parametrize("password", [PASSWORD, PASSWORD.encode()])
def test_a_password(unsigned, tmp_path, password):
    private, public = write_pair(tmp_path, password=PASSWORD)
    assert is_protected(private)
    assert not is_protected(public)
    sign(unsigned.path, private, password=password)
    assert Bundle.open(unsigned.path, key=public) == unsigned
    assert PASSWORD not in repr(private_key(private, password))


@pytest.mark.parametrize(
    ("protected", "given", "message"),
    [
        (True, None, "protected by a password.*password=.*VISDEPLOY_KEY_PASSWORD"),
        (True, "", "protected by a password"),
        (True, "wrong", r"cannot be read.*[Ii]ncorrect password.*Check the password"),
        (True, 5, "password of the key.*int"),
        (False, "needless", "has no password.*Omit it"),
    ],
)
def test_wrong_passwords(unsigned, tmp_path, protected, given, message):
    private, _ = write_pair(tmp_path, password=PASSWORD if protected else None)
    with pytest.raises(ConfigError, match=message):
        sign(unsigned.path, private, password=given)


def damaged(path):
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], text[1][:-7], *text[2:]]))
    return path


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
WRONG = {
    "missing": (lambda f, private, public: f / "nothing.pem", "nothing.pem cannot be read.*seen: nothing.*openssl"),
    "a folder": (lambda f, private, public: f, "cannot be read.*a folder"),
    "a pipe": (lambda f, private, public: os.mkfifo(f / "pipe") or f / "pipe", "not a plain file"),
    "not PEM": (lambda f, private, public: put(f / "key.der", b"\x30\x81\x87"), "no PEM block.*openssl genpkey"),
    "huge": (lambda f, private, public: put(f / "huge.pem", b"x" * 70_000), "more than 65536 B"),
    "certificate": (lambda f, private, public: put(f / "c.pem", CERTIFICATE.encode()), "seen: CERTIFICATE"),
    "an empty path": (lambda f, private, public: "", "an empty path"),
    "no path": (lambda f, private, public: 5, "path of a .* key.*5"),
}


def put(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files(signed, tmp_path, case):
    make, message = WRONG[case]
    path = make(tmp_path, *write_pair(tmp_path))
    with pytest.raises(ConfigError, match=message):
        sign(signed.path, path, overwrite=True)
    with pytest.raises(ConfigError, match=message):
        Bundle.open(signed.path, key=path)


def test_private_and_public_key_exchanged(signed, keys):
    with pytest.raises(ConfigError, match=r"not a private key \(seen: PUBLIC KEY.*signed with the private key"):
        sign(signed.path, keys.public, overwrite=True)
    with pytest.raises(ConfigError, match=r"not a public key \(seen: PRIVATE KEY.*Keep it secret.*openssl pkey -in"):
        Bundle.open(signed.path, key=keys.private)


def test_damaged_keys(signed, tmp_path):
    private, public = map(damaged, write_pair(tmp_path))
    with pytest.raises(ConfigError, match=r"private key .* cannot be read"):
        sign(signed.path, private, overwrite=True)
    with pytest.raises(ConfigError, match=r"public key .* cannot be read"):
        Bundle.open(signed.path, key=public)


KINDS = {
    "RSA": lambda: rsa.generate_private_key(65537, 1024),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_other_kinds(signed, tmp_path, kind):
    private, public = write_pair(tmp_path, key=KINDS[kind]())
    for use in (lambda: sign(signed.path, private, overwrite=True), lambda: Bundle.open(signed.path, key=public)):
        with pytest.raises(ConfigError, match=f"cannot be used.*{kind}.*P-256, P-384, P-521"):
            use()


@pytest.mark.parametrize("missing", ["model_signing", "cryptography"])
def test_a_missing_package(signed, keys, monkeypatch, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    for use in (
        lambda: sign(signed.path, keys.private, overwrite=True),
        lambda: Bundle.open(signed.path, key=keys.public),
    ):
        with pytest.raises(DependencyError, match=rf"a signature needs the module '{missing}.*visdeploy\[signing\]"):
            use()
    assert Bundle.open(signed.path) == signed


def test_nothing_is_imported_without_a_key(signed):
    code = (
        "import sys; sys.modules['model_signing'] = sys.modules['cryptography'] = None\n"
        f"import visdeploy, visdeploy.cli; visdeploy.Bundle.open({str(signed.path)!r}); print(visdeploy.sign.__name__)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "sign\n"
