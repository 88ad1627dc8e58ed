# Group norm and batch norm of NCHW, (samples, channels, space)


cdef void widen(const floating* values, Py_ssize_t n, double default, double* target) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        target[j] = default if values == NULL else values[j]


cdef int group_norm(
    const floating* x, const floating* weight, const floating* bias, Py_ssize_t samples, Py_ssize_t groups, Py_ssize_t channels,
    Py_ssize_t space, double eps, floating* y, double* mean, double* rstd, double* var
) noexcept nogil:
    cdef double few[2 * WIDTH]
    cdef double own[3]
    cdef char memory[BUFFER]
    cdef Py_ssize_t k, rows, i = 0, first
    cdef bint whole = mean != NULL and rstd != NULL and var != NULL
    if no_sizes(samples, space, eps) or no_sizes(channels, groups - 1, 0.0) or channels % groups or lacking(x, y, samples * channels * space):
        return INVALID
    k, rows = channels // groups, samples * groups
    if k * space == 0:
        fill_with(mean, rows, NAN)
        fill_with(rstd, rows, NAN)
        fill_with(var, rows, NAN)
        return 0
    cdef double* w = few
    if channels > WIDTH:
        w = <double*>malloc(2 * channels * sizeof(double))
        if w == NULL:
            return NO_MEMORY
    widen(weight, channels, 1.0, w)
    widen(bias, channels, 0.0, w + channels)
    cdef bint streamed = past(x, rows * k * space, y, streamed_from)
    while i < rows:  # all rows at once, or each with statistics that nobody keeps
        first = 0 if whole else i % groups * k
        group_norm_rows(
            <floating*>x + i * k * space, w + first, w + channels + first, k, space, groups if whole else 1, eps, y + i * k * space,
            unless(mean, i, own), unless(rstd, i, own + 1), unless(var, i, own + 2), 0, rows if whole else 1, streamed,
            <floating*>on_line(memory),
        )
        i += rows if whole else 1
    if streamed:
        fence()
    if w != few:
        free(w)
    return 0


cdef void apply(
    const floating* x, const double* mean, const double* var, const floating* weight, const floating* bias, Py_ssize_t samples, Py_ssize_t c,
    Py_ssize_t s, double eps, bint measured, int code, floating* y
) noexcept nogil:
    """Batch norm by given statistics, WIDTH channels at a time; `var` is rstd already where it was `measured`."""
    if c == 1:
        samples, s = 1, samples * s
    cdef double own[3][WIDTH]
    cdef floating f[5][WIDTH]
    cdef char memory[BUFFER]
    cdef Py_ssize_t start = 0, m, i, j, calls, beside
    cdef bint streamed = past(x, samples * c * s, y, streamed_from), scaled
    cdef floating* run
    cdef floating* target
    calls = 1 if c <= WIDTH else samples
    while start < c:
        m = min(c - start, <Py_ssize_t>WIDTH)
        for j in range(m):
            own[0][j] = var[start + j] if measured or var[start + j] + eps == 0.0 else 1.0 / sqrt(var[start + j] + eps)
        widen(weight + start if weight != NULL else NULL, m, 1.0, own[1])
        widen(bias + start if bias != NULL else NULL, m, 0.0, own[2])
        scaled = column_factors(m, <double*>mean + start, own[0], own[1], own[2], <floating>0, f[0], f[1], f[2], f[3], f[4])
        beside = WIDTH // c if s == 1 and c <= WIDTH else 1
        for j in range(5):
            column_kernels.repeat(m, beside, f[j])
        for i in range(calls):  # one call for all samples, unless their channels are too many
            run, target = <floating*>x + (i * c + start) * s, y + (i * c + start) * s
            if s == 1 and c > 1:
                column_kernels.affine_rows(
                    run, samples, m, 0, samples if calls == 1 else 1, beside, scaled, f[0], f[1], f[2], f[3], f[4], code, target, streamed,
                    <floating*>on_line(memory),
                )
            else:
                affine_runs(
                    run, 0, (samples if calls == 1 else 1) * m, samples, m, s, 1, f[0], f[1], f[2], f[3], f[4], code, target, streamed,
                    <floating*>on_line(memory),
                )
        start += m
    if streamed:
        fence()


cdef int batch_norm(
    const floating* x, const double* mean, const double* var, const floating* weight, const floating* bias, Py_ssize_t samples,
    Py_ssize_t channels, Py_ssize_t space, double eps, int activation, floating* y
) noexcept nogil:
    cdef Py_ssize_t j
    if no_sizes(samples, space, eps) or no_sizes(channels, activation, 0.0) or activation > SOFTPLUS or lacking(mean, var, channels):
        return INVALID
    if lacking(x, y, samples * channels * space):
        return INVALID
    for j in range(channels):
        if var[j] < 0.0:
            return INVALID
    if samples * space:
        apply(x, mean, var, weight, bias, samples, channels, space, eps, False, activation, y)
    return 0


cdef void measure_columns(
    const floating* x, Py_ssize_t rows, Py_ssize_t c, Py_ssize_t splits, double* of_pieces, double* mean, double* m2, double* scale
) noexcept nogil:
    """Scaled moments of the columns of (rows, c); `of_pieces` is space for two numbers of each column in each of the splits."""
    cdef floating work[6 * WIDTH]
    cdef Py_ssize_t blocks = (c + WIDTH - 1) // WIDTH, i
    cdef double* m2_of_pieces = of_pieces + splits * c
    for i in range(splits * blocks):
        column_kernels.column_piece(<floating*>x, i, rows, c, splits, WIDTH, work, of_pieces, m2_of_pieces)
    for i in range(blocks):
        column_kernels.column_statistics(<floating*>x, i, rows, c, splits, WIDTH, work, of_pieces, m2_of_pieces, mean, m2, scale)


cdef int batch_norm_forward(
    const floating* x, const floating* weight, const floating* bias, Py_ssize_t samples, Py_ssize_t channels, Py_ssize_t space, double eps,
    int activation, floating* y, double* mean, double* rstd, double* var
) noexcept nogil:
    # cut as normfast/engines/policy.py says, so that the bits are those of nf.batch_norm_forward
    if channels == 1:
        samples, space = min(samples, 1), samples * space
    cdef bint short = floating is float and 1 < space <= 64 and samples >= 8
    cdef Py_ssize_t columns = channels * space if short else channels, splits = 1, along = 1, q, p, pieces
    cdef char memory[BUFFER]
    cdef double parameter[2]
    cdef double* of_columns
    cdef double* m
    cdef double* of_pieces
    cdef bint streamed = past(x, samples * channels * space, y, streamed_from)
    if no_sizes(samples, space, eps) or no_sizes(channels, activation, 0.0) or activation > SOFTPLUS:
        return INVALID
    if lacking(x, y, samples * channels * space):
        return INVALID
    if samples * space == 0:
        fill_with(mean, channels, NAN)
        fill_with(rstd, channels, NAN)
        fill_with(var, channels, NAN)
        return 0
    if short or (space == 1 and channels > 1):
        splits = max(1, min(samples // 256, samples * columns // piece))
        pieces = splits * columns
    else:
        if space > piece:
            splits, along = samples, (space + piece - 1) // piece
        else:
            splits = max(1, min(samples, samples * space // piece))
        pieces = splits * along
    # mean, rstd and var of each channel, then mean, m2 and scale of each column, then mean and m2 of pieces
    m = <double*>malloc((3 * channels + 3 * columns + 2 * pieces) * sizeof(double))
    if m == NULL:
        return NO_MEMORY
    cdef double* r = m + channels
    cdef double* v = r + channels
    of_columns = v + channels
    of_pieces = of_columns + 3 * columns
    if short or (space == 1 and channels > 1):
        measure_columns(x, samples, columns, splits, of_pieces, of_columns, of_columns + columns, of_columns + 2 * columns)
        for q in range(channels):
            if short:
                m[q], v[q] = merge_equals(
                    space, samples, of_columns + q * space, of_columns + columns + q * space, of_columns + 2 * columns + q * space
                )
                r[q] = 1.0
            else:
                m[q], v[q], r[q] = of_columns[q], of_columns[columns + q], of_columns[2 * columns + q]
        finish_statistics(channels, samples * space, eps, m, v, r, r, v)
        apply(x, m, r, weight, bias, samples, channels, space, 0.0, True, activation, y)
    else:
        for q in range(channels):  # a channel at a time: its runs are still in the cache when y is made
            for p in range(pieces):
                of_pieces[p], of_pieces[pieces + p] = piece_moments(
                    <floating*>x, q, p, samples, channels, space, splits, along, 1.0, <floating>0
                )
            m[q], v[q], r[q] = slab_moments(
                <floating*>x, q, samples, channels, space, splits, along, of_pieces, of_pieces + pieces, <floating>0
            )
            finish_statistics(1, samples * space, eps, m + q, v + q, r + q, r + q, v + q)
            parameter[0] = 1.0 if weight == NULL else weight[q]
            parameter[1] = 0.0 if bias == NULL else bias[q]
            affine_channel(
                <floating*>x + q * space, m + q, r + q, parameter, parameter + 1, 0, samples, channels, space, activation, y + q * space,
                streamed, <floating*>on_line(memory),
            )
        if streamed:
            fence()
    for q in range(channels):
        unless(mean, q, m + q)[0] = m[q]
        unless(rstd, q, r + q)[0] = r[q]
        unless(var, q, v + q)[0] = v[q]
    free(m)
    return 0
