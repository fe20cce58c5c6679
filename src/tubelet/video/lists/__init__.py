"""Which videos there are and what their labels are: folders, lists, tars -> Manifest."""
