"""torchaudio as a witness: imported beside any torch.

Its last release asks for the CUDA that it was built with, and refuses every later torch. A witness computes on the CPU,
where that does not matter: so it is imported as if torch had no CUDA. transformers imports it, too: this comes first.
"""

import torch

_cuda, torch.version.cuda = torch.version.cuda, None
try:
    import torchaudio
finally:
    torch.version.cuda = _cuda

__all__ = ["torchaudio"]
