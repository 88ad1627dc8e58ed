/* normfast's kernels for C and C++ extensions: one table of functions.

       #include <Python.h>
       #include <normfast.h>

       const normfast_api *nf = normfast_import();   // with the GIL, once; NULL with a Python exception set
       nf->layer_norm_f32(x, weight, bias, rows, n, 1e-5, y, NULL, NULL, NULL);

   Every function runs on the calling thread alone, holds no state, needs no GIL and may run on many threads at once. It returns
   NORMFAST_OK, or, with nothing written, NORMFAST_INVALID (a size below 0, a NULL that is needed, an eps that is negative, infinite or NaN,
   a p outside [0, 1], an unknown code) or NORMFAST_NO_MEMORY. The results are those of the Python function of the same name.

   _f32 takes float and _f64 double. Arrays are C-contiguous, aligned as C asks of their type, and lie apart; only y (dx) may be x (dy or x)
   itself. Statistics are double whatever the type of x. Where it says "or NULL", a parameter has its default, and what nobody asks for is
   not written.

   The table only grows: a function keeps its place and its meaning. Without Python.h this file declares the table alone, for code that is
   handed its address. Cython has the same functions: from normfast.capi cimport layer_norm. */

#ifndef NORMFAST_H
#define NORMFAST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NORMFAST_ABI 1

enum { NORMFAST_OK = 0, NORMFAST_INVALID = 1, NORMFAST_NO_MEMORY = 2 };

enum { /* the codes of activations */
    NORMFAST_IDENTITY = 0, NORMFAST_RELU = 1, NORMFAST_LEAKY_RELU = 2, NORMFAST_SIGMOID = 3,
    NORMFAST_TANH = 4, NORMFAST_GELU = 5, NORMFAST_SILU = 6, NORMFAST_SOFTPLUS = 7
};

typedef struct normfast_api {
    int abi;     /* NORMFAST_ABI of the installed normfast */
    size_t size; /* bytes of its table */

    /* Mean and sum of squared deviations m2 of each of the rows of n values, (rows,) each; the variance is m2 / n. */
    int (*moments_f32)(const float *x, ptrdiff_t rows, ptrdiff_t n, double *mean, double *m2);
    int (*moments_f64)(const double *x, ptrdiff_t rows, ptrdiff_t n, double *mean, double *m2);

    /* Add the moments of other values, b, to *count, *mean and *m2 (Chan, Golub and LeVeque 1979); a count may be 0. */
    int (*merge_moments)(double *count, double *mean, double *m2, double count_b, double mean_b, double m2_b);

    /* y = (x - mean) / sqrt(var + eps) * weight + bias for each row of n values. weight and bias (n,) or NULL;
       mean, rstd = 1 / sqrt(var + eps) and var (rows,) or NULL each. */
    int (*layer_norm_f32)(const float *x, const float *weight, const float *bias, ptrdiff_t rows, ptrdiff_t n, double eps, float *y,
                          double *mean, double *rstd, double *var);
    int (*layer_norm_f64)(const double *x, const double *weight, const double *bias, ptrdiff_t rows, ptrdiff_t n, double eps, double *y,
                          double *mean, double *rstd, double *var);

    /* Its gradients from dy and the statistics of the forward call. weight (n,) or NULL; the shares of dweight and dbias, (n,) or NULL
       each, are added to what stands there, so that many calls can share them: set them to 0 first. Takes working space of 4 n doubles. */
    int (*layer_norm_backward_f32)(const float *dy, const float *x, const double *mean, const double *rstd, const float *weight,
                                   ptrdiff_t rows, ptrdiff_t n, float *dx, double *dweight, double *dbias);
    int (*layer_norm_backward_f64)(const double *dy, const double *x, const double *mean, const double *rstd, const double *weight,
                                   ptrdiff_t rows, ptrdiff_t n, double *dx, double *dweight, double *dbias);

    /* y = x / sqrt(mean square + eps) * weight: as layer_norm, without centring and bias; var is the mean square. */
    int (*rms_norm_f32)(const float *x, const float *weight, ptrdiff_t rows, ptrdiff_t n, double eps, float *y, double *rstd, double *var);
    int (*rms_norm_f64)(const double *x, const double *weight, ptrdiff_t rows, ptrdiff_t n, double eps, double *y, double *rstd,
                        double *var);
    int (*rms_norm_backward_f32)(const float *dy, const float *x, const double *rstd, const float *weight, ptrdiff_t rows, ptrdiff_t n,
                                 float *dx, double *dweight);
    int (*rms_norm_backward_f64)(const double *dy, const double *x, const double *rstd, const double *weight, ptrdiff_t rows, ptrdiff_t n,
                                 double *dx, double *dweight);

    /* Layer norm of each group of channels of each sample: x is (samples, channels, space), as NCHW lies. weight and bias (channels,) or
       NULL; mean, rstd and var (samples, groups) or NULL. Instance norm is groups = channels. */
    int (*group_norm_f32)(const float *x, const float *weight, const float *bias, ptrdiff_t samples, ptrdiff_t groups, ptrdiff_t channels,
                          ptrdiff_t space, double eps, float *y, double *mean, double *rstd, double *var);
    int (*group_norm_f64)(const double *x, const double *weight, const double *bias, ptrdiff_t samples, ptrdiff_t groups,
                          ptrdiff_t channels, ptrdiff_t space, double eps, double *y, double *mean, double *rstd, double *var);

    /* Batch norm by given statistics, then the activation of that code: x is (samples, channels, space); mean and var (channels,), weight
       and bias (channels,) or NULL. NHWC is space = 1 with N * H * W samples. */
    int (*batch_norm_f32)(const float *x, const double *mean, const double *var, const float *weight, const float *bias, ptrdiff_t samples,
                          ptrdiff_t channels, ptrdiff_t space, double eps, int activation, float *y);
    int (*batch_norm_f64)(const double *x, const double *mean, const double *var, const double *weight, const double *bias,
                          ptrdiff_t samples, ptrdiff_t channels, ptrdiff_t space, double eps, int activation, double *y);

    /* Batch norm by the statistics of this batch, as in training; mean, rstd and var (channels,) or NULL. Takes working space of some
       doubles for each channel, and for each value of a row of short ones (space <= 64). */
    int (*batch_norm_forward_f32)(const float *x, const float *weight, const float *bias, ptrdiff_t samples, ptrdiff_t channels,
                                  ptrdiff_t space, double eps, int activation, float *y, double *mean, double *rstd, double *var);
    int (*batch_norm_forward_f64)(const double *x, const double *weight, const double *bias, ptrdiff_t samples, ptrdiff_t channels,
                                  ptrdiff_t space, double eps, int activation, double *y, double *mean, double *rstd, double *var);

    /* y = x / max(norm, eps) for the p-norm of each row, for any real ord and +-infinity; norm (rows,) or NULL. */
    int (*lp_norm_f32)(const float *x, ptrdiff_t rows, ptrdiff_t n, double ord, double eps, float *y, double *norm);
    int (*lp_norm_f64)(const double *x, ptrdiff_t rows, ptrdiff_t n, double ord, double eps, double *y, double *norm);

    /* y = f(x) for the activation f of that code, and dx = dy * f'(x). */
    int (*activation_f32)(const float *x, ptrdiff_t n, int code, float *y);
    int (*activation_f64)(const double *x, ptrdiff_t n, int code, double *y);
    int (*activation_backward_f32)(const float *dy, const float *x, ptrdiff_t n, int code, float *dx);
    int (*activation_backward_f64)(const double *dy, const double *x, ptrdiff_t n, int code, double *dx);

    /* y = x / (1 - p) where the element is kept, else 0: its own gradient too. key is 4 words, the `key` of a DropoutMask; element i has
       position offset + i in the key's stream, which many calls, also on many threads, can share. key may be NULL where p is 0 or 1. */
    int (*dropout_f32)(const float *x, ptrdiff_t n, const uint32_t *key, ptrdiff_t offset, double p, float *y);
    int (*dropout_f64)(const double *x, ptrdiff_t n, const uint32_t *key, ptrdiff_t offset, double p, double *y);

    /* 1 where it is kept, else 0. */
    int (*dropout_mask)(const uint32_t *key, ptrdiff_t offset, double p, ptrdiff_t n, uint8_t *kept);

    /* h = dropout(x) + residual and y, the norm of h, for rows of n values: h may be x or residual, y may be x or residual, but not h.
       p = 0 is add_layer_norm and add_rms_norm. Dropout takes working space of 16 kB, or 8 kB and n bytes. */
    int (*dropout_add_layer_norm_f32)(const float *x, const float *residual, const uint32_t *key, ptrdiff_t offset, double p,
                                      const float *weight, const float *bias, ptrdiff_t rows, ptrdiff_t n, double eps, float *h, float *y,
                                      double *mean, double *rstd, double *var);
    int (*dropout_add_layer_norm_f64)(const double *x, const double *residual, const uint32_t *key, ptrdiff_t offset, double p,
                                      const double *weight, const double *bias, ptrdiff_t rows, ptrdiff_t n, double eps, double *h,
                                      double *y, double *mean, double *rstd, double *var);
    int (*dropout_add_rms_norm_f32)(const float *x, const float *residual, const uint32_t *key, ptrdiff_t offset, double p,
                                    const float *weight, ptrdiff_t rows, ptrdiff_t n, double eps, float *h, float *y, double *rstd,
                                    double *var);
    int (*dropout_add_rms_norm_f64)(const double *x, const double *residual, const uint32_t *key, ptrdiff_t offset, double p,
                                    const double *weight, ptrdiff_t rows, ptrdiff_t n, double eps, double *h, double *y, double *rstd,
                                    double *var);
} normfast_api;

#ifdef Py_PYTHON_H
/* The table of the installed normfast, in the build for this processor, good for as long as the process lives; NULL with ImportError set
   where there is none or it is older than this header. */
static inline const normfast_api *normfast_import(void) {
    const normfast_api *api = NULL;
    PyObject *module = PyImport_ImportModule("normfast.capi");
    PyObject *capsule = module ? PyObject_GetAttrString(module, "_C_API") : NULL;
    if (capsule) api = (const normfast_api *)PyCapsule_GetPointer(capsule, "normfast.capi._C_API");
    Py_XDECREF(capsule);
    Py_XDECREF(module);
    if (api && (api->abi != NORMFAST_ABI || api->size < sizeof(normfast_api))) {
        PyErr_Format(PyExc_ImportError,
                     "this extension was built for normfast's C ABI %d with a table of %zu bytes, installed is ABI %d with %zu: %s",
                     NORMFAST_ABI, sizeof(normfast_api), api->abi, api->size,
                     api->abi > NORMFAST_ABI ? "build the extension again" : "upgrade normfast");
        api = NULL;
    }
    return api;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
