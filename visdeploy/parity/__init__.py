"""Parity of two engines: how outputs are compared, what a certificate says, and `verify`."""
