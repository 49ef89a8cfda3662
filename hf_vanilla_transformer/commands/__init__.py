"""The commands: arguments in, one call of the package, a summary out."""
