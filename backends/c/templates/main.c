/* Example: trains on one batch and compares the losses with the expected ones. */
#include "${p}.h"
#include "${p}_vectors.h"
#include "platform.h"

${arrays}

int main(void)
{
    ${p}_context context;
    int wrong = 0;
    int status = ${p}_init(&context, ${array_arguments});
    if (status != ${P}_OK) {
        return status;
    }
    platform_report_count("bytes.arena", ${P}_ARENA_BYTES);
    platform_report_count("bytes.state", ${P}_STATE_BYTES);
    platform_report_count("bytes.constants", ${P}_CONSTANT_BYTES);
${body}
    platform_report_count("bytes.stack", platform_stack_bytes());
    platform_report_count("wrong", (uint64_t)wrong);
    return wrong;
}
