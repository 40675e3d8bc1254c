"""Audio without text: pieces cut at pauses, and a transcript for each."""
