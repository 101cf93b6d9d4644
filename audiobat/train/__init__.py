"""The engine: torch only, knows nothing about audio."""
