"""edgequant: quantize models for MNN, run them on ARM phones and boards, and judge what comes back."""

__version__ = "0.1.0"
