"""Static int8 models from activation ranges measured by us: histograms, calibrators, MNN's parameter file."""
