"""The device mesh and the one table from logical array axes to it."""
