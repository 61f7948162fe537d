"""One evaluation: its plan, its chunks of images, its folder, its record."""
