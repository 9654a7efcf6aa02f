"""Container images where no registry can be reached: a base made of Debian packages, and what is built on it.

`debian` fetches packages, `rootfs` makes a layer of them, `wheels` fetches what pip installs, `storage` drives buildah,
`build` puts these together, and `contents` reads an archive that came out of it.
"""
