"""Files and checkpoints of PyTorch programs."""
