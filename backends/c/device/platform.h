/* What an example program needs of the machine it runs on. The model itself needs none of it. */
#ifndef NIWAKI_PLATFORM_H
#define NIWAKI_PLATFORM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Writes `text` to the console. */
void platform_print(const char *text);

/* Reads up to `bytes` bytes at `offset` of a file of the host; returns how many, or -1. */
int32_t platform_read(const char *path, uint32_t offset, void *data, uint32_t bytes);

/* Makes a file of the host; returns 0, or -1. */
int32_t platform_write(const char *path, const void *data, uint32_t bytes);

/* Instructions executed since reset; 0 where nothing counts them. These are not cycles. */
uint64_t platform_instructions(void);

/* The deepest the stack has been since reset, in bytes; 0 where nothing measures it. */
uint32_t platform_stack_bytes(void);

/* Print one line, "name = value". A float is followed by its bits. */
void platform_report_count(const char *name, uint64_t value);
void platform_report_float(const char *name, float value);

#ifdef __cplusplus
}
#endif

#endif
