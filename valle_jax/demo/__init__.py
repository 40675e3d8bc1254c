"""A web page to type a text, give a voice and hear it spoken."""
