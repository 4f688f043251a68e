"""TorchModel -> TorchModel, smaller: one technique per file."""
