"""Models out: Hugging Face, ONNX, torch.export, each checked."""
