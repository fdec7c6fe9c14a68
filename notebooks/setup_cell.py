# Finds kdkit, or installs it; does nothing where it is there. In Colab, Kaggle, JupyterLab and VS Code.
import importlib.util
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

KIT = ""  # where kdkit comes from if neither its folder nor a wheel lies beside or above the notebook


def find_kit():
    """The kit's folder or wheel near this notebook, else KIT."""
    for folder in [Path.cwd(), *Path.cwd().parents]:
        project = folder / "pyproject.toml"
        if project.is_file() and 'name = "kdkit"' in project.read_text(encoding="utf-8"):
            return str(folder)
        if wheels := sorted(folder.glob("kdkit-*.whl")):
            return str(wheels[-1])
    if not KIT:
        raise SystemExit(
            "kdkit is not installed, and neither its folder nor a wheel (kdkit-*.whl) lies beside or "
            "above this notebook: put one there, or set KIT in this cell to a wheel or to git+https://..."
        )
    return KIT


if importlib.util.find_spec("kdkit") is None:
    kept = [d for d in metadata.distributions() if d.metadata["Name"] in ("torch", "torchaudio", "numpy")]
    with tempfile.TemporaryDirectory() as folder:
        keep = Path(folder, "keep.txt")  # a torch that is installed stays as it is
        keep.write_text("".join(f"{d.metadata['Name']}=={d.version}\n" for d in kept))
        kit = find_kit()
        print(f"installing kdkit from {kit} ...")
        pip = [sys.executable, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, kit, "-c", str(keep)], check=True)
    importlib.invalidate_caches()
