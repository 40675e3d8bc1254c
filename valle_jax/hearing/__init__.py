"""What machines hear in a recording: words, when they and their phones are said, and whose voice it is."""
