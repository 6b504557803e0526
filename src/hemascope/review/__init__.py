"""The review station: from pictures of cells to a signed differential, in a browser."""
