"""`valle plan`: what a training step or the sampler will cost on chips that are not there, before one is rented."""
