"""One video (file, folder of images, image, member of a tar) to exact frames; only this room knows PyAV, torchcodec."""
