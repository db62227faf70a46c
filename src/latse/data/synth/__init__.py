"""Synthetic people: heads of CC0 shape data, drawn with a z-buffer in numpy and OpenCV.

`heads` fetches the mesh and its shape targets, `people` draws who someone is and how a picture is taken,
`render` makes the picture. A picture is a function of (seed, person, image) alone.
"""
