"""``python -m kdkit`` is the ``kdkit`` command."""

import os
import sys

# "python -m" puts the current folder first on the path: a joblib.py that lies there would be imported as joblib.
# Unless it is the folder that kdkit itself is imported from.
_folder = os.path.realpath(sys.path[0] or os.getcwd())
_kdkit = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
if not getattr(sys.flags, "safe_path", False) and _folder == os.path.realpath(os.getcwd()) != _kdkit:
    del sys.path[0]

from kdkit.commands.main import main  # noqa: E402

main()
