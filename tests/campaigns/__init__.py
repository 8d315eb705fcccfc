"""Campaigns: thousands of damaged, odd and hostile inputs, and the outcome of each; `make campaign` runs them whole."""
