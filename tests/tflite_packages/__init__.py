"""TFLite models that packages of the registry bring, run through the product and held against LiteRT by ourselves."""
