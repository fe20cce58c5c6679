"""The authors' VideoMAE V1/V2 files: name tables, specs from shapes."""
