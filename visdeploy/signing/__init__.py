"""Signatures of bundles: keys, the file `model.sig`, and `visdeploy.sign` (see docs/bundle.md, "Signatures").

A signature is one of OpenSSF Model Signing, made with an elliptic-curve key and without a network. The package
`model-signing` is imported only when a key is given.
"""
