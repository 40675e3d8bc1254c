"""The suites that are shipped. Each module has a `SUITE` and opens with the command that runs it."""
