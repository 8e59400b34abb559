/* The C functions of pxos.h, as a program of a guest uses them. Each check says what it expected; the exit code is the
 * number of checks that failed. */
#include <stdio.h>
#include <stdlib.h>
#include "pxos.h"

static int failures;

#define CHECK(condition, ...)                                  \
    do {                                                       \
        if (!(condition)) {                                    \
            failures++;                                        \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            printf(__VA_ARGS__);                               \
            printf("\n");                                      \
        }                                                      \
    } while (0)

static const char *const ADD =
    "GPU_KERNEL add\n"
    "GPU_PARAM a float[]\n"
    "GPU_PARAM b float[]\n"
    "GPU_PARAM out float[]\n"
    "GPU_PARAM n int\n"
    "GPU_THREAD_CODE:\n"
    "    THREAD_ID -> tid\n"
    "    IF tid < n:\n"
    "        LOAD a[tid] -> x\n"
    "        LOAD b[tid] -> y\n"
    "        ADD x y -> sum\n"
    "        STORE sum -> out[tid]\n"
    "GPU_END\n";

enum { COUNT = 5000 };

static float a[COUNT], b[COUNT], out[COUNT];

static void host_arrays(void)
{
    px_argument arguments[] = {
        px_int("n", COUNT), px_out("out", out, COUNT), px_host("a", a, COUNT), px_host("b", b, COUNT)};
    px_report report;
    int result = px_submit_primitive(ADD, strlen(ADD), "add", arguments, 4, NULL, &report);
    CHECK(result == 0, "%d %s", result, report.message);
    CHECK(report.elements == COUNT, "%llu", (unsigned long long)report.elements);
    CHECK(report.bytes_in == 2 * sizeof a && report.bytes_out == sizeof out, "bytes");
    CHECK(report.checks == 3 && report.checks_left == 0, "%u %u", report.checks, report.checks_left);
    for (int i = 0; i < COUNT; i++)
        if (out[i] != a[i] + b[i]) {
            CHECK(0, "element %d is %g", i, out[i]);
            break;
        }
}

static void a_thread_that_leaves_its_array(void)
{
    px_argument arguments[] = {
        px_host(NULL, a, COUNT - 7), px_host(NULL, b, COUNT), px_host(NULL, out, COUNT), px_int(NULL, COUNT)};
    px_report report;
    out[0] = -1;
    int result = px_submit_primitive(ADD, strlen(ADD), NULL, arguments, 4, NULL, &report);
    CHECK(result == 700, "%d", result);
    CHECK(report.line == 9 && report.index >= COUNT - 7, "line %u index %lld", report.line, (long long)report.index);
    CHECK(strstr(report.message, "kernel `add`, line 9") != NULL, "%s", report.message);
    CHECK(strstr(report.message, "which has 4993 elements") != NULL, "%s", report.message);
    CHECK(out[0] == -1, "arrays stay as they were: %g", out[0]);
    /* The context lives on. */
    host_arrays();
}

static void device_arrays(void)
{
    uint64_t at[3];
    for (int i = 0; i < 3; i++)
        CHECK(px_alloc(sizeof a, &at[i]) == 0, "alloc");
    CHECK(px_copy_to_device(at[0], a, sizeof a) == 0 && px_copy_to_device(at[1], b, sizeof b) == 0, "copy");
    px_argument arguments[] = {px_device("a", at[0], COUNT), px_device("b", at[1], COUNT),
                               px_device("out", at[2], COUNT), px_int("n", COUNT)};
    px_options options = {0, 0, PX_ASYNC, 0};
    px_report report;
    int result = px_submit_primitive(ADD, strlen(ADD), "add", arguments, 4, &options, &report);
    CHECK(result == 600 && report.submission != 0, "%d %s", result, report.message);
    uint64_t submission = report.submission;
    result = px_query_submission(submission, 1, &report);
    CHECK(result == 0 && report.elements == COUNT, "%d %s", result, report.message);
    CHECK(px_query_submission(submission, 0, &report) == 500, "a submission is told of once");
    memset(out, 0, sizeof out);
    CHECK(px_copy_to_host(out, at[2], sizeof out) == 0, "copy");
    CHECK(out[COUNT - 1] == a[COUNT - 1] + b[COUNT - 1], "%g", out[COUNT - 1]);

    /* Memory that is not there, too little of it, and what was freed. */
    arguments[0].length = COUNT + 1000000;
    result = px_submit_primitive(ADD, strlen(ADD), "add", arguments, 4, NULL, &report);
    CHECK(result == 1 && strstr(report.message, "not live device memory") != NULL, "%d %s", result, report.message);
    arguments[0] = px_device("a", 0x1000, COUNT);
    CHECK(px_submit_primitive(ADD, strlen(ADD), "add", arguments, 4, NULL, &report) == 1, "%s", report.message);
    for (int i = 0; i < 3; i++)
        CHECK(px_free(at[i]) == 0, "free");
    arguments[0] = px_device("a", at[0], COUNT);
    CHECK(px_submit_primitive(ADD, strlen(ADD), "add", arguments, 4, NULL, &report) == 1, "%s", report.message);
    CHECK(px_free(at[0]) == 1, "freed twice");
}

static void wrong_arguments(void)
{
    px_report report;
    px_argument arguments[] = {px_host("a", a, COUNT), px_host("b", b, COUNT), px_int("out", 1), px_int("n", 1)};
    CHECK(px_submit_primitive(ADD, strlen(ADD), "add", arguments, 4, NULL, &report) == 1, "scalar for array");
    CHECK(strstr(report.message, "`out` is float[]") != NULL, "%s", report.message);
    CHECK(px_submit_primitive(ADD, strlen(ADD), "add", arguments, 2, NULL, &report) == 1, "two are missing");
    CHECK(strstr(report.message, "`out` of kernel `add` is missing") != NULL, "%s", report.message);
    CHECK(px_submit_primitive(ADD, strlen(ADD), "sub", arguments, 4, NULL, &report) == 1, "no such kernel");
    CHECK(strstr(report.message, "no kernel `sub`; it has add") != NULL, "%s", report.message);
    CHECK(px_submit_primitive(NULL, 4, NULL, NULL, 0, NULL, &report) == 1, "no text");
}

static void texts(void)
{
    char json[4096];
    size_t size = sizeof json;
    CHECK(px_compile_primitive(ADD, strlen(ADD), json, &size) == 0, "%s", json);
    CHECK(strstr(json, "\"name\":\"out\",\"type\":\"float\",\"array\":true,\"read\":false,\"written\":true") != NULL,
          "%s", json);
    const char *wrong = "GPU_KERNEL k\nGPU_THREAD_CODE:\n    LAOD x -> y\nGPU_END\n";
    size = sizeof json;
    CHECK(px_compile_primitive(wrong, strlen(wrong), json, &size) == 300, "refused");
    CHECK(strstr(json, "\"line\": 3") != NULL && strstr(json, "did you mean `LOAD`?") != NULL, "%s", json);
    /* Ten megabytes. */
    size_t length = 10 << 20;
    char *huge = malloc(length);
    memset(huge, 'x', length);
    px_report report;
    CHECK(px_submit_primitive(huge, length, NULL, NULL, 0, NULL, &report) == 300, "too large");
    CHECK(strstr(report.message, "has 10485760 bytes; at most 262144") != NULL, "%s", report.message);
    free(huge);
}

static void the_stub(void)
{
    px_request request = {PX_VECTOR_ADD, 0, 77, 0, 0};
    px_response response;
    CHECK(px_command(&request, &response) == 0, "answered");
    CHECK(response.id == 77 && response.status == 0, "%d", response.status);
    CHECK(strcmp(response.data, "Vector add passed: 1024 elements, 0 errors") == 0, "%s", response.data);
    float data[9] = {1, 2, 3, 10, 20, 30, 0, 0, 0};
    request.data_len = sizeof data;
    request.data_ptr = (uintptr_t)data;
    CHECK(px_command(&request, &response) == 0 && response.status == 0, "%s", response.data);
    CHECK(data[6] == 11 && data[7] == 22 && data[8] == 33, "%g %g %g", data[6], data[7], data[8]);
    request.data_ptr = 16;
    CHECK(px_command(&request, &response) == 0 && response.status == -14, "%d", response.status);
    request.cmd = 1234;
    CHECK(px_command(&request, &response) == 0 && response.status == -22, "%d", response.status);
    CHECK(strcmp(response.data, "Invalid command") == 0, "%s", response.data);
    px_device_status status;
    CHECK(px_query_status(&status) == 0 && status.total > 0 && status.name[0] != 0, "status");
}

int main(void)
{
    for (int i = 0; i < COUNT; i++) {
        a[i] = (float)i * 0.5f;
        b[i] = (float)(COUNT - i);
    }
    host_arrays();
    a_thread_that_leaves_its_array();
    device_arrays();
    wrong_arguments();
    texts();
    the_stub();
    printf("%d failures\n", failures);
    return failures;
}
