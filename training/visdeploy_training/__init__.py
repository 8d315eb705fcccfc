"""The methods as torch modules, their losses, data sets and recipes."""
