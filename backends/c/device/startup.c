/* Reset of a Cortex-M board: FPU on, memory ready, stack painted, main called. */
#include "board.h"
#include "platform.h"

/* From the linker script. */
extern uint32_t board_data_load[];
extern uint32_t board_data_start[];
extern uint32_t board_data_end[];
extern uint32_t board_bss_start[];
extern uint32_t board_bss_end[];

#define CPACR (*(volatile uint32_t *)0xe000ed88u)
#define FAULT_CODE 70

int main(void);
void board_reset(void);

static void board_fault(void)
{
    platform_print("fault\n");
    board_exit(FAULT_CODE);
}

typedef union {
    uint32_t *stack;
    void (*handler)(void);
} vector;

__attribute__((section(".vectors"), used, aligned(128))) static const vector vectors[16] = {
    {board_stack_top},
    {.handler = board_reset}, /* reset */
    {.handler = board_fault}, /* non-maskable interrupt */
    {.handler = board_fault}, /* hard fault */
    {.handler = board_fault}, /* memory management */
    {.handler = board_fault}, /* bus fault */
    {.handler = board_fault}, /* usage fault */
    {.handler = board_fault}, /* secure fault */
    {.handler = board_fault},
    {.handler = board_fault},
    {.handler = board_fault},
    {.handler = board_fault}, /* supervisor call */
    {.handler = board_fault}, /* debug monitor */
    {.handler = board_fault},
    {.handler = board_fault}, /* pending service */
    {.handler = board_tick},  /* SysTick */
};

void board_reset(void)
{
    const uint32_t *from = board_data_load;
    uint32_t *to;
    volatile uint32_t *paint;
    uint32_t *stack;
    CPACR |= 0xfu << 20; /* full access to the FPU, and to MVE where there is one */
    __asm__ volatile("dsb\n isb" ::: "memory");
    for (to = board_data_start; to < board_data_end; ++to) {
        *to = *from++;
    }
    for (to = board_bss_start; to < board_bss_end; ++to) {
        *to = 0;
    }
    __asm__ volatile("mov %0, sp" : "=r"(stack));
    for (paint = board_stack_start; paint < stack; ++paint) {
        *paint = BOARD_STACK_PAINT;
    }
    board_start_counter();
    board_exit(main());
}
