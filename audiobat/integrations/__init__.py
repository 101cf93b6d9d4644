"""Our encoders, or any that `load_encoder` knows, as other evaluation kits expect them; imported only on demand."""
