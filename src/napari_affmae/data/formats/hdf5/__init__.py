"""HDF5 files, and what the programs mean that write them."""
