"""The notebooks go first: they take longest, and with two workers the other one does everything else meanwhile."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")
