"""Models: an encoder and a decoder built from `natjax.layers`, functional (`init` and `apply`), no loss inside."""
