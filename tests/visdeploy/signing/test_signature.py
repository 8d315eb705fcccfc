"""Files in the place of a signature: none that is damaged or of another kind is accepted, or stops an unsigned use."""

import base64
import json
import os

import pytest

from tests.support import edit_json
from visdeploy.bundle import Bundle
from visdeploy.bundle_files import SIGNATURE
from visdeploy.errors import BundleError, ConfigError
from visdeploy.signing.bundles import sign


def edited(change):
    return lambda path, keys: edit_json(path, change)


def written(content):
    return lambda path, keys: path.write_bytes(content)


def replace_payload(data):
    """Keep the signature, and exchange what it signs."""
    payload = json.loads(base64.b64decode(data["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"][0]["digest"] = "0" * 64
    data["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()


def link_to(target):
    def change(path, keys):
        path.unlink()
        path.symlink_to(target)

    return change


def pipe(path, keys):
    path.unlink()
    os.mkfifo(path)


HINT = {"verificationMaterial": {"publicKey": {"hint": "0" * 64}}}
BAD = {
    "truncated": (lambda path, keys: os.truncate(path, path.stat().st_size // 2), "not a valid signature"),
    "empty": (written(b""), "not a valid signature"),
    "garbage": (written(b"\xff\xfe\x00"), "not a valid signature"),
    "another JSON": (written(b'{"a": 1}'), "not a valid signature.*without the fingerprint"),
    "a list": (written(b"[1]"), "not a valid signature.*without the fingerprint"),
    "null": (written(b"null"), "not a valid signature.*without the fingerprint"),
    "nested deep": (written(b"[" * 100_000), "not a valid signature"),
    "huge": (lambda path, keys: os.truncate(path, 2**31), "not a valid signature.*2147483648 B"),
    "hint of another kind": (edited(lambda d: d["verificationMaterial"]["publicKey"].update(hint=5)), "fingerprint"),
    "no hint": (edited(lambda d: d["verificationMaterial"]["publicKey"].pop("hint")), "fingerprint"),
    "only a hint": (written(json.dumps(HINT).encode()), "made with another key"),
    "no envelope": (edited(lambda d: d.pop("dsseEnvelope")), "not a valid signature"),
    "no signatures": (edited(lambda d: d["dsseEnvelope"].update(signatures=[])), "not a valid signature"),
    "another type": (edited(lambda d: d.update(mediaType="text/plain")), "not a valid signature"),
    "another payload type": (edited(lambda d: d["dsseEnvelope"].update(payloadType="x")), "not a valid signature"),
    "unknown field": (edited(lambda d: d.update(surprise=1)), "not a valid signature"),
    "other content": (edited(replace_payload), "not a valid signature"),
    "link to nothing": (link_to("nothing"), r"model\.sig leads nowhere"),
    "link to a device": (link_to("/dev/zero"), "not a plain file"),
    "a pipe": (pipe, "not a plain file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_signatures(signed, keys, case):
    change, message = BAD[case]
    change(signed.path / SIGNATURE, keys)
    with pytest.raises(BundleError, match=message):
        Bundle.open(signed.path, key=keys.public)
    assert Bundle.open(signed.path) == signed, "without a key it is not read"
    sign(signed.path, keys.private, overwrite=True)
    assert Bundle.open(signed.path, key=keys.public) == signed


def test_a_folder_in_its_place(unsigned, keys):
    (unsigned.path / SIGNATURE).mkdir()
    with pytest.raises(BundleError, match=r"does not list.*model\.sig"):
        sign(unsigned.path, keys.private, overwrite=True)


def test_a_signature_that_names_the_key_of_another_signer(signed, keys):
    """The fingerprint in the file is only a label: the signature itself is checked with the given key."""
    stolen = json.loads((signed.path / SIGNATURE).read_text())["verificationMaterial"]
    sign(signed.path, keys.other_private, overwrite=True)
    edit_json(signed.path / SIGNATURE, lambda data: data.update(verificationMaterial=stolen))
    with pytest.raises(BundleError, match="not a valid signature"):
        Bundle.open(signed.path, key=keys.public)


def test_the_key_is_read_before_the_bundle(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        Bundle.open(tmp_path / "nothing.vis", key=tmp_path / "nothing.pem")
