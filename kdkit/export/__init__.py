"""Recognisers for other runtimes: :mod:`kdkit.export.onnx` and :mod:`kdkit.export.huggingface`."""
