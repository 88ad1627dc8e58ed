# Activations, dropout, and dropout with the residual stream and a norm


cdef int activation(const floating* x, Py_ssize_t n, int code, floating* y) noexcept nogil:
    cdef Py_ssize_t i = 0
    if no_sizes(n, code, 0.0) or code > SOFTPLUS or lacking(x, y, n):
        return INVALID
    while i < n:
        activations.activate(<floating*>x + i, min(n - i, <Py_ssize_t>PART), code, y + i)
        i += PART
    return 0


cdef int activation_backward(const floating* dy, const floating* x, Py_ssize_t n, int code, floating* dx) noexcept nogil:
    cdef Py_ssize_t i = 0
    if no_sizes(n, code, 0.0) or code > SOFTPLUS or lacking(x, dx, n) or lacking(dy, dx, n):
        return INVALID
    if code == IDENTITY:  # of which the kernel knows nothing
        if n:  # C forbids NULL even where there is nothing to copy
            memmove(dx, dy, n * sizeof(floating))
        return 0
    while i < n:
        activations.activate_gradient(<floating*>dy + i, <floating*>x + i, min(n - i, <Py_ssize_t>PART), code, dx + i)
        i += PART
    return 0


cdef inline bint no_draws(const uint32_t* key, Py_ssize_t offset, double p, Py_ssize_t n) noexcept nogil:
    return not 0.0 <= p <= 1.0 or offset < 0 or offset > PY_SSIZE_T_MAX - n or (key == NULL and 0.0 < p < 1.0)


cdef inline uint32_t threshold(double p) noexcept nogil:
    """Draws of 32 bits below it drop their element."""
    return <uint32_t>min(rint(p * 4294967296.0), 4294967295.0)


cdef inline void widen_key(const uint32_t* key, uint64_t* target) noexcept nogil:
    cdef int j
    for j in range(4):
        target[j] = key[j]


cdef int dropout(const floating* x, Py_ssize_t n, const uint32_t* key, Py_ssize_t offset, double p, floating* y) noexcept nogil:
    cdef char memory[SPACE + BUFFER]
    cdef uint64_t words[4]
    cdef char* space = <char*>on_line(memory)
    cdef bint streamed = past(x, n, y, streamed_from // 4)  # as normfast/engines/compiled.py
    if no_sizes(n, 0, 0.0) or no_draws(key, offset, p, n) or lacking(x, y, n):
        return INVALID
    if n == 0:
        return 0
    if p == 0.0:
        memmove(y, x, n * sizeof(floating))
    elif p == 1.0:
        memset(y, 0, n * sizeof(floating))
    else:
        widen_key(key, words)
        dropout_run(
            <floating*>x, n, words, offset, threshold(p), <floating>(1.0 / (1.0 - p)), <uint32_t*>space, <uint8_t*>space, y, streamed,
            <floating*>(space + SPACE),
        )
        if streamed:
            fence()
    return 0


cdef int dropout_mask(const uint32_t* key, Py_ssize_t offset, double p, Py_ssize_t n, uint8_t* kept) noexcept nogil:
    cdef char memory[SPACE + LINE]
    cdef uint64_t words[4]
    cdef uint32_t bits[BITS]
    cdef char* space = <char*>on_line(memory)
    cdef Py_ssize_t block = -1, i = 0, j, start
    if no_sizes(n, 0, 0.0) or no_draws(key, offset, p, n) or lacking(kept, kept, n):
        return INVALID
    if n == 0:
        return 0
    if p == 0.0 or p == 1.0:
        memset(kept, p == 0.0, n)
    else:
        widen_key(key, words)
        while i < n:
            start = (offset + i) % 32
            block = keep_run(
                words, offset + i, min(n - i, <Py_ssize_t>DRAWS), threshold(p), kept + i, kept + i, block, <uint32_t*>space,
                <uint8_t*>space, bits,
            )
            for j in range(min(n - i, <Py_ssize_t>DRAWS)):
                kept[i + j] = bits[(start + j) // 32] >> (start + j) % 32 & 1
            i += DRAWS
    return 0


cdef int add_rows(
    const floating* x, const floating* residual, const uint32_t* key, Py_ssize_t offset, double p, const floating* weight,
    const floating* bias, Py_ssize_t rows, Py_ssize_t n, double eps, bint centred, floating* h, floating* y, double* mean, double* rstd,
    double* var
) noexcept nogil:
    cdef double own[3][BESIDE]
    cdef char memory[BUFFER]
    cdef uint64_t words[4]
    cdef Py_ssize_t size = rows * n, width = max(n, TOGETHER), i = 0
    cdef Py_ssize_t m = rows if mean != NULL and rstd != NULL and var != NULL else BESIDE
    # two results leave the caches sooner than one: normfast/engines/compiled.py
    cdef bint streamed = past(x, size, y, streamed_from // 4) and n <= 65536 and y != residual and h != x and h != residual
    if no_sizes(rows, n, eps) or lacking(x, y, size) or lacking(residual, h, size) or no_draws(key, offset, p, size) or (size and h == y):
        return INVALID
    if size == 0 or p == 1.0:
        if size:
            memmove(h, residual, size * sizeof(floating))
        return norm_rows(<const floating*>h, weight, bias, rows, n, eps, centred, y, mean, rstd, var)
    # what keeps dropout's words, a bit for each value of the rows that are taken at once, and these rows
    cdef bint drawn = p > 0.0
    cdef char* space = NULL
    if drawn or streamed:
        space = <char*>malloc(SPACE + width // 8 + 2 * LINE + (width * sizeof(floating) if streamed else 0) + LINE)
    cdef char* aligned = <char*>on_line(space)
    cdef floating* w = run_of(weight, n, 1.0)
    cdef floating* b = run_of(bias, n, 0.0)
    if drawn:
        widen_key(key, words)
    if (drawn or streamed) and space == NULL:
        rows = -1
    while i < rows and w != NULL and b != NULL:
        m = min(m, rows - i)
        add_norm_rows(
            <floating*>x + i * n, <floating*>residual + i * n, drawn, words, offset + i * n, threshold(p), <floating>(1.0 / (1.0 - p)),
            <uint32_t*>aligned, <uint8_t*>aligned, <uint32_t*>(aligned + SPACE), w, b, n, eps, centred, h + i * n, y + i * n,
            unless(mean, i, own[0]), unless(rstd, i, own[1]), unless(var, i, own[2]), 0, m, streamed,
            <floating*>on_line(aligned + SPACE + width // 8 + LINE), <floating*>on_line(memory),
        )
        i += m
    if streamed:
        fence()
    give_back(w, weight, n)
    give_back(b, bias, n)
    free(space)
    return 0 if i == rows else NO_MEMORY


cdef int dropout_add_layer_norm(
    const floating* x, const floating* residual, const uint32_t* key, Py_ssize_t offset, double p, const floating* weight,
    const floating* bias, Py_ssize_t rows, Py_ssize_t n, double eps, floating* h, floating* y, double* mean, double* rstd, double* var
) noexcept nogil:
    return add_rows(x, residual, key, offset, p, weight, bias, rows, n, eps, True, h, y, mean, rstd, var)


cdef int dropout_add_rms_norm(
    const floating* x, const floating* residual, const uint32_t* key, Py_ssize_t offset, double p, const floating* weight, Py_ssize_t rows,
    Py_ssize_t n, double eps, floating* h, floating* y, double* rstd, double* var
) noexcept nogil:
    return add_rows(x, residual, key, offset, p, weight, <const floating*>NULL, rows, n, eps, False, h, y, NULL, rstd, var)
