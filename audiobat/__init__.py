"""audiobat: pre-train audio transformers by masked latent regression and judge them by convex gated probing."""

__version__ = "0.1.0"
