"""The methods, one package each; a new one adds one line here."""

METHODS = {
    "defvis": "visdeploy_training.methods.defvis",
    "tevit": "visdeploy_training.methods.tevit",
    "visolo": "visdeploy_training.methods.visolo",
}
