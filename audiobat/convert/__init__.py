"""Foreign weights to encoders: one file per layout, with a function `read` that `audiobat.hub` calls on demand."""
