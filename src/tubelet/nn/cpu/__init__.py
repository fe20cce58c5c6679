"""The quick CPU gradients (autograd functions), each behind one plain function."""
