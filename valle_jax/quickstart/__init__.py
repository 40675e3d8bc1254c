"""The quickstart: corpus, training, trial and report in one command."""
