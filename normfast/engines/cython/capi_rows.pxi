# Moments, layer norm and RMS norm of rows, and p-norms


cdef int moments(const floating* x, Py_ssize_t rows, Py_ssize_t n, double* mean, double* m2) noexcept nogil:
    cdef Py_ssize_t pieces = (n + piece - 1) // piece if n > piece else 1, i, p, m
    cdef double scale[BESIDE]
    cdef double* of_pieces = scale
    cdef floating* values = <floating*>x
    if no_sizes(rows, n, 0.0) or lacking(mean, m2, rows) or lacking(x, mean, rows * n):
        return INVALID
    if n == 0:
        fill_with(mean, rows, NAN)
        fill_with(m2, rows, 0.0)
        return 0
    if 2 * pieces > BESIDE:
        of_pieces = <double*>malloc(2 * pieces * sizeof(double))
        if of_pieces == NULL:
            return NO_MEMORY
    i = 0
    while i < rows:
        m = min(rows - i, <Py_ssize_t>BESIDE) if n <= ASIDE else 1
        if n <= ASIDE:
            row_statistics(values + i * n, n, True, HEAD if floating is double else 1, 0, m, <double>0, mean + i, m2 + i, scale)
        else:
            for p in range(pieces):
                of_pieces[p], of_pieces[pieces + p] = piece_moments(values + i * n, 0, p, 1, 1, n, 1, pieces, 1.0, <double>0)
            mean[i], m2[i], scale[0] = slab_moments(values + i * n, 0, 1, 1, n, 1, pieces, of_pieces, of_pieces + pieces, <double>0)
        for p in range(m):
            mean[i + p] /= scale[p]
            m2[i + p] = m2[i + p] / scale[p] / scale[p]
        i += m
    if of_pieces != scale:
        free(of_pieces)
    return 0


cdef int merge_moments(double* count, double* mean, double* m2, double count_b, double mean_b, double m2_b) noexcept nogil:
    if count == NULL or mean == NULL or m2 == NULL or not count[0] >= 0.0 or not count_b >= 0.0:
        return INVALID
    if count[0] == 0.0:
        count[0], mean[0], m2[0] = count_b, mean_b, m2_b
    elif count_b > 0.0:
        count[0], mean[0], m2[0] = merge(count[0], mean[0], m2[0], count_b, mean_b, m2_b)
    return 0


cdef int norm_rows(
    const floating* x, const floating* weight, const floating* bias, Py_ssize_t rows, Py_ssize_t n, double eps, bint centred, floating* y,
    double* mean, double* rstd, double* var
) noexcept nogil:
    cdef double own[3][BESIDE]
    cdef char memory[BUFFER]
    cdef Py_ssize_t i = 0, m = rows if mean != NULL and rstd != NULL and var != NULL else BESIDE
    cdef bint streamed = past(x, rows * n, y, streamed_from)
    if no_sizes(rows, n, eps) or lacking(x, y, rows * n):
        return INVALID
    if n == 0:
        fill_with(mean, rows, NAN)
        fill_with(rstd, rows, NAN)
        fill_with(var, rows, NAN)
        return 0
    cdef floating* w = run_of(weight, n, 1.0)
    cdef floating* b = run_of(bias, n, 0.0)
    while i < rows and w != NULL and b != NULL:
        m = min(m, rows - i)
        layer_norm_rows(
            <floating*>x + i * n, w, b, n, eps, centred, y + i * n, unless(mean, i, own[0]), unless(rstd, i, own[1]), unless(var, i, own[2]),
            0, m, streamed, <floating*>on_line(memory),
        )
        i += m
    if streamed:
        fence()
    give_back(w, weight, n)
    give_back(b, bias, n)
    return 0 if i == rows else NO_MEMORY


cdef int layer_norm(
    const floating* x, const floating* weight, const floating* bias, Py_ssize_t rows, Py_ssize_t n, double eps, floating* y, double* mean,
    double* rstd, double* var
) noexcept nogil:
    return norm_rows(x, weight, bias, rows, n, eps, True, y, mean, rstd, var)


cdef int rms_norm(
    const floating* x, const floating* weight, Py_ssize_t rows, Py_ssize_t n, double eps, floating* y, double* rstd, double* var
) noexcept nogil:
    return norm_rows(x, weight, <const floating*>NULL, rows, n, eps, False, y, NULL, rstd, var)


cdef int gradient_rows(
    const floating* dy, const floating* x, const double* mean, const double* rstd, const floating* weight, Py_ssize_t rows, Py_ssize_t n,
    bint centred, floating* dx, double* dweight, double* dbias
) noexcept nogil:
    cdef char memory[BUFFER]
    cdef Py_ssize_t size = rows * n, i
    cdef bint streamed = past(x, size, dx, streamed_from) and dy != dx
    if no_sizes(rows, n, 0.0) or lacking(x, dx, size) or lacking(dy, rstd, size) or (centred and lacking(mean, mean, size)):
        return INVALID
    if size == 0:
        return 0
    # float64 sums that nobody asks for, then the short ones, apart as Python's are: a loop whose arrays lie within a vector of each other adds
    # up in another order; then the means of rows that are not centred
    cdef double* space = <double*>calloc(4 * n + 2 * APART + (0 if centred else rows), sizeof(double))
    cdef floating* w = run_of(weight, n, 1.0)
    if space != NULL and w != NULL:
        layer_norm_gradient_rows(
            <floating*>dy, <floating*>x, <double*>mean if centred else space + 4 * n + 2 * APART, <double*>rstd, w, n, centred, dx, 0, rows,
            <floating*>(space + 2 * n + APART), <floating*>(space + 3 * n + 2 * APART), unless(dweight, 0, space),
            unless(dbias, 0, space + n), streamed, <floating*>on_line(memory),
        )
        if n == 1 and centred:  # y is the bias whatever x; NaN stays
            for i in range(rows):
                dx[i] = dx[i] * 0
        if streamed:
            fence()
    i = 0 if space != NULL and w != NULL else NO_MEMORY
    give_back(w, weight, n)
    free(space)
    return <int>i


cdef int layer_norm_backward(
    const floating* dy, const floating* x, const double* mean, const double* rstd, const floating* weight, Py_ssize_t rows, Py_ssize_t n,
    floating* dx, double* dweight, double* dbias
) noexcept nogil:
    return gradient_rows(dy, x, mean, rstd, weight, rows, n, True, dx, dweight, dbias)


cdef int rms_norm_backward(
    const floating* dy, const floating* x, const double* rstd, const floating* weight, Py_ssize_t rows, Py_ssize_t n, floating* dx,
    double* dweight
) noexcept nogil:
    return gradient_rows(dy, x, NULL, rstd, weight, rows, n, False, dx, dweight, NULL)


cdef int lp_norm(const floating* x, Py_ssize_t rows, Py_ssize_t n, double ord, double eps, floating* y, double* norm) noexcept nogil:
    cdef double own[2][BESIDE]
    cdef floating factors[5][BESIDE]
    cdef char memory[BUFFER]
    cdef Py_ssize_t i = 0, m
    cdef bint streamed = past(x, rows * n, y, streamed_from)
    if no_sizes(rows, n, eps) or ord != ord or lacking(x, y, rows * n):
        return INVALID
    if n == 0:
        fill_with(norm, rows, 0.0)
        return 0
    while i < rows:
        m = min(rows - i, <Py_ssize_t>BESIDE)
        lp_norm_rows(
            <floating*>x + i * n, m, n, ord, eps, y + i * n, unless(norm, i, own[0]), own[1], factors[0], factors[1], factors[2],
            factors[3], factors[4], 0, m, streamed, <floating*>on_line(memory),
        )
        i += m
    if streamed:
        fence()
    return 0
