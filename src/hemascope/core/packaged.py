"""The models that ship with the package, by what their images are."""

FOR_PHOTOGRAPHS = "hemanet-64-labs"
FOR_TILES = "hemanet"  # images of 28 pixels, as BloodMNIST's
TILE_SIZE = 28
