// All kernels as one module.
#include "distances.cu"
#include "frame_map.cu"
#include "preprocess.cu"
#include "projected.cu"
#include "pse.cu"
#include "saliency.cu"
#include "smooth.cu"
