"""The methods, one package each; a new one adds one line here."""

METHODS = {
    "defvis": "visdeploy_training.methods.defvis",
    "visolo": "visdeploy_training.methods.visolo",
}
