"""From text and a voice prompt to audio: one utterance, a batch of any size, a long text, an edit, a stream."""
