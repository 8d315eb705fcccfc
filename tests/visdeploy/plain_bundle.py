"""Content of a bundle whose files are not opened by an engine."""

from visdeploy.bundle import CERTIFICATE, MODEL, SELFTEST

FILES = {MODEL: b"model", SELFTEST: b"selftest", CERTIFICATE: b'{"passed": true}'}


def put(path):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    return path
