"""Log.jsonl, TensorBoard, skipped.csv, throughput, who looks on."""
