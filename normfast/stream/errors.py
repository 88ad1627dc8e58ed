"""What goes wrong with a file, as opposed to a wrong argument."""


class FileError(ValueError):
    """A file is damaged, ends too early, has changed while it was read, or is no result of its input.

    Examples
    --------
    >>> import normfast as nf
    >>> raise nf.stream.FileError("x.npy ends too early")
    Traceback (most recent call last):
    ...
    normfast.stream.errors.FileError: x.npy ends too early
    """
