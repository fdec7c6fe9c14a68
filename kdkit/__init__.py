"""From a large self-supervised speech model to a small, fast recogniser. ``kdkit.load_teacher`` loads the large one."""

__all__ = ["load_teacher"]


def __getattr__(name: str):
    if (
        name in __all__
    ):  # on first use: torch takes seconds to load, ``import kdkit`` and ``kdkit --help`` must not
        from kdkit import teachers

        return getattr(teachers, name)
    raise AttributeError(f"module 'kdkit' has no attribute {name!r}")
