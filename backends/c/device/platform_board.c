/* The platform layer on a Cortex-M board under QEMU: semihosting, and SysTick as the counter. */
#include "board.h"
#include "platform.h"

#include <stddef.h>
#include <string.h>

enum {
    SYS_OPEN = 0x01,
    SYS_CLOSE = 0x02,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_SEEK = 0x0a,
    SYS_EXIT_EXTENDED = 0x20
};
enum { OPEN_READ = 1, OPEN_WRITE = 5 };

#define ADP_STOPPED_APPLICATION_EXIT 0x20026u

static int32_t semihost(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

void board_exit(int code)
{
    const uint32_t block[2] = {ADP_STOPPED_APPLICATION_EXIT, (uint32_t)code};
    (void)semihost(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}

void platform_print(const char *text)
{
    (void)semihost(SYS_WRITE0, text);
}

static int32_t open_file(const char *path, uint32_t mode)
{
    const uint32_t block[3] = {(uint32_t)path, mode, (uint32_t)strlen(path)};
    return semihost(SYS_OPEN, block);
}

static void close_file(int32_t file)
{
    (void)semihost(SYS_CLOSE, &file);
}

int32_t platform_read(const char *path, uint32_t offset, void *data, uint32_t bytes)
{
    const int32_t file = open_file(path, OPEN_READ);
    const uint32_t seek[2] = {(uint32_t)file, offset};
    const uint32_t block[3] = {(uint32_t)file, (uint32_t)data, bytes};
    int32_t missing;
    if (file < 0) {
        return -1;
    }
    if (semihost(SYS_SEEK, seek) != 0) {
        close_file(file);
        return -1;
    }
    missing = semihost(SYS_READ, block);
    close_file(file);
    return missing < 0 ? -1 : (int32_t)bytes - missing;
}

int32_t platform_write(const char *path, const void *data, uint32_t bytes)
{
    const int32_t file = open_file(path, OPEN_WRITE);
    const uint32_t block[3] = {(uint32_t)file, (uint32_t)data, bytes};
    int32_t missing;
    if (file < 0) {
        return -1;
    }
    missing = semihost(SYS_WRITE, block);
    close_file(file);
    return missing == 0 ? 0 : -1;
}

/* SysTick: 24 bits, counting down; its interrupt counts the rounds. */
#define SYST_CSR (*(volatile uint32_t *)0xe000e010u)
#define SYST_RVR (*(volatile uint32_t *)0xe000e014u)
#define SYST_CVR (*(volatile uint32_t *)0xe000e018u)
#define SYST_TOP 0xffffffu

static volatile uint32_t rounds;

void board_tick(void)
{
    rounds = rounds + 1;
}

void board_start_counter(void)
{
    SYST_RVR = SYST_TOP;
    SYST_CVR = 0;
    SYST_CSR = 7;
}

uint64_t platform_instructions(void)
{
    uint32_t before;
    uint32_t now;
    uint64_t ticks;
    do {
        before = rounds;
        now = SYST_CVR;
    } while (before != rounds);
    ticks = ((uint64_t)before << 24) + (SYST_TOP - now);
    /* Under -icount shift=N an instruction takes 2^N ns; a tick takes 1000 / MHz ns. */
    return ticks * 1000u / ((uint64_t)BOARD_SYSTICK_MHZ << BOARD_ICOUNT_SHIFT);
}

uint32_t platform_stack_bytes(void)
{
    const uint32_t *word = board_stack_start;
    while (word < board_stack_top && *word == BOARD_STACK_PAINT) {
        ++word;
    }
    return (uint32_t)((const char *)board_stack_top - (const char *)word);
}
