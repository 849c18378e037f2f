/* Lines "name = value", without printf: it would cost a bare-metal program 20 KiB. */
#include "platform.h"

#include <string.h>

static char *append(char *end, const char *text)
{
    const size_t length = strlen(text);
    memcpy(end, text, length + 1);
    return end + length;
}

static char *append_digits(char *end, uint64_t value, uint32_t base, uint32_t least)
{
    char digits[20];
    uint32_t count = 0;
    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0 || count < least);
    while (count != 0) {
        *end++ = digits[--count];
    }
    *end = '\0';
    return end;
}

static void print_line(const char *name, const char *value)
{
    platform_print(name);
    platform_print(" = ");
    platform_print(value);
    platform_print("\n");
}

void platform_report_count(const char *name, uint64_t value)
{
    char text[24];
    (void)append_digits(text, value, 10, 1);
    print_line(name, text);
}

void platform_report_float(const char *name, float value)
{
    char text[48];
    char *end = text;
    const float size = value < 0.0f ? -value : value;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (size < 4.0e9f) {
        const uint32_t whole = (uint32_t)size;
        end = append(end, value < 0.0f ? "-" : "");
        end = append_digits(end, whole, 10, 1);
        end = append(end, ".");
        end = append_digits(end, (uint32_t)((size - (float)whole) * 1.0e6f), 10, 6);
    } else {
        end = append(end, size > 0.0f ? "large" : "nan");
    }
    end = append(end, " 0x");
    (void)append_digits(end, bits, 16, 8);
    print_line(name, text);
}
