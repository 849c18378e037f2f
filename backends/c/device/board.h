/* Shared by startup.c and platform_board.c. */
#ifndef NIWAKI_BOARD_H
#define NIWAKI_BOARD_H

#include <stdint.h>

#define BOARD_STACK_PAINT 0xa5a5a5a5u

/* From the linker script. */
extern uint32_t board_stack_start[];
extern uint32_t board_stack_top[];

/* Ends the emulation; `code` is QEMU's exit status. */
void board_exit(int code);

void board_start_counter(void);

/* The SysTick interrupt. */
void board_tick(void);

#endif
