"""The review station: from photographs of cells to a signed differential, in a browser."""
