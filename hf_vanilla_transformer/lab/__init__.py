"""The experiments of the teaching texts: small tasks that are honest, made in the program, and quick to learn."""
