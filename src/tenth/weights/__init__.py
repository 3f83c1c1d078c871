"""Reading GGUF model files: header, typed metadata, tensor layout, NumPy decode. Start at ``gguf.read_header``."""
