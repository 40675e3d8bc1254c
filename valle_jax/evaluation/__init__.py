"""What a model says, measured by the papers' protocols, and how its losses should have fallen (docs/evaluation.md)."""
