/* Scores of rows: the dot product of a vector with the RMS norm of each row. No array of x's size is made, and the GIL is released. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <normfast.h>
#include <string.h>

static const normfast_api *nf;

static int run(const float *x, const float *weight, const float *head, float *scores, ptrdiff_t rows, ptrdiff_t n, double eps, float *row) {
    int status = NORMFAST_OK;
    for (ptrdiff_t i = 0; i < rows && status == NORMFAST_OK; i++) {
        status = nf->rms_norm_f32(x + i * n, weight, 1, n, eps, row, NULL, NULL);
        double score = 0;
        for (ptrdiff_t j = 0; j < n; j++) score += (double)row[j] * head[j];
        scores[i] = (float)score;
    }
    return status;
}

static int floats(PyObject *object, Py_buffer *view, int ndim, int flags) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0) return -1;
    if (view->ndim == ndim && strcmp(view->format, "f") == 0) return 0;
    PyErr_Format(PyExc_TypeError, "needs float32 of %d axes, got format '%s' of %d", ndim, view->format, view->ndim);
    PyBuffer_Release(view);
    return -1;
}

static PyObject *score(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *objects[4], *result = NULL;
    Py_buffer views[4];
    double eps = 1e-6;
    int taken = 0, status;
    if (!PyArg_ParseTuple(args, "OOOO|d", &objects[0], &objects[1], &objects[2], &objects[3], &eps)) return NULL;
    for (; taken < 4; taken++)
        if (floats(objects[taken], &views[taken], taken == 0 ? 2 : 1, taken == 3 ? PyBUF_WRITABLE : 0) < 0) goto done;
    const ptrdiff_t rows = views[0].shape[0], n = views[0].shape[1];
    if (views[1].shape[0] != n || views[2].shape[0] != n || views[3].shape[0] != rows) {
        PyErr_SetString(PyExc_ValueError, "x must be (rows, n), weight and head (n,), scores (rows,)");
        goto done;
    }
    float *row = PyMem_RawMalloc((size_t)(n ? n : 1) * sizeof(float));
    if (row == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = run(views[0].buf, views[1].buf, views[2].buf, views[3].buf, rows, n, eps, row);
    Py_END_ALLOW_THREADS
    PyMem_RawFree(row);
    if (status == NORMFAST_OK) result = Py_NewRef(Py_None);
    else if (status == NORMFAST_NO_MEMORY) PyErr_NoMemory();
    else PyErr_SetString(PyExc_ValueError, "eps must be a finite number of 0 or more");
done:
    while (taken--) PyBuffer_Release(&views[taken]);
    return result;
}

static PyMethodDef methods[] = {
    {"score", score, METH_VARARGS, "score(x, weight, head, scores, eps=1e-6): writes rms_norm(x, weight) @ head into scores; float32."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "scoring", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_scoring(void) {
    nf = normfast_import(); /* once, where an error can be raised */
    return nf ? PyModule_Create(&definition) : NULL;
}
