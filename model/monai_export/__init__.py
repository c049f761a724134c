"""Parts of `export_monai_bundle.py`."""
