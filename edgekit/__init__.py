"""edgekit takes a PyTorch model to edge devices: small, quantized by the device's rules, proved, packaged."""

__version__ = "0.1.0"
