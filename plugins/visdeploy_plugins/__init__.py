"""Custom operators in C++/CUDA and their bindings."""
