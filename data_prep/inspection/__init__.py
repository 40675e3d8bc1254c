"""`valle inspect`: what is in a dataset, as text, as a page, and beside another dataset."""
