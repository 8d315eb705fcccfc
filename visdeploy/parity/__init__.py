"""Parity of two engines: measures that compare outputs, certificates, and `verify`."""
