"""Errors for users: the message says what is wrong, where (file and line), and what to do about it.

Bad input raises one of these instead of an exception from deep inside torch.
"""


class KdkitError(Exception):
    """Base of all errors that kdkit explains. The command line prints the message without a traceback."""


class AudioError(KdkitError):
    """Audio that is missing, empty, truncated, damaged, of an unknown format, too short, or has invalid samples."""


class ManifestError(KdkitError):
    """A manifest that is invalid: the message names file, line and field."""


class TextError(KdkitError):
    """A transcript with characters outside the alphabet, or longer than its frames allow."""


class CheckpointError(KdkitError):
    """A checkpoint that is missing, damaged, or of another model."""


class OtherRunError(CheckpointError):
    """A run that cannot go on in its folder, because it was made of something else: ``differences`` says of what."""

    def __init__(self, message: str, differences: str):
        super().__init__(message)
        self.differences = differences


class NoRecogniserError(CheckpointError):
    """A checkpoint without a recogniser: it has no CTC head, or its vocabulary is unknown."""


class DownloadError(KdkitError):
    """A file that cannot be downloaded: no network, no disk space, a wrong checksum. Says how to do it by hand."""


class ConfigError(KdkitError):
    """Settings with impossible values, or that contradict each other."""


class TrainingError(KdkitError):
    """Training that cannot continue, for instance because the loss is not finite."""


class OutputError(KdkitError):
    """A file or folder that cannot be written: disk full, no permission, a file in the way. Says what to do."""
