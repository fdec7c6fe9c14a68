"""Errors for people: the message says what is wrong, where (file and line) and what to do about it.

Code that meets bad input raises one of these instead of letting a traceback come from deep inside torch.
"""


class KdkitError(Exception):
    """Anything that kdkit can explain. The command line prints the message without a traceback."""


class AudioError(KdkitError):
    """Audio that is missing, empty, truncated, damaged, not audio, too short, or holds samples that are no sound."""


class ManifestError(KdkitError):
    """A manifest that cannot be read: the message names file, line and field."""


class TextError(KdkitError):
    """A transcript with characters outside the alphabet, or longer than its frames allow."""


class CheckpointError(KdkitError):
    """A checkpoint that is missing, damaged or made for another model."""


class NoRecogniserError(CheckpointError):
    """A checkpoint of a model that does not write texts: it has no CTC head, or nobody knows its vocabulary."""


class DownloadError(KdkitError):
    """A file that cannot be fetched: no network, no room, a wrong checksum. Says how to fetch it by hand."""


class ConfigError(KdkitError):
    """Settings that contradict each other or have impossible values."""


class TrainingError(KdkitError):
    """Training that cannot go on, for instance because the loss is not finite."""


class OutputError(KdkitError):
    """A file or folder that cannot be written: a full disk, no permission, a name in the way. Says what to do."""
