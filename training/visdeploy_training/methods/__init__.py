"""The methods, one package each. A new method adds one line to this module."""

METHODS = {
    "defvis": "visdeploy_training.methods.defvis",
    "tevit": "visdeploy_training.methods.tevit",
    "visolo": "visdeploy_training.methods.visolo",
}
