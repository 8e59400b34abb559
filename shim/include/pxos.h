/* The primitives of pxOS: small kernels as text, run beside CUDA calls in the same session.
 *
 * The functions are exported by libpxshim.so (soname libcuda.so.1). A program links with nothing: it finds them with
 * dlsym in the library that is preloaded or loaded, or links with -lpxshim. Every function answers a CUresult, 0 for
 * success; the first call connects to the server. The language is described in docs/primitives.md. */
#ifndef PXOS_H
#define PXOS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Kinds of arguments. */
enum { PX_SCALAR = 0, PX_HOST = 1, PX_DEVICE = 2 };

/* Flag of an argument: the kernel writes every element of the array, so what it holds before does not travel. */
enum { PX_OUT = 1 };

/* Flag of a submission: do not wait; arrays must be in device memory. px_query_submission tells how it ended, and has
 * to be called: 64 submissions may be under way or not asked about. */
enum { PX_ASYNC = 1 };

/* An argument of a kernel. */
typedef struct px_argument {
    const char *name; /* a parameter's name; NULL: by position */
    uint32_t kind;    /* PX_SCALAR, PX_HOST or PX_DEVICE */
    uint32_t flags;   /* PX_OUT */
    void *data;       /* PX_HOST: the array, in this process */
    uint64_t value;   /* PX_SCALAR: its bits, in the low bytes; PX_DEVICE: a CUdeviceptr of this process */
    uint64_t length;  /* arrays: elements */
} px_argument;

/* How a kernel is run; zeros for the defaults. */
typedef struct px_options {
    uint64_t elements; /* threads; 0: one for each element of what the kernel goes over */
    uint64_t stream;   /* a CUstream; 0: the default stream */
    uint32_t flags;    /* PX_ASYNC */
    uint32_t reserved;
} px_options;

/* What a submission took, or why it failed. */
typedef struct px_report {
    int32_t result;       /* as the function answers */
    uint32_t line;        /* of the fault in the text, 0 for none */
    int64_t index;        /* that was out of bounds */
    uint64_t submission;  /* with PX_ASYNC: names it in px_query_submission */
    uint64_t elements;    /* threads that did the work */
    uint32_t checks;      /* places that may fault, */
    uint32_t checks_left; /* and those that the arguments do not prove */
    uint32_t devices;     /* GPUs that took part */
    uint32_t reserved;
    uint64_t bytes_in;    /* copied to devices */
    uint64_t bytes_out;   /* copied back */
    double compile_ms;    /* first use of a text only */
    double to_device_ms;
    double launch_ms;     /* from the message to its answer */
    double kernel_ms;     /* on the device, between events */
    double to_host_ms;
    double total_ms;
    char message[1024];   /* UTF-8; empty where nothing failed */
} px_report;

/* The current device. */
typedef struct px_device_status {
    char name[128];
    int32_t capability_major, capability_minor;
    int32_t multiprocessors;
    int32_t software;  /* 1: it is the host's CPU */
    uint64_t free;     /* bytes, within the VM's limit */
    uint64_t total;
    uint64_t programs; /* compiled */
    uint64_t running;  /* submissions not yet asked about */
} px_device_status;

/* The stub protocol, as /dev/pxos_gpu0 and /dev/vgpu_stub speak it. */
enum { PX_NOP = 0, PX_VECTOR_ADD = 1, PX_QUERY_STATUS = 2 };

typedef struct px_request {
    uint16_t cmd;
    uint16_t flags;    /* zero */
    uint32_t id;       /* repeated in the response */
    uint32_t data_len; /* PX_VECTOR_ADD: 0, or the bytes of three arrays of floats: a, b, and room for the sums */
    uint64_t data_ptr; /* in this process */
} px_request;

typedef struct px_response {
    uint32_t id;
    int32_t status; /* 0, or an errno, negative */
    uint32_t data_len;
    char data[256];
} px_response;

/* Runs a kernel of a program; `kernel` may be NULL where it has only one. Host arrays are copied to the device, those
 * that the kernel may write are copied back. A thread that leaves an array ends the submission with
 * CUDA_ERROR_ILLEGAL_ADDRESS, and arrays stay as they were; the CUDA context lives on. */
int px_submit_primitive(const char *text, size_t text_length, const char *kernel, const px_argument *arguments,
                        size_t count, const px_options *options, px_report *report);

/* How a PX_ASYNC submission stands: CUDA_ERROR_NOT_READY (600) while it runs, unless `wait`. */
int px_query_submission(uint64_t submission, int wait, px_report *report);

/* Checks a text: `json` becomes a description of the program, or an array of diagnostics. `json_size` is the room at
 * `json`, and becomes the bytes that are needed, the final zero included. */
int px_compile_primitive(const char *text, size_t text_length, char *json, size_t *json_size);

/* Device memory: the same that cuMemAlloc gives, under the same limit. */
int px_alloc(size_t bytes, uint64_t *address);
int px_free(uint64_t address);
int px_copy_to_device(uint64_t address, const void *data, size_t bytes);
int px_copy_to_host(void *data, uint64_t address, size_t bytes);

int px_query_status(px_device_status *status);

/* Answers a request of the stub protocol; what went wrong is in the response. */
int px_command(const px_request *request, px_response *response);

/* Arguments. */
static inline px_argument px_host(const char *name, void *data, uint64_t length)
{
    px_argument argument = {name, PX_HOST, 0, data, 0, length};
    return argument;
}

static inline px_argument px_out(const char *name, void *data, uint64_t length)
{
    px_argument argument = {name, PX_HOST, PX_OUT, data, 0, length};
    return argument;
}

static inline px_argument px_device(const char *name, uint64_t address, uint64_t length)
{
    px_argument argument = {name, PX_DEVICE, 0, NULL, address, length};
    return argument;
}

static inline px_argument px_int(const char *name, int32_t value)
{
    px_argument argument = {name, PX_SCALAR, 0, NULL, (uint32_t)value, 0};
    return argument;
}

static inline px_argument px_float(const char *name, float value)
{
    px_argument argument = {name, PX_SCALAR, 0, NULL, 0, 0};
    memcpy(&argument.value, &value, sizeof value);
    return argument;
}

static inline px_argument px_double(const char *name, double value)
{
    px_argument argument = {name, PX_SCALAR, 0, NULL, 0, 0};
    memcpy(&argument.value, &value, sizeof value);
    return argument;
}

#ifdef __cplusplus
}
#endif

#endif
