"""One module a page: what it asks of the rooms, the view that its templates show, and its routes."""
