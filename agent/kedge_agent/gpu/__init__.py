"""What speaks to a GPU. Two files here run by themselves on a board's own Python, from 3.6 on."""
