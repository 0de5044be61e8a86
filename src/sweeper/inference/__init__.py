"""A trained model in use: pictures in, probabilities out."""
