"""Maps the four packages; everything declarative is in pyproject.toml."""

from setuptools import find_packages, setup

ROOMS = {
    "visdeploy": ".",
    "visdeploy_training": "training",
    "visdeploy_export": "export",
    "visdeploy_plugins": "plugins",
}

setup(
    packages=[p for name, where in ROOMS.items() for p in find_packages(where, include=[name, f"{name}.*"])],
    package_dir={name: name if where == "." else f"{where}/{name}" for name, where in ROOMS.items()},
)
