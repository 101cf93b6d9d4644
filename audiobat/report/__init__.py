"""Tables, figures and the page: they read result records only."""
