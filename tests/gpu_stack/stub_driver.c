/* A libcuda.so.1 for a machine without a GPU: what libmxnet.so of the CUDA 11.2 build calls by name
   (nm -D --undefined-only libmxnet.so) and cuInit, which the CUDA runtime calls first.
   Every function answers CUDA_ERROR_NO_DEVICE. */
#define NO_DEVICE(function) int function(void) { return 100; }

NO_DEVICE(cuInit)
NO_DEVICE(cuDeviceGet)
NO_DEVICE(cuDevicePrimaryCtxRetain)
NO_DEVICE(cuGetErrorString)
NO_DEVICE(cuGraphKernelNodeGetParams)
NO_DEVICE(cuGraphNodeGetType)
NO_DEVICE(cuLaunchKernel)
NO_DEVICE(cuModuleGetFunction)
NO_DEVICE(cuModuleLoadData)
NO_DEVICE(cuModuleLoadDataEx)
NO_DEVICE(cuModuleUnload)
