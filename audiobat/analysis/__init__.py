"""What can be said of features, attention and prototypes beyond a score: tensors in, plain numbers out."""
