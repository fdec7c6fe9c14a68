"""Recognisers for other runtimes: :mod:`kdkit.recognition.export.onnx` and
:mod:`kdkit.recognition.export.huggingface`.
"""
