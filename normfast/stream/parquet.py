"""Tables in Parquet: their columns are those of an array; through the library pyarrow."""

import os
from typing import Any

import numpy as np

from normfast.extras import needed
from normfast.stream.errors import FileError
from normfast.stream.flat import marks
from normfast.stream.sources import Source, line_of

pyarrow = needed("pyarrow", "parquet", "reading and writing .parquet")
parquet = needed("pyarrow.parquet", "parquet", "reading and writing .parquet")
ROWS = 1 << 16  # of a row group that is written, where the columns are few


def open_parquet(path, columns):
    """The columns of a file, all or those named, as a source."""
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise FileError(f"{path} is no Parquet file, or damaged: {line_of(error)}") from None
    return Table(path, file, columns)


class Table(Source):
    """The columns of a Parquet file, (rows, columns); float32 if all are, else float64. What is missing is NaN."""

    sequential = True

    def __init__(self, path, file, columns):
        schema = file.schema_arrow
        columns = list(columns or schema.names)
        unknown = [name for name in columns if name not in schema.names]
        if unknown:
            raise ValueError(f"{path} has no column {', '.join(unknown)}: it has {', '.join(schema.names)}")
        types = [schema.field(name).type for name in columns]
        is_number = pyarrow.types.is_integer, pyarrow.types.is_floating
        others = [f"{name} ({kind})" for name, kind in zip(columns, types, strict=True) if not any(test(kind) for test in is_number)]
        if others:
            raise TypeError(f"{path} has columns that are no numbers, {', '.join(others)}: choose by columns those that are")
        floats = {kind.to_pandas_dtype() for kind in types}
        dtype = np.float32 if floats == {np.float32} else np.float64
        super().__init__(path, (file.metadata.num_rows, len(columns)), dtype, unit=(1, max(1, len(columns))))
        self.path, self.columns, self._file = path, columns, file
        groups = range(file.metadata.num_row_groups)
        self._starts = np.cumsum([0, *(file.metadata.row_group(group).num_rows for group in groups)])
        self._status = marks(os.stat(path))
        self._position = -1
        self._batches: Any = None
        self._rest: Any = None

    def read(self, block, space):
        rows, taken = block
        values = space.of((rows.stop - rows.start, self.shape[1]), self.dtype, False)
        if rows.start != self._position:
            self._begin(rows.start, len(values))
        done = 0
        try:
            while done < len(values):
                if self._rest is None or not len(self._rest):
                    self._rest = next(self._batches)
                part = self._rest[: len(values) - done]
                self._rest = self._rest[len(part) :]
                for j, name in enumerate(self.columns or ()):
                    values[done : done + len(part), j] = _numbers(part.column(name), self.dtype)
                done += len(part)
        except (StopIteration, pyarrow.ArrowException, OSError) as error:
            raise FileError(f"{self.path} is damaged: {line_of(error)}") from None
        self._position = rows.stop
        self.fingerprint()
        return values[:, taken]

    def _begin(self, row, size):
        """Begin to read with a row, in the group that holds it."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        groups = list(range(group, len(self._starts) - 1))
        self._batches = self._file.iter_batches(max(1, size), row_groups=groups, columns=self.columns, use_threads=False)
        self._rest = None
        skipped = row - int(self._starts[group])
        while skipped:
            batch = next(self._batches)
            count = min(skipped, len(batch))
            self._rest, skipped = batch[count:], skipped - count

    def fingerprint(self):
        if marks(os.stat(self.path)) != self._status:
            raise FileError(f"{self.path} has changed while it was read: start again when nobody writes to it")
        return {"path": os.path.realpath(self.path), "columns": self.columns, "shape": list(self.shape)} | self._status

    def paths(self):
        return [self.path]

    def close(self):
        self._file.close()


def _numbers(column, dtype):
    """A column as numbers; what is missing is NaN."""
    if column.null_count:
        column = column.cast(pyarrow.from_numpy_dtype(dtype), safe=False).fill_null(float("nan"))
    return column.to_numpy(zero_copy_only=False)


class TableTarget:
    """A Parquet file that takes rows in their order, a row group for each block. One that was interrupted begins again."""

    continues = False

    def __init__(self, path, shape, dtype, columns):
        if len(shape) != 2:
            raise ValueError(f"Parquet holds tables, rows and columns, and the result has shape {tuple(shape)}: write .npy or .zarr")
        self.path, self._columns = path, columns or [f"c{j}" for j in range(shape[1])]
        kind = pyarrow.from_numpy_dtype(dtype)
        self._schema = pyarrow.schema([(name, kind) for name in self._columns])
        self._dtype = dtype
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._held, self._rows, self._enough = [], 0, max(1, min(ROWS, (4 << 20) // max(1, shape[1])))

    def write(self, block, values):
        """Take rows, which follow those before."""
        self._held.append(np.array(values, self._dtype))
        self._rows += len(values)
        if self._rows >= self._enough:
            self._flush()

    def _flush(self):
        if self._held:
            values = np.concatenate(self._held)
            arrays = [pyarrow.array(np.ascontiguousarray(column)) for column in values.T]
            self._writer.write_batch(pyarrow.record_batch(arrays, schema=self._schema), row_group_size=len(values))
            self._held, self._rows = [], 0

    def sync(self):
        """Nothing is kept of one that is interrupted."""

    def finish(self):
        """Write what the file ends with, and wait until it is on the disk."""
        self._flush()
        self._writer.close()
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())

    def reread(self):
        """The same as a source."""
        return open_parquet(self.path, None)

    def close(self):
        """Give the file back."""
        self._writer.close()
