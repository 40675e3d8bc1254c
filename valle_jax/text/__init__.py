"""From text to phoneme ids: the phonemizer front end and the vocabulary."""
