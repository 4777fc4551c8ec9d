// Writes past the end of an array, so that compute-sanitizer shows that it works.
extern "C" __global__ void past_end(float* values, int count) { values[threadIdx.x + count] = 1; }
