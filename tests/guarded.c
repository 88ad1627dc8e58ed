/* Memory between two pages that nobody may touch, for NumPy's arrays (NEP 49): `guarded.py` compiles and installs it. */

#include <Python.h>
#include <numpy/ndarraytypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

long guarded_count = 0;  /* blocks so far */
int guarded_at_end = 1;  /* whether they end at a guard or begin behind one */
int guarded_fill = 0xff; /* what lies in them: NaN */
long guarded_shift = 0;  /* bytes between them and the guard */

/* A page for its size, a guard, the pages of the block, a guard. */
static void *guarded_block(size_t size, int fill)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), taken = (size ? size : 1) + (size_t)guarded_shift, room = (taken + page - 1) / page * page;
    char *start = mmap(NULL, room + 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0), *block = start + 2 * page;
    if (start == MAP_FAILED) return NULL;
    ((size_t *)start)[0] = size;
    ((size_t *)start)[1] = room + 3 * page;
    memset(block, fill, room);
    if (mprotect(start + page, page, PROT_NONE) || mprotect(block + room, page, PROT_NONE)) return NULL;
    guarded_count++;
    return block + (guarded_at_end ? room - taken : (size_t)guarded_shift); /* in the first of its pages */
}

static size_t *guarded_sizes(void *block)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size_t *)((char *)((size_t)block / page * page) - 2 * page);
}

static void *guarded_malloc(void *context, size_t size) { return guarded_block(size, guarded_fill); }

static void *guarded_calloc(void *context, size_t number, size_t size) { return guarded_block(number * size, 0); }

static void guarded_free(void *context, void *block, size_t size)
{
    if (block) munmap(guarded_sizes(block), guarded_sizes(block)[1]);
}

static void *guarded_realloc(void *context, void *old, size_t size)
{
    void *block = guarded_block(size, guarded_fill);
    if (block && old) memcpy(block, old, guarded_sizes(old)[0] < size ? guarded_sizes(old)[0] : size);
    if (block) guarded_free(context, old, 0);
    return block;
}

PyDataMem_Handler guarded_handler = {"guarded", 1, {NULL, guarded_malloc, guarded_calloc, guarded_realloc, guarded_free}};
