"""The methods, one package each; a new one adds one line here."""

METHODS = {
    "visolo": "visdeploy_training.methods.visolo",
}
