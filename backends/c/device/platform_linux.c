/* The platform layer on a machine with an operating system. */
#include "platform.h"

#include <stdio.h>

void platform_print(const char *text)
{
    (void)fputs(text, stdout);
}

int32_t platform_read(const char *path, uint32_t offset, void *data, uint32_t bytes)
{
    FILE *file = fopen(path, "rb");
    size_t count;
    if (file == NULL) {
        return -1;
    }
    if (fseek(file, (long)offset, SEEK_SET) != 0) {
        (void)fclose(file);
        return -1;
    }
    count = fread(data, 1, bytes, file);
    (void)fclose(file);
    return (int32_t)count;
}

int32_t platform_write(const char *path, const void *data, uint32_t bytes)
{
    FILE *file = fopen(path, "wb");
    size_t count;
    if (file == NULL) {
        return -1;
    }
    count = fwrite(data, 1, bytes, file);
    return fclose(file) == 0 && count == bytes ? 0 : -1;
}

uint64_t platform_instructions(void)
{
    return 0;
}

uint32_t platform_stack_bytes(void)
{
    return 0;
}
