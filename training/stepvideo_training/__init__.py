"""Training of the Step-Video models: video autoencoder, text encoders, diffusion transformer."""
