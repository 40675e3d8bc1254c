"""From recordings that are codes to batches of packed rows."""
