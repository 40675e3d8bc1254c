"""From corpora of audio and text to dataset directories of codes and phonemes."""
