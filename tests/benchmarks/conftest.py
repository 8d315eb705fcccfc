from tests.visdeploy_plugins.conftest import custom_ops

__all__ = ["custom_ops"]
