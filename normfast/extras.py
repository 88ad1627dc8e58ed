"""Libraries that come with an extra: imported when they are used, asked for in one line where they are missing."""

from importlib import import_module


def needed(name, extra, purpose):
    """The module of that name.

    Raises
    ------
    ModuleNotFoundError
        Where it is not installed: what needs it, and the command that installs it.

    Examples
    --------
    >>> from normfast.extras import needed
    >>> needed("numpy", "test", "this example").__name__
    'numpy'
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        raise ModuleNotFoundError(f"{purpose} needs {missing}: pip install 'normfast[{extra}]'", name=missing) from None
