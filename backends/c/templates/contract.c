/* What the kernels rely on. */
typedef char ${p}_check_float[(sizeof(float) == 4) ? 1 : -1];
typedef char ${p}_check_int[(sizeof(int) >= 4) ? 1 : -1];
typedef char ${p}_check_state[(${P}_STATE_BYTES >= ${state_image_bytes}u) ? 1 : -1];
#if defined(${P}_RAM_LIMIT)
typedef char ${p}_check_ram[(${P}_ARENA_BYTES + ${P}_STATE_BYTES <= ${P}_RAM_LIMIT) ? 1 : -1];
#endif

#define CONTEXT_READY 0x6e69776bu
#define SAVE_MAGIC 0x4b57494eu
#define SAVE_VERSION 1u
#define MODEL_HASH_HIGH 0x${hash_high}u
#define MODEL_HASH_LOW 0x${hash_low}u

/* Words of a saved state's head; the state follows. */
enum {
    HEAD_MAGIC,
    HEAD_VERSION,
    HEAD_HASH_HIGH,
    HEAD_HASH_LOW,
    HEAD_BYTES,
    HEAD_CHECKSUM,
    HEAD_WORDS
};
typedef char ${p}_check_head[(${P}_SAVE_BYTES - ${P}_STATE_BYTES == HEAD_WORDS * 4u) ? 1 : -1];

/* CRC-32 (IEEE 802.3), half a byte at a time. */
static uint32_t checksum(const unsigned char *data, size_t bytes)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
        0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
        0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    uint32_t crc = 0xffffffffu;
    size_t i;
    for (i = 0; i < bytes; ++i) {
        crc ^= data[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return crc ^ 0xffffffffu;
}

static int check_context(const ${p}_context *context)
{
    if (context == NULL) {
        return ${P}_ERROR_NULL;
    }
    return context->ready != CONTEXT_READY ? ${P}_ERROR_CONTEXT : ${P}_OK;
}

int ${p}_init(${p}_context *context,
    ${init_parameters})
{
    if (context == NULL || ${any_null}) {
        return ${P}_ERROR_NULL;
    }
    context->ready = 0;
    if (${state_too_small}) {
        return ${P}_ERROR_SIZE;
    }
    if (${any_unaligned}) {
        return ${P}_ERROR_ALIGNMENT;
    }
${clear_state}
${copy_initial_state}
${set_blocks}
    context->lr = ${P}_INITIAL_LR;
    context->ready = CONTEXT_READY;
    return ${P}_OK;
}

${entry_functions}
int ${p}_set_lr(${p}_context *context, float lr)
{
    const int status = check_context(context);
    if (status != ${P}_OK) {
        return status;
    }
    if (!(lr >= 0.0f && lr < INFINITY)) {
        return ${P}_ERROR_VALUE;
    }
    context->lr = lr;
    return ${P}_OK;
}

int ${p}_save(const ${p}_context *context, void *buffer, size_t size, size_t *written)
{
    const int status = check_context(context);
    uint32_t head[HEAD_WORDS];
    unsigned char *saved;
    if (status != ${P}_OK) {
        return status;
    }
    if (buffer == NULL || written == NULL) {
        return ${P}_ERROR_NULL;
    }
    if (size < ${P}_SAVE_BYTES) {
        return ${P}_ERROR_SIZE;
    }
    saved = (unsigned char *)buffer + sizeof head;
${save_state}
    head[HEAD_MAGIC] = SAVE_MAGIC;
    head[HEAD_VERSION] = SAVE_VERSION;
    head[HEAD_HASH_HIGH] = MODEL_HASH_HIGH;
    head[HEAD_HASH_LOW] = MODEL_HASH_LOW;
    head[HEAD_BYTES] = ${P}_STATE_BYTES;
    head[HEAD_CHECKSUM] = checksum(saved, ${P}_STATE_BYTES);
    memcpy(buffer, head, sizeof head);
    *written = ${P}_SAVE_BYTES;
    return ${P}_OK;
}

int ${p}_load(${p}_context *context, const void *buffer, size_t size)
{
    const int status = check_context(context);
    uint32_t head[HEAD_WORDS];
    const unsigned char *saved;
    if (status != ${P}_OK) {
        return status;
    }
    if (buffer == NULL) {
        return ${P}_ERROR_NULL;
    }
    if (size < ${P}_SAVE_BYTES) {
        return ${P}_ERROR_SIZE;
    }
    memcpy(head, buffer, sizeof head);
    saved = (const unsigned char *)buffer + sizeof head;
    if (head[HEAD_MAGIC] != SAVE_MAGIC || head[HEAD_VERSION] != SAVE_VERSION) {
        return ${P}_ERROR_FORMAT;
    }
    if (head[HEAD_HASH_HIGH] != MODEL_HASH_HIGH || head[HEAD_HASH_LOW] != MODEL_HASH_LOW
        || head[HEAD_BYTES] != ${P}_STATE_BYTES) {
        return ${P}_ERROR_MODEL;
    }
    if (head[HEAD_CHECKSUM] != checksum(saved, ${P}_STATE_BYTES)) {
        return ${P}_ERROR_CHECKSUM;
    }
${load_state}
    return ${P}_OK;
}
